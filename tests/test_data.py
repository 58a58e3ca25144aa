"""Invariants over every record of the capability database."""

from __future__ import annotations

import re

import pytest

from envforge.capability import load as loading
from envforge.capability.load import DATA, compile_yaml, load
from envforge.capability.models import Database, parse_range
from envforge.documents import parse_yaml
from envforge.errors import DocumentError
from envforge.patching.series import load_series
from envforge.values import ComputeCapability, DeviceCode, version_key


@pytest.fixture(scope="module")
def database() -> Database:
    return compile_yaml()


def test_the_compiled_form_is_the_yaml(database, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = load(), load()
    assert first == second == database
    assert [p.suffix for p in (tmp_path / "envforge").iterdir()] == [".msgpack"]


def test_a_changed_file_is_never_answered_from_an_old_compilation(tmp_path, monkeypatch):
    before = loading.content_hash()
    copy = tmp_path / "data"
    copy.mkdir()
    for path in DATA.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        (copy / path.name).write_text(text + "# one more line\n", encoding="utf-8")
    monkeypatch.setattr(loading, "DATA", copy)
    assert loading.content_hash() != before


def test_a_torn_compiled_file_is_compiled_again(tmp_path, monkeypatch, database):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load()
    compiled = next((tmp_path / "envforge").iterdir())
    compiled.write_bytes(compiled.read_bytes()[:1000])
    assert load() == database


def test_an_unknown_key_names_file_and_row(tmp_path):
    for path in DATA.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("why:", "because:", 1))
    with pytest.raises(DocumentError) as caught:
        compile_yaml(tmp_path)
    assert "rules.yaml: rules[0]: Object contains unknown field `because`" in caught.value.because


def test_every_device_has_a_known_compute_capability(database):
    for device in database.devices.values():
        assert device.compute_capability in database.architectures, device


def test_device_ids_are_unique_and_sorted():
    ids = re.findall(r'^- \["([0-9a-f]{4})"', (DATA / "devices.yaml").read_text(), re.MULTILINE)
    assert len(ids) == 1230
    assert len(ids) == len(set(ids))


def test_every_name_leads_to_devices(database):
    for name, ids in database.names.items():
        assert ids, name
        assert all(device_id in database.devices for device_id in ids)


@pytest.mark.parametrize("table", ["toolkits", "releases", "platforms", "rules"])
def test_identifiers_are_unique(database, table):
    rows = getattr(database, table)
    keys = [getattr(row, "version", None) or getattr(row, "name", None) or row.id for row in rows]
    assert len(keys) == len(set(keys))


def test_releases_and_toolkits_are_searched_newest_first(database):
    for rows in (database.releases, database.toolkits):
        keys = [version_key(row.version) for row in rows]
        assert keys == sorted(keys, reverse=True)


def test_every_range_can_be_read(database):
    for architecture in database.architectures.values():
        parse_range(architecture.cuda)
    for toolkit in database.toolkits:
        assert parse_range(toolkit.gcc).upper is not None, toolkit.version
    for release in database.releases:
        assert parse_range(release.source_build.cuda).upper is not None, release.version


def test_every_code_of_a_wheel_is_device_code_of_a_known_card(database):
    for wheel in database.wheels:
        for code in wheel.codes:
            capability = str(DeviceCode.parse(code).capability)
            assert capability in database.architectures, (wheel.torch, code)


def test_default_wheels_are_published_for_a_release_that_is_known(database):
    releases = {release.version for release in database.releases}
    for wheel in database.wheels:
        assert wheel.torch in releases
        if wheel.variant is None:
            assert wheel.files, wheel.torch


def test_no_file_stands_under_two_hashes(database):
    files = [file for wheel in database.wheels for file in wheel.files]
    files += [package.file for row in database.requirements for package in row.packages]
    hashes: dict[str, str] = {}
    for file in files:
        assert hashes.setdefault(file.name, file.sha256) == file.sha256
        assert file.name.endswith(".whl")


def test_requirements_belong_to_a_published_wheel(database):
    published = {(wheel.torch, file.tag) for wheel in database.wheels for file in wheel.files}
    for row in database.requirements:
        assert (row.torch, row.tag) in published


def test_a_platforms_own_cuda_and_compiler_are_in_the_database(database):
    toolkits = {toolkit.version for toolkit in database.toolkits}
    for platform in database.platforms:
        if platform.cuda is not None:
            assert platform.cuda.version in toolkits, platform.name
            compilers = [compiler.version for compiler in platform.compilers]
            assert platform.cuda.gcc in compilers, platform.name


def test_recommended_toolkits_exist(database):
    toolkits = {toolkit.version for toolkit in database.toolkits}
    for release in database.releases:
        assert set(release.source_build.recommended_cuda) <= toolkits


def test_the_stores_own_hosts_are_never_the_package_registries(database):
    """Addresses of the registries belong to the user's configuration, not to the data."""
    for platform in database.platforms:
        for address in platform.archive.fallbacks:
            assert address.startswith(("https://snapshot.debian.org/", "http://archive.ubuntu.com/",
                                       "http://old-releases.ubuntu.com/"))  # fmt: skip


def test_no_bound_is_written_with_less_or_equal():
    for path in DATA.glob("*.yaml"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"\s*-?\s*(cuda|gcc|glibc|torch|compute_capability):", line):
                assert "<=" not in line, (path.name, line)


def test_every_patch_condition_covers_a_known_release(database):
    for patch in load_series():
        bounds = parse_range(patch.when.torch)
        assert any(release.version in bounds for release in database.releases), patch.id


def test_capability_1_x_is_known_and_hopeless(database):
    old = [
        d
        for d in database.devices.values()
        if ComputeCapability.parse(d.compute_capability) < (2, 0)
    ]
    assert len(old) == 265


def test_rules_speak_of_axes_the_resolver_has():
    axes = {"route", "torch", "compute_capability", "cuda", "cuda_origin", "gcc", "python",
            "platform", "glibc"}  # fmt: skip
    document = parse_yaml((DATA / "rules.yaml").read_text(encoding="utf-8"), "rules.yaml")
    for rule in document["rules"]:
        assert set(rule["when"]) | set(rule["require"]) <= axes, rule["id"]
