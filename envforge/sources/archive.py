"""Where a distribution's signed archive is, and which state of it answers there."""

from __future__ import annotations

import calendar
import email.utils
import hashlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import requests

from envforge.capability.models import Platform
from envforge.errors import SourceError, UsageError
from envforge.events import Event, OnEvent, ignore
from envforge.sources import apt
from envforge.sources.download import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, reason_of, session

_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:/@%+-]+\Z")
_FIELD = re.compile(r"^([A-Za-z0-9-]+): *(.+)$", re.MULTILINE)


class Release(NamedTuple):
    """One state of one suite: what its signed Release file says."""

    suite: str
    date: str
    """As in the file: ``Sat, 31 Aug 2024 11:08:00 UTC``."""
    timestamp: int
    sha256: str
    """Of the InRelease file (Release, on archives that have no InRelease)."""
    expired: bool
    """Past its ``Valid-Until``: normal for a frozen suite; apt must be told."""


class FoundArchive(NamedTuple):
    """An archive that has the platform's suites now."""

    address: str
    releases: tuple[Release, ...]
    proxy: str | None = None
    """Address of the proxy through which it is asked; None: as this machine is set up."""


def suites_of(platform: Platform) -> tuple[str, ...]:
    """Name the suites a base system is made of.

    Debian rolls its point releases into the suite itself. Ubuntu never touches the suite again:
    the compilers and security fixes of the rows of the database are in ``-updates`` and
    ``-security``, which lie in the same archive. Debian's separate security archive is left out:
    one Release file is then the whole state of a base, the same on every host.
    """
    suite = platform.suite
    if platform.distribution == "ubuntu":
        return (suite, f"{suite}-updates", f"{suite}-security")
    return (suite,)


def variable_of(platform: Platform) -> str:
    """Name the environment variable that gives this distribution's archive."""
    return f"ENVFORGE_{platform.distribution.upper()}_ARCHIVE"


def candidates(
    platform: Platform, explicit: str | None = None, root: Path = Path("/")
) -> tuple[str, ...]:
    """Return the addresses to try, best first; a stated one is the only one.

    Raises UsageError for an address that is not one.
    """
    for stated, origin in (
        (explicit, "the archive address"),
        (os.environ.get(variable_of(platform)), variable_of(platform)),
    ):
        if stated:
            if not _ADDRESS.match(stated):
                raise UsageError(f"{origin} is not an http or https address: {stated!r}")
            return (stated.rstrip("/"),)
    own = apt.find_archives(platform.distribution, root)
    fallbacks = tuple(address.rstrip("/") for address in platform.archive.fallbacks)
    return tuple(dict.fromkeys((*own, *fallbacks)))


def find_archive(
    platform: Platform,
    explicit: str | None = None,
    on_event: OnEvent = ignore,
    root: Path = Path("/"),
) -> FoundArchive:
    """Find the first archive that has all suites of the platform.

    Raises SourceError naming every address that was tried, and why each was not it.
    """
    tried = []
    with session() as opened:
        for address in candidates(platform, explicit, root):
            on_event(Event("step", f"looking for {platform.suite} at {address}"))
            try:
                releases = tuple(_probe(opened, address, suite) for suite in suites_of(platform))
            except _Absent as absent:
                tried.append(f"{address}: {absent}")
            else:
                return FoundArchive(address, releases)
    raise SourceError(
        f"no archive with {platform.distribution} {platform.suite} is in reach",
        because=tuple(tried) or ("no address is known to try",),
        hint=f"export {variable_of(platform)}=http://ADDRESS   (the folder that holds dists/)",
    )


class _Absent(Exception):
    """An archive that is out of reach, or does not have the suite."""


def _probe(opened: requests.Session, address: str, suite: str) -> Release:
    """Read one suite's Release file. It is only read here: apt checks its signature."""
    reason = ""
    for name in ("InRelease", "Release"):
        url = f"{address}/dists/{suite}/{name}"
        try:
            answer = opened.get(url, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S))
        except requests.RequestException as error:
            raise _Absent(f"out of reach ({reason_of(error)})") from error
        if answer.ok:
            return parse_release(answer.content, suite)
        reason = f"HTTP {answer.status_code} for dists/{suite}/{name}"
    raise _Absent(reason)


def parse_release(data: bytes, suite: str) -> Release:
    """Read a Release or InRelease file; a page that is neither counts as no archive."""
    fields = dict(_FIELD.findall(data.decode("utf-8", errors="replace")))
    date = fields.get("Date", "").strip()
    timestamp = _timestamp(date)
    if timestamp is None or "Codename" not in fields:
        raise _Absent(f"what answers for {suite} is not a Release file")
    until = _timestamp(fields.get("Valid-Until", ""))
    expired = until is not None and until < time.time()
    return Release(suite, date, timestamp, hashlib.sha256(data).hexdigest(), expired)


def _timestamp(text: str) -> int | None:
    parsed = email.utils.parsedate_tz(text.strip())
    if parsed is None:
        return None
    try:
        return calendar.timegm(parsed[:6]) - (parsed[9] or 0)
    except (ValueError, OverflowError):  # a month of 13, a year of any length
        return None
