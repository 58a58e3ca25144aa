from __future__ import annotations

import math

import pytest

from envforge.training.bottleneck import Bottleneck, find_bottleneck
from envforge.training.series import Point, Series, read_series


def points_of(path):
    return list(read_series(path))


def test_losses_come_back_and_a_value_that_is_no_number_as_null(tmp_path):
    series = Series(tmp_path / "series.jsonl", 1)
    series.add_losses(1000.0, 5, {"loss": 1.5}, 0.1)
    series.add_losses(1000.01, 6, {"loss": math.nan}, 0.1)
    series.close()
    first, second = points_of(tmp_path / "series.jsonl")
    assert (first.attempt, first.step, first.losses, first.seconds) == (1, 5, {"loss": 1.5}, 0.1)
    assert second.losses == {"loss": None}


def test_a_long_training_makes_no_more_points_than_a_curve_needs_and_keeps_the_last(tmp_path):
    series = Series(tmp_path / "series.jsonl", 0)
    for step in range(20_000):
        series.add_losses(step * 0.5, step, {"loss": 1.0}, None)
    series.close()
    points = points_of(tmp_path / "series.jsonl")
    assert len(points) < 20_000 * 0.9
    assert points[-1].step == 19_999


def test_a_line_that_a_kill_broke_off_is_passed_over(tmp_path):
    path = tmp_path / "series.jsonl"
    series = Series(path, 0)
    series.add(Point(at=1, attempt=0, cpu=1.0))
    series.close()
    with path.open("ab") as stream:
        stream.write(b'{"at":2,"att')
    assert [point.at for point in points_of(path)] == [1.0]
    assert points_of(tmp_path / "none") == []


def used(**fields):
    """Steps from second 10 to 20, a sample every second from 0 to 30."""
    steps = [Point(at=at, attempt=0, step=at, losses={"loss": 1.0}) for at in (10, 20)]
    busy = {"cpu": 0.5, "machine_cpu": 0.1, "waiting": 0.0, "cores": 8, **fields}
    return [*steps, *(Point(at=at, attempt=0, **busy) for at in range(30))]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gpu", {"gpu": 0.97, "waiting": 0.5}),
        ("disk", {"gpu": 0.2, "waiting": 0.4}),
        ("cpu", {"gpu": 0.3, "cpu": 7.5, "machine_cpu": 0.95}),
        ("crowded", {"gpu": 0.3, "cpu": 0.5, "machine_cpu": 0.99}),
        ("one-core", {"gpu": 0.5, "cpu": 1.02, "machine_cpu": 0.14}),
        ("unclear", {"gpu": 0.3, "cpu": 0.2}),
        ("cpu", {"cpu": 8.0, "machine_cpu": 1.0}),
    ],
)
def test_the_verdict_names_what_is_waited_for(kind, fields):
    assert find_bottleneck(used(**fields)).kind == kind


def test_what_was_before_the_first_step_and_after_the_last_counts_for_nothing():
    points = [
        point if point.losses or 10 < point.at <= 22 else Point(at=point.at, attempt=0, cpu=8.0)
        for point in used(gpu=0.9)
    ]
    assert find_bottleneck(points).samples == 12
    assert find_bottleneck(points).kind == "gpu"


def test_too_few_samples_give_no_verdict():
    assert find_bottleneck(used()[:2]) == Bottleneck("unknown", 0)
