from __future__ import annotations

import io

import pytest

from envforge.events import Event
from envforge.report.duration import duration_text
from envforge.report.run import _Plain, metric_text, outcome_text, speed_text
from envforge.training.record import Attempt, CheckOutcome, LossSummary, RunRecord


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (11_220, "3 h 07 min"),
        (187_200, "2 d 04 h"),
    ],
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration_text(seconds) == text


def test_speed_turns_over_at_a_second_a_step():
    assert [speed_text(each) for each in (0.1, 0.999, 1, 5.3)] == [
        "10.0 steps/s", "1.0 steps/s", "1.0 s/step", "5.3 s/step"
    ]  # fmt: skip
    assert speed_text(0) == "1000000.0 steps/s"


def metric(step, total=300, **numbers):
    return Event("metric", "", step, total, tuple(numbers.items()))


def test_a_metric_says_losses_speed_and_what_is_left():
    event = metric(20, loss_g=1.23456, seconds_per_step=0.125, left_s=35)
    assert metric_text(event) == "loss_g 1.2346  8.0 steps/s  35 s left"
    assert metric_text(metric(20, loss=float("nan"))) == "loss nan"
    assert metric_text(metric(20)) == ""


def test_a_metric_says_images_and_memory_where_they_are_known():
    event = metric(7, loss=1.5, seconds_per_step=0.125, left_s=36.0, images_per_s=32.0,
                   memory_mib=1692.0)  # fmt: skip
    assert metric_text(event) == "loss 1.5000  8.0 steps/s  32.0 images/s  36 s left  1692 MiB"


def test_plain_lines_of_progress_come_every_few_seconds_and_at_the_end():
    now, stream = [0.0], io.StringIO()
    show = _Plain(stream, verbose=False, clock=lambda: now[0])
    for step in (5, 10, 15, 20):
        show(metric(step, 20, loss=1.0))
        now[0] += 3
    show(metric(7, 0, loss=1.0))
    show(Event("log", "a line nobody understands"))
    show(Event("warning", "look"))
    assert stream.getvalue().splitlines() == [
        "step 5/20  loss 1.0000",
        "step 15/20  loss 1.0000",
        "step 20/20  loss 1.0000",
        "!! look",
    ]


def test_verbose_lines_are_all_lines():
    stream = io.StringIO()
    show = _Plain(stream, verbose=True, clock=lambda: 0.0)
    for event in (metric(5), metric(10), Event("log", "a line nobody understands")):
        show(event)
    assert len(stream.getvalue().splitlines()) == 3


def test_the_outcome_of_a_run_of_two_attempts(tmp_path):
    (tmp_path / "run.json").write_text("")
    (tmp_path / "samples").mkdir()
    losses = {"loss_g": LossSummary(first=3.0, last=None, least=1.0)}
    first = Attempt(started="2026-11-22T15:00:00Z", ended="2026-11-22T16:00:00Z", losses=losses)
    second = Attempt(
        started="2026-11-22T17:00:00Z",
        ended="2026-11-22T17:07:00Z",
        last_iteration=300,
        because=("all was reached, yet it ended with exit code 1",),
    )
    record = RunRecord(
        id="x",
        recipe="canary",
        reference="canary",
        run_dir=str(tmp_path),
        on="docker",
        image="envforge/torch:1.0.1",
        torch="1.0.1",
        state="SUCCEEDED",
        attempts=(first, second),
        checks=tuple(
            CheckOutcome(name=name, outcome=outcome, words="")
            for name, outcome in (("a", "ok"), ("b", "ok"), ("c", "skipped"))
        ),
        show=("samples", "canary.json"),
    )
    assert outcome_text(record).splitlines()[1:] == [
        "  checks      2 ok, 1 skipped",
        "  ! all was reached, yet it ended with exit code 1",
        "  loss_g      3.0000 -> not a number (least 1.0000)",
        "  torch       1.0.1 of envforge/torch:1.0.1",
        f"  run         {tmp_path}",
        "              run.json  samples",
    ]
    assert "canary succeeded, 300 steps, 1 h 07 min, 2 attempts" in outcome_text(record)
