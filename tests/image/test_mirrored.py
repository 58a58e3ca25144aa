"""How a build reaches the archive: its own, the mirror's, or a reason why not."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

sys.path.insert(0, str(Path(__file__).parents[1]))

from mirror_parts import PLAN, put, small_mirror

from envforge.capability.load import load
from envforge.errors import BuildFailed, HashMismatch, SourceError
from envforge.image.base import base_tag
from envforge.image.bootstrap import Base
from envforge.image.mirrored import Question, Reach, reach_archive
from envforge.sources.download import session
from envforge.sources.mirror import Answer, HeldArchive, Mirror
from envforge.sources.store import Store

DEBIAN_12 = {platform.name: platform for platform in load().platforms}["debian-12"]
ASKED = Question(PLAN, DEBIAN_12)
RELEASE = (
    b"Origin: Debian\nCodename: bookworm\nDate: Sat, 31 Aug 2024 11:08:00 UTC\n"
    b"Valid-Until: Sat, 07 Sep 2024 11:08:00 UTC\n"
)


class Here:
    """An engine of which only the address is asked: its containers are on this machine."""

    def gateway(self) -> str:
        return "127.0.0.1"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    """A mirror whose plan has a state of the archive that expired long ago."""
    mirror = small_mirror(tmp_path)
    manifest = mirror.manifests()[0]
    held = put(mirror, tmp_path, RELEASE)
    assert manifest.archive
    row = Answer(sha256=held.sha256, size_bytes=held.size_bytes)
    files = {**manifest.archive.files, "dists/bookworm/InRelease": row}
    archive = HeldArchive(address=manifest.archive.address, files=files)
    mirror.write(replace(manifest, archive=archive))
    return mirror


def reach(store: Store, asked: Question = ASKED):
    return reach_archive(Here(), asked, store)


def test_without_a_mirror_the_archive_is_reached_as_ever(tmp_path: Path) -> None:
    with reach(Store(tmp_path)) as found:
        assert found.source is None
        assert found.build_args == {}


def test_a_mirror_that_lacks_the_plan_leaves_the_network(mirror: Mirror, tmp_path: Path) -> None:
    with reach(Store(tmp_path, mirror.root), ASKED._replace(digest="cd" * 32)) as found:
        assert found.source is None


def test_offline_a_plan_that_is_not_held_names_those_that_are(
    mirror: Mirror, tmp_path: Path
) -> None:
    store = Store(tmp_path, mirror.root, offline=True)
    with pytest.raises(SourceError) as caught, reach(store, ASKED._replace(digest="cd" * 32)):
        pass
    assert caught.value.what == f"the mirror {mirror.root} does not hold the plan cdcdcdcdcdcd"
    title = "torch 1.0.1 for sm_35 on debian-12, wheel route"
    assert caught.value.because == (f"it holds {PLAN[:12]}: {title} (made by envforge 0.1.0)",)


def test_offline_without_a_mirror_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught, reach(Store(tmp_path, offline=True)):
        pass
    assert caught.value.what == "--offline builds from a mirror, and none is given"


def test_the_mirrors_state_comes_with_its_date_and_the_address_it_had(
    mirror: Mirror, tmp_path: Path
) -> None:
    with reach(Store(tmp_path, mirror.root, offline=True)) as found:
        assert found.source is not None
        assert found.source.address == "http://archive.example/debian"
        (release,) = found.source.releases
        assert (release.suite, release.expired) == ("bookworm", True)
        assert release.sha256 == hashlib.sha256(RELEASE).hexdigest()
        proxy = found.source.proxy
        assert found.build_args == {
            "http_proxy": proxy,
            "HTTP_PROXY": proxy,
            "no_proxy": "",
            "NO_PROXY": "",
        }
        with session() as opened:
            opened.trust_env = False
            url = "http://archive.example/debian/dists/bookworm/InRelease"
            assert opened.get(url, proxies={"http": str(proxy)}).content == RELEASE


def test_a_stated_address_stands_in_the_base_and_the_mirror_answers_for_it(
    mirror: Mirror, tmp_path: Path
) -> None:
    asked = ASKED._replace(archive="http://mine.example/deb")
    with reach(Store(tmp_path, mirror.root, offline=True), asked) as found:
        assert found.source is not None
        assert found.source.address == "http://mine.example/deb"


def test_a_damaged_release_file_is_not_read(mirror: Mirror, tmp_path: Path) -> None:
    path = mirror.store.path_of(hashlib.sha256(RELEASE).hexdigest())
    path.unlink()
    path.write_bytes(RELEASE.replace(b"2024", b"2025"))
    with (
        pytest.raises(HashMismatch) as caught,
        reach(Store(tmp_path, mirror.root, offline=True)),
    ):
        pass
    assert caught.value.what == "dists/bookworm/InRelease in the mirror has changed on disk"


def test_a_failed_build_is_told_what_the_mirror_lacked(mirror: Mirror, tmp_path: Path) -> None:
    def build(found: Reach) -> None:
        proxy = found.build_args["http_proxy"]
        with session() as opened:
            opened.trust_env = False
            url = "http://archive.example/debian/pool/b.deb"
            assert opened.get(url, proxies={"http": proxy}).status_code == 404
        raise BuildFailed("the build failed in [runtime 1/3]", hint="the whole log: log")

    with (
        pytest.raises(SourceError) as caught,
        reach(Store(tmp_path, mirror.root, offline=True)) as found,
    ):
        build(found)
    assert caught.value.what == f"the mirror {mirror.root} did not give what the build asked for"
    assert caught.value.because == (
        "pool/b.deb: the mirror does not hold it, and no network is asked",
        "the build failed in [runtime 1/3]",
    )
    assert caught.value.hint == "the whole log: log"


def test_a_failed_build_that_asked_nothing_is_told_of_firewalls(
    mirror: Mirror, tmp_path: Path
) -> None:
    with (
        pytest.raises(BuildFailed) as caught,
        reach(Store(tmp_path, mirror.root, offline=True)) as found,
    ):
        raise BuildFailed("the build failed", hint="the whole log: log")
    assert found.source
    assert caught.value.hint == (
        f"the whole log: log\nno container asked {found.source.proxy}: where apt could not connect,"
        " a firewall of this machine may keep containers from it"
    )


def test_a_base_of_a_recording_is_another_image_than_every_other() -> None:
    assert Base(DEBIAN_12).tag == base_tag(DEBIAN_12)
    assert Base(DEBIAN_12, recording="abc").tag == "envforge/recording:abc"
