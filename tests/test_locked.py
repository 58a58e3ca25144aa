"""``envforge build --locked``: what the lock says, or nothing; and what differs is named."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from envforge import cli
from envforge.build import BuildRequest, Prepared, prepare
from envforge.capability.load import load
from envforge.check import sole_card
from envforge.documents import to_json
from envforge.image.lock import (
    BaseLock,
    Drift,
    Lock,
    find_drift,
    load_lock,
    outcome_facts,
    write_lock,
)
from envforge.image.render import file_hashes
from envforge.resolver import Request

WHEEL = ["--gpu", "gtx780", "--torch", "1.0.1"]
SOURCE = ["--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--cudnn", "8.7"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lock_of(prepared: Prepared) -> Lock:
    plan = prepared.plan
    return Lock(
        plan=prepared.context.digest,
        stage=plan.until,
        created="2026-11-22T15:35:00Z",
        resolution=plan.resolution,
        image=prepared.image,
        image_id="sha256:aa",
        python=plan.python.executable,
        base=BaseLock(
            image="b", image_id="sha256:bb", releases=(), packages_sha256="0", rootfs_sha256="0"
        ),
        features=prepared.features,
        files=file_hashes(prepared.context),
        inputs=prepared.context.inputs,
        packages=("libc6:amd64=2.36-9", "zlib1g:amd64=1:1.2.13"),
        patches=(),
        database="0",
        verified=(),
    )


def locked(card: str, **request: str) -> Lock:
    database = load()
    features = {name: request.pop(name) for name in ("cudnn", "until") if name in request}
    wanted = Request(card=sole_card(database, card), **request)
    lock = lock_of(prepare(database, BuildRequest(wanted, context=Path("made"), **features)))
    write_lock(Path("envforge.lock"), lock)
    return lock


def build(capsys, *arguments: str) -> tuple[int, str]:
    code = cli.main(["build", "--locked", "--dry-run", "-o", "context", *arguments])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_the_same_request_makes_the_plan_of_the_lock(capsys):
    lock = locked("gtx780", torch="1.0.1")
    code, said = build(capsys, *WHEEL)
    assert (code, lock.plan[:12] in said) == (0, True)


@pytest.mark.parametrize(
    "wishes",
    [
        {"torch": "1.0.1"},
        {"torch": "1.13.1", "route": "source", "cudnn": "8.7"},
        {"torch": "1.13.1", "route": "source", "until": "toolchain"},
    ],
)
def test_with_no_wish_the_lock_decides(capsys, wishes):
    lock = locked("gtx780", **wishes)
    code, said = build(capsys, "--json")
    assert code == 0, said
    answer = json.loads(said)
    assert answer["context"]["digest"] == lock.plan
    assert answer["resolution"] == json.loads(to_json(lock.resolution))


def test_another_request_is_told_by_every_thing_that_differs(capsys):
    lock = locked("gtx780", torch="1.0.1")
    code, said = build(capsys, "--gpu", "gtx780", "--torch", "1.2.0")
    assert code == 8
    assert "error: lock-drift: the plan is not what envforge.lock says" in said
    assert "  torch: locked 1.0.1, now 1.2.0" in said
    gone = next(name for name in lock.inputs if name.startswith("inputs/wheels/torch-"))
    assert f"  {gone}: {lock.inputs[gone]} is gone" in said


def test_a_feature_that_was_left_out_is_named(capsys):
    lock = locked("gtx780", torch="1.13.1", route="source", cudnn="8.7")
    assert lock.features is not None
    code, said = build(capsys, *SOURCE[:-2])
    assert code == 8
    assert f"  cudnn: {lock.features.cudnn} is gone" in said


def test_an_input_edited_by_hand_is_named(capsys):
    lock = locked("gtx780", torch="1.0.1")
    name = next(iter(lock.inputs))
    edited = {**lock.inputs, name: "0" * 64}
    write_lock(Path("envforge.lock"), msgspec.structs.replace(lock, inputs=edited))
    code, said = build(capsys)
    assert code == 8
    assert f"  {name}: locked {'0' * 64}, now {lock.inputs[name]}" in said


def test_a_lock_that_is_none_any_more_is_refused_by_its_fault(capsys):
    lock = locked("gtx780", torch="1.0.1")
    Path("envforge.lock").write_text(to_json(lock).replace('"stage": "runtime"', '"stage": "x"'))
    code, said = build(capsys)
    assert code == 3
    assert "stage" in said


def test_without_a_lock_there_is_nothing_to_keep_to(capsys):
    code, said = build(capsys)
    assert code == 3
    assert "there is no envforge.lock" in said


def test_every_lock_is_read_back_as_it_was_written():
    lock = locked("gtx780", torch="1.13.1", route="source", cudnn="8.7")
    again = load_lock(Path("envforge.lock"))
    assert again.is_whole
    assert msgspec.structs.replace(again, seal="") == lock


def edit(change) -> None:
    """Change the lock as a person does: the seal stays as it was."""
    document = json.loads(Path("envforge.lock").read_text())
    change(document)
    Path("envforge.lock").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda lock: lock["packages"].append("xz-utils:amd64=5.4"),
        lambda lock: lock["base"].update(packages_sha256="1"),
        lambda lock: lock.update(database="1"),
        lambda lock: lock["resolution"].update(evidence="measured by nobody"),
    ],
)
def test_an_edit_of_what_no_plan_pins_breaks_the_seal(change):
    locked("gtx780", torch="1.0.1")
    assert load_lock(Path("envforge.lock")).is_whole
    edit(change)
    assert not load_lock(Path("envforge.lock")).is_whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("python", "3.9"),
        ("python", None),
        ("platform", None),
        ("platform", "debian-10"),
        ("platform", "nope"),
        ("torch", "1.0.0"),
        ("torch", "nope"),
        ("route", "source"),
    ],
)
def test_a_lock_edited_to_what_has_no_plan_is_told_so(capsys, field, value):
    locked("gtx780", torch="1.0.1")
    edit(lambda lock: lock["resolution"].update({field: value}))
    code, said = build(capsys)
    assert code in (3, 8), said
    assert "the lock was changed by hand" in said or f"  {field}: locked {value}, now" in said


def test_a_lock_whose_wheel_the_database_no_longer_has_is_no_bug(capsys):
    lock = locked("gtx780", torch="1.0.1")
    other = msgspec.structs.replace(lock.resolution, python="3.9")
    write_lock(Path("envforge.lock"), msgspec.structs.replace(lock, resolution=other))
    code, said = build(capsys)
    assert code == 3
    assert "no plan can be made of the lock of envforge/torch:1.0.1" in said
    assert "by hand" not in said


def test_a_package_of_another_version_is_a_drift_and_an_archives_new_release_file_is_none():
    lock = locked("gtx780", torch="1.0.1")
    other = msgspec.structs.replace(
        lock,
        packages=("libc6:amd64=2.36-10", "xz-utils:amd64=5.4"),
        base=msgspec.structs.replace(lock.base, packages_sha256="1"),
        built_with=("gcc-11:amd64=11.3",),
        tree=("c" * 40 + " .",),
    )
    found = find_drift(outcome_facts(lock), outcome_facts(other))
    assert found == (
        Drift("package libc6:amd64", "2.36-9", "2.36-10"),
        Drift("package zlib1g:amd64", "1:1.2.13", None),
        Drift("package xz-utils:amd64", None, "5.4"),
        Drift("built with gcc-11:amd64", None, "11.3"),
        Drift("tree .", None, "c" * 40),
    )
    assert [str(drift) for drift in found[:3]] == [
        "package libc6:amd64: locked 2.36-9, now 2.36-10",
        "package zlib1g:amd64: 1:1.2.13 is gone",
        "package xz-utils:amd64: 5.4 is new",
    ]
