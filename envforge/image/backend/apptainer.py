"""An Apptainer definition: a base system by debootstrap, a stage of it for every stage copied from.

A stage of Apptainer cannot be made of another, so each begins with the steps of those it is made
of. %post runs with ``sh -e``, for which ``a && b`` is no failure where ``a`` fails: hence
``|| exit 1`` behind every step. /tmp may be the host's there, so what a step would have mounted
lies in a folder of its own and is linked for the time of the step.
https://apptainer.org/docs/user/latest/definition_files.html (templating: Apptainer 1.2 and later)
Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from envforge.image.backend.script import (
    base_environment,
    expect_no_run_after_user,
    exports,
    indented,
    is_hashed,
    taken_by,
)
from envforge.image.base import INCLUDED
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
    stages_of,
    variables_of,
)
from envforge.image.plan import Plan
from envforge.image.render import BuildContext
from envforge.sources.archive import suites_of

NAME = "envforge.def"
_FOLDER = "/.envforge"
_TEMPLATED = re.compile(r"\{\{\s*\w+\s*\}\}")
_PLAIN = re.compile(r"[A-Za-z0-9_./+~@-]+")
_OWN_WORDS = re.compile(r"^\s*(%|bootstrap:)", re.MULTILINE | re.IGNORECASE)


def write_apptainer(
    plan: Plan, context: BuildContext, stages: tuple[Stage, ...]
) -> dict[str, bytes]:
    """Write the definition, with the files of the context that it takes."""
    wanted = needed(stages, context.stage)
    expect_no_run_after_user(wanted)
    copied = {name for s in wanted for step in s.instructions for name in stages_of(step)}
    made = [s.name for s in wanted if s.name in copied or s.name == context.stage]
    blocks = [_stage(plan, context, ancestry(stages, name)) for name in made]
    comments = "".join(f"# {text}\n" for text in stages[0].comments[:1])
    last = _last(plan, context, ancestry(stages, context.stage))
    text = f"{comments}# {_command()}\n\n" + "\n".join([*blocks, last])
    read = taken_by(wanted, context)
    own = {path: context.files[path] for path in read if path in context.files}
    return {NAME: text.encode(), **own}


def _command() -> str:
    return f"apptainer build --build-arg archive=http://ADDRESS IMAGE.sif {NAME}"


def _stage(plan: Plan, context: BuildContext, chain: tuple[Stage, ...]) -> str:
    """Write one stage from its base system on: header, what is copied in, what is run."""
    steps = [step for stage in chain for step in stage.instructions]
    header = [
        "Bootstrap: debootstrap",
        f"OSVersion: {plan.platform.suite}",
        "MirrorURL: {{ archive }}",
        f"Include: {' '.join(INCLUDED[plan.platform.distribution])}",
        f"Stage: {chain[-1].name}",
    ]
    arguments = [f"{step.name}={step.default}" for step in steps if isinstance(step, Arg)]
    read = taken_by(chain, context)
    sections = [
        ("arguments", arguments),
        ("files", [f"{_plain(path)} {_FOLDER}/{path}" for path in read]),
        *_files_of_stages(steps),
        ("post", [*_base(plan), *_checks(read, context), *_post(chain), f"rm -rf {_FOLDER}"]),
    ]
    return "\n".join(["\n".join(header) + "\n", *(_section(*each) for each in sections if each[1])])


def _section(name: str, lines: list[str]) -> str:
    return f"%{name}\n{indented(lines)}\n"


def _plain(path: str) -> str:
    """Refuse what Apptainer would expand or split: it gives the names in %files to a shell."""
    if not _PLAIN.fullmatch(path):
        raise ValueError(f"not a plain path for %files: {path!r}")
    return path


def _files_of_stages(steps: list[Instruction]) -> Iterator[tuple[str, list[str]]]:
    sources = dict.fromkeys(source for step in steps for source in _sources_in_stages(step))
    for name in dict.fromkeys(name for name, _ in sources):
        paths = [path for stage, path in sources if stage == name]
        yield f"files from {name}", [f"{path} {_FOLDER}/from/{name}{path}" for path in paths]


def _sources_in_stages(step: Instruction) -> Iterator[tuple[str, str]]:
    if isinstance(step, Copy) and step.stage:
        yield from ((step.stage, source.rstrip("/")) for source in step.sources)
    elif isinstance(step, Run):
        yield from ((m.stage, m.source.rstrip("/")) for m in step.mounts if m.stage)


def _base(plan: Plan) -> list[str]:
    """Give apt all suites and components: debootstrap leaves it one of each."""
    components = " ".join(plan.platform.archive.components)
    lines = [f"deb {{{{ archive }}}} {suite} {components}" for suite in suites_of(plan.platform)]
    said = " ".join(f"'{line}'" for line in lines)
    return [
        *exports(base_environment()),
        "export DEBIAN_FRONTEND=noninteractive",
        f"printf '%s\\n' {said} >/etc/apt/sources.list",
    ]


def _checks(read: list[str], context: BuildContext) -> list[str]:
    lines = [
        f"{context.inputs[path]}  {_FOLDER}/{path}"
        for path in read
        if is_hashed(context.inputs.get(path, ""))
    ]
    return [f"echo {shlex.quote(line)} | sha256sum --check --quiet" for line in lines]


def _post(chain: tuple[Stage, ...]) -> Iterator[str]:
    yield "cd /"
    for stage in chain:
        for instruction in stage.instructions:
            yield from _checked(_lines(instruction))


def _checked(lines: list[str]) -> list[str]:
    """Refuse what Apptainer would read as its own words."""
    for line in lines:
        if not line.startswith("export ") and _TEMPLATED.search(line):
            raise ValueError(f"Apptainer would replace a part of {line!r}")
        if _OWN_WORDS.search(line):
            raise ValueError(f"Apptainer would read {line!r} as a section")
    return lines


def _lines(instruction: Instruction) -> list[str]:  # noqa: PLR0911 -- one of each kind
    match instruction:
        case Comment(text):
            return [f"# {text}"]
        case Run(command, mounts):
            provided = [line for mount in mounts for line in _provide(mount)]
            removed = [f"rm -rf {shlex.join(mount.target for mount in mounts)}"] if mounts else []
            return [*provided, "(", indented([command]), ") || exit 1", *removed]
        case Copy():
            return _copy(instruction)
        case Env():
            return exports(instruction)
        case Arg(name):
            return [f"export {name}={{{{ {name} }}}}"]
        case Workdir(path):
            return [f"mkdir -p {shlex.quote(path)}", f"cd {shlex.quote(path)}"]
        case User(name):
            return [f"# no user {name}: a container of Apptainer runs as whoever starts it"]
        case Cmd():
            return []


def _provide(mount: Mount) -> Iterator[str]:
    target = shlex.quote(mount.target)
    if mount.kind == "cache":
        yield f"mkdir -p {target}"
    elif mount.stage:
        yield f"ln -s {shlex.quote(f'{_FOLDER}/from/{mount.stage}{mount.source}')} {target}"
    else:
        yield f"ln -s {shlex.quote(f'{_FOLDER}/{mount.source}')} {target}"


def _copy(copy: Copy) -> list[str]:
    root = f"{_FOLDER}/from/{copy.stage}" if copy.stage else f"{_FOLDER}/"
    words = [
        f"{root}{source}." if source.endswith("/") else f"{root}{source}" for source in copy.sources
    ]
    target = shlex.quote(copy.target)
    return [f"mkdir -p {target}", f"cp --archive {shlex.join(words)} {target}"]


def _last(plan: Plan, context: BuildContext, chain: tuple[Stage, ...]) -> str:
    """Write what the image of the last stage is to whoever runs it."""
    environment = [
        line for env in (base_environment(), *variables_of(chain)) for line in exports(env)
    ]
    argv = next(
        (s.argv for s in reversed(chain[-1].instructions) if isinstance(s, Cmd)), ("/bin/sh",)
    )
    resolution = plan.resolution
    labels = [
        f"org.opencontainers.image.title torch {resolution.torch}",
        f"org.opencontainers.image.version {resolution.torch}",
        f"envforge.plan {context.digest}",
    ]
    sections = [
        ("environment", environment),
        ("runscript", [f'exec {shlex.join(argv)} "$@"']),
        ("labels", labels),
    ]
    return "\n".join(_section(*each) for each in sections)
