"""The host's own apt sources: which archive this machine is configured to use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_ONE_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)\Z")
_MIRROR_LIST = "mirror+file:"


class AptSource(NamedTuple):
    """One archive address with one suite and its components."""

    address: str
    suite: str
    components: tuple[str, ...]


def load_os_release(root: Path = Path("/")) -> dict[str, str]:
    """Read os-release; empty where there is none."""
    for name in ("etc/os-release", "usr/lib/os-release"):
        path = root / name
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            rows = (line.partition("=") for line in text.splitlines())
            return {key.strip(): value.strip().strip("\"'") for key, _, value in rows if value}
    return {}


def load_sources(root: Path = Path("/")) -> tuple[AptSource, ...]:
    """Read ``sources.list`` and ``sources.list.d``, both of apt's formats, in apt's order."""
    apt = root / "etc/apt"
    found: list[AptSource] = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # a file apt may read and this user may not
        if path.suffix == ".sources":
            found += parse_deb822(text, root)
        elif path.suffix == ".list":
            found += parse_one_line(text, root)
    return tuple(dict.fromkeys(found))


def parse_one_line(text: str, root: Path = Path("/")) -> list[AptSource]:
    """Read the classic format: ``deb [options] address suite component ...``."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0].strip())
        if match:
            components = tuple(match[3].split())
            found += [
                AptSource(address, match[2], components) for address in _addresses(match[1], root)
            ]
    return found


def parse_deb822(text: str, root: Path = Path("/")) -> list[AptSource]:
    """Read the stanzas of a ``.sources`` file; disabled ones and sources of source are left out."""
    found = []
    for fields in _stanzas(text):
        if fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        if "deb" not in fields.get("types", "").split():
            continue
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            for address in _addresses(uri, root):
                found += [
                    AptSource(address, suite, components)
                    for suite in fields.get("suites", "").split()
                ]
    return found


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    fields: dict[str, str] = {}
    key = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, key = {}, ""
        elif line[0] in " \t":
            fields[key] = f"{fields.get(key, '')} {line.strip()}"
        else:
            name, _, value = line.partition(":")
            key = name.strip().lower()
            fields[key] = value.strip()


def _addresses(uri: str, root: Path) -> list[str]:
    """Return the HTTP addresses behind a URI.

    Ubuntu's cloud images name a file of mirrors; cdrom, file and plain mirror lists are left to
    apt: none of them can be written into a base image.
    """
    if uri.startswith(("http://", "https://")):
        return [uri.rstrip("/")]
    if uri.startswith(_MIRROR_LIST):
        path = root / uri.removeprefix(_MIRROR_LIST).lstrip("/")
        text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
        lines = text.split("\n")
        words = [line.split()[0] for line in lines if line.split()]
        return [word.rstrip("/") for word in words if word.startswith(("http://", "https://"))]
    return []


def find_archives(distribution: str, root: Path = Path("/")) -> tuple[str, ...]:
    """Return the main archives this host is configured with, if it is that distribution.

    A third party's archive or the security archive never lists the host's own suite with ``main``.
    """
    release = load_os_release(root)
    if release.get("ID") != distribution:
        return ()
    codename = release.get("VERSION_CODENAME", "")
    suites = {codename, "stable", "oldstable", "testing", "unstable", "sid"} - {""}
    found = [
        source.address
        for source in load_sources(root)
        if source.suite in suites and "main" in source.components
    ]
    return tuple(dict.fromkeys(found))
