"""The packages of a Python interpreter, found by asking it for its path; none is imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from envforge.binaries.editable import editable_roots
from envforge.binaries.errors import BinaryError
from envforge.binaries.subject import Binary, Source, open_path
from envforge.events import OnEvent

_NAME = re.compile(r"(?:python|pypy)\d*(?:\.\d+)*t?\Z")
_TIMEOUT_S = 20
_PATH = (
    "import json, sys, sysconfig as s; std = [s.get_path('stdlib'), s.get_path('platstdlib')];"
    " std += [p + '/lib-dynload' for p in std];"
    " print(json.dumps([sys.prefix] + [p for p in sys.path if p and p not in std]))"
)
"""Understood by every Python since 2.7: the path without the standard library."""


def is_interpreter(path: Path) -> bool:
    """Tell an interpreter by its name: ``python3.11``, ``pypy3``; a library folder has it too."""
    return _NAME.match(path.name) is not None and os.access(path, os.X_OK) and not path.is_dir()


def open_interpreter(python: Path, on_event: OnEvent) -> Source:
    """Open the packages an interpreter finds; of conda's the environment, libraries beside it.

    BinaryError where it does not answer.
    """
    conda = conda_environment(python)
    if conda is not None:
        return open_path(conda, on_event=on_event)
    roots = _roots(python)
    return Source(str(roots[0]), _binaries(roots, on_event))


def _binaries(roots: list[Path], on_event: OnEvent) -> Iterator[Binary]:
    seen = set()
    for root in roots:
        for binary in open_path(root, on_event=on_event).binaries:
            if binary.name not in seen:
                seen.add(binary.name)
                yield binary


def conda_environment(python: Path) -> Path | None:
    """Return the conda environment an interpreter belongs to: its libraries lie beside packages."""
    prefix = python.parent.parent
    return prefix if (prefix / "conda-meta").is_dir() else None


def find_torch(python: Path) -> Path | None:
    """Return the folder of the torch that ``python`` would import; BinaryError as above."""
    roots = _roots(python)
    editable = [folder for root in roots for folder in editable_roots(root)]
    places = (root / "torch" for root in (*roots, *editable))
    return next((place for place in places if (place / "__init__.py").is_file()), None)


def _roots(python: Path) -> list[Path]:
    """Return the folders of its path that exist; one inside another is walked with that."""
    _prefix, *path = json.loads(_ask(python))
    folders = dict.fromkeys(Path(entry) for entry in path if Path(entry).is_dir())
    return list(folders)


def _ask(python: Path) -> str:
    try:
        answer = subprocess.run(
            [python.absolute(), "-E", "-s", "-c", _PATH],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=_TIMEOUT_S,
            cwd="/",  # a module of the current directory would be taken for the library's
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BinaryError(f"{python} does not answer as a Python", because=(str(error),)) from error
    return answer.stdout.strip()
