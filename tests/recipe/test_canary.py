"""The canary on a real torch: it passes where all is well, and each planted fault is found."""

from __future__ import annotations

import math
import re
import shutil
import signal
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Canary, Outcome

pytestmark = pytest.mark.slow

NUMBER = r"-?\d+\.\d"
STEP = re.compile(
    rf"step: \d+/200  loss_g: {NUMBER}{{4}}  loss_d: {NUMBER}{{4}}  loss_l1: {NUMBER}{{4}}"
    rf"  time: {NUMBER}{{3}}  lr: {NUMBER}{{6}}"
)
CHECK = re.compile(r"check: [a-z0-9-]+ (ok|failed|skipped)  \S.*")
CHECKPOINT = re.compile(r"checkpoint: checkpoints/step-\d{6}\.pth")

BEFORE_TRAINING = [
    "device",
    "data",
    "known-answer-conv2d",
    "known-answer-conv-transpose2d",
    "known-answer-batch-norm",
    "known-answer-activations",
    "known-answer-losses",
    "gradients-of-operators",
    "gradients-of-generator",
    "gradients-of-discriminator",
    "gradients-in-float32",
    "gpu-forward-agrees-with-cpu",
    "gpu-gradients-agree-with-cpu",
    "adam-steps",
    "checkpoint-damage-is-found",
    "checkpoint-reads-back",
    "optimizer-state-restored",
    "resume-bit-exact",
    "resume-on-gpu",
]
AFTER_TRAINING = [
    "losses-finite",
    "checkpoint-usable",
    "parameters-move",
    "held-out-l1-falls",
    "held-out-l1-beats-mean",
]

# Fault -> the checks that must fail, all of them and no other.
FOUND_BY = {
    "dead-batch-norm": ["known-answer-batch-norm"],
    "stale-running-statistics": ["known-answer-batch-norm"],
    "wrong-gradient": ["gradients-of-operators", "gradients-of-generator"],
    "rounded-convolution": ["known-answer-conv2d", "gradients-in-float32"],
    "swapped-channels": ["known-answer-conv2d"],
    "lost-optimizer-state": ["optimizer-state-restored", "resume-bit-exact"],
    "forgotten-random-state": ["resume-bit-exact"],
    "frozen-generator": ["parameters-move", "held-out-l1-falls", "held-out-l1-beats-mean"],
    "truncated-checkpoint": ["checkpoint-reads-back"],
    "nan-at-step-20": ["losses-finite"],
}


def words(outcome: Outcome, name: str) -> str:
    return next(each["words"] for each in outcome.record["checks"] if each["name"] == name)


def test_a_healthy_torch_passes_every_check(healthy: Outcome) -> None:
    assert (healthy.exit_code, healthy.lines[-1]) == (0, "canary: passed")
    assert healthy.record["passed"] is True
    names = [each["name"] for each in healthy.record["checks"]]
    assert names == BEFORE_TRAINING + AFTER_TRAINING


def test_without_a_gpu_its_checks_are_skipped_and_say_so(healthy: Outcome) -> None:
    skipped = [each for each in healthy.lines if " skipped  " in each]
    assert skipped == [
        "check: gpu-forward-agrees-with-cpu skipped  no GPU",
        "check: gpu-gradients-agree-with-cpu skipped  no GPU",
        "check: resume-on-gpu skipped  no GPU",
    ]


def test_every_line_is_one_the_supervisor_can_read(healthy: Outcome) -> None:
    for line in healthy.lines[:-1]:
        assert any(form.fullmatch(line) for form in (STEP, CHECK, CHECKPOINT)), line
    steps = [int(line[len("step: ") :].split("/")[0]) for line in healthy.lines if STEP.match(line)]
    assert steps == list(range(5, 201, 5))


def test_the_record_has_every_loss_and_names_the_stack(healthy: Outcome) -> None:
    record = healthy.record
    assert record["schema"] == "envforge.canary/1"
    assert (record["device"], record["capability"], record["steps"]) == ("cpu", None, 200)
    assert [row[0] for row in record["losses"]] == list(range(1, 201))
    assert all(math.isfinite(number) for row in record["losses"] for number in row)
    for key in ("torch", "python", "device_name", "seconds"):
        assert record[key], key


def test_a_passed_check_measured_no_more_than_its_bound(healthy: Outcome) -> None:
    for check in healthy.record["checks"]:
        if check["outcome"] == "ok":
            assert check["measured"] <= check["bound"], check["name"]


def test_the_newest_two_checkpoints_are_kept(healthy: Outcome) -> None:
    assert healthy.checkpoints == ["step-000150.pth", "step-000200.pth"]


def test_samples_at_start_and_end_show_plan_photo_and_output(healthy: Outcome) -> None:
    samples = sorted((healthy.run_dir / "samples").iterdir())
    assert [path.name for path in samples] == ["step-000000.png", "step-000200.png"]
    for path in samples:
        assert picture_size(path) == (3 * 32, 8 * 32)


def picture_size(path: Path) -> tuple[int, int]:
    """Read as the PNG specification says, checksums and all."""
    content, position, chunks = path.read_bytes(), 8, {}
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, body = content[position + 4 : position + 8], content[position + 8 :][:length]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        assert checksum == zlib.crc32(kind + body)
        chunks[kind] = body
        position += 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    assert len(zlib.decompress(chunks[b"IDAT"])) == height * (1 + 3 * width)
    return width, height


@pytest.fixture(scope="module")
def planted(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """The outcome of a run on a torch with a fault; each is run once."""

    @cache
    def run(fault: str) -> Outcome:
        # Every fifth step: step 20 would be saved if its loss were not looked at first.
        folder = tmp_path_factory.mktemp(fault)
        return canary.run(folder, "--checkpoint-every", "5", fault=fault)

    return run


@pytest.mark.parametrize("fault", FOUND_BY)
def test_a_planted_fault_is_found_by_the_check_that_fits(
    fault: str, planted: Callable[[str], Outcome]
) -> None:
    outcome = planted(fault)
    assert outcome.failed == FOUND_BY[fault]
    assert outcome.lines[-1] == f"canary: failed ({', '.join(FOUND_BY[fault])})"
    assert outcome.exit_code == (3 if fault == "nan-at-step-20" else 1)
    assert outcome.record["passed"] is False


def test_nothing_is_trained_on_arithmetic_known_to_be_wrong(
    planted: Callable[[str], Outcome],
) -> None:
    outcome = planted("swapped-channels")
    assert [each["name"] for each in outcome.record["checks"]] == BEFORE_TRAINING
    assert not any(line.startswith("step: ") for line in outcome.lines)


def test_no_checkpoint_is_saved_after_a_nan(planted: Callable[[str], Outcome]) -> None:
    outcome = planted("nan-at-step-20")
    assert words(outcome, "losses-finite") == "loss_g is nan at step 20"
    assert outcome.checkpoints == ["step-000010.pth", "step-000015.pth"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_weights_bit_for_bit(
    number: int, canary: Canary, healthy: Outcome, tmp_path: Path
) -> None:
    stopped = canary.interrupt(tmp_path, number, "step: 60/")
    assert stopped.exit_code == 75
    step = int(stopped.lines[-1].removeprefix("stopped: at step "))
    assert 60 <= step < 200
    assert stopped.lines[-2] == f"checkpoint: checkpoints/step-{step:06d}.pth"
    assert not (tmp_path / "canary.json").exists()

    resumed = canary.run(tmp_path)
    assert resumed.lines[0] == f"resumed: checkpoints/step-{step:06d}.pth at step {step}"
    assert (resumed.exit_code, resumed.lines[-1]) == (0, "canary: passed")
    assert resumed.record["weights_sha256"] == healthy.record["weights_sha256"]
    assert resumed.record["losses"] == healthy.record["losses"]


def test_a_stop_before_the_first_step_is_resumable_too(canary: Canary, tmp_path: Path) -> None:
    stopped = canary.interrupt(tmp_path, signal.SIGTERM, "check: device")
    assert (stopped.exit_code, stopped.lines[-1]) == (75, "stopped: at step 0")
    assert stopped.checkpoints == ["step-000000.pth"]


def test_a_killed_run_loses_only_the_work_since_its_checkpoint(
    canary: Canary, healthy: Outcome, tmp_path: Path
) -> None:
    killed = canary.interrupt(tmp_path, signal.SIGKILL, "step: 75/")
    assert killed.exit_code == -signal.SIGKILL
    resumed = canary.run(tmp_path)
    assert resumed.lines[0].startswith("resumed: checkpoints/step-000")
    assert resumed.exit_code == 0
    assert resumed.record["weights_sha256"] == healthy.record["weights_sha256"]


@pytest.fixture(scope="module")
def short_run(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Two checkpoints, quickly; too short to have learned anything."""
    folder = tmp_path_factory.mktemp("short")
    return canary.run(folder, "--steps", "4", "--checkpoint-every", "2")


def test_a_run_too_short_to_learn_fails_and_says_what_it_did_not_learn(short_run: Outcome) -> None:
    assert short_run.exit_code == 1
    assert short_run.failed == ["held-out-l1-falls", "held-out-l1-beats-mean"]


@pytest.fixture
def damaged(short_run: Outcome) -> Path:
    """The newest checkpoint, put back as it was afterwards."""
    newest = short_run.run_dir / "checkpoints" / "step-000004.pth"
    content = newest.read_bytes()
    yield newest
    newest.write_bytes(content)


def test_a_truncated_newest_checkpoint_is_named_and_never_passed_over(
    canary: Canary, damaged: Path
) -> None:
    size = damaged.stat().st_size // 2
    damaged.write_bytes(damaged.read_bytes()[:size])
    outcome = canary.run(damaged.parents[1])
    assert outcome.exit_code == 4
    sentence = (
        f"checkpoints/step-000004.pth is cut short: its {size} bytes end without a trailer; "
        "checkpoints/step-000002.pth is intact: remove the damaged file to resume from there"
    )
    assert outcome.lines == [
        f"check: checkpoint-usable failed  {sentence}",
        "canary: failed (checkpoint-usable)",
    ]
    assert outcome.failed == ["checkpoint-usable"]


def test_one_turned_bit_in_a_checkpoint_is_found(canary: Canary, damaged: Path) -> None:
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    outcome = canary.run(damaged.parents[1])
    assert outcome.exit_code == 4
    assert words(outcome, "checkpoint-usable") == (
        "checkpoints/step-000004.pth is damaged: its bytes do not match the sha256 in its trailer;"
        " checkpoints/step-000002.pth is intact: remove the damaged file to resume from there"
    )


def test_a_checkpoint_of_other_settings_is_refused(canary: Canary, short_run: Outcome) -> None:
    outcome = canary.run(short_run.run_dir, "--seed", "7", "--image-size", "64")
    assert outcome.exit_code == 4
    assert outcome.lines[0] == (
        "check: checkpoint-usable failed  checkpoints/step-000004.pth belongs to a run with "
        "image_size 32, seed 1"
    )


def test_a_run_that_did_not_fit_goes_on_with_smaller_batches(
    canary: Canary, short_run: Outcome, tmp_path: Path
) -> None:
    shutil.copytree(short_run.run_dir, tmp_path, dirs_exist_ok=True)
    outcome = canary.run(tmp_path, "--steps", "6", "--batch-size", "2")
    assert outcome.lines[0] == "resumed: checkpoints/step-000004.pth at step 4"
    assert outcome.checkpoints == ["step-000004.pth", "step-000006.pth"]


def test_a_finished_run_is_verified_again_without_training(
    canary: Canary, healthy: Outcome
) -> None:
    before = healthy.record
    again = canary.run(healthy.run_dir)
    assert again.lines[0] == "resumed: checkpoints/step-000200.pth at step 200"
    assert not any(line.startswith("step: ") for line in again.lines)
    assert (again.exit_code, again.lines[-1]) == (0, "canary: passed")
    assert again.record["weights_sha256"] == before["weights_sha256"]


def test_a_wanted_gpu_that_is_not_there_fails_the_first_check(
    canary: Canary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    outcome = canary.run(tmp_path, "--device", "cuda")
    assert (outcome.exit_code, outcome.failed) == (1, ["device"])
    assert outcome.lines[-1] == "canary: failed (device)"
    assert (outcome.record["device_name"], outcome.record["capability"]) == ("no GPU", None)


@pytest.mark.parametrize("size", ["16", "40"])
def test_an_image_size_the_networks_cannot_halve_is_refused(
    size: str, canary: Canary, tmp_path: Path
) -> None:
    with canary.start(tmp_path, "--image-size", size) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.splitlines()[-1] == (
        f"canary.py: error: --image-size {size} is no multiple of 16 from 32 on"
    )
