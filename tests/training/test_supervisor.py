from __future__ import annotations

import json
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from envforge.errors import EngineUnavailable, RunFailed
from envforge.training import (
    Journal,
    LogPatterns,
    RunRecord,
    StopRequests,
    Surroundings,
    SystemClock,
    open_folder,
    stamp,
    stop_requests,
    supervise,
)
from envforge.training.executor import Ending
from envforge.training.local import LocalExecutor


class SlowClock:
    """A clock that stands still: nothing that waits for time ever happens."""

    def now(self):
        return datetime(2026, 11, 22, 15, 35, tzinfo=timezone.utc)

    def monotonic(self):
        return 0.0


def train(job, events, *, executor=None, stops=None, clock=None, watch=lambda _event: None):
    """Run one attempt of ``job`` to its end; ``watch`` sees every event as it comes."""
    clock = clock or SystemClock()

    def on_event(event):
        events.append(event)
        watch(event)

    with open_folder(job.run_dir) as folder:
        record = RunRecord(
            id=job.run_id, recipe="toy", reference="toy", run_dir=str(job.run_dir), on="local"
        )
        journal = Journal(folder, folder.record or record, job.checkpoints, clock)
        journal.begin(())
        surroundings = Surroundings(clock, stops or StopRequests(), on_event)
        return supervise(job, executor or LocalExecutor(), journal, surroundings)


def on_disk(job):
    return json.loads((job.run_dir / "run.json").read_text())


def test_a_good_training_succeeds_and_its_record_says_how(toy_job, events):
    record = train(toy_job(), events)
    last = record.last
    assert (record.state, last.reason, last.exit_code) == ("SUCCEEDED", "finished", 0)
    assert (last.first_iteration, last.last_iteration, last.total_iterations) == (0, 20, 20)
    assert last.checkpoint == "checkpoints/step-000020.txt"
    assert (last.losses["loss"].first, last.losses["loss"].last) == (1.0, 0.05)
    assert last.seconds_per_iteration == 0.005
    assert [check.outcome for check in record.checks] == ["ok"]


def test_the_file_has_the_names_of_its_schema(toy_job, events):
    job = toy_job()
    train(job, events, clock=SlowClock())
    document = on_disk(job)
    assert (document["schema"], document["state"]) == ("envforge.run/1", "SUCCEEDED")
    attempt = document["attempts"][0]
    assert (attempt["started"], attempt["ended"]) == ("2026-11-22T15:35:00Z",) * 2
    named = ("exit_code", "reason", "changes", "last_iteration", "checkpoint")
    assert [attempt[name] for name in named] == [
        0, "finished", [], 20, "checkpoints/step-000020.txt"
    ]  # fmt: skip


def test_losses_speed_and_time_left_are_told_as_they_come(toy_job, events):
    train(toy_job(), events)
    metrics = [event for event in events if event.kind == "metric"]
    assert [event.done for event in metrics] == list(range(1, 21))
    assert {event.total for event in metrics} == {20}
    assert dict(metrics[9].numbers) == pytest.approx(
        {"loss": 0.1, "seconds_per_step": 0.005, "left_s": 0.05}
    )
    told = [event.text for event in events if event.kind == "step"]
    assert told[0] == "checkpoint: checkpoints/step-000005.txt"
    assert told[-1] == "toy: passed"


@pytest.mark.parametrize(
    ("habit", "end"),
    [
        ("quits", ("FAILED", "crash", 0)),
        ("killed", ("FAILED", "crash", 137)),
        ("gpu-oom", ("FAILED", "gpu-oom", 1)),
        ("bad-checkpoint", ("FAILED", "bad-checkpoint", 4)),
        ("fails", ("FAILED", "check-failed", 1)),
        ("nan", ("FAILED", "diverged", 137)),
        ("no-result", ("FAILED", "crash", 0)),
        ("odd-exit", ("SUCCEEDED", "finished", 134)),
        ("leaves-child", ("SUCCEEDED", "finished", 0)),
        ("bytes", ("SUCCEEDED", "finished", 0)),
    ],
)
def test_every_habit_is_seen_through(toy_job, events, habit, end):
    record = train(toy_job(habit), events)
    assert (record.state, record.last.reason, record.last.exit_code) == end


@pytest.mark.parametrize(("habit", "state"), [("odd-exit", "FAILED"), ("good", "SUCCEEDED")])
def test_where_a_recipe_asks_for_the_exit_code_too_another_is_no_success(
    toy_job, events, habit, state
):
    record = train(toy_job(habit, exit_code=0), events)
    assert record.state == state
    if state == "FAILED":
        assert record.last.reason == "crash"
        assert record.last.because[-1] == "a success ends with exit code 0"


def test_the_log_has_every_line_and_grows_by_attempts(toy_job, events):
    job = toy_job("quits")
    train(job, events)
    train(toy_job(), events)
    log = (job.run_dir / "log.txt").read_bytes()
    assert log.count(b"# envforge: ") == 2
    assert log.count(b"step: 10/20") == 2
    assert b"resumed: checkpoints/step-000005.txt at step 5" in log
    attempts = on_disk(job)["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["crash", "finished"]
    assert [attempt["first_iteration"] for attempt in attempts] == [0, 5]


def test_a_resumed_training_ends_with_the_weights_of_one_that_was_not_stopped(toy_job, events):
    job = toy_job("killed")
    train(job, events)
    train(toy_job(), events)
    resumed = json.loads((job.run_dir / "toy.json").read_text())
    for path in [*job.run_dir.glob("checkpoints/*"), job.run_dir / "toy.json"]:
        path.unlink()
    train(toy_job(), events)
    assert json.loads((job.run_dir / "toy.json").read_text()) == resumed


def test_an_old_result_file_makes_no_success(toy_job, events):
    train(toy_job(), events)
    record = train(toy_job("no-result", steps=30), events)
    assert record.state == "FAILED"
    assert record.last.because == (
        "ended with exit code 0",
        "toy.json was left by an earlier attempt",
    )


EPOCHS = LogPatterns(
    progress=re.compile(r"epoch: (?P<epoch>\d+), iters: (?P<step>\d+)"),
    epoch_size=re.compile(r"images = (?P<items>\d+)"),
    epoch_end=re.compile(r"End of epoch (?P<epoch>\d+) / (?P<epochs>\d+)"),
    resumed=re.compile(r"loading the model"),
)


@pytest.mark.parametrize(
    ("lines", "first"),
    [
        (["images = 400", "loading the model", "epoch: 3, iters: 100"], 800),
        (["images = 400", "loading the model", "End of epoch 3 / 4"], 800),
        (["images = 400", "epoch: 1, iters: 100", "epoch: 2, iters: 100"], 0),
        (["images = 400", "loading the model"], None),
    ],
)
def test_a_training_in_epochs_is_on_record_with_where_it_went_on(toy_job, events, lines, first):
    """Pix2Pix does not say at which step it goes on: its first epoch does."""
    argv = (sys.executable, "-c", "import sys; print(sys.argv[1])", "\n".join(lines))
    record = train(toy_job(argv=argv, patterns=EPOCHS), events)
    assert record.last.first_iteration == first


def after(step, action):
    """Do something once, when a training has come to a step."""
    done = []

    def watch(event):
        if event.kind == "metric" and event.done >= step and not done:
            done.append(True)
            action()

    return watch


def test_asked_once_it_checkpoints_and_stops(toy_job, events):
    stops = StopRequests()
    job = toy_job(steps=10_000)
    record = train(job, events, stops=stops, watch=after(12, lambda: stops.add(signal.SIGINT)))
    last = record.last
    assert (record.state, last.reason, last.exit_code) == ("CANCELLED", "cancelled", 75)
    assert last.stopped_by == "SIGINT"
    assert last.checkpoint == f"checkpoints/step-{last.last_iteration:06}.txt"
    assert (job.run_dir / last.checkpoint).exists()


def test_asked_twice_it_is_killed_now(toy_job, events):
    stops = StopRequests()
    started = time.monotonic()

    def ask_twice():
        stops.add(signal.SIGINT)
        stops.add(signal.SIGINT)

    job = toy_job("deaf", steps=10_000, stop_wait_s=600)
    record = train(job, events, stops=stops, watch=after(12, ask_twice))
    assert (record.state, record.last.exit_code) == ("CANCELLED", 137)
    assert record.last.checkpoint >= "checkpoints/step-000010.txt"
    assert time.monotonic() - started < 60  # and not 600


def test_a_training_deaf_to_the_request_is_killed_when_its_time_is_up(toy_job, events):
    stops = StopRequests()
    job = toy_job("deaf", steps=10_000, stop_wait_s=0.3)
    record = train(job, events, stops=stops, watch=after(12, lambda: stops.add(signal.SIGTERM)))
    assert (record.state, record.last.exit_code, record.last.stopped_by) == (
        "CANCELLED", 137, "SIGTERM"
    )  # fmt: skip
    warnings = [event.text for event in events if event.kind == "warning"]
    assert warnings == [
        "stopping: the training may write a checkpoint",
        "killing the training",
    ]


def test_asked_before_the_start_nothing_is_started(toy_job, events):
    stops = StopRequests()
    stops.add(signal.SIGTERM)
    job = toy_job()
    record = train(job, events, stops=stops)
    assert record.state == "CANCELLED"
    assert not (job.run_dir / "checkpoints").exists()


def test_the_record_is_readable_and_close_behind_at_every_moment(toy_job, events):
    job = toy_job()
    seen = []

    def watch(event):
        if event.kind == "metric":
            document = on_disk(job)
            seen.append((event.done, document["state"], document["attempts"][0]["checkpoint"]))

    train(job, events, watch=watch)
    assert {state for _, state, _ in seen} == {"RUNNING"}
    assert (12, "RUNNING", "checkpoints/step-000010.txt") in seen


class LostProcess:
    """An engine that goes away: what cannot be staged in milliseconds."""

    def __init__(self):
        self.gone = threading.Event()

    def lines(self):
        yield b"step: 3/20  loss: 1.0  time: 0.1"
        raise EngineUnavailable("the container engine stopped answering")

    def wait(self):
        raise AssertionError

    def signal(self, _number):
        raise EngineUnavailable("the container engine stopped answering")

    def kill(self):
        raise EngineUnavailable("the container engine stopped answering")

    def pids(self):
        return ()


class Place:
    """An executor of one process, whose removal may fail."""

    def __init__(self, process, *, removal=None, refusal=None):
        self.process, self.removal, self.refusal = process, removal, refusal

    @contextmanager
    def start(self, _job):
        if self.refusal:
            raise self.refusal
        yield self.process
        if self.removal:
            raise self.removal


def test_a_lost_engine_is_a_reason_even_where_it_cannot_remove_anything(toy_job, events):
    place = Place(LostProcess(), removal=EngineUnavailable("gone"))
    record = train(toy_job(), events, executor=place)
    assert (record.state, record.last.reason, record.last.exit_code) == (
        "FAILED", "engine-lost", None
    )  # fmt: skip
    assert record.last.last_iteration == 3


class SilentProcess(LostProcess):
    """One that says nothing and does not die, not even when killed."""

    def lines(self):
        self.gone.wait(timeout=30)
        yield from ()

    def wait(self):
        return Ending(0)


class RushingClock(SlowClock):
    """Ten seconds pass at every look."""

    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        self.at += 10
        return self.at


def test_a_place_that_cannot_even_kill_is_given_up(toy_job, events):
    stops, process = StopRequests(), SilentProcess()
    asking = threading.Timer(0.3, lambda: [stops.add(signal.SIGINT) for _ in range(2)])
    asking.start()
    record = train(toy_job(), events, executor=Place(process), stops=stops, clock=RushingClock())
    process.gone.set()
    asking.join()
    assert (record.state, record.last.reason) == ("CANCELLED", "cancelled")


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        (EngineUnavailable("no engine"), "engine-lost"),
        (RunFailed("the engine refused"), "crash"),
    ],
)
def test_what_cannot_be_started_is_said_and_on_record(toy_job, events, refusal, reason):
    job = toy_job()
    with pytest.raises(type(refusal)):
        train(job, events, executor=Place(None, refusal=refusal))
    document = on_disk(job)
    assert (document["state"], document["attempts"][0]["reason"]) == ("FAILED", reason)


def test_a_full_disk_ends_the_training_and_is_said(toy_job, events):
    job = toy_job()
    with open_folder(job.run_dir) as folder:
        record = RunRecord(
            id=job.run_id, recipe="toy", reference="toy", run_dir=str(job.run_dir), on="local"
        )
        journal = Journal(folder, record, job.checkpoints, SystemClock())
        journal.begin(())
        (job.run_dir / "log.txt").symlink_to("/dev/full")
        surroundings = Surroundings(SystemClock(), StopRequests(), events.append)
        with pytest.raises(RunFailed, match=r"cannot write in .*run"):
            supervise(job, LocalExecutor(), journal, surroundings)


def test_signals_are_collected_and_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stops:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert (stops.count, stops.first) == (2, "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_requests() as stops:
            signal.raise_signal(signal.SIGHUP)
            assert (stops.count, stops.first) == (0, None)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_outside_the_main_thread_nothing_is_collected():
    with_thread = []

    def body():
        with stop_requests() as stops:
            with_thread.append(stops.count)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert with_thread == [0]


def test_stamps_are_utc_to_the_second():
    assert stamp(SlowClock().now()) == "2026-11-22T15:35:00Z"
