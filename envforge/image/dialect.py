"""Our own Dockerfiles, read into records; what is not of their dialect is refused by name. Pure.

A rendered Dockerfile is the canonical form of a plan. What else can build the plan (another
builder, a bare machine, Apptainer) is written from these records, so there is one template a route
and nothing that could say something else. Every refusal is a ValueError with the line: a template
has learnt a word that the other backends have not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

_NAME = r"[a-z][a-z0-9_-]*"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"
_PATH = r"[A-Za-z0-9_./:@+~-]+"
_FROM = re.compile(rf"({_PATH}) AS ({_NAME})")
_COPY = re.compile(rf"(?:--from=({_NAME}) )?({_PATH}(?: {_PATH})*) (/{_PATH}/|/)")
_ARG = re.compile(rf"({_VARIABLE})=({_PATH})")
_MOUNT = re.compile(r"--mount=(\S+)\s+(?:\\\n\s*)?")
_ASSIGNMENT = re.compile(rf"({_VARIABLE})=(\S|$)")
_PART = re.compile(
    rf'"(?P<quoted>(?:[^"\\$]|\\["\\$])*)"|\$(?P<variable>{_VARIABLE})|(?P<bare>{_PATH})'
)
_CONTINUED = re.compile(r"\s*\\\n\s*")
_OPTIONS = {"bind": {"type", "from", "source", "target"}, "cache": {"type", "id", "target"}}


class Comment(NamedTuple):
    """A line for people, without its ``#``."""

    text: str


class Mount(NamedTuple):
    """What a step sees for as long as it runs."""

    kind: Literal["bind", "cache"]
    source: str
    """A path below the context, or in ``stage``; of a cache its id."""
    target: str
    stage: str | None = None
    """None: it comes from the context."""


class Run(NamedTuple):
    """A command of the shell, in the lines it was written in."""

    command: str
    mounts: tuple[Mount, ...] = ()


class Copy(NamedTuple):
    """Files, and the content of folders (sources that end in a slash), into a folder."""

    sources: tuple[str, ...]
    target: str
    stage: str | None = None
    """None: they come from the context."""


class Part(NamedTuple):
    """A piece of a value: its text, or the name of the variable that stands there."""

    text: str
    is_variable: bool = False


class Env(NamedTuple):
    """Variables of every later step, in their order, each with its value in parts."""

    variables: tuple[tuple[str, tuple[Part, ...]], ...]


class Arg(NamedTuple):
    """A variable that whoever builds may set."""

    name: str
    default: str


class User(NamedTuple):
    """Whom a container runs as."""

    name: str


class Workdir(NamedTuple):
    """Where later steps run."""

    path: str


class Cmd(NamedTuple):
    """What a container starts, word by word."""

    argv: tuple[str, ...]


Instruction = Comment | Run | Copy | Env | Arg | User | Workdir | Cmd


class Stage(NamedTuple):
    """One FROM and what follows it."""

    name: str
    parent: str
    instructions: tuple[Instruction, ...]
    comments: tuple[str, ...] = ()
    """What stands above the FROM."""


def read_dockerfile(text: str) -> tuple[Stage, ...]:
    """Read a rendered Dockerfile; ValueError where it is not of our dialect."""
    stages: list[Stage] = []
    comments: list[str] = []
    for number, word, rest in _logical_lines(text):
        try:
            if word == "#":
                comments.append(rest)
            elif word == "FROM":
                stages.append(_read_from(rest, stages)._replace(comments=tuple(comments)))
                comments.clear()
            else:
                read = (*map(Comment, comments), _read(word, rest, stages))
                stages[-1] = stages[-1]._replace(instructions=(*stages[-1].instructions, *read))
                comments.clear()
        except ValueError as error:
            raise ValueError(f"Dockerfile, line {number}: {error}") from error
    return tuple(stages)


def _logical_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, first word and the rest of every instruction and comment."""
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.startswith("#"):
            yield number, "#", line[1:].strip()
            continue
        whole = line
        while whole.endswith("\\"):
            whole += "\n" + next(lines, (0, ""))[1]
        word, _, rest = whole.partition(" ")
        if word:
            yield number, word, rest


def _read_from(rest: str, stages: Sequence[Stage]) -> Stage:
    parent, name = _match(_FROM, rest, "FROM").groups()
    known = {stage.name for stage in stages}
    if name in known:
        raise ValueError(f"a second stage {name}")
    if stages and parent not in {*known, "scratch"}:
        raise ValueError(f"no stage {parent}: only the first one is made of an image")
    return Stage(name, parent, ())


def _read(word: str, rest: str, stages: Sequence[Stage]) -> Instruction:
    read = _READERS.get(word)
    if read is None:
        raise ValueError(f"{word} is not of our dialect")
    if not stages:
        raise ValueError(f"{word} before the first FROM")
    instruction = read(rest)
    earlier = {stage.name for stage in stages[:-1]}
    for name in stages_of(instruction):
        if name not in earlier:
            raise ValueError(f"{word} takes from {name}, which is no earlier stage")
    return instruction


def _match(pattern: re.Pattern[str], rest: str, word: str) -> re.Match[str]:
    match = pattern.fullmatch(rest)
    if match is None:
        raise ValueError(f"{word} {rest.splitlines()[0] if rest else ''!r} is not of our dialect")
    return match


def _read_run(rest: str) -> Run:
    mounts, place = [], 0
    while match := _MOUNT.match(rest, place):
        mounts.append(_read_mount(match[1]))
        place = match.end()
    command = rest[place:].strip()
    if not command or command.startswith(("--", "[")) or "<<" in command:
        raise ValueError(f"RUN {command[:40]!r} is not of our dialect")
    if re.search(r"^\s*(#|$)", command, re.MULTILINE):
        raise ValueError("RUN with a comment or an empty line inside is not of our dialect")
    return Run(command, tuple(mounts))


def _read_mount(text: str) -> Mount:
    pairs = [option.partition("=") for option in text.split(",")]
    options = {name: value for name, _, value in pairs}
    kind = options.get("type", "")
    unknown = set(options) - _OPTIONS.get(kind, set())
    if unknown or not options.get("target", "").startswith("/"):
        raise ValueError(f"--mount={text} is not of our dialect")
    if kind == "cache":
        return Mount("cache", options["id"], options["target"])
    return Mount("bind", options["source"], options["target"], options.get("from"))


def _read_copy(rest: str) -> Copy:
    stage, sources, target = _match(_COPY, rest, "COPY").groups()
    return Copy(tuple(sources.split(" ")), target, stage)


def _read_env(rest: str) -> Env:
    """Read assignments; none may use what an earlier one of the same instruction sets.

    Docker expands a whole ENV with the values from before it, a shell line by line.
    """
    text, place = _CONTINUED.sub(" ", rest), 0
    variables: list[tuple[str, tuple[Part, ...]]] = []
    while place < len(text):
        match = _ASSIGNMENT.match(text, place)
        if match is None:
            raise ValueError(f"ENV {text[place:]!r} is not of our dialect")
        parts, place = _read_value(text, match.start(2))
        used = {part.text for part in parts if part.is_variable}
        for name, _ in variables:
            if name in used:
                raise ValueError(f"ENV sets {name} and uses it at once")
        variables.append((match[1], parts))
    return Env(tuple(variables))


def _read_value(text: str, place: int) -> tuple[tuple[Part, ...], int]:
    """Return the parts of the value at ``place``, and where the next assignment begins."""
    parts = []
    while place < len(text) and text[place] != " ":
        match = _PART.match(text, place)
        if match is None:
            raise ValueError(f"ENV value {text[place:]!r} is not of our dialect")
        if match["variable"]:
            parts.append(Part(match["variable"], is_variable=True))
        else:
            quoted = match["quoted"]
            plain = match["bare"] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parts.append(Part(plain))
        place = match.end()
    return _joined(parts), place + 1


def _joined(parts: list[Part]) -> tuple[Part, ...]:
    """Make one part of texts that stand beside each other."""
    joined: list[Part] = []
    for part in parts:
        if joined and not part.is_variable and not joined[-1].is_variable:
            joined[-1] = Part(joined[-1].text + part.text)
        else:
            joined.append(part)
    return tuple(joined)


def _read_arg(rest: str) -> Arg:
    return Arg(*_match(_ARG, rest, "ARG").groups())


def _read_user(rest: str) -> User:
    return User(_match(re.compile(_NAME), rest, "USER")[0])


def _read_workdir(rest: str) -> Workdir:
    return Workdir(_match(re.compile(f"/{_PATH}"), rest, "WORKDIR")[0])


def _read_cmd(rest: str) -> Cmd:
    argv = json.loads(rest) if rest.startswith("[") else None
    if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
        raise ValueError(f"CMD {rest!r} is not of our dialect")
    return Cmd(tuple(argv))


_READERS: dict[str, Callable[[str], Instruction]] = {
    "RUN": _read_run,
    "COPY": _read_copy,
    "ENV": _read_env,
    "ARG": _read_arg,
    "USER": _read_user,
    "WORKDIR": _read_workdir,
    "CMD": _read_cmd,
}


def stages_of(instruction: Instruction) -> set[str]:
    """Name the stages an instruction takes something from."""
    if isinstance(instruction, Copy):
        return {instruction.stage} - {None}  # type: ignore[return-value]
    if isinstance(instruction, Run):
        return {mount.stage for mount in instruction.mounts if mount.stage}
    return set()


def ancestry(stages: Sequence[Stage], name: str) -> tuple[Stage, ...]:
    """Return a stage with those it is made of, the base first."""
    by_name = {stage.name: stage for stage in stages}
    found: list[Stage] = []
    while name in by_name:
        found.insert(0, by_name[name])
        name = found[0].parent
    return tuple(found)


def needed(stages: Sequence[Stage], target: str) -> tuple[Stage, ...]:
    """Return what ``target`` is made of, in the order of the file; ValueError for no stage."""
    if target not in {stage.name for stage in stages}:
        raise ValueError(f"no stage {target}")
    wanted, names = {target}, set[str]()
    while wanted:
        name = wanted.pop()
        for stage in ancestry(stages, name):
            names.add(stage.name)
            wanted |= set().union(*map(stages_of, stage.instructions)) - names
    return tuple(stage for stage in stages if stage.name in names)


def workdir_of(stages: Iterable[Stage]) -> str:
    """Return where the next step of ``stages`` would run."""
    paths = [s.path for stage in stages for s in stage.instructions if isinstance(s, Workdir)]
    return paths[-1] if paths else "/"


def variables_of(stages: Iterable[Stage]) -> tuple[Env, ...]:
    """Return every ENV of ``stages``, in order."""
    return tuple(step for stage in stages for step in stage.instructions if isinstance(step, Env))
