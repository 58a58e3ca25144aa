"""Invariants over every record of the capability database."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import msgspec
import pytest

from envforge.capability.database import Database
from envforge.capability.lookup import covers_cudnn, notes_of
from envforge.capability.models import Fact, in_range, parse_range
from envforge.capability.tables import DATA, compile_yaml, read_table
from envforge.documents import parse_yaml
from envforge.errors import DocumentError
from envforge.patching.series import load_series
from envforge.values import ComputeCapability, DeviceCode, best_support, version_key

ROOT = Path(__file__).parent.parent
FILES = sorted(path.name for path in DATA.glob("*.yaml"))


@pytest.fixture(scope="module")
def database() -> Database:
    return compile_yaml()


def records(value):
    """Every record of a table, those inside others included."""
    if isinstance(value, msgspec.Struct):
        yield value
        for name in value.__struct_fields__:
            yield from records(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from records(item)


@pytest.fixture(scope="module")
def every_record() -> list[msgspec.Struct]:
    return [record for name in FILES for record in records(read_table(DATA / name))]


def test_an_unknown_key_names_file_and_row(tmp_path):
    for path in DATA.glob("*.yaml"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    rules = tmp_path / "rules.yaml"
    rules.write_text(rules.read_text(encoding="utf-8").replace("why:", "because:", 1))
    with pytest.raises(DocumentError) as caught:
        compile_yaml(tmp_path)
    assert "rules.yaml: rules[0]: Object contains unknown field `because`" in caught.value.because


def format_data(*arguments):
    command = [sys.executable, "scripts/format_data.py", *map(str, arguments)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.returncode, answer.stdout + answer.stderr


def test_every_file_is_in_its_canonical_form():
    assert format_data("--check") == (0, "")


def test_a_file_that_is_not_canonical_is_named_and_made_so(tmp_path):
    text = (DATA / "rules.yaml").read_text(encoding="utf-8")
    rules = tmp_path / "rules.yaml"
    rules.write_text(text.replace("evidence: inferred", 'evidence: "inferred"'), encoding="utf-8")
    named = "rules.yaml is not in its canonical form\n"
    assert format_data("--check", tmp_path) == (1, named)
    assert format_data(tmp_path) == (0, named)
    assert format_data("--check", tmp_path) == (0, "")
    assert rules.read_text(encoding="utf-8") == text


def test_every_fact_has_a_source_and_an_evidence(every_record):
    facts = [record for record in every_record if isinstance(record, Fact)]
    assert len(facts) > 700
    for fact in facts:
        assert fact.source.strip() == fact.source, fact
        assert fact.evidence, fact


def test_every_range_of_every_record_can_be_read_and_is_not_empty(every_record):
    for record in every_record:
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if isinstance(value, str) and re.match(r"[<>]=?\d", value) and "!=" not in value:
                bounds = parse_range(value)
                assert bounds.upper is None or bounds.lower < bounds.upper, (record, name)


def test_no_text_has_loose_ends(every_record):
    for record in every_record:
        for name in record.__struct_fields__:
            for text in _texts(getattr(record, name)):
                assert text == text.strip(), (record, name)
                assert "\n" not in text, (record, name)


def _texts(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list)):
        yield from chain.from_iterable(map(_texts, value))


def test_no_file_names_the_hosts_of_the_registries():
    for path in DATA.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"pypi\.org|pythonhosted|npmjs|deb\.debian\.org", text), path.name


def test_every_device_has_a_known_compute_capability(database):
    for device in database.devices.values():
        assert device.compute_capability in database.architectures, device


def test_device_ids_are_unique_and_sorted():
    ids = re.findall(r'^- \["([0-9a-f]{4})"', (DATA / "devices.yaml").read_text(), re.MULTILINE)
    assert len(ids) == 1230
    assert ids == sorted(set(ids))


def test_every_name_leads_to_devices(database):
    for name, ids in database.names.items():
        assert ids, name
        assert all(device_id in database.devices for device_id in ids)


def test_names_of_the_index_are_sorted(database):
    assert list(database.names) == sorted(database.names)
    for ids in database.names.values():
        assert list(ids) == sorted(set(ids))


def test_a_devices_chip_has_the_capability_its_architecture_says(database):
    capability = {
        chip: row.compute_capability
        for row in database.architectures.values()
        for chip in row.chips
    }
    assert len(capability) == sum(len(row.chips) for row in database.architectures.values())
    for device in database.devices.values():
        assert capability[device.chip] == device.compute_capability, device
    assert set(capability) == {device.chip for device in database.devices.values()}


IDENTITIES = {
    "toolkits": lambda row: row.version,
    "drivers": lambda row: row.branch,
    "releases": lambda row: row.version,
    "wheels": lambda row: (row.torch, row.variant),
    "platforms": lambda row: row.name,
    "rules": lambda row: row.id,
    "risks": lambda row: row.id,
    "variant_installs": lambda row: row.torch,
    "requirements": lambda row: (row.torch, row.tag),
    "notes": lambda row: (row.torch, row.text),
    "libraries": lambda row: (row.project, row.version),
    "memory": lambda row: row.name,
    "distribution_builds": lambda row: (row.platform, row.package),
    "conda_builds": lambda row: (row.torch, row.cuda),
}


@pytest.mark.parametrize("table", IDENTITIES)
def test_identifiers_are_unique(database, table):
    keys = [IDENTITIES[table](row) for row in getattr(database, table)]
    assert keys
    assert len(keys) == len(set(keys))


# What the sources were counted to hold on 2026-11-22.
COUNTS = {
    "devices": 1230, "architectures": 32, "toolkits": 68, "drivers": 38, "releases": 56,
    "platforms": 12, "libraries": 23, "memory": 185,
}  # fmt: skip


@pytest.mark.parametrize("table", COUNTS)
def test_nothing_of_the_sources_is_missing(database, table):
    assert len(getattr(database, table)) == COUNTS[table]


def test_releases_and_toolkits_are_searched_newest_first(database):
    for rows in (database.releases, database.toolkits, database.cudnn.builds):
        keys = [version_key(row.version) for row in rows]
        assert keys == sorted(keys, reverse=True)
    torches = [version_key(row.torch) for row in database.wheels]
    assert torches == sorted(torches, reverse=True)


def test_drivers_architectures_and_libraries_are_sorted(database):
    branches = [version_key(row.branch) for row in database.drivers]
    assert branches == sorted(branches)
    capabilities = [ComputeCapability.parse(key) for key in database.architectures]
    assert capabilities == sorted(capabilities)
    libraries = [(row.project, version_key(row.version)) for row in database.libraries]
    assert libraries == sorted(libraries)
    lowest = [parse_range(note.torch).lower for note in database.notes]
    assert lowest == sorted(lowest)


def test_every_driver_branch_a_record_names_is_known(database):
    branches = {row.branch for row in database.drivers}
    for row in database.architectures.values():
        assert {row.first_driver_branch, row.last_driver_branch} - {None} <= branches
        if row.first_driver_branch and row.last_driver_branch:
            first, last = version_key(row.first_driver_branch), version_key(row.last_driver_branch)
            assert first < last


def test_newer_driver_branches_serve_newer_toolkits(database):
    served = [version_key(row.cuda_max) for row in database.drivers]
    assert served == sorted(served)


def test_a_toolkits_drivers_are_in_order(database):
    for toolkit in database.toolkits:
        if toolkit.driver_min and toolkit.driver_min_compatible:
            compatible, own = toolkit.driver_min_compatible, toolkit.driver_min
            # The first 11.0 came before the driver that made 11.x compatible.
            if version_key(toolkit.version) >= (11, 1):
                assert version_key(compatible) <= version_key(own), toolkit.version


def test_a_runfile_is_named_after_its_toolkit_and_driver(database):
    for toolkit in database.toolkits:
        if toolkit.runfile:
            name = toolkit.runfile.url.rpartition("/")[2]
            assert toolkit.version in name
            bundled = re.search(r"_(\d{3}\.[\d.]*\d)_", name)
            if bundled and toolkit.driver_bundled:
                assert toolkit.driver_bundled == bundled[1]
        for patch in toolkit.patches:
            assert toolkit.version in patch.url


def test_bounds_of_compilers_and_toolkits_have_an_upper_end(database):
    for architecture in database.architectures.values():
        assert parse_range(architecture.cuda).upper is not None
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


def test_no_file_stands_under_two_hashes_and_no_hash_under_two_files(database):
    files = [(file.name, file.sha256) for wheel in database.wheels for file in wheel.files]
    files += [
        (package.file.name, package.file.sha256)
        for row in database.requirements
        for package in row.packages
    ]
    files += [(row.file, row.sha256) for row in database.libraries if row.file]
    assert all(name.endswith(".whl") for name, _ in files)
    downloads = [build.archive for build in database.cudnn.builds]
    downloads += [row.runfile for row in database.toolkits if row.runfile]
    downloads += [patch for row in database.toolkits for patch in row.patches]
    files += [(download.url, download.sha256) for download in downloads]
    pairs = set(files)
    assert len({name for name, _ in pairs}) == len({hash_ for _, hash_ in pairs}) == len(pairs)


def test_a_wheels_file_is_of_its_release(database):
    for wheel in database.wheels:
        tags = [file.tag for file in wheel.files]
        assert len(tags) == len(set(tags))
        for file in wheel.files:
            assert file.name.startswith(f"torch-{wheel.torch}-")
            assert file.tag in file.name or file.tag.split("-")[0] in file.name
        if wheel.measured:
            assert wheel.measured.file in {file.name for file in wheel.files}


def test_what_was_measured_in_a_wheel_agrees_with_itself(database):
    measured = [wheel for wheel in database.wheels if wheel.measured]
    assert len(measured) == 31
    for wheel in measured:
        assert wheel.measured.fatbins_alike >= 0.98 * wheel.measured.fatbins
        sass = {code for code in wheel.codes if code.startswith("sm_")}
        assert sass <= set(wheel.measured.library_codes)
        assert not sass & set(wheel.measured.rare_codes)
        if wheel.measured.arch_list:
            assert wheel.measured.arch_list.split() == list(wheel.codes), wheel.torch
        if wheel.linalg:
            assert max(wheel.linalg.codes.values()) <= wheel.linalg.fatbins


def test_the_cudnn_of_a_wheel_is_the_one_its_metadata_pins(database):
    pinned = 0
    for wheel in database.wheels:
        if wheel.measured and wheel.measured.requires:
            requirement = f"{wheel.cudnn.project}=={wheel.cudnn.version}"
            assert requirement in wheel.measured.requires
            pinned += 1
    assert pinned == 17


def test_the_commit_of_a_wheel_disagrees_with_the_tags_where_the_note_says_so(database):
    """Read on the tags and in the wheels: seven releases, listed with the sources."""
    disagreeing = {
        release.version
        for release in database.releases
        if release.commit and release.wheel_commit and release.commit != release.wheel_commit
    }
    assert disagreeing == {"1.1.0", "1.3.0", "2.3.1", "2.4.1", "2.6.0", "2.8.0", "2.9.1"}
    for release in database.releases:
        commits = [n for n in notes_of(database, release.version) if n.topic == "commit"]
        disagrees = [note for note in commits if "another commit" in note.text]
        assert bool(disagrees) == (release.version in disagreeing)
        for note in disagrees:
            assert release.commit in note.text
            assert release.wheel_commit in note.text


def test_every_note_is_about_a_known_release(database):
    for note in database.notes:
        assert any(in_range(release.version, note.torch) for release in database.releases), note


def test_cudnn_is_complete_and_every_build_is_covered_once(database):
    table = database.cudnn
    assert len({build.version for build in table.builds}) == 55
    assert len(table.builds) == 105
    for build in table.builds:
        lower = ".".join(map(str, parse_range(build.cuda).lower))
        rows = [
            row
            for row in table.coverage
            if in_range(build.version, row.versions) and in_range(lower, row.cuda)
        ]
        assert len(rows) == 1, build
        assert any(in_range(row.version, build.cuda) for row in database.toolkits), build


def test_no_cudnn_ever_computed_on_fermi(database):
    for row in database.cudnn.coverage:
        assert not in_range("2.1", row.compute_capability)


def test_what_was_measured_in_cudnn_is_what_its_coverage_says(database):
    """The oldest code that every part of a package carries is the capability it begins at."""
    checked = 0
    for library in database.libraries:
        if "cudnn" not in library.project or not library.parts:
            continue
        cuda = {"cu11": "11.8", "cu12": "12.4", "cu13": "13.0"}[library.project.rpartition("-")[2]]
        parts = [codes for part, codes in library.parts.items() if "_engines_" not in part]
        for architecture in database.architectures:
            card = ComputeCapability.parse(architecture)
            if card < (9, 0):  # newer cards than a library knows are another matter
                runs = all(
                    best_support([DeviceCode.parse(code) for code in codes], card) == "native"
                    for codes in parts
                )
                covered = covers_cudnn(database, library.version, cuda, card)
                assert runs == covered, (library.project, library.version, architecture)
                checked += 1
    assert checked > 100


def test_the_memory_of_a_card_belongs_to_known_devices(database):
    chips = {chip for row in database.architectures.values() for chip in row.chips}
    boards = " ".join(board for row in database.architectures.values() for board in row.boards)
    for row in database.memory:
        assert row.shared == (not row.ids), row.name
        for device_id in row.ids:
            device = database.devices[device_id]
            assert row.name.split()[-1].lower() in device.name.lower(), (row.name, device.name)
        for chip in row.chips:
            assert chip in boards
        for variant in row.variants:
            assert set(variant.chips) <= chips, (row.name, variant.chips)
            assert list(variant.memory_mib) == sorted(set(variant.memory_mib))
            assert all(256 <= size <= 256 * 1024 for size in variant.memory_mib)


def test_torchvision_is_as_new_as_its_torch(database):
    paired = [row for row in reversed(database.releases) if row.torchvision]
    assert len(paired) == 53
    versions = [version_key(row.torchvision) for row in paired]
    assert versions == sorted(versions)


def test_requirements_belong_to_a_published_wheel(database):
    published = {(wheel.torch, file.tag) for wheel in database.wheels for file in wheel.files}
    for row in database.requirements:
        assert (row.torch, row.tag) in published


def test_a_platforms_parts_are_named_as_its_distribution_names_them(database):
    for platform in database.platforms:
        assert platform.name.startswith(platform.distribution)
        for python in platform.pythons:
            digits = python.version.replace(".", "")
            assert python.wheel_tag.startswith(f"cp{digits}-cp{digits}")
            assert python.executable == f"/usr/bin/python{python.version}"
            assert f"/python{python.version}/" in python.site_packages
        for compiler in platform.compilers:
            assert compiler.packages == (compiler.cc, compiler.cxx)
            assert version_key(compiler.cc.removeprefix("gcc-")) <= version_key(compiler.version)


def test_platforms_that_were_built_come_first(database):
    built = [platform.built for platform in database.platforms]
    assert built == sorted(built, reverse=True)


def test_a_suite_that_has_left_the_archive_is_looked_for_at_a_date_it_was_there(database):
    # debian.org/releases: long-term support of 9 ended on 2022-06-30, of 10 on 2024-06-30.
    ends = {"debian-9": "20220630", "debian-10": "20240630"}
    for platform in database.platforms:
        if platform.name in ends:
            dates = [re.search(r"/(\d{8})T", url)[1] for url in platform.archive.fallbacks]
            assert dates
            assert all(date <= ends[platform.name] for date in dates)


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
            "python_origin", "platform", "glibc"}  # fmt: skip
    document = parse_yaml((DATA / "rules.yaml").read_text(encoding="utf-8"), "rules.yaml")
    for rule in document["rules"]:
        assert set(rule["when"]) | set(rule["require"]) <= axes, rule["id"]
