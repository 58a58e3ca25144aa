"""Which cards can this binary really run on? A file, a wheel, an environment, an image."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from envforge.binaries.errors import BinaryError
from envforge.binaries.library import read_library
from envforge.binaries.subject import Subject, may_carry_code, read_subject
from envforge.binaries.verdict import Verdict, verdict
from envforge.errors import EnvforgeError, UnknownName
from envforge.events import OnEvent
from envforge.values import ComputeCapability

if TYPE_CHECKING:
    from envforge.image.engine import Engine

_INTERPRETER_TIMEOUT_S = 20
_WHERE = "import sysconfig; print(sysconfig.get_path('platlib'))"
_TORCH = (
    "import importlib.util as u; s = u.find_spec('torch');"
    " print((s.submodule_search_locations or [''])[0] if s else '')"
)
_VERSION = re.compile(r"^__version__(?:: \w+)? = ['\"]([^'\"]+)['\"]", re.MULTILINE)


class Inspection(NamedTuple):
    """What a subject carries, and how each of the cards that were asked about runs it."""

    subject: Subject
    verdicts: tuple[Verdict, ...]


class Installed(NamedTuple):
    """The PyTorch of an environment or an image, judged by the machine code inside it."""

    path: str
    torch: str | None
    """What ``torch/version.py`` says; None in an image."""
    inspection: Inspection


def inspect_installed(
    target: str, cards: Iterable[ComputeCapability], on_event: OnEvent
) -> Installed:
    """Judge the PyTorch of an interpreter, a virtual environment or an image, without importing it.

    UnknownName where there is none.
    """
    path = Path(target)
    python = path / "bin/python" if path.is_dir() else path
    if not python.is_file():
        inspection = inspect(target, cards, on_event)
        return Installed(target, None, inspection)
    package = _ask(python, "-I", "-c", _TORCH)
    if not package:
        raise UnknownName("installed torch", target, hint="envforge check lists the ways to one")
    inspection = inspect(package, cards, on_event)
    return Installed(package, _version(Path(package)), inspection)


def _version(package: Path) -> str | None:
    try:
        match = _VERSION.search((package / "version.py").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return match[1] if match else None


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
    from envforge.image.engine import connect  # noqa: PLC0415 -- only an image needs the engine

    with connect() as engine:
        return read_image(engine, target, on_event)


def site_packages(python: Path) -> Path:
    """Ask an interpreter where its packages lie; nothing is imported but the standard library."""
    return Path(_ask(python, "-I", "-c", _WHERE))


def _ask(python: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            [python, *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=_INTERPRETER_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryError(f"{python} does not answer as a Python", because=(str(error),)) from error
    return answer.stdout.strip()


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
