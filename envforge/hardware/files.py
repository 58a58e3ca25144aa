"""Read what the kernel shows as files. A file that is missing or refused is an empty answer."""

from __future__ import annotations

import os
from pathlib import Path


def text_of(path: Path) -> str:
    """Return the file's text without blanks around it; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""


def names_in(folder: Path) -> list[str]:
    """List a folder in order; empty where there is none."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 -- names are all that is asked
    except OSError:
        return []


def link_name(path: Path) -> str | None:
    """Return the last part of what a symbolic link points to: ``nouveau`` of ``…/drivers/nouveau``.

    The link is not followed: inside a container its target may not be there.
    """
    try:
        return os.path.basename(os.readlink(path)) or None  # noqa: PTH115, PTH119 -- no Path is made
    except OSError:
        return None


def there_is(path: Path) -> bool:
    """Tell whether the name exists; Path.exists raises where a parent may not be entered."""
    return os.path.lexists(path)
