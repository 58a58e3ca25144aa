"""Several attempts of one run: real processes of the toy, each with the habit its settings give."""

from __future__ import annotations

import hashlib
import json
import signal
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from envforge.errors import EngineUnavailable
from envforge.recipes.document import CheckpointRule
from envforge.recipes.ladder import Divergence, Explosion, Ladder, LadderStep
from envforge.training import (
    Change,
    Journal,
    Plan,
    RunRecord,
    StopRequests,
    Surroundings,
    SystemClock,
    open_folder,
    persevere,
    stacks,
)
from envforge.training.local import LocalExecutor
from envforge.training.record import read_record
from envforge.training.remembered import recall, remember

LADDER = Ladder(
    steps={"gpu-oom": (LadderStep(at_most={"batch": 1}, why="one image"),)},
    retries={"crash": 2, "diverged": 2, "hang": 1, "engine-lost": 1},
    divergence=Divergence(rates=("rate",)),
    verify="existence",
)
IMPATIENT = msgspec.structs.replace(LADDER, silence_s=2)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("ENVFORGE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def campaign(toy_job, events):
    """Run a campaign: ``habits`` gives each attempt its habit, by its settings and its number."""

    def run(
        habits,
        *,
        ladder=LADDER,
        executor=None,
        card="",
        stops=None,
        settings=None,
        rescale=None,
        asked=(),
        **changes,
    ):
        made = []

        def job(settings, _saved):
            habit = habits(settings, len(made)) if callable(habits) else habits[len(made)]
            return toy_job(habit, run_id="toy", ladder=ladder, **changes)

        class Counting(LocalExecutor):
            def start(self, job):
                made.append(job)
                return (executor or LocalExecutor()).start(job)

            def call(self, job, program, arguments):
                return (executor or LocalExecutor()).call(job, program, arguments)

        settings = settings or {"batch": 2, "rate": 0.1}
        run_dir = toy_job().run_dir
        with open_folder(run_dir) as folder:
            record = folder.record or RunRecord(
                id="toy", recipe="toy", reference="toy", run_dir=str(run_dir), on="local",
                settings=settings,
            )  # fmt: skip
            clock = SystemClock()
            journal = Journal(folder, record, "checkpoints/step-*.txt", clock)
            surroundings = Surroundings(clock, stops or StopRequests(), events.append)
            plan = Plan(job, Counting(), ladder, rescale, card)
            wanted = {each.setting: each.after for each in asked}
            journal.change(settings={**record.settings, **wanted})
            return persevere(plan, journal.record.settings, asked, journal, surroundings)

    return run


def reasons(record):
    return [attempt.reason for attempt in record.attempts]


def weights(record):
    return json.loads((read_dir(record) / "toy.json").read_text())["weights"]


def weights_of_good(steps=20):
    """What the toy's weights are after so many steps."""
    chain = ""
    for step in range(1, steps + 1):
        chain = hashlib.sha256((chain + str(step)).encode()).hexdigest()
    return chain


def read_dir(record):
    return Path(record.run_dir)


def test_memory_is_given_up_step_by_step_and_what_worked_is_remembered(campaign):
    record = campaign(
        lambda settings, _: "gpu-oom" if settings["batch"] > 1 else "good", card="10de:1187"
    )
    assert (record.state, reasons(record)) == ("SUCCEEDED", ["gpu-oom", "finished"])
    last = record.last
    assert last.why == "after gpu-oom: one image"
    assert [(each.setting, each.before, each.after) for each in last.changes] == [("batch", 2, 1)]
    assert (last.from_checkpoint, last.first_iteration) == ("checkpoints/step-000005.txt", 5)
    assert recall("toy", "10de:1187") == {"batch": 1}
    assert recall("toy", "10de:1024") == {}


def test_without_a_death_for_memory_nothing_is_remembered(campaign, state):
    campaign(["killed", "good"], card="10de:1187")
    assert not state.exists()


def test_a_divergence_is_stopped_at_once_and_rolled_back(campaign):
    record = campaign(["nan", "good"])
    first, last = record.attempts
    assert (first.reason, first.because) == ("diverged", ("loss was nan at step 11",))
    assert first.good_iteration == 10  # and not 20, though it runs to its end if it is let
    assert (last.reason, last.rate_factor, record.settings["rate"]) == ("finished", 0.5, 0.05)
    assert last.from_checkpoint == "checkpoints/step-000005.txt"
    assert last.quarantined == (
        "checkpoints/step-000010.txt: was saved after the last good step",
    ), "no good loss was seen of what step 10 has made"


def starts(record):
    return [attempt.from_checkpoint for attempt in record.attempts]


def test_a_checkpoint_that_diverges_again_is_set_aside_and_an_older_one_taken(campaign):
    record = campaign(["explodes", "good", "good"])
    assert reasons(record) == ["diverged", "diverged", "finished"]
    assert starts(record) == [None, "checkpoints/step-000010.txt", "checkpoints/step-000005.txt"]
    assert record.attempts[1].because == ("loss was nan at step 11",)
    assert record.last.quarantined == (
        "checkpoints/step-000010.txt: the training has diverged from it",
    )
    folder = read_dir(record)
    assert (folder / "quarantine/attempt-2/checkpoints/step-000010.txt").exists()
    assert not (folder / "quarantine/attempt-2/checkpoints/step-000005.txt").exists()
    assert record.settings["rate"] == 0.025


def test_where_every_checkpoint_diverges_it_begins_anew_with_the_lowered_rate(campaign):
    ladder = msgspec.structs.replace(LADDER, retries={"diverged": 3})
    record = campaign(["explodes", "good", "nan-at-once", "good"], ladder=ladder)
    assert reasons(record) == ["diverged", "diverged", "diverged", "finished"]
    assert starts(record)[2:] == ["checkpoints/step-000005.txt", None]
    assert (record.last.first_iteration, record.settings["rate"]) == (0, 0.0125)
    assert weights(record) == weights_of_good()
    assert not list((read_dir(record) / "protected").glob("**/*.txt")), "nor is the copy taken"


def test_a_person_who_starts_a_diverged_run_again_has_its_checkpoint_set_aside_too(campaign):
    once = msgspec.structs.replace(LADDER, retries={"diverged": 1})
    assert reasons(campaign(["explodes", "good"], ladder=once)) == ["diverged", "diverged"]
    record = campaign(["good"], ladder=once)
    assert (record.state, record.last.from_checkpoint) == (
        "SUCCEEDED", "checkpoints/step-000005.txt"
    )  # fmt: skip


def test_the_first_loss_after_a_resume_is_compared_with_the_median_before_it(campaign):
    explosion = Explosion(loss="loss", times_median=20, lines=3)
    divergence = Divergence(rates=("rate",), explosion=explosion)
    ladder = msgspec.structs.replace(LADDER, divergence=divergence)
    record = campaign(["killed", "wild", "good"], ladder=ladder)
    assert reasons(record) == ["crash", "diverged", "finished"]
    first, second, third = record.attempts
    assert first.usual_loss == pytest.approx((1 / 5 + 1 / 6) / 2, abs=1e-4)
    assert second.because == ("loss was 1000 at step 8, its median before was 0.18335",)
    assert (second.good_iteration, third.from_checkpoint) == (None, None)


def test_checkpoints_after_the_last_good_step_are_set_aside_not_deleted(campaign, toy_job):
    job = toy_job()

    def habits(_settings, number):
        if number == 0:
            return "explodes"
        if not (job.run_dir / "quarantine").exists():  # a training saves what it should not
            (job.run_dir / "checkpoints" / "step-000015.txt").write_text("15 nan")
            (job.run_dir / "checkpoints" / "step-000010.txt").write_text("10 ")
        return "good"

    record = campaign(habits)
    assert record.last.quarantined == (
        "checkpoints/step-000015.txt: was saved after the last good step",
    )
    assert (job.run_dir / "quarantine/attempt-1/checkpoints/step-000015.txt").exists()
    assert record.last.first_iteration == 10
    assert record.state == "SUCCEEDED"


def test_tries_end_and_the_last_diagnosis_stands(campaign):
    record = campaign(["killed", "killed", "killed", "never"])
    assert (record.state, reasons(record)) == ("FAILED", ["crash"] * 3)
    assert [attempt.why for attempt in record.attempts] == [
        "", "after crash, try 1 of 2", "after crash, try 2 of 2"
    ]  # fmt: skip


def test_a_hanging_training_is_looked_into_ended_and_goes_on(campaign):
    record = campaign(["hangs", "good"], ladder=IMPATIENT)
    first = record.attempts[0]
    assert (first.reason, record.state) == ("hang", "SUCCEEDED")
    assert first.because[0].startswith("no progress for 2 s")
    assert first.stacks == "stacks-1.txt"
    stacks = (read_dir(record) / first.stacks).read_text()
    assert "misbehave (toy.py:" in stacks


def test_without_py_spy_a_python_writes_its_own_stacks_as_it_dies(campaign, monkeypatch):
    monkeypatch.setattr(stacks, "find_py_spy", lambda: None)
    environment = {"PYTHONFAULTHANDLER": "1"}
    record = campaign(["hangs", "good"], ladder=IMPATIENT, environment=environment)
    first = record.attempts[0]
    assert (first.reason, first.exit_code, first.stacks) == ("hang", 134, None)
    assert first.because[1] == "its stacks end the log"
    log = (read_dir(record) / "log.txt").read_text()
    assert "Fatal Python error: Aborted" in log
    assert "in misbehave" in log


def test_an_empty_newest_checkpoint_is_passed_over(campaign, toy_job):
    folder = toy_job().run_dir / "checkpoints"

    def habits(_settings, _number):
        if not folder.exists():
            folder.mkdir()
            (folder / "step-000015.txt").touch()
        return "good"

    record = campaign(habits)
    assert record.last.quarantined == ("checkpoints/step-000015.txt: step-000015.txt is empty",)
    assert (record.last.from_checkpoint, record.state) == (None, "SUCCEEDED")


def test_the_checkpoint_it_went_on_from_survives_its_loss(campaign, toy_job):
    """Upstreams write over it in place; a kill in that moment must not cost the run."""
    first = campaign(["killed"], ladder=Ladder(verify="existence"))
    second = campaign(["killed"], ladder=Ladder(verify="existence"))
    assert second.last.from_checkpoint == "checkpoints/step-000005.txt"
    for path in (read_dir(first) / "checkpoints").iterdir():
        path.write_bytes(b"")
    record = campaign(["good"])
    assert record.last.from_checkpoint == "checkpoints/step-000005.txt"
    assert (record.state, record.last.first_iteration) == ("SUCCEEDED", 5)


class LostOnce(LocalExecutor):
    """An engine that goes away while it starts the first attempt, and is back soon after."""

    def __init__(self):
        self.refusals = [EngineUnavailable("the container engine stopped answering")]

    @contextmanager
    def start(self, job):
        if self.refusals:
            raise self.refusals.pop()
        with super().start(job) as process:
            yield process


def test_an_engine_that_comes_back_is_waited_for(campaign):
    record = campaign(["good", "good"], executor=LostOnce())
    assert (record.state, reasons(record)) == ("SUCCEEDED", ["engine-lost", "finished"])


class Looking(LocalExecutor):
    """Finds a NaN in the checkpoint of the last step, the first time it looks there."""

    def __init__(self):
        self.looked = []

    def call(self, _job, _program, arguments):
        name = arguments[-1]
        bad = "step-000020" in name and name not in self.looked
        self.looked.append(name)
        fault = "model.bias is not finite" if bad else ""
        return 0, f'checkpoint: {{"file": "{name}", "fault": "{fault}", "rates": []}}'


class Writing(LocalExecutor):
    """Knows what it was asked to change in which checkpoint."""

    def __init__(self):
        self.scaled = []

    def call(self, _job, _program, arguments):
        if arguments[0] == "scale":
            self.scaled.append((arguments[2], json.loads(arguments[1])))
        return 0, f'checkpoint: {{"file": "{arguments[-1]}", "fault": "", "rates": [0.1]}}'


RULE = CheckpointRule(parts=("checkpoints/step-{number}.txt",), unit="step", size_mib=1,
                      every="steps")  # fmt: skip


def test_an_older_checkpoint_gets_the_rate_that_a_newer_one_had_come_down_to(campaign):
    executor = Writing()
    ladder = msgspec.structs.replace(LADDER, verify="torch")
    record = campaign(["explodes", "good", "good"], ladder=ladder, rule=RULE, executor=executor)
    assert executor.scaled == [
        ("checkpoints/step-000010.txt", [[0.5, 10, 1.0]]),
        ("checkpoints/step-000005.txt", [[0.5, 10, 1.0], [0.5, 5, 1.0]]),
    ]
    assert [attempt.rate_factor for attempt in record.attempts] == [None, 0.5, 0.5]


@pytest.mark.parametrize("death", ["killed", "explodes"])
def test_a_rate_that_a_person_asks_for_is_in_force_in_the_checkpoint_too(campaign, death):
    executor = Writing()
    changes = {"ladder": Ladder(divergence=LADDER.divergence), "rule": RULE, "executor": executor}
    campaign([death], **changes)
    asked = (Change(setting="rate", before=0.1, after=0.04),)
    record = campaign(["good"], asked=asked, **changes)
    factor = record.last.rate_factor
    assert (record.settings["rate"], factor) == (0.04, pytest.approx(0.4))
    assert record.last.changes == asked
    number = 5 if death == "killed" else 10
    assert executor.scaled == [(f"checkpoints/step-{number:06}.txt", [[factor, number, 1.0]])]


def test_a_success_with_a_bad_last_checkpoint_is_none(campaign):
    ladder = Ladder(retries={"bad-checkpoint": 1})
    record = campaign(["good", "good"], ladder=ladder, rule=RULE, executor=Looking())
    first, last = record.attempts
    assert (first.reason, first.exit_code) == ("bad-checkpoint", 0)
    assert first.because == ("checkpoints/step-000020.txt: model.bias is not finite",)
    assert (record.state, last.reason) == ("SUCCEEDED", "finished")


class Asked(Looking):
    """While it looks, somebody asks the run to stop."""

    def __init__(self, stops):
        super().__init__()
        self.stops = stops

    def call(self, job, program, arguments):
        self.stops.add(signal.SIGTERM)
        return super().call(job, program, arguments)


def test_asked_to_stop_after_a_death_is_no_failure_and_the_ladder_goes_on_later(campaign):
    ladder, stops = Ladder(retries={"bad-checkpoint": 1}), StopRequests()
    changes = {"ladder": ladder, "rule": RULE, "executor": Asked(stops)}
    record = campaign(["good"], stops=stops, **changes)
    assert (record.state, reasons(record)) == ("CANCELLED", ["bad-checkpoint"])
    assert record.last.stopped_by == "SIGTERM"
    assert read_record(read_dir(record)) == record
    again = campaign(["good"], stops=StopRequests(), **changes)
    assert (again.state, reasons(again)) == ("SUCCEEDED", ["bad-checkpoint", "finished"])


def test_an_engine_the_recipe_does_not_wait_for_is_an_error(campaign):
    with pytest.raises(EngineUnavailable):
        campaign(["good"], executor=LostOnce(), ladder=Ladder(verify="existence"))


def test_a_request_to_stop_between_attempts_ends_the_campaign(campaign, events):
    stops = StopRequests()
    record = campaign(
        lambda _settings, number: stops.add(signal.SIGTERM) or "killed" if number else "killed",
        stops=stops,
    )
    assert reasons(record) == ["crash", "preempted"]


def test_old_checkpoints_are_pruned_and_the_pointer_follows(toy_job, campaign):
    rule = CheckpointRule(
        parts=("checkpoints/step-{number}.txt",),
        unit="step",
        pointer="last_checkpoint",
        size_mib=1,
        every="steps",
        keep=2,
    )
    run_dir = toy_job().run_dir
    campaign(["killed"], ladder=Ladder(verify="existence"), rule=rule)
    (run_dir / "checkpoints/step-000010.txt").touch()
    (run_dir / "last_checkpoint").write_text("/run-dir/checkpoints/step-000010.txt")
    record = campaign(["good"], rule=rule)
    assert (run_dir / "last_checkpoint").read_text() == "/run-dir/checkpoints/step-000005.txt"
    assert record.state == "SUCCEEDED"


def test_a_record_of_every_decision_is_on_disk(campaign):
    record = campaign(["killed", "nan", "good"])
    assert read_record(read_dir(record)) == record
    assert [attempt.why for attempt in record.attempts] == [
        "", "after crash, try 1 of 2", "after diverged, try 1 of 2: the learning rate times 0.5"
    ]  # fmt: skip


def test_what_is_remembered_is_kept_by_card_and_a_broken_file_counts_as_empty(state):
    remember("toy", "a", {"batch": 1})
    remember("toy", "b", {"batch": 2})
    remember("toy", "a", {"batch": 3})
    assert (recall("toy", "a"), recall("toy", "b")) == ({"batch": 3}, {"batch": 2})
    (state / "remembered.json").write_text("{")
    assert recall("toy", "a") == {}
