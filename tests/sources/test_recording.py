"""A recording that was killed goes on, and begins anew where the archive has."""

from __future__ import annotations

from pathlib import Path

import pytest

from envforge.errors import SourceError
from envforge.sources.archive import FoundArchive, Release
from envforge.sources.mirror import Answer
from envforge.sources.recording import open_recording

ADDRESS = "http://archive.example/debian"
DEB = Answer(sha256="a" * 64, size_bytes=5)
INRELEASE = Answer(sha256="b" * 64, size_bytes=7, modified="Sat, 31 Aug 2024 11:08:00 GMT")


def state(sha256: str = "b" * 64) -> FoundArchive:
    release = Release("bookworm", "Sat, 31 Aug 2024 11:08:00 UTC", 1, sha256, expired=False)
    return FoundArchive(ADDRESS, (release,))


def test_what_was_answered_before_a_kill_is_there_after_it(tmp_path: Path) -> None:
    first = open_recording(tmp_path / "r", state())
    first.keep("dists/bookworm/InRelease", INRELEASE)
    first.keep("pool/a.deb", DEB)
    second = open_recording(tmp_path / "r", state())
    assert second.mark == first.mark, "the steps that were done are found again"
    assert second.rows == {"dists/bookworm/InRelease": INRELEASE, "pool/a.deb": DEB}
    assert second.outdated == {}


def test_a_line_that_a_kill_tore_costs_only_that_line(tmp_path: Path) -> None:
    first = open_recording(tmp_path / "r", state())
    first.keep("pool/a.deb", DEB)
    first.keep("pool/b.deb", DEB)
    journal = tmp_path / "r" / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    second = open_recording(tmp_path / "r", state())
    assert set(second.rows) == {"pool/a.deb"}
    second.keep("pool/c.deb", DEB)
    assert set(open_recording(tmp_path / "r", state()).rows) == {"pool/a.deb", "pool/c.deb"}


def test_another_state_of_the_archive_begins_anew_and_keeps_the_packages(tmp_path: Path) -> None:
    first = open_recording(tmp_path / "r", state())
    first.keep("dists/bookworm/InRelease", INRELEASE)
    first.keep("pool/a.deb", DEB)
    second = open_recording(tmp_path / "r", state("c" * 64))
    assert second.mark != first.mark
    assert second.rows == {}
    assert second.outdated == {"pool/a.deb": DEB}


def test_an_archive_updated_in_between_is_refused(tmp_path: Path) -> None:
    recording = open_recording(tmp_path / "r", state("c" * 64))
    recording.keep("dists/bookworm/InRelease", INRELEASE)
    with pytest.raises(SourceError) as caught:
        recording.refuse_other_state(state("c" * 64))
    assert caught.value.what == f"{ADDRESS} was updated while it was recorded"
    assert caught.value.because == ("another Release file of bookworm came",)
    recording.refuse_other_state(state())
