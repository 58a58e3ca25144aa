"""What the machine itself is: driver, kernel, C library, distribution. File reads only."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_VERSION = re.compile(r"\d+(?:\.\d+)+")


class Host(NamedTuple):
    """Facts of this machine; None where they cannot be read."""

    driver: str | None
    """NVIDIA's kernel module, ``470.256.02``; None where it is not loaded."""
    kernel: str
    glibc: str | None
    distribution: str | None
    """``debian-12``: as the platforms of the database are called."""


def read_host(root: Path = Path("/")) -> Host:
    """Read the facts of this machine; ``ENVFORGE_DRIVER`` overrides the driver."""
    return Host(
        driver=os.environ.get("ENVFORGE_DRIVER") or _driver(root),
        kernel=os.uname().release,
        glibc=_glibc(),
        distribution=_distribution(root),
    )


def _driver(root: Path) -> str | None:
    """``/sys/module`` exists for every loaded module; ``/proc`` is what old drivers have."""
    for name in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        match = _VERSION.search(_text(root / name))
        if match:
            return match[0]
    return None


def _glibc() -> str | None:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    return text.removeprefix("glibc ") or None


def _distribution(root: Path) -> str | None:
    fields = dict(
        re.findall(r'^(ID|VERSION_ID)="?([^"\n]*)"?$', _text(root / "etc/os-release"), re.MULTILINE)
    )
    return f"{fields['ID']}-{fields['VERSION_ID']}" if len(fields) == 2 else None  # noqa: PLR2004


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
