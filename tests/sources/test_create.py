"""A mirror that is made again: what is damaged comes back, what cannot be recorded is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sources_site import Heard, Site

from envforge.build import BuildRequest, Prepared, prepare
from envforge.capability.load import load
from envforge.check import sole_card
from envforge.errors import SourceError
from envforge.events import ignore
from envforge.mirror import create_plan
from envforge.resolver import Request
from envforge.sources.mirror import Answer, HeldArchive, Manifest, Mirror, verify
from envforge.sources.store import MIRROR, OFFLINE

DEB = b"!<arch>\n" * 500
RELEASE = b"Origin: Debian\nCodename: bookworm\nDate: Sat, 31 Aug 2024 11:08:00 UTC\n"
DATABASE = load()
WANTED = BuildRequest(
    Request(torch="1.13.1", route="source", card=sole_card(DATABASE, "gtx780")), until="toolchain"
)
"""A plan whose last stage takes no input but what apt brings."""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in (MIRROR, OFFLINE):
        monkeypatch.delenv(name, raising=False)
    return prepare(DATABASE, WANTED)


def mirror_without_its_deb(folder: Path, prepared: Prepared, address: str) -> Mirror:
    mirror = Mirror(folder / "mirror")
    row = Answer(sha256=hashlib.sha256(DEB).hexdigest(), size_bytes=len(DEB))
    mirror.write(
        Manifest(
            kind="plan",
            name=prepared.context.digest,
            title="a toolchain",
            created="2026-11-22T22:00:00+00:00",
            envforge="0.1.0",
            inputs={},
            archive=HeldArchive(address=address, files={"pool/g/g++-11_1.deb": row}),
        )
    )
    return mirror


def test_a_deb_that_went_missing_is_fetched_again_without_another_build(
    site: Site, prepared: Prepared, tmp_path: Path, heard: Heard
) -> None:
    mirror = mirror_without_its_deb(tmp_path, prepared, f"{site.address}/debian")
    assert [fault.what for fault in verify(mirror).faults] == ["missing"]
    site.serve("/debian/pool/g/g%2B%2B-11_1.deb", DEB)
    assert create_plan(mirror.root, prepared, WANTED, heard).fresh
    assert verify(mirror).faults == ()
    site.asked.clear()
    assert not create_plan(mirror.root, prepared, WANTED, heard).fresh
    assert site.asked == []


def test_a_damaged_deb_is_replaced_too(
    site: Site, prepared: Prepared, tmp_path: Path, heard: Heard
) -> None:
    mirror = mirror_without_its_deb(tmp_path, prepared, f"{site.address}/debian")
    path = mirror.store.path_of(hashlib.sha256(DEB).hexdigest())
    path.parent.mkdir(parents=True)
    path.write_bytes(DEB[:-1])
    site.serve("/debian/pool/g/g%2B%2B-11_1.deb", DEB)
    assert create_plan(mirror.root, prepared, WANTED, heard).fresh
    assert path.read_bytes() == DEB


def test_a_state_the_archive_no_longer_has_is_recorded_anew_and_that_is_said(
    site: Site, prepared: Prepared, tmp_path: Path, heard: Heard
) -> None:
    mirror = mirror_without_its_deb(tmp_path, prepared, f"{site.address}/debian")
    elsewhere = WANTED._replace(archive="http://127.0.0.1:9/debian")
    with pytest.raises(SourceError) as caught:
        create_plan(mirror.root, prepared, elsewhere, heard)
    assert caught.value.what == "no archive with debian bookworm is in reach"
    (said,) = [event.text for event in heard.events if event.kind == "warning"]
    assert said.startswith("the state of the archive that was recorded is gone (cannot fetch ")
    assert said.endswith("): it is recorded anew")
    assert mirror.find("plan", prepared.context.digest) is not None, "the old one stays until then"


def test_an_https_archive_is_refused_before_anything_is_built(
    tls_site: Site,
    certificate: Path,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls_site.serve("/debian/dists/bookworm/InRelease", RELEASE)
    address = f"{tls_site.address}/debian"
    with pytest.raises(SourceError) as caught:
        create_plan(tmp_path / "mirror", prepared, WANTED._replace(archive=address), ignore)
    assert caught.value.what == f"the archive {address} cannot be recorded"
    assert caught.value.hint.startswith("--archive http://ADDRESS")
