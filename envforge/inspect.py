"""Which cards can this binary really run on? A file, a wheel, an environment, an image."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from envforge.binaries.errors import BinaryError
from envforge.binaries.library import read_library
from envforge.binaries.subject import Subject, may_carry_code, read_subject
from envforge.binaries.verdict import Verdict, verdict
from envforge.errors import EnvforgeError, UnknownName
from envforge.events import OnEvent
from envforge.image.engine import Engine, connect
from envforge.values import ComputeCapability

_INTERPRETER_TIMEOUT_S = 20
_WHERE = "import sysconfig; print(sysconfig.get_path('platlib'))"


class Inspection(NamedTuple):
    """What a subject carries, and how each of the cards that were asked about runs it."""

    subject: Subject
    verdicts: tuple[Verdict, ...]


def inspect(target: str, cards: Iterable[ComputeCapability], on_event: OnEvent) -> Inspection:
    """Read ``target`` and judge ``cards``. Nothing of it is imported or run.

    A path is a library, a wheel, a directory or a Python interpreter (its site-packages); every
    other word is an image of the engine. UnknownName when it is neither; BinaryError
    when it cannot be read.
    """
    subject = _subject(target, on_event)
    judged = tuple(verdict(subject.libraries, card) for card in cards) if subject.libraries else ()
    return Inspection(subject, judged)


def _subject(target: str, on_event: OnEvent) -> Subject:
    path = Path(target)
    if path.is_file() and path.name.startswith("python"):
        return read_subject(site_packages(path), on_event=on_event)
    if path.exists():
        return read_subject(path, on_event=on_event)
    if "/" in target and target.startswith((".", "/", "~")):
        raise UnknownName("file", target, hint="give a library, a wheel, a directory or an image")
    with connect() as engine:
        return read_image(engine, target, on_event)


def site_packages(python: Path) -> Path:
    """Ask an interpreter where its packages lie; nothing is imported but the standard library."""
    try:
        answer = subprocess.run(
            [python, "-I", "-S", "-c", _WHERE],
            capture_output=True,
            text=True,
            check=True,
            timeout=_INTERPRETER_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryError(f"{python} does not answer as a Python", because=(str(error),)) from error
    return Path(answer.stdout.strip())


def read_image(engine: Engine, image: str, on_event: OnEvent) -> Subject:
    """Read the libraries of an image through the engine's export: it is not run."""
    if engine.image_id(image) is None:
        raise UnknownName("image or file", image, hint="docker images lists what the engine has")
    libraries = []
    unreadable = []
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        for inside, copy in engine.export(image, may_carry_code, Path(folder), on_event):
            try:
                library = read_library(copy, name=f"/{inside}")
            except EnvforgeError as error:
                unreadable.append(f"/{inside}: {error.what.removeprefix(f'{copy}: ')}")
            else:
                if library.sections:
                    libraries.append(library)
            copy.unlink()
    found = tuple(sorted(libraries, key=lambda library: library.path))
    return Subject(path=image, libraries=found, unreadable=tuple(unreadable))
