"""What the backends that write a shell's text have in common. Pure."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterable, Sequence

from envforge.assets import BASE_DOCKERFILE
from envforge.image.dialect import (
    Copy,
    Env,
    Instruction,
    Part,
    Run,
    Stage,
    User,
    read_dockerfile,
)
from envforge.image.render import BuildContext

_TITLE_WIDTH = 72
_SHA256 = re.compile(r"[0-9a-f]{64}")


def base_environment() -> Env:
    """Return the variables that every image has from ``Dockerfile.base``."""
    lines = BASE_DOCKERFILE.read_text(encoding="utf-8").splitlines()
    set_there = [line for line in lines if line.startswith("ENV ")]
    (base,) = read_dockerfile("\n".join(["FROM scratch AS base", *set_there]))
    return Env(
        tuple(
            variable
            for instruction in base.instructions
            if isinstance(instruction, Env)
            for variable in instruction.variables
        )
    )


def exports(env: Env) -> list[str]:
    """Write an ENV as lines of a shell."""
    return [f"export {name}={_value(parts)}" for name, parts in env.variables]


def _value(parts: Iterable[Part]) -> str:
    return "".join(
        f'"${part.text}"' if part.is_variable else shlex.quote(part.text) for part in parts
    )


def indented(lines: Iterable[str]) -> str:
    """Indent by one step, each line that has text."""
    return textwrap.indent("\n".join(lines), "    ")


def title_of(text: str) -> str:
    """Shorten a command to one line of a progress display."""
    return textwrap.shorten(
        text.replace("\\\n", " "), _TITLE_WIDTH, placeholder=" ...", break_on_hyphens=False
    )


def taken(instruction: Instruction, context: BuildContext) -> list[str]:
    """Name the files of the context, inputs included, that an instruction reads."""
    if isinstance(instruction, Run):
        mounts = [mount for mount in instruction.mounts if mount.kind == "bind"]
        named = [mount.source for mount in mounts if mount.stage is None]
    elif isinstance(instruction, Copy) and instruction.stage is None:
        named = list(instruction.sources)
    else:
        return []
    known = [*context.files, *context.inputs]
    return [path for path in known for name in named if path == name or path.startswith(f"{name}/")]


def taken_by(stages: Iterable[Stage], context: BuildContext) -> list[str]:
    """Name the files of the context that ``stages`` read, sorted, each once."""
    return sorted(
        {
            path
            for stage in stages
            for instruction in stage.instructions
            for path in taken(instruction, context)
        }
    )


def is_hashed(identity: str) -> bool:
    """Tell a sha256 from the commit of a tree, which git itself is asked for."""
    return _SHA256.fullmatch(identity) is not None


def expect_no_run_after_user(stages: Iterable[Stage]) -> None:
    """ValueError for a step that is not root's: these backends have no other user."""
    for stage in stages:
        users = [at for at, step in enumerate(stage.instructions) if isinstance(step, User)]
        later = stage.instructions[users[0] :] if users else ()
        if any(isinstance(step, Run | Copy) for step in later):
            raise ValueError(f"stage {stage.name} has a step after USER")


def own_path(sources: Sequence[str], target: str) -> bool:
    """Tell a COPY that would copy a folder onto itself where all stages share one root."""
    return tuple(sources) == (target,)
