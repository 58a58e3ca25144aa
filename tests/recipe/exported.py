"""The Python of an image as one of this machine: its files, started through its own loader.

Nothing is installed, and a process of it is this machine's like any other: it sees the paths, gets
the signals, and its children are its own.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envforge.image.engine import Engine

UNNEEDED = ("dev", "var", "usr/share")
LIBRARIES = ("lib/*-linux-gnu", "usr/lib/*-linux-gnu", "usr/lib")


@contextmanager
def python_of(engine: Engine, image: str, root: Path) -> Iterator[str]:
    """Unpack the image into ``root`` for as long as the context lasts; yield a Python of it."""
    try:
        _unpack(engine, image, root)
        _turn_links(root)
        yield str(_launcher(root))
    finally:
        shutil.rmtree(root)


def _unpack(engine: Engine, image: str, root: Path) -> None:
    created = engine._client.containers.create(image, ["true"], labels={"envforge": "1"})
    excluded = [f"--exclude={name}" for name in UNNEEDED]
    argv = ["tar", "-x", "--no-same-owner", "--anchored", *excluded, "-C", str(root)]
    try:
        with subprocess.Popen(argv, stdin=subprocess.PIPE) as tar:
            assert tar.stdin is not None
            for chunk in created.export():
                tar.stdin.write(chunk)
        assert tar.returncode == 0
    finally:
        created.remove()


def _turn_links(root: Path) -> None:
    """Debian's alternatives are links from the root of the file system."""
    for path in root.rglob("*"):
        if path.is_symlink() and path.readlink().is_absolute():
            target = root / path.readlink().relative_to("/")
            path.unlink()
            path.symlink_to(target)


def _launcher(root: Path) -> Path:
    """A script that starts it. The Python knows only the loader it is started through, which its
    children could not be started by: it is told of the script."""
    python = next((root / "usr/bin").glob("python[23].*"))
    launcher = root / "python"
    site = root / "usr/lib" / python.name / "sitecustomize.py"
    site.unlink()  # a link: the system's own
    site.write_text(f"import sys\nsys.executable = {str(launcher)!r}\n")
    loader = next(root.glob("lib64/ld-linux-*"))
    libraries = ":".join(str(path) for form in LIBRARIES for path in sorted(root.glob(form)))
    launcher.write_text(
        f"#!/bin/sh\nPYTHONHOME='{root}/usr' exec"
        f" '{loader}' --library-path '{libraries}' '{python}' \"$@\"\n"
    )
    launcher.chmod(0o755)
    return launcher
