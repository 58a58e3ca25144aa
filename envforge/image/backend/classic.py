"""A Dockerfile for the builder without BuildKit, which knows no mounts. Pure.

What a step would have mounted is copied in before it and removed after it. A cache has no place
to outlive the step in, so an interrupted compilation begins again, and what was copied stays in a
layer: of the last stage that is only what the build itself made.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from envforge.image.dialect import (
    Arg,
    Cmd,
    Comment,
    Copy,
    Env,
    Instruction,
    Part,
    Run,
    Stage,
    User,
    Workdir,
)


def write_classic(stages: tuple[Stage, ...]) -> str:
    """Write the Dockerfile of the classic builder."""
    blocks = []
    for stage in stages:
        lines = [f"# {text}" for text in stage.comments]
        lines.append(f"FROM {stage.parent} AS {stage.name}")
        for instruction in stage.instructions:
            lines += _lines(instruction)
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _lines(instruction: Instruction) -> list[str]:  # noqa: PLR0911 -- one of each kind
    match instruction:
        case Comment(text):
            return [f"# {text}"]
        case Run():
            return list(_run(instruction))
        case Copy(sources, target, stage):
            return [f"COPY {_from(stage)}{' '.join(sources)} {target}"]
        case Env(variables):
            pairs = [f"{name}={_value(value)}" for name, value in variables]
            return ["ENV " + " \\\n    ".join(pairs)]
        case Arg(name, default):
            return [f"ARG {name}={default}"]
        case User(name):
            return [f"USER {name}"]
        case Workdir(path):
            return [f"WORKDIR {path}"]
        case Cmd(argv):
            return [f"CMD {json.dumps(argv)}"]


def _run(run: Run) -> Iterator[str]:
    for mount in run.mounts:
        if mount.kind == "bind":
            yield f"COPY {_from(mount.stage)}{mount.source} {mount.target}"
        else:
            yield f"RUN mkdir -p {mount.target}"
    yield f"RUN {run.command}"
    if run.mounts:
        yield f"RUN rm -rf {' '.join(mount.target for mount in run.mounts)}"


def _from(stage: str | None) -> str:
    return f"--from={stage} " if stage else ""


def _value(parts: tuple[Part, ...]) -> str:
    return "".join(f"${part.text}" if part.is_variable else _quoted(part.text) for part in parts)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'
