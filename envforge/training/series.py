"""What is worth a curve: one line of JSON a moment, appended to ``series.jsonl``.

Only ever appended to; a line that a kill broke off is passed over by whoever reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import msgspec

EVERY_S = 2.0
"""How often the use of the machine is sampled."""
_CURVE = 2000
"""Points a curve is drawn from: the longer a training lasts, the further they lie apart."""
_LEAST_S, _MOST_S = 0.05, 10.0


class Point(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One moment of an attempt: losses, or use of the machine."""

    at: float
    """Seconds since 1970."""
    attempt: int
    """Counted from 0, as in ``run.json``."""
    step: int | None = None
    losses: dict[str, float | None] = {}
    """null: no number."""
    seconds: float | None = None
    """Of one step."""
    cpu: float | None = None
    """Cores the training keeps busy."""
    machine_cpu: float | None = None
    """Share of all cores that are busy, 0 to 1."""
    waiting: float | None = None
    """Share of the cores' time spent waiting for disks, 0 to 1."""
    read_mib_s: float | None = None
    """Read from disks by the training, in MiB a second."""
    memory_mib: float | None = None
    """Held by the training's processes."""
    gpu: float | None = None
    """Share of the time in which a kernel ran on the busiest card, 0 to 1."""
    gpu_memory_mib: float | None = None
    """Held on that card, by everybody."""
    cores: int | None = None


class Series:
    """Writes the points of one attempt. Use it as a context manager."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._stream = path.open("ab", buffering=0)
        self._attempt = attempt
        self._begun: float | None = None
        self._due = -math.inf
        self._held: Point | None = None

    def close(self) -> None:
        """Write the last losses, and close the file."""
        if self._held is not None:
            self.add(self._held)
        self._stream.close()

    def add_losses(
        self, at: float, step: int, losses: dict[str, float], seconds: float | None
    ) -> None:
        """Take a line of progress; one that comes too soon is kept only if none follows."""
        finite = {name: _rounded(value) for name, value in losses.items()}
        point = Point(
            at=round(at, 2), attempt=self._attempt, step=step, losses=finite, seconds=seconds
        )
        self._begun = at if self._begun is None else self._begun
        if at < self._due and None not in finite.values():
            self._held = point
            return
        apart = min(max((at - self._begun) / _CURVE, _LEAST_S), _MOST_S)
        self._due, self._held = at + apart, None
        self.add(point)

    def add(self, point: Point) -> None:
        """Append one point; one write, so that two writers do not mix."""
        point = msgspec.structs.replace(point, attempt=self._attempt)
        self._stream.write(msgspec.json.encode(point) + b"\n")


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def read_series(path: Path) -> Iterator[Point]:
    """Yield every whole point of a run; nothing where there is no file."""
    decoder = msgspec.json.Decoder(Point)
    try:
        stream = path.open("rb")
    except OSError:
        return
    with stream:
        for line in stream:
            try:
                yield decoder.decode(line)
            except msgspec.DecodeError:
                continue
