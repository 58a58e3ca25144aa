"""Which cards can this binary really run on? A file, a wheel, an environment, an image."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from envforge.binaries.difference import LibraryDifference, compare_libraries
from envforge.binaries.interpreter import (
    conda_environment,
    find_torch,
    is_interpreter,
    open_interpreter,
)
from envforge.binaries.kernels import KernelList, read_kernels
from envforge.binaries.subject import Binary, Source, Subject, each, open_path, read_source
from envforge.binaries.verdict import Verdict, verdict
from envforge.documents import compile_pattern
from envforge.errors import UnknownName, UsageError
from envforge.events import OnEvent
from envforge.values import ComputeCapability

_VERSION = re.compile(r"^__version__(?:: \w+)? = ['\"]([^'\"]+)['\"]", re.MULTILINE)


class Inspection(NamedTuple):
    """What a subject carries, and how each of the cards that were asked about runs it."""

    subject: Subject
    verdicts: tuple[Verdict, ...]


class Difference(NamedTuple):
    """What code each of two subjects has that the other lacks."""

    first: Inspection
    second: Inspection
    libraries: tuple[LibraryDifference, ...]
    """Only those that differ, in order of their names."""


class KernelSearch(NamedTuple):
    """The kernels of a subject whose names match a pattern."""

    path: str
    pattern: str
    files: tuple[KernelList, ...]
    """Only files with such a kernel."""
    unreadable: tuple[str, ...]


class Installed(NamedTuple):
    """The PyTorch of an environment or an image, judged by the machine code inside it."""

    path: str
    torch: str | None
    """What ``torch/version.py`` says; None in an image."""
    inspection: Inspection


def inspect(target: str, cards: Iterable[ComputeCapability], on_event: OnEvent) -> Inspection:
    """Read ``target`` and judge ``cards``. Nothing of it is imported or run.

    A path is a library, a wheel, a directory or a Python interpreter (its packages), ``-`` is
    standard input; every other word is an image or a container of the engine, which
    ``image:NAME`` and ``container:NAME[:PATH]`` tell apart as ``docker run --network`` does.
    UnknownName when it is none of them, UsageError when it is two; BinaryError when it cannot be
    read.
    """
    with opened(target, on_event) as source:
        subject = read_source(source)
    judged = tuple(verdict(subject.libraries, card) for card in cards) if subject.libraries else ()
    return Inspection(subject, judged)


def compare(
    first: str, second: str, cards: Sequence[ComputeCapability], on_event: OnEvent
) -> Difference:
    """Tell what code each of two targets has that the other lacks. Raises as :func:`inspect`."""
    left, right = inspect(first, cards, on_event), inspect(second, cards, on_event)
    return Difference(left, right, compare_libraries(left.subject, right.subject))


def find_kernels(target: str, pattern: str, on_event: OnEvent) -> KernelSearch:
    """Find the kernels whose name, mangled or not, matches a regular expression.

    UsageError for a bad expression, else as :func:`inspect`.
    """
    try:
        wanted = compile_pattern(pattern).search
    except ValueError as error:
        raise UsageError(
            f"not a regular expression: {pattern!r}",
            because=(str(error),),
            hint="put a backslash before ( ) * + [ ] where they are meant as such",
        ) from error
    unreadable: list[str] = []
    with opened(target, on_event) as source:
        read = partial(_kernels, wanted=wanted, on_event=on_event)
        found = tuple(one for one in each(source, read, unreadable) if one.kernels or one.unread)
    return KernelSearch(source.path, pattern, found, tuple(unreadable))


def _kernels(binary: Binary, wanted: Callable[[str], object], on_event: OnEvent) -> KernelList:
    return read_kernels(binary.path, wanted, name=binary.name, on_event=on_event)


def inspect_installed(
    target: str, cards: Iterable[ComputeCapability], on_event: OnEvent
) -> Installed:
    """Judge the PyTorch of an interpreter, an environment or an image, without importing it.

    UnknownName where there is none.
    """
    path = Path(target)
    # os.path: a name that no file system takes is no error there, but no file either
    python = path / "bin/python" if os.path.isdir(path) else path  # noqa: PTH112
    if not os.path.isfile(python):  # noqa: PTH113
        return Installed(target, None, inspect(target, cards, on_event))
    package = find_torch(python)
    if package is None:
        raise UnknownName("installed torch", target, hint="envforge check lists the ways to one")
    conda = conda_environment(python)
    inspection = inspect(str(conda or package), cards, on_event)
    return Installed(str(package), _version(package), inspection)


def _version(package: Path) -> str | None:
    try:
        match = _VERSION.search((package / "version.py").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return match[1] if match else None


@contextmanager
def opened(target: str, on_event: OnEvent) -> Iterator[Source]:
    """Open ``target`` as what :func:`inspect` says it is."""
    path = Path(target)
    if target == "-":
        if sys.stdin is None:  # Python's answer to a closed descriptor
            raise UnknownName("file", target, hint="standard input is closed: give it a binary")
        with tempfile.NamedTemporaryFile(prefix="envforge-") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
            yield open_path(Path(copy.name), name="standard input", on_event=on_event)
    elif is_interpreter(path):
        yield open_interpreter(path, on_event)
    elif _exists(path):
        yield open_path(path, on_event=on_event)
    elif target.startswith((".", "/", "~")):  # names of images begin with a letter or a digit
        raise UnknownName("file", target, hint="give a library, a wheel, a directory or an image")
    else:
        from envforge.image.contents import open_from_engine  # noqa: PLC0415
        from envforge.image.engine import connect  # noqa: PLC0415 -- only these need the engine

        with connect() as engine, tempfile.TemporaryDirectory(prefix="envforge-") as folder:
            yield open_from_engine(engine, target, Path(folder), on_event)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return True  # in a folder that may not be read: opening it says so
