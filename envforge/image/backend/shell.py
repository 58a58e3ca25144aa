"""A plain ``build.sh`` for a bare machine or a chroot: every stage in one root. Pure."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from envforge.assets import TEMPLATES
from envforge.image.backend.script import (
    base_environment,
    expect_no_run_after_user,
    exports,
    indented,
    is_hashed,
    own_path,
    taken,
    taken_by,
    title_of,
)
from envforge.image.base import INCLUDED, VARIANT
from envforge.image.dialect import (
    Arg,
    Cmd,
    Comment,
    Copy,
    Env,
    Instruction,
    Mount,
    Run,
    Stage,
    User,
    Workdir,
    ancestry,
    needed,
    variables_of,
    workdir_of,
)
from envforge.image.plan import Plan
from envforge.image.render import BuildContext

_PATHS = re.compile(r"""(?<![^\s=:'"])(/[A-Za-z0-9._+@~/-]*[A-Za-z0-9_])(?![^\s;:'"/])""")
_OF_THE_MACHINE = {"MAX_JOBS": "$(nproc)"}
"""What a machine knows better than the default of an image's builder."""


class _Step(NamedTuple):
    """One step that is noted when it is done."""

    number: int
    title: str
    lines: tuple[str, ...]
    paths: tuple[str, ...] = ()
    """What it may be the first to make."""


class _Script(NamedTuple):
    """The functions of a script so far, and what everything up to here is built from."""

    text: list[str]
    state: str
    steps: int = 0


def write_shell(plan: Plan, context: BuildContext, stages: tuple[Stage, ...]) -> dict[str, bytes]:
    """Write ``build.sh``, the hashes of what it takes, and the variables each stage leaves."""
    built = [stage for stage in needed(stages, context.stage) if stage.parent != plan.base]
    expect_no_run_after_user(built)
    read = taken_by(built, context)
    script = _Script([], plan.base)
    for stage in built:
        script = _write_stage(script, stage, stages, context)
    unhashed = [path for path in read if not is_hashed(_identity(path, context))]
    values = {**_of_platform(plan), "stages": " ".join(stage.name for stage in built)}
    values |= {"plan": context.digest[:12], "steps": script.steps, "unhashed": " ".join(unhashed)}
    head = _head(stages[0].comments, values)
    text = "\n".join([head, *script.text, 'main "$@"'])
    return {
        "build.sh": f"{text}\n".encode(),
        "inputs.sha256": _hashes(read, context),
        **{f"environment-{s.name}.sh": _environment(s, stages) for s in built},
        **{path: context.files[path] for path in read if path in context.files},
    }


def _of_platform(plan: Plan) -> dict[str, object]:
    """Name the platform, and how to make a root of it."""
    platform, components = plan.platform, plan.platform.archive.components
    included = ",".join(INCLUDED[platform.distribution])
    options = f"--variant={VARIANT} --include={included} --components={','.join(components)}"
    return {
        "platform": platform.name,
        "suite": platform.suite,
        "components": " ".join(components),
        "bootstrap": f"mmdebstrap {options} {platform.suite} FOLDER",
    }


def _head(comments: tuple[str, ...], values: dict[str, object]) -> str:
    lines = ["#!/bin/sh", *(f"# {text}" for text in comments[:1])]
    lines += ["# Written by envforge; sh build.sh --help says what it does.", ""]
    # Functions are called by name, and a title shows a variable's name.
    lines += ["# shellcheck disable=SC2329,SC2016", "set -eu", ""]
    lines += [f"{name}={shlex.quote(str(value))}" for name, value in values.items()]
    lines += ["base_environment() {", indented(exports(base_environment())), "}", ""]
    return "\n".join(lines) + "\n" + (TEMPLATES / "shell" / "steps.sh").read_text(encoding="utf-8")


def _write_stage(
    script: _Script, stage: Stage, stages: tuple[Stage, ...], context: BuildContext
) -> _Script:
    """Add a stage: a function for every step, and one that calls them in their order."""
    inherited = ancestry(stages, stage.parent)
    body = [f"enter {shlex.quote(workdir_of(inherited))}"]
    body += [line for env in variables_of(inherited) for line in exports(env)]
    pending: list[str] = []
    for instruction in stage.instructions:
        if isinstance(instruction, Comment):
            pending.append(f"# {instruction.text}")
            continue
        step = _step(instruction, stage, script.steps + 1)
        if step is None:
            body += [*pending, *_lines(instruction)]
            script = script._replace(
                state=_chained(script, _lines(instruction), instruction, context)
            )
        else:
            script = _add(script, step, pending, _chained(script, step.lines, instruction, context))
            body.append(_call(step, script.state))
        pending = []
    comments = [f"# {text}" for text in stage.comments if stage.parent != "scratch"]
    function = [*comments, f"stage_{stage.name}() {{", indented(body), "}", ""]
    return script._replace(text=[*script.text, *function])


def _add(script: _Script, step: _Step, comments: list[str], state: str) -> _Script:
    function = [*comments, f"step_{step.number}() {{", indented(step.lines), "}", ""]
    return _Script([*script.text, *function], state, step.number)


def _call(step: _Step, state: str) -> str:
    words = [step.number, state[:12], step.title, f"step_{step.number}", *step.paths]
    return f"step {shlex.join(map(str, words))}"


def _chained(
    script: _Script,
    lines: list[str] | tuple[str, ...],
    instruction: Instruction,
    context: BuildContext,
) -> str:
    """Hash a step with all before it and with the files it reads: what a layer is known by."""
    state = hashlib.sha256("\n".join([script.state, *lines]).encode())
    for path in taken(instruction, context):
        state.update(f"\n{path} {_identity(path, context)}".encode())
    return state.hexdigest()


def _identity(path: str, context: BuildContext) -> str:
    if path in context.inputs:
        return context.inputs[path]
    return hashlib.sha256(context.files[path]).hexdigest()


def _step(instruction: Instruction, stage: Stage, number: int) -> _Step | None:
    """Return what is done once; None for what every later step needs again."""
    match instruction:
        case Run(command, mounts):
            links = [line for mount in mounts for line in _provide(mount)]
            targets = {mount.target for mount in mounts}
            named = dict.fromkeys(path for path in _PATHS.findall(command) if path not in targets)
            title = f"{stage.name}: {title_of(command)}"
            return _Step(number, title, (*links, command), tuple(named))
        case Copy(sources, target, origin) if not (origin and own_path(sources, target)):
            title = f"{stage.name}: copy {' '.join(sources)}"
            return _Step(number, title_of(title), tuple(_copy(instruction)))
        case User(name):
            made = f"id -u {name} >/dev/null 2>&1 || useradd --create-home --shell /bin/bash {name}"
            return _Step(number, f"{stage.name}: the user {name}", (made,))
    return None


def _provide(mount: Mount) -> Iterator[str]:
    target = shlex.quote(mount.target)
    if mount.kind == "cache":
        yield f"keep {shlex.quote(mount.source)} {target}"
    elif mount.stage is None:
        yield f'provide "$context"/{shlex.quote(mount.source)} {target}'
    elif mount.source != mount.target:
        yield f"provide {shlex.quote(mount.source)} {target}"


def _copy(copy: Copy) -> Iterator[str]:
    root = "" if copy.stage else '"$context"/'
    yield f"mkdir -p {shlex.quote(copy.target)} &&"
    # A folder's content, as COPY takes it.
    words = [f"{root}{shlex.quote(f'{s}.' if s.endswith('/') else s)}" for s in copy.sources]
    yield f"    cp --archive {' '.join(words)} {shlex.quote(copy.target)}"


def _lines(instruction: Instruction) -> list[str]:
    """Write what every run of the script does anew."""
    match instruction:
        case Env():
            return exports(instruction)
        case Arg(name, default):
            fallback = _OF_THE_MACHINE.get(name, shlex.quote(default))
            return [f"{name}=${{{name}:-{fallback}}}", f"export {name}"]
        case Workdir(path):
            return [f"enter {shlex.quote(path)}"]
        case Cmd(argv):
            return [f"say {shlex.quote(f'start: {shlex.join(argv)}')}"]
    return []


def _hashes(read: list[str], context: BuildContext) -> bytes:
    lines = [
        f"{_identity(path, context)}  {path}\n"
        for path in read
        if is_hashed(_identity(path, context))
    ]
    return "".join(lines).encode()


def _environment(stage: Stage, stages: tuple[Stage, ...]) -> bytes:
    lines = [line for env in variables_of(ancestry(stages, stage.name)) for line in exports(env)]
    said = f"# What {stage.name} sets for whoever uses it: . environment-{stage.name}.sh"
    return "".join(f"{line}\n" for line in (said, "# shellcheck shell=sh", *lines)).encode()
