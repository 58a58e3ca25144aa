"""A mirror: what it gives, what it refuses, and every way its files can be wrong."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from msgspec.structs import replace
from sources_site import Heard, Site, make_wheel

from envforge.errors import DocumentError, HashMismatch, SourceError, UnknownName, UsageError
from envforge.mirror import choose, drop, replay
from envforge.sources.fetch import WheelInput, fetch_first, fetch_url, fetch_wheel
from envforge.sources.mirror import (
    Answer,
    HeldArchive,
    Manifest,
    Mirror,
    is_mirror,
    open_mirror,
    verify,
)
from envforge.sources.recording import open_recording
from envforge.sources.store import MIRROR, OFFLINE, Store, default_store
from envforge.sources.unpinned import Unpinned, fetch_unpinned

WHEEL = make_wheel("demo-1.0-py3-none-any.whl")
RUNFILE = b"#!/bin/sh\n" * 1000
DEB = b"!<arch>\n" * 500
PLAN = "ab" * 32
OTHER = "cd" * 32


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(mirror: Mirror, folder: Path, name: str, data: bytes):
    path = folder / name
    path.write_bytes(data)
    return mirror.put(path, f"from {name}")


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    """A mirror of one plan: a wheel, a runfile, two files of an archive."""
    made, folder = Mirror(tmp_path / "mirror"), tmp_path / "files"
    folder.mkdir()
    deb = put(made, folder, "a.deb", DEB)
    state = put(made, folder, "InRelease", b"Codename: bookworm\n")
    files = {
        "dists/bookworm/InRelease": Answer(sha256=state.sha256, size_bytes=state.size_bytes),
        "pool/a.deb": Answer(sha256=deb.sha256, size_bytes=deb.size_bytes),
    }
    made.write(
        Manifest(
            kind="plan",
            name=PLAN,
            title="torch 1.0.1 for sm_35 on debian-12, wheel route",
            created="2026-11-22T22:00:00+00:00",
            envforge="0.1.0",
            inputs={
                "inputs/wheels/demo-1.0-py3-none-any.whl": put(made, folder, "w", WHEEL),
                "inputs/cuda.run": put(made, folder, "r", RUNFILE),
            },
            archive=HeldArchive(address="http://archive.example/debian", files=files),
        )
    )
    return made


def other(mirror: Mirror, tmp_path: Path, state: bytes) -> Manifest:
    """A second plan: the same runfile, and another file under a path of the archive."""
    first = mirror.manifests()[0]
    found = put(mirror, tmp_path / "files", "state", state)
    row = Answer(sha256=found.sha256, size_bytes=found.size_bytes)
    files = {"dists/bookworm/InRelease": row}
    inputs = {"inputs/cuda.run": first.inputs["inputs/cuda.run"]}
    second = replace(
        first, name=OTHER, inputs=inputs, archive=HeldArchive(address="http://a", files=files)
    )
    return mirror.write(second)


def test_what_the_mirror_has_is_taken_from_it_and_nobody_is_asked(
    mirror: Mirror, site: Site, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", mirror.root)
    wheel = WheelInput("demo", "1.0", "demo-1.0-py3-none-any.whl", sha(WHEEL), len(WHEEL), "py3")
    assert fetch_wheel(wheel, store).read_bytes() == WHEEL
    urls = (f"{site.address}/first", f"{site.address}/second")
    assert fetch_first(urls, sha(RUNFILE), "cuda.run", store).read_bytes() == RUNFILE
    assert site.asked == []


def test_what_the_mirror_lacks_comes_from_the_network(
    mirror: Mirror, site: Site, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", mirror.root)
    url = site.serve("/new", b"new")
    assert fetch_url(url, sha(b"new"), "new", store).read_bytes() == b"new"


def test_offline_what_neither_has_is_named_with_the_command_that_brings_it(
    mirror: Mirror, site: Site, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", mirror.root, offline=True)
    url = site.serve("/new", b"new")
    wheel = WheelInput("other", "1.0", "other-1.0-py3-none-any.whl", sha(b"x"), 1, "py3")
    for ask in (
        lambda: fetch_url(url, sha(b"new"), "new.run", store),
        lambda: fetch_wheel(wheel, store),
        lambda: fetch_unpinned(Unpinned((url,), "new.run"), store),
    ):
        with pytest.raises(SourceError) as caught:
            ask()
        assert caught.value.what.endswith("is not on this machine, and --offline asks no network")
        assert caught.value.because == (
            f"neither the store {store.root} nor the mirror {mirror.root} has it",
        )
        assert "envforge mirror create DIR" in caught.value.hint
    assert site.asked == []


def test_a_file_changed_in_the_mirror_is_never_handed_out_and_stays_to_be_looked_at(
    mirror: Mirror, tmp_path: Path
) -> None:
    path = damage(mirror, RUNFILE)
    store = Store(tmp_path / "store", mirror.root, offline=True)
    with pytest.raises(HashMismatch) as caught:
        fetch_url("http://nowhere.invalid/x", sha(RUNFILE), "cuda.run", store)
    assert caught.value.what == "cuda.run in the mirror has changed on disk"
    assert caught.value.hint.startswith(f"envforge mirror verify {mirror.root}")
    assert path.exists()


def damage(mirror: Mirror, data: bytes, by: bytes | None = None) -> Path:
    """Truncate a file of the mirror, or give it other bytes; its links elsewhere stay."""
    path = mirror.store.path_of(sha(data))
    path.unlink()
    path.write_bytes(data[:-1] if by is None else by)
    return path


def test_the_variables_say_where_the_mirror_is(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR, str(mirror.root))
    monkeypatch.setenv(OFFLINE, "1")
    assert default_store().mirror == mirror.root
    assert default_store().offline
    monkeypatch.setenv(OFFLINE, "0")
    assert not default_store().offline
    monkeypatch.setenv(MIRROR, "/nowhere")
    with pytest.raises(UsageError) as caught:
        default_store()
    assert caught.value.what == "there is no mirror at /nowhere"


def test_a_whole_mirror_is_verified_with_what_it_holds(mirror: Mirror, heard: Heard) -> None:
    verdict = verify(mirror, heard)
    assert verdict.faults == ()
    assert (verdict.manifests, verdict.files) == (1, 4)
    assert verdict.size_bytes == len(WHEEL) + len(RUNFILE) + len(DEB) + len(b"Codename: bookworm\n")
    assert "bytes" in heard.kinds()


def test_a_truncated_file_a_missing_deb_and_other_bytes_are_all_listed(mirror: Mirror) -> None:
    damage(mirror, RUNFILE)
    damage(mirror, WHEEL, by=WHEEL[:-1] + b"?")
    mirror.store.path_of(sha(DEB)).unlink()
    found = {(fault.file, fault.what) for fault in verify(mirror).faults}
    assert found == {
        ("inputs/cuda.run", "damaged"),
        ("inputs/wheels/demo-1.0-py3-none-any.whl", "damaged"),
        ("pool/a.deb", "missing"),
    }
    assert {fault.manifest for fault in verify(mirror).faults} == {f"plans/{PLAN}"}


def test_a_manifest_edited_by_hand_is_found(mirror: Mirror) -> None:
    path = mirror.path_of("plan", PLAN)
    document = json.loads(path.read_text())
    del document["archive"]["files"]["pool/a.deb"]
    path.write_text(json.dumps(document))
    (fault,) = verify(mirror).faults
    assert (fault.manifest, fault.file) == (f"plans/{PLAN}", "")
    assert fault.what.startswith(f"{path} was changed by hand; its seal is ")
    with pytest.raises(DocumentError) as caught:
        mirror.find("plan", PLAN)
    assert caught.value.what == f"{path} was changed by hand"


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema": "envforge.mirror/2"}', '{"schema": "envforge.mirror/1"}', "[]"]
)
def test_a_manifest_that_is_none_is_a_fault_and_no_bug(mirror: Mirror, text: str) -> None:
    mirror.path_of("plan", OTHER).write_text(text)
    (fault,) = verify(mirror).faults
    assert fault.manifest == f"plans/{OTHER}"


def test_a_hash_that_is_none_cannot_lead_out_of_the_mirror(mirror: Mirror) -> None:
    path = mirror.path_of("plan", PLAN)
    path.write_text(path.read_text().replace(sha(RUNFILE), "../../../etc/passwd"))
    (fault,) = verify(mirror).faults
    assert fault.manifest == f"plans/{PLAN}"


def test_a_file_that_the_disk_no_longer_gives_is_a_fault_and_the_rest_is_looked_at(
    mirror: Mirror,
) -> None:
    path = mirror.store.path_of(sha(WHEEL))
    path.unlink()
    # its reads end with an input/output error, for root, too
    path.symlink_to("/proc/self/mem")
    unread = mirror.fault_of(sha(WHEEL), 0)
    assert unread == f"cannot be read ({os.strerror(errno.EIO)})"
    damage(mirror, RUNFILE)
    assert len(verify(mirror).faults) == 2


def test_putting_a_file_again_repairs_it(mirror: Mirror, tmp_path: Path) -> None:
    damage(mirror, RUNFILE)
    assert verify(mirror).faults
    put(mirror, tmp_path / "files", "again", RUNFILE)
    assert verify(mirror).faults == ()


def test_pruning_removes_what_no_other_plan_needs_and_says_how_much(
    mirror: Mirror, tmp_path: Path
) -> None:
    other(mirror, tmp_path, b"another state")
    would = drop(mirror, (PLAN[:12],), dry_run=True)
    assert verify(mirror).manifests == 2
    pruned = drop(mirror, (PLAN[:12],))
    assert pruned == would
    assert pruned.manifests == (f"plans/{PLAN}",)
    assert pruned.files == 3, "the wheel, the deb, the state; the runfile is the other's, too"
    assert pruned.size_bytes == len(WHEEL) + len(DEB) + len(b"Codename: bookworm\n")
    assert pruned.kept_files == 2
    assert verify(mirror).faults == ()
    assert [each.name for each in mirror.manifests()] == [OTHER]


def test_keeping_one_plan_drops_the_others(mirror: Mirror, tmp_path: Path) -> None:
    other(mirror, tmp_path, b"another state")
    assert drop(mirror, (), (PLAN,)).manifests == (f"plans/{OTHER}",)
    assert [each.name for each in mirror.manifests()] == [PLAN]
    assert verify(mirror).faults == ()


def test_without_a_name_only_what_nothing_needs_goes(mirror: Mirror, tmp_path: Path) -> None:
    put(mirror, tmp_path / "files", "stray", b"stray")
    assert drop(mirror, ()).files == 1
    assert verify(mirror).faults == ()


def test_what_a_killed_recording_got_is_not_pruned(mirror: Mirror, tmp_path: Path) -> None:
    from envforge.sources.archive import FoundArchive  # noqa: PLC0415

    held = put(mirror, tmp_path / "files", "b.deb", b"recorded")
    recording = open_recording(mirror.recording(OTHER), FoundArchive("http://a", ()))
    recording.keep("pool/b.deb", Answer(sha256=held.sha256, size_bytes=held.size_bytes))
    assert drop(mirror, ()).files == 0


def test_nothing_is_pruned_where_a_manifest_cannot_be_read(mirror: Mirror) -> None:
    mirror.path_of("plan", OTHER).write_text("{")
    with pytest.raises(DocumentError):
        drop(mirror, (PLAN,))
    assert mirror.store.path_of(sha(WHEEL)).is_file()


def test_plans_are_named_by_their_first_digits(mirror: Mirror, tmp_path: Path) -> None:
    other(mirror, tmp_path, b"x")
    assert [each.name for each in choose(mirror, (OTHER[:4],))] == [OTHER]
    with pytest.raises(UnknownName) as caught:
        choose(mirror, ("ffff",))
    assert caught.value.hint == f"the mirror holds: {PLAN[:12]}, {OTHER[:12]}"
    with pytest.raises(UsageError, match="contradict"):
        drop(mirror, (PLAN,), (OTHER,))


def test_two_states_of_an_archive_are_not_served_as_one(mirror: Mirror, tmp_path: Path) -> None:
    other(mirror, tmp_path, b"another state")
    with (
        pytest.raises(UsageError) as caught,
        replay(mirror, (), "127.0.0.1", 0),
    ):
        pass
    assert caught.value.what == "the plans hold different states of the archive"
    with replay(mirror, (PLAN,), "127.0.0.1", 0) as (address, manifests):
        assert [each.name for each in manifests] == [PLAN]
        path = tmp_path / "got.deb"
        fetched = fetch_url(f"{address}/pool/a.deb", sha(DEB), "a.deb", Store(path))
        assert fetched.read_bytes() == DEB


def test_a_directory_that_is_no_mirror_is_refused(tmp_path: Path) -> None:
    assert not is_mirror(tmp_path)
    with pytest.raises(SourceError) as caught:
        open_mirror(tmp_path)
    assert caught.value.what == f"{tmp_path} is not a mirror"
