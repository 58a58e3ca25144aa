"""What an archive answered so far, kept line by line: a killed recording is gone on with."""

from __future__ import annotations

import os
import secrets
import shutil
import threading
from pathlib import Path

import msgspec

from envforge import documents
from envforge.errors import DocumentError, SourceError
from envforge.sources.archive import FoundArchive
from envforge.sources.mirror import Answer, Row, read_journal

_STATE = "state.json"
_JOURNAL = "journal"
_POOL = "pool/"


class _State(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which archive is recorded, in which state, under which name."""

    mark: str
    address: str
    releases: dict[str, str]
    """Suite -> sha256 of its Release file."""


class Recording:
    """One recording. Safe for several threads; a row is on the disk before it counts."""

    def __init__(self, folder: Path, mark: str, outdated: dict[str, Answer]) -> None:
        self.mark = mark
        """What the recording's throw-away base is called: the steps that were done before a kill
        are found again under the same one."""
        self.rows = read_journal(folder / _JOURNAL)
        """Path -> what came."""
        self.outdated = outdated
        """What an earlier state of the archive gave and this one may give again."""
        self._journal = folder / _JOURNAL
        self._lock = threading.Lock()

    def keep(self, path: str, answer: Answer) -> None:
        """Write one row down."""
        line = msgspec.json.encode(Row(path, answer)) + b"\n"
        with self._lock, self._journal.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
            self.rows[path] = answer

    def refuse_other_state(self, source: FoundArchive) -> None:
        """Raise SourceError where the archive was updated between the question and the answers."""
        for release in source.releases:
            places = [f"dists/{release.suite}/{name}" for name in ("InRelease", "Release")]
            if not any(
                self.rows[place].sha256 == release.sha256 for place in places if place in self.rows
            ):
                raise SourceError(
                    f"{source.address} was updated while it was recorded",
                    because=(f"another Release file of {release.suite} came",),
                    hint="run the same command again",
                )


def open_recording(folder: Path, source: FoundArchive) -> Recording:
    """Go on with the recording in ``folder`` if it is of this state, or begin one."""
    releases = {release.suite: release.sha256 for release in source.releases}
    outdated: dict[str, Answer] = {}
    try:
        state = documents.load_json(folder / _STATE, _State)
    except DocumentError:
        state = None
    if state is None or (state.address, state.releases) != (source.address, releases):
        if state is not None and state.address == source.address:
            rows = read_journal(folder / _JOURNAL)
            outdated = {path: row for path, row in rows.items() if path.startswith(_POOL)}
        shutil.rmtree(folder, ignore_errors=True)
        state = _State(mark=secrets.token_hex(6), address=source.address, releases=releases)
        documents.write_atomically(folder / _STATE, documents.to_json(state).encode())
    _end_last_line(folder / _JOURNAL)
    return Recording(folder, state.mark, outdated)


def _end_last_line(journal: Path) -> None:
    """A kill may have torn the last line: what comes next begins one of its own."""
    if journal.is_file() and not journal.read_bytes().endswith(b"\n"):
        with journal.open("ab") as stream:
            stream.write(b"\n")
