"""Bases from a real archive, and every way an archive can fail."""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_parts import ArchiveSite, Heard
from msgspec.structs import replace

from envforge.capability.load import load
from envforge.capability.models import Platform
from envforge.errors import BuildFailed, EngineUnavailable, SourceError
from envforge.events import Event
from envforge.image.base import base_tag
from envforge.image.bootstrap import Base, bootstrap, ensure_base, find_base
from envforge.image.engine import Engine, Launch
from envforge.sources.archive import FoundArchive, Release, find_archive
from envforge.sources.store import Store, hash_file

PLATFORMS: dict[str, Platform] = {platform.name: platform for platform in load().platforms}
DEBIAN_12 = PLATFORMS["debian-12"]
OTHER = replace(DEBIAN_12, name=f"debian-12-test-{uuid.uuid4().hex[:8]}")
"""The same system under a name that no base in the engine has."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files_of(store: Store) -> list[Path]:
    return [path for path in store.root.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where mmdebstrap makes its temporary roots: a place no other process uses."""
    with tempfile.TemporaryDirectory(prefix="envforge-scratch-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def refuse(engine: Engine, store: Store, archive: str) -> SourceError:
    """Ask for a base from a faulty archive; nothing may be left of the attempt."""
    with pytest.raises(SourceError) as caught:
        ensure_base(engine, Base(OTHER, archive), store, log=store.root / "../log.txt")
    assert caught.value.exit_code == 5
    assert engine.image(base_tag(OTHER)) is None
    assert files_of(store) == []
    assert not list(Path(os.environ["TMPDIR"]).iterdir())
    return caught.value


@pytest.mark.engine
@pytest.mark.slow
def test_a_base_is_the_archives_state_and_is_made_once(
    engine: Engine, store: Store, tmp_path: Path
) -> None:
    heard = Heard()
    base = ensure_base(engine, Base(DEBIAN_12), store, log=tmp_path / "log.txt", on_event=heard)
    again = ensure_base(engine, Base(DEBIAN_12), store, log=tmp_path / "log.txt")
    assert again == base._replace(created=False)
    assert base.tag == base_tag(DEBIAN_12)
    assert base.tag.startswith("envforge/base:debian-12-")
    assert base.releases[0].suite == "bookworm"
    if base.created:
        assert "extracting archives" in heard.texts("step")
    script = (
        "dpkg-query -W -f '${Package}:${Architecture}=${Version}\\n' | LC_ALL=C sort | sha256sum; "
        "id -u envforge; . /etc/os-release; echo $VERSION_CODENAME; cat /etc/apt/sources.list"
    )
    with engine.run(Launch(base.id, ["sh", "-c", script], network="none")) as container:
        packages, uid, codename, line = container.logs()
    assert packages.split()[0] == base.packages_sha256
    assert (uid, codename) == ("1000", "bookworm")
    assert line.endswith(" bookworm main contrib non-free")
    found = engine.image(base.tag)
    assert found is not None
    address = line.split()[1]
    assert address not in str(found.labels), "the host's mirror is nobody else's business"


@pytest.mark.engine
@pytest.mark.slow
def test_the_same_state_of_an_archive_gives_the_same_bytes(
    engine: Engine, store: Store, tmp_path: Path
) -> None:
    def make(name: str) -> str:
        bootstrap(DEBIAN_12, source, tmp_path / name, log=tmp_path / "log.txt")
        return hash_file(tmp_path / name)

    base = ensure_base(engine, Base(DEBIAN_12), store, log=tmp_path / "log.txt")
    source = find_archive(DEBIAN_12)
    # A base of an older state, on a developer's machine, says nothing about this one.
    first = base.rootfs_sha256 if base.releases == source.releases else make("first.tar")
    assert make("second.tar") == first


@pytest.mark.engine
def test_an_archive_without_packages_is_out_of_reach_and_nothing_stays(
    engine: Engine, store: Store, archive_site: ArchiveSite
) -> None:
    error = refuse(engine, store, archive_site.copy_release(DEBIAN_12))
    assert error.what == (
        f"cannot bootstrap {OTHER.name}: {archive_site.address} is out of reach or incomplete"
    )
    assert any("404" in line for line in error.because)


@pytest.mark.engine
def test_a_release_file_somebody_changed_is_not_trusted(
    engine: Engine, store: Store, archive_site: ArchiveSite
) -> None:
    error = refuse(engine, store, archive_site.copy_release(DEBIAN_12, change=True))
    assert error.what == (
        f"cannot bootstrap {OTHER.name}: the signature of {archive_site.address} is not trusted"
    )
    assert "debian-archive-keyring" in error.hint


@pytest.mark.engine
def test_an_archive_out_of_reach_is_named_before_anything_starts(
    engine: Engine, store: Store
) -> None:
    error = refuse(engine, store, "http://127.0.0.1:9/debian")
    assert error.what == "no archive with debian bookworm is in reach"
    assert error.because[0].startswith("http://127.0.0.1:9/debian: out of reach")


@pytest.mark.engine
def test_without_mmdebstrap_the_error_says_how_to_get_it(
    engine: Engine, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable) as caught:
        ensure_base(engine, Base(OTHER), store, log=tmp_path / "log.txt")
    assert caught.value.exit_code == 6
    assert caught.value.what == "mmdebstrap, which makes base systems, is not installed"
    assert "--install-engine" in caught.value.hint


@pytest.mark.engine
def test_missing_keys_name_their_package(engine: Engine, store: Store, tmp_path: Path) -> None:
    keyless = replace(OTHER, archive=replace(OTHER.archive, keyring=f"{tmp_path}/none.gpg"))
    with pytest.raises(SourceError) as caught:
        ensure_base(engine, Base(keyless), store, log=tmp_path / "log.txt")
    assert caught.value.because == (f"{tmp_path}/none.gpg does not exist",)
    assert caught.value.hint.startswith("sudo apt-get install debian-archive-keyring")


@pytest.mark.engine
def test_ctrl_c_in_a_bootstrap_leaves_nothing(
    engine: Engine, store: Store, tmp_path: Path, scratch: Path
) -> None:
    def press_ctrl_c(event: Event) -> None:
        if event.text.startswith("extracting archives"):
            assert list(scratch.glob("mmdebstrap.*"))
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ensure_base(engine, Base(OTHER), store, log=tmp_path / "log.txt", on_event=press_ctrl_c)
    assert find_base(engine, OTHER) is None
    assert files_of(store) == []
    assert not list(scratch.iterdir())
    assert str(scratch) not in Path("/proc/mounts").read_text()


def test_a_tool_that_fails_for_another_reason_shows_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mmdebstrap"
    tool.write_text("#!/bin/sh\necho 'E: no user namespaces for you' >&2\nexit 25\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    release = Release(
        "bookworm", "Sat, 11 Jul 2026 10:16:37 UTC", 1783764997, "0" * 64, expired=False
    )
    source = FoundArchive("http://127.0.0.1:9/debian", (release,))
    log = tmp_path / "log.txt"
    with pytest.raises(BuildFailed) as caught:
        bootstrap(DEBIAN_12, source, tmp_path / "rootfs.tar", log=log)
    assert caught.value.what == "cannot bootstrap debian-12"
    assert caught.value.because == ("E: no user namespaces for you",)
    assert caught.value.hint == f"the whole log: {log}"
    assert not (tmp_path / "rootfs.tar").exists()
    assert "$ mmdebstrap --variant=minbase" in log.read_text()


def test_ubuntu_is_bootstrapped_with_apt_its_updates_and_its_dates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mmdebstrap"
    tool.write_text(
        '#!/bin/sh\nfor word; do echo "said: $word" >&2; done; echo $SOURCE_DATE_EPOCH\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    release = Release("bionic", "", 100, "0" * 64, expired=False)
    later = Release("bionic-updates", "", 200, "0" * 64, expired=True)
    source = FoundArchive("http://archive.example/ubuntu", (release, later))
    heard = Heard()
    bootstrap(
        PLATFORMS["ubuntu-18.04"], source, tmp_path / "r.tar", log=tmp_path / "l", on_event=heard
    )
    said = [line.removeprefix("said: ") for line in heard.texts("log")]
    assert "--include=apt,ca-certificates" in said
    assert '--aptopt=Acquire::Check-Valid-Until "false"' in said
    assert said[-2:] == [
        f"deb http://archive.example/ubuntu {suite} main universe restricted multiverse"
        for suite in ("bionic", "bionic-updates")
    ]
    assert (tmp_path / "r.tar").read_text() == "200\n"


def test_the_tag_follows_what_the_base_is_made_of() -> None:
    assert base_tag(DEBIAN_12) != base_tag(PLATFORMS["debian-11"])
    assert base_tag(DEBIAN_12) == base_tag(replace(DEBIAN_12, notes=("said anew",)))
    fewer = replace(DEBIAN_12.archive, components=("main",))
    assert base_tag(DEBIAN_12) != base_tag(replace(DEBIAN_12, archive=fewer))


def test_every_platform_has_a_name_docker_accepts() -> None:
    for platform in PLATFORMS.values():
        name, _, tag = base_tag(platform).partition(":")
        assert name == "envforge/base"
        assert set(tag) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")
