from __future__ import annotations

import json

import pytest

from envforge.recipes import load_recipe
from envforge.run.job import patterns_of
from envforge.training.executor import Ending
from envforge.training.failures import fingerprint, judge, missing_for_success
from envforge.training.job import Result
from envforge.training.kernel import killed_for_memory, oom_kills
from envforge.training.metrics import LogReader

CANARY = load_recipe("canary").recipe
MISSING = ("the line that ends a success never came",)


def verdict(*lines, code=1, missing=MISSING, stopped_by=None, **ending):
    reader = LogReader(patterns_of(CANARY))
    for line in lines:
        reader.read(line.encode())
    return judge(Ending(code, **ending), reader, missing, CANARY.exit_codes, stopped_by=stopped_by)


def test_what_was_reached_beats_the_exit_code():
    assert verdict(code=0, missing=()) == ("finished", ())
    assert verdict(code=134, missing=()) == (
        "finished",
        ("all was reached, yet it was ended by SIGABRT",),
    )


def test_a_training_that_finishes_although_it_was_asked_to_stop_has_finished():
    assert verdict(code=0, missing=(), stopped_by="SIGTERM").reason == "finished"


def test_exit_0_without_the_end_is_a_crash():
    assert verdict(code=0) == ("crash", ("ended with exit code 0", *MISSING))


def test_exit_0_with_nan_is_divergence():
    found = verdict("step: 7/9  loss_g: nan  time: 1", code=0)
    assert found == (
        "diverged",
        ("loss_g was nan at step 7", "ended with exit code 0"),
    )


def test_exit_codes_have_the_recipes_meaning_and_failed_checks_are_listed():
    found = verdict("check: adam failed  3 away", "check: conv ok  fine", code=1)
    assert found == ("check-failed", ("check adam failed: 3 away", "ended with exit code 1"))
    assert verdict(code=3).reason == "diverged"
    assert verdict(code=4).reason == "bad-checkpoint"
    assert verdict(code=75).reason == "cancelled"


def test_a_code_without_a_meaning_is_a_crash():
    assert verdict(code=2).because == ("ended with exit code 2", *MISSING)
    assert verdict(code=139).because == ("was ended by SIGSEGV", *MISSING)
    assert verdict(code=None).because == ("nobody knows its exit code", *MISSING)


def test_gpu_memory_in_the_last_lines_explains_a_failed_check():
    lines = ("check: device failed  RuntimeError: CUDA error: out of memory",)
    assert verdict(*lines, code=1).reason == "gpu-oom"


def test_the_kernel_and_the_engine_speak_before_the_exit_code():
    assert verdict(code=137, out_of_memory=True).reason == "host-oom"
    assert verdict(code=0, out_of_memory=True).reason == "host-oom"
    assert verdict(code=None, lost="the engine stopped answering") == (
        "engine-lost",
        ("the engine stopped answering",),
    )


@pytest.mark.parametrize("code", [0, 1, 75, 137, 143])
def test_who_asked_it_to_stop_names_the_reason_whatever_its_code(code):
    assert verdict(code=code, stopped_by="SIGINT").reason == "cancelled"
    assert verdict(code=code, stopped_by="SIGTERM").reason == "preempted"


def test_a_training_that_somebody_else_ended_was_preempted():
    assert verdict(code=143) == ("preempted", ("something else asked it to end",))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (json.dumps({"passed": True}), None),
        (json.dumps({"passed": False}), "canary.json says passed: false"),
        (json.dumps({"passed": 1}), "canary.json says passed: 1"),
        ('{"passed": tr', "canary.json has no readable 'passed'"),
        ("[]", "canary.json has no readable 'passed'"),
        ("{}", "canary.json has no readable 'passed'"),
        ("[" * 100_000, "canary.json has no readable 'passed'"),
    ],
)
def test_the_result_file_must_say_so(tmp_path, text, fault):
    (tmp_path / "canary.json").write_text(text)
    reader = LogReader(patterns_of(CANARY))
    reader.read(b"canary: passed")
    result = Result(file="canary.json", field="passed", equals=True)
    expected = () if fault is None else (fault,)
    assert missing_for_success(reader, result, tmp_path, None) == expected


def test_a_result_of_an_earlier_attempt_proves_nothing(tmp_path):
    path = tmp_path / "canary.json"
    path.write_text('{"passed": true}')
    result = Result(file="canary.json", field="passed", equals=True)
    reader = LogReader(patterns_of(CANARY))
    missing = missing_for_success(reader, result, tmp_path, fingerprint(path))
    assert missing == (*MISSING, "canary.json was left by an earlier attempt")
    path.unlink()
    missing = missing_for_success(reader, result, tmp_path, None)
    assert missing == (*MISSING, "canary.json was not written")


def test_only_the_kernels_kill_moves_its_counter(tmp_path):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 7\noom_kill 3\n")
    assert oom_kills(vmstat) == 3
    assert oom_kills(tmp_path / "none") == 0
    assert not killed_for_memory(137, oom_kills())
    assert killed_for_memory(137, -1)
    assert not killed_for_memory(1, -1)
