"""Read what the kernel shows as files. A file that is missing or refused is an empty answer.

Paths are text: importing pathlib takes a twentieth of a whole ``envforge check``.
"""

from __future__ import annotations

import os


def text_of(path: str) -> str:
    """Return the file's text without blanks around it; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (OSError, ValueError):
        return ""


def names_in(folder: str) -> list[str]:
    """List a folder in order; empty where there is none."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def link_name(path: str) -> str | None:
    """Return the last part of what a symbolic link points to: ``nouveau`` of ``…/drivers/nouveau``.

    The link is not followed: inside a container its target may not be there.
    """
    try:
        return os.path.basename(os.readlink(path)) or None
    except OSError:
        return None


def there_is(path: str) -> bool:
    """Tell whether the name exists; False where a parent may not be entered."""
    return os.path.lexists(path)
