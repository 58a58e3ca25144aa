"""What a training waits for: its card, the processors or the disks. Pure, from samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Literal, NamedTuple

from envforge.training.series import EVERY_S, Point

Kind = Literal["gpu", "disk", "cpu", "crowded", "one-core", "unclear", "unknown"]

_ENOUGH = 3
"""Samples below which nothing is said."""
_BUSY_GPU = 0.85
_BUSY_CPU = 0.85
_OWN_HALF = 0.5
"""Of the cores: below it, a machine without an idle one is busy with something else."""
_WAITING = 0.2
_ONE_CORE = 0.85, 1.3
"""The training keeps about one core busy: its main process is what it waits for."""


class Bottleneck(NamedTuple):
    """The verdict, and the medians that say so; None for what could not be measured."""

    kind: Kind
    samples: int
    gpu: float | None = None
    cpu: float | None = None
    """Cores the training kept busy."""
    machine_cpu: float | None = None
    waiting: float | None = None
    read_mib_s: float | None = None
    gpu_memory_mib: float | None = None
    memory_mib: float | None = None
    cores: int | None = None


def find_bottleneck(points: Iterable[Point]) -> Bottleneck:
    """Judge by the medians of the samples taken while steps were made.

    What comes before an attempt's first line of progress and after its last counts for nothing:
    imports, checks of its own, a test at the end.
    """
    samples = _while_training(list(points))
    if len(samples) < _ENOUGH:
        return Bottleneck("unknown", len(samples))
    numbers = {name: _median(samples, name) for name in _MEASURED}
    cores = next((point.cores for point in reversed(samples) if point.cores), None)
    return Bottleneck(_kind(numbers, cores), len(samples), **numbers, cores=cores)


def _while_training(points: Sequence[Point]) -> list[Point]:
    """A sample tells of the seconds before it, so the first one after the last line counts, too."""
    spans: dict[int, tuple[float, float]] = {}
    for point in points:
        if point.losses:
            begun, _ = spans.get(point.attempt, (point.at, point.at))
            spans[point.attempt] = begun, point.at
    return [point for point in points if point.cpu is not None and _within(point, spans)]


def _within(point: Point, spans: dict[int, tuple[float, float]]) -> bool:
    begun, ended = spans.get(point.attempt, (math.inf, -math.inf))
    return begun < point.at <= ended + EVERY_S


_MEASURED = ("gpu", "cpu", "machine_cpu", "waiting", "read_mib_s", "gpu_memory_mib", "memory_mib")


def _median(points: Sequence[Point], name: str) -> float | None:
    values = [value for point in points if (value := getattr(point, name)) is not None]
    return median(values) if values else None


def _kind(numbers: dict[str, float | None], cores: int | None) -> Kind:
    gpu, cpu = numbers["gpu"], numbers["cpu"] or 0.0
    if gpu is not None and gpu >= _BUSY_GPU:
        return "gpu"
    if (numbers["waiting"] or 0.0) >= _WAITING:
        return "disk"
    if cpu >= _BUSY_CPU * (cores or 1):
        return "cpu"
    if (numbers["machine_cpu"] or 0.0) >= _BUSY_CPU:
        return "cpu" if cpu >= _OWN_HALF * (cores or 1) else "crowded"
    return "one-core" if _ONE_CORE[0] <= cpu <= _ONE_CORE[1] else "unclear"
