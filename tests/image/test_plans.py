"""The first plans, built for real: real archive, real wheel, real engine, real nvcc."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import testinfra

from envforge.image.engine import Launch
from envforge.image.lock import load_lock
from envforge.sources.store import Store, default_root

pytestmark = [pytest.mark.engine, pytest.mark.slow]

WHEEL_PLAN = ["--gpu", "gtx780", "--torch", "1.0.1"]
TYPING_WHEEL = "a4c8473ce11a65999c8f59cb093e70686b6c84c98df58c1dae9b3b196089858a"


def envforge(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "envforge", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def built(engine, tmp_path_factory):
    """A folder in which ``envforge build --gpu gtx780 --torch 1.0.1`` was run."""
    folder = tmp_path_factory.mktemp("wheel-plan")
    answer = envforge(folder, "build", *WHEEL_PLAN)
    if answer.returncode == 5 and "bullseye" in answer.stderr:
        pytest.fail(f"Debian 11 has left the archive: {answer.stderr}")
    assert answer.returncode == 0, answer.stderr
    return folder


def test_the_lock_names_every_input_and_what_was_verified(built):
    lock = load_lock(built / "envforge.lock")
    assert lock.resolution.route == "wheel"
    assert (lock.torch, lock.python, lock.stage) == ("1.0.1", "/usr/bin/python2.7", "runtime")
    assert len(lock.inputs) == 3
    assert next(release.suite for release in lock.base.releases) == "bullseye"
    seen = {check.name: check.seen for check in lock.verified}
    assert set(seen) == {"user", "python", "torch", "machine-code", "training"}
    assert seen["torch"].startswith("torch 1.0.1")
    assert seen["machine-code"].startswith("native on 3.5: libcaffe2_gpu.so")


def test_inside_the_image_is_what_the_lock_says(built, engine):
    lock = load_lock(built / "envforge.lock")
    assert engine.image_id(lock.image) == lock.image_id
    with engine.run(Launch(lock.image, ["sleep", "infinity"], user="1000:1000")) as container:
        host = testinfra.get_host(f"docker://{container.id}")
        assert host.user().name == "envforge"
        assert host.package("python2.7").is_installed
        assert not host.package("python3-pip").is_installed, "the toolbox stays in its own stage"
        assert not host.file("/wheels").exists
        assert host.check_output(f"{lock.python} -c 'import torch; print(torch.__version__)'")


def test_a_second_build_does_nothing(built):
    lock = (built / "envforge.lock").read_bytes()
    answer = envforge(built, "build", *WHEEL_PLAN)
    assert answer.returncode == 0
    assert "already built and verified" in answer.stdout
    assert "->" not in answer.stderr, "no step was begun"
    assert (built / "envforge.lock").read_bytes() == lock


def test_the_canary_trains_in_the_image(built):
    answer = envforge(built, "run", "canary", "--json", "--run-dir", "run")
    assert answer.returncode == 0, answer.stderr
    record = json.loads(answer.stdout)
    assert record["schema"] == "envforge.run/1"
    assert record["state"] == "SUCCEEDED"
    assert {check["outcome"] for check in record["checks"]} == {"ok", "skipped"}
    assert (built / "run/checkpoints/step-000300.pth").is_file()
    assert json.loads((built / "run/run.json").read_text()) == record


def test_ctrl_c_stops_the_training_after_a_checkpoint_and_it_goes_on(built, engine):
    before = {leftover.id for leftover in engine.leftovers()}
    command = [sys.executable, "-m", "envforge", "run", "canary", "--run-dir", "stopped"]
    process = subprocess.Popen(
        command, cwd=built, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = built / "stopped/log.txt"
    while not (log.is_file() and "step: 20/300" in log.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    process.communicate()
    assert {leftover.id for leftover in engine.leftovers()} <= before
    assert json.loads((built / "stopped/run.json").read_text())["state"] == "CANCELLED"
    answer = envforge(built, "run", "canary", "--run-dir", "stopped", "--json")
    assert answer.returncode == 0, answer.stderr
    attempts = json.loads(answer.stdout)["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["cancelled", "finished"]
    assert attempts[1]["first_iteration"] >= 20


def test_a_byte_changed_in_a_fetched_wheel_ends_with_exit_5_and_nothing_kept(built, tmp_path):
    stored = Store(default_root()).path_of(TYPING_WHEEL)
    data = bytearray(stored.read_bytes())
    data[100] ^= 1
    # Contexts hold hard links: the store's own file is replaced, as a broken disk would not be.
    stored.unlink()
    stored.write_bytes(data)
    answer = envforge(tmp_path, "build", *WHEEL_PLAN)
    assert answer.returncode == 5
    assert "hash-mismatch" in answer.stderr
    assert "typing-3.6.6-py2-none-any.whl" in answer.stderr
    assert "the build context lies in" in answer.stderr
    assert not stored.exists()
    assert not (tmp_path / "envforge.lock").exists()
    again = envforge(tmp_path, "build", *WHEEL_PLAN)
    assert again.returncode == 0, again.stderr


def test_ctrl_c_during_a_build_leaves_no_lock_and_no_container(tmp_path, engine):
    before = {leftover.id for leftover in engine.leftovers()}
    command = [sys.executable, "-m", "envforge", "build", "--cpu", "--torch", "1.0.1"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("-> verify"):
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (tmp_path / "envforge.lock").exists()
    assert {leftover.id for leftover in engine.leftovers()} <= before


def test_the_toolchain_for_kepler_compiles_exactly_the_plans_architectures(engine, tmp_path):
    plan = ["--gpu", "gtx780", "--torch", "1.13.1", "--route", "source", "--until", "toolchain"]
    answer = envforge(tmp_path, "build", *plan)
    assert answer.returncode == 0, answer.stderr
    lock = load_lock(tmp_path / "envforge.lock")
    seen = {check.name: check.seen for check in lock.verified}
    assert lock.image.startswith("envforge/toolchain:1.13.1-11.8.0-sm_35-")
    assert seen["nvcc"].startswith("nvcc 11.8")
    assert seen["host-compiler"].startswith("gcc-11 11.")
    assert seen["kernel"] == "object carries sm_35"


def test_the_toolchain_for_maxwell_on_the_newest_debian_compiles_for_it(engine, tmp_path):
    plan = ["--gpu", "sm_50", "--torch", "2.6.0", "--route", "source", "--platform", "debian-13"]
    answer = envforge(tmp_path, "build", *plan, "--until", "toolchain")
    assert answer.returncode == 0, answer.stderr
    lock = load_lock(tmp_path / "envforge.lock")
    seen = {check.name: check.seen for check in lock.verified}
    assert lock.image.startswith("envforge/toolchain:2.6.0-12.4.1-sm_50-")
    assert seen["nvcc"].startswith("nvcc 12.4")
    assert seen["host-compiler"].startswith("gcc-13 13.")
    assert seen["kernel"] == "object carries sm_50"


def test_what_is_left_for_a_fermi_card_is_built_by_the_same_machinery(engine, tmp_path):
    answer = envforge(tmp_path, "build", "--cpu", "--torch", "1.0.1", "--json")
    assert answer.returncode == 0, answer.stderr
    lock = json.loads(answer.stdout)
    assert lock["resolution"]["route"] == "cpu"
    assert lock["image"].startswith("envforge/torch:1.0.1-cpu-")


def test_an_archive_out_of_reach_ends_with_exit_5_and_names_it_and_the_context(engine, tmp_path):
    answer = envforge(
        tmp_path,
        *["build", "--gpu", "gtx760", "--torch", "1.0.1"],
        ENVFORGE_UBUNTU_ARCHIVE="http://127.0.0.1:9/ubuntu",
    )
    assert answer.returncode == 5
    assert "http://127.0.0.1:9/ubuntu" in answer.stderr
    context = Path(answer.stderr.rstrip().rpartition("the build context lies in ")[2])
    assert {"Dockerfile", "edits.json", "edit.py", "inputs.json"} <= {
        path.name for path in context.iterdir()
    }
    assert not (tmp_path / "envforge.lock").exists()


def test_without_an_engine_exit_6_says_what_was_found_and_what_to_do(tmp_path):
    answer = envforge(tmp_path, "build", *WHEEL_PLAN, DOCKER_HOST=f"unix://{tmp_path}/no.sock")
    assert answer.returncode == 6
    assert f"{tmp_path}/no.sock" in answer.stderr
    assert "--on local" in answer.stderr


def test_the_t440_gets_exit_4_before_anything_is_fetched(tmp_path):
    answer = envforge(tmp_path, "build", "--gpu", "10de:1140", "--torch", "1.0.1")
    assert answer.returncode == 4
    assert "envforge build --cpu --torch 1.0.1" in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_matrix_builds_all_and_repeated_finds_all_done(engine, tmp_path):
    (tmp_path / "fleet.yaml").write_text(
        'builds:\n  shelf: {gpu: gtx780, torch: "1.0.1"}\n  left: {route: cpu, torch: "1.0.1"}\n'
    )
    answer = envforge(tmp_path, "build", "--matrix", "fleet.yaml", "--json")
    assert answer.returncode == 0, answer.stderr
    rows = json.loads(answer.stdout)["builds"]
    assert [row["name"] for row in rows] == ["shelf", "left"]
    for row in rows:
        lock = load_lock(tmp_path / row["lock"])
        assert (lock.image, engine.image_id(lock.image)) == (row["image"], lock.image_id)
    again = envforge(tmp_path, "build", "--matrix", "fleet.yaml", "--json")
    assert [row["outcome"] for row in json.loads(again.stdout)["builds"]] == ["there", "there"]


def test_a_locked_build_makes_a_removed_image_again_with_the_same_packages(built, engine):
    path = built / "envforge.lock"
    before = load_lock(path)
    assert any(package.startswith("python2.7:amd64=") for package in before.packages)
    engine.remove(before.image)
    answer = envforge(built, "build", "--locked")
    assert answer.returncode == 0, answer.stderr
    after = load_lock(path)
    assert (after.packages, after.inputs, after.files) == (
        before.packages,
        before.inputs,
        before.files,
    )
    asked = envforge(built, "verify")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("the image is what the lock says")


def test_a_package_that_drifted_since_the_lock_is_named_and_the_lock_is_kept(built, engine):
    path = built / "envforge.lock"
    good = path.read_bytes()
    lock = load_lock(path)
    package = next(row for row in lock.packages if row.startswith("python2.7:amd64="))
    try:
        edited = path.read_text().replace(package, "python2.7:amd64=2.7.0-1")
        path.write_text(edited)
        engine.remove(lock.image)
        answer = envforge(built, "build", "--locked")
        assert answer.returncode == 8
        assert "error: lock-drift: what was built is not what envforge.lock says" in answer.stderr
        now = package.partition("=")[2]
        assert f"  package python2.7:amd64: locked 2.7.0-1, now {now}" in answer.stderr
        assert path.read_text() == edited
    finally:
        path.write_bytes(good)
    assert envforge(built, "build", *WHEEL_PLAN).returncode == 0
