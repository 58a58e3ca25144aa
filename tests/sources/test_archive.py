"""Where an archive is looked for, in which order, and what is said when none is in reach."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from sources_site import Site

from envforge.capability.load import load
from envforge.capability.models import Platform
from envforge.errors import SourceError, UsageError
from envforge.sources.apt import (
    AptSource,
    find_archives,
    load_os_release,
    load_sources,
    parse_deb822,
    parse_one_line,
)
from envforge.sources.archive import candidates, find_archive, parse_release

PLATFORMS: dict[str, Platform] = {platform.name: platform for platform in load().platforms}
DEBIAN_11 = PLATFORMS["debian-11"]
UBUNTU = PLATFORMS["ubuntu-18.04"]
RELEASE = b"""\
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA256

Origin: Debian
Suite: oldoldstable
Codename: bullseye
Date: Sat, 09 Aug 2025 09:16:30 UTC
Components: main contrib non-free
"""
ONE_LINE = """\
# deb http://commented.example/debian bullseye main
deb http://archive.example/debian/ bookworm main contrib  # trailing
deb [arch=amd64 signed-by=/usr/share/keyrings/a.gpg] https://third.example/apt bookworm-tool main
deb-src http://archive.example/debian bookworm main
deb cdrom:[Debian 12]/ bookworm main
"""
DEB822 = """\
# the main archive
Types: deb deb-src
URIs: http://first.example/debian http://second.example/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture(autouse=True)
def nothing_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ENVFORGE_DEBIAN_ARCHIVE", raising=False)
    monkeypatch.delenv("ENVFORGE_UBUNTU_ARCHIVE", raising=False)


def host(root: Path, release: str, files: dict[str, str]) -> Path:
    """A host's /etc, as far as apt's sources go."""
    (root / "etc/apt/sources.list.d").mkdir(parents=True)
    (root / "etc/os-release").write_text(release)
    for name, text in files.items():
        (root / name).write_text(text)
    return root


def serve(site: Site, suite: str = "bullseye", data: bytes = RELEASE) -> str:
    site.serve(f"/debian/dists/{suite}/InRelease", data)
    return f"{site.address}/debian"


def test_the_classic_format_is_read() -> None:
    assert parse_one_line(ONE_LINE) == [
        AptSource("http://archive.example/debian", "bookworm", ("main", "contrib")),
        AptSource("https://third.example/apt", "bookworm-tool", ("main",)),
    ]


def test_stanzas_are_read_without_the_disabled_and_the_sources_of_source() -> None:
    components = ("main", "contrib")
    assert parse_deb822(DEB822) == [
        AptSource("http://first.example/debian", "bookworm", components),
        AptSource("http://first.example/debian", "bookworm-updates", components),
        AptSource("http://second.example/debian", "bookworm", components),
        AptSource("http://second.example/debian", "bookworm-updates", components),
        AptSource("http://security.example/debian-security", "bookworm-security", ("main",)),
    ]


def test_only_the_main_archive_of_the_hosts_own_distribution_counts(tmp_path: Path) -> None:
    root = host(
        tmp_path,
        'ID=debian\nVERSION_CODENAME="bookworm"\n',
        {"etc/apt/sources.list": ONE_LINE, "etc/apt/sources.list.d/debian.sources": DEB822},
    )
    assert find_archives("debian", root) == (
        "http://archive.example/debian",
        "http://first.example/debian",
        "http://second.example/debian",
    )
    assert find_archives("ubuntu", root) == ()


def test_a_list_of_mirrors_as_in_ubuntus_cloud_images_is_followed(tmp_path: Path) -> None:
    stanza = "Types: deb\nURIs: mirror+file:/etc/apt/mirrors.txt\nSuites: noble\nComponents: main\n"
    root = host(
        tmp_path,
        "ID=ubuntu\nVERSION_CODENAME=noble\n",
        {
            "etc/apt/sources.list.d/ubuntu.sources": stanza,
            "etc/apt/mirrors.txt": "http://near.example/ubuntu/\tpriority:1\n\nhttps://far.example/u\n",
        },
    )
    assert find_archives("ubuntu", root) == ("http://near.example/ubuntu", "https://far.example/u")


def test_a_byte_that_is_no_utf_8_hides_nothing_else_of_a_hosts_files(tmp_path: Path) -> None:
    root = host(tmp_path, "ID=ubuntu\nVERSION_CODENAME=noble\n", {
        "etc/apt/sources.list": "deb mirror+file:/etc/apt/mirrors.txt noble main\n",
        "etc/apt/mirrors.txt": "http://near.example/ubuntu\n",
    })  # fmt: skip
    for name in ("etc/os-release", "etc/apt/mirrors.txt"):
        path = root / name
        path.write_bytes(path.read_bytes() + b"\xff\n")
    assert load_os_release(root)["ID"] == "ubuntu"
    assert find_archives("ubuntu", root) == ("http://near.example/ubuntu",)


def test_a_host_without_apt_has_no_archive(tmp_path: Path) -> None:
    assert load_sources(tmp_path) == ()
    assert find_archives("debian", tmp_path) == ()


def test_a_stated_address_comes_before_the_environment_and_is_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENVFORGE_DEBIAN_ARCHIVE", "http://environment.example/debian/")
    assert candidates(DEBIAN_11, "http://flag.example/debian") == ("http://flag.example/debian",)
    assert candidates(DEBIAN_11) == ("http://environment.example/debian",)


def test_the_hosts_own_archive_comes_before_the_datas(tmp_path: Path) -> None:
    root = host(
        tmp_path, "ID=debian\nVERSION_CODENAME=bookworm\n", {"etc/apt/sources.list": ONE_LINE}
    )
    assert candidates(DEBIAN_11, root=root) == (
        "http://archive.example/debian",
        *DEBIAN_11.archive.fallbacks,
    )
    assert candidates(UBUNTU, root=root) == UBUNTU.archive.fallbacks


@pytest.mark.parametrize(
    "address", ["ftp://x/debian", "http://x/; rm -rf /", "http://x/$(id)", "x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        candidates(DEBIAN_11, address)
    assert caught.value.what == f"the archive address is not an http or https address: {address!r}"


def test_the_state_of_an_archive_is_its_release_file(site: Site) -> None:
    address = serve(site)
    found = find_archive(DEBIAN_11, address + "/")
    assert found.address == address
    (release,) = found.releases
    assert release.suite == "bullseye"
    assert release.date == "Sat, 09 Aug 2025 09:16:30 UTC"
    assert release.timestamp == 1754730990
    assert not release.expired


def test_ubuntu_is_three_suites_of_one_archive(site: Site) -> None:
    for suite in ("bionic", "bionic-updates", "bionic-security"):
        address = serve(site, suite)
    assert [release.suite for release in find_archive(UBUNTU, address).releases] == [
        "bionic",
        "bionic-updates",
        "bionic-security",
    ]


def test_an_old_archive_without_inrelease_is_taken_by_its_release(site: Site) -> None:
    site.serve("/debian/dists/bullseye/Release", RELEASE)
    assert find_archive(DEBIAN_11, f"{site.address}/debian").releases[0].suite == "bullseye"


def test_a_frozen_suite_past_its_date_is_known_to_be_so() -> None:
    dated = RELEASE + b"Valid-Until: Sat, 16 Aug 2025 09:16:30 UTC\n"
    assert parse_release(dated, "bullseye").expired
    assert not parse_release(dated.replace(b"2025 09", b"2999 09"), "bullseye").expired


@pytest.mark.parametrize("year", [b"99999", b"9" * 40])
def test_a_year_that_no_calendar_has_is_no_release_file(site: Site, year: bytes) -> None:
    damaged = RELEASE.replace(b"2025 09", year + b" 09")
    site.serve("/debian/dists/bullseye/InRelease", damaged)
    with pytest.raises(SourceError) as caught:
        find_archive(DEBIAN_11, f"{site.address}/debian")
    assert "is not a Release file" in str(caught.value.because)


def test_no_archive_in_reach_names_every_address_and_why(site: Site, tmp_path: Path) -> None:
    site.serve("/portal/dists/bullseye/InRelease", b"<html>sign in</html>", "text/html")
    sources = "".join(
        f"deb {address} bookworm main\n"
        for address in (
            "http://127.0.0.1:9/debian",
            f"{site.address}/empty",
            f"{site.address}/portal",
        )
    )
    root = host(
        tmp_path, "ID=debian\nVERSION_CODENAME=bookworm\n", {"etc/apt/sources.list": sources}
    )
    nowhere = replace(DEBIAN_11, archive=replace(DEBIAN_11.archive, fallbacks=()))
    with pytest.raises(SourceError) as caught:
        find_archive(nowhere, root=root)
    error = caught.value
    assert error.exit_code == 5
    assert error.what == "no archive with debian bullseye is in reach"
    assert error.because[0].startswith("http://127.0.0.1:9/debian: out of reach (")
    assert error.because[1:] == (
        f"{site.address}/empty: HTTP 404 for dists/bullseye/Release",
        f"{site.address}/portal: what answers for bullseye is not a Release file",
    )
    assert error.hint == (
        "export ENVFORGE_DEBIAN_ARCHIVE=http://ADDRESS   (the folder that holds dists/)"
    )
