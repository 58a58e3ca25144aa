"""Packages that are installed without being copied: their libraries lie somewhere else.

``pip install -e`` leaves ``direct_url.json`` (PEP 610,
https://packaging.python.org/en/latest/specifications/direct-url/), or a ``.pth`` file with a path
in each line (https://docs.python.org/3/library/site.html). Lines of it that are code are not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit


def editable_roots(path: Path) -> tuple[Path, ...]:
    """Return the folders outside ``path`` that packages installed in it are loaded from.

    ``path`` is site-packages, or an environment that has one.
    """
    found: dict[Path, None] = {}
    for packages in _site_packages(path):
        for root in (*_by_direct_url(packages), *_by_path_file(packages)):
            resolved = _folder(root)
            if resolved and not resolved.is_relative_to(path.resolve()):
                found[resolved] = None
    return tuple(found)


def _folder(named: Path) -> Path | None:
    """Find the folder behind links; None where a document names no place a file system can have."""
    try:
        resolved = named.resolve()
        return resolved if resolved.is_dir() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL in it, links in a ring
        return None


def _site_packages(path: Path) -> list[Path]:
    if path.name in ("site-packages", "dist-packages"):
        return [path]
    return sorted(path.glob("lib*/python*/site-packages"))


def _by_direct_url(packages: Path) -> Iterator[Path]:
    for file in sorted(packages.glob("*.dist-info/direct_url.json")):
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            url, editable = urlsplit(document["url"]), document["dir_info"].get("editable")
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
            continue  # not installed from a folder, or a document pip did not write
        if editable and url.scheme == "file":
            yield Path(unquote(url.path))


def _by_path_file(packages: Path) -> Iterator[Path]:
    for file in sorted(packages.glob("*.pth")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in map(str.strip, lines):
            if line and not line.startswith(("#", "import ", "import\t")):
                yield packages / line
