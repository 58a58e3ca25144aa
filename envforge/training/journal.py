"""From what a supervisor sees to what ``run.json`` says, at most a few seconds behind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import msgspec

from envforge.recipes.document import Setting
from envforge.training.clock import Clock, stamp
from envforge.training.executor import Ending
from envforge.training.failures import Verdict
from envforge.training.metrics import LogReader, Loss
from envforge.training.record import (
    Attempt,
    Change,
    CheckOutcome,
    LossSummary,
    RunFolder,
    RunRecord,
    State,
    supervisor_name,
)

_SAVE_S = 5.0


class Journal:
    """Writes one attempt of a run into its folder."""

    def __init__(self, folder: RunFolder, record: RunRecord, glob: str, clock: Clock) -> None:
        self._folder = folder
        self._glob = glob
        self._clock = clock
        self._record = record
        self._saved_at = -math.inf
        self._checkpoint: str | None = None

    @property
    def record(self) -> RunRecord:
        """What ``run.json`` holds."""
        return self._record

    def change(self, **changes: Any) -> None:
        """Put something about the whole run on record."""
        self._record = msgspec.structs.replace(self._record, **changes)
        self._folder.write(self._record)

    def begin(
        self,
        changes: tuple[Change, ...],
        settings: Mapping[str, Setting] | None = None,
        command: tuple[str, ...] | None = None,
        **facts: Any,
    ) -> None:
        """Open an attempt, before anything of it is started: a kill may come at any moment.

        ``settings`` and ``command`` become the run's, in the same write; ``facts`` are further
        fields of the :class:`Attempt`.
        """
        started = stamp(self._clock.now())
        attempt = Attempt(started=started, changes=changes, supervisor=supervisor_name(), **facts)
        attempts = (*self._record.attempts, attempt)
        self._checkpoint = None
        self.change(
            state="RUNNING",
            attempts=attempts,
            lowering=None,
            settings=self._record.settings if settings is None else dict(settings),
            command=self._record.command if command is None else command,
        )

    def stop(self, asked: str) -> RunRecord:
        """Say that ``asked``, a signal, has stopped the run between two attempts.

        What was decided since the last one is not put on record: the next start decides it anew.
        """
        record = self._folder.record or self._record
        record = record.with_last(stopped_by=asked) if record.attempts else record
        self._record = msgspec.structs.replace(record, state="CANCELLED")
        self._folder.write(self._record)
        return self._record

    def overrule(self, verdict: Verdict) -> None:
        """Say of the last attempt, which has ended, what was found out about it since."""
        record = self._record.with_last(reason=verdict.reason, because=verdict.because)
        self._record = msgspec.structs.replace(record, state=state_after(verdict))
        self._folder.write(self._record)

    def follow(self, reader: LogReader, seconds_per_step: float | None) -> None:
        """Save a new checkpoint's name at once, and how far it is every few seconds."""
        now = self._clock.monotonic()
        if reader.checkpoint == self._checkpoint and now - self._saved_at < _SAVE_S:
            return
        self._saved_at, self._checkpoint = now, reader.checkpoint
        self._record = self._updated(reader, seconds_per_step)
        self._folder.write(self._record)

    def end(
        self,
        reader: LogReader,
        seconds_per_step: float | None,
        ending: Ending,
        verdict: Verdict,
        **facts: Any,
    ) -> RunRecord:
        """Close the attempt and say what became of the run; ``facts`` as for :meth:`begin`."""
        record = self._updated(reader, seconds_per_step).with_last(
            ended=stamp(self._clock.now()),
            exit_code=ending.exit_code,
            reason=verdict.reason,
            because=verdict.because,
            checkpoint=reader.checkpoint or self._folder.newest(self._glob),
            good_iteration=reader.good_step,
            **facts,
        )
        self._record = msgspec.structs.replace(record, state=state_after(verdict))
        self._folder.write(self._record)
        return self._record

    def _updated(self, reader: LogReader, seconds_per_step: float | None) -> RunRecord:
        first = 0 if reader.step is not None else None
        checks = tuple(CheckOutcome(**check._asdict()) for check in reader.checks.values())
        record = self._record.with_last(
            first_iteration=first if reader.resumed_at is None else reader.resumed_at,
            last_iteration=reader.step,
            total_iterations=reader.total,
            checkpoint=reader.checkpoint,
            seconds_per_iteration=seconds_per_step,
            memory_mib=reader.memory_mib,
            usual_loss=reader.usual,
            losses={name: _summary(loss) for name, loss in reader.losses.items()},
        )
        return msgspec.structs.replace(record, checks=checks)


def _summary(loss: Loss) -> LossSummary:
    values: dict[str, Any] = {
        name: value if math.isfinite(value) else None  # JSON has no NaN
        for name, value in vars(loss).items()
    }
    return LossSummary(**values)


def state_after(verdict: Verdict) -> State:
    """Say what the run is, after an attempt that ended so."""
    if verdict.reason == "finished":
        return "SUCCEEDED"
    return "CANCELLED" if verdict.reason in ("cancelled", "preempted") else "FAILED"


def close_left_open(folder: RunFolder, record: RunRecord, glob: str) -> RunRecord:
    """Close an attempt whose envforge was killed: ``crash``, at the log's last sign of life."""
    if not record.attempts or record.last.ended is not None:
        return record
    modified = folder.log_modified()
    seen = stamp(datetime.fromtimestamp(modified, timezone.utc)) if modified else None
    closed = record.with_last(
        ended=max(seen or record.last.started, record.last.started),
        reason="crash",
        because=("envforge itself was killed during this attempt",),
        checkpoint=folder.newest(glob) or record.last.checkpoint,
    )
    return msgspec.structs.replace(closed, state="FAILED")
