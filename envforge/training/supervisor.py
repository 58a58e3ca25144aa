"""One attempt of a training, watched from outside: started, read, stopped, judged, recorded.

The supervisor stands outside the training process because old frameworks lie about their end. It
reads through a :class:`Process`, knows time through a :class:`Clock`, writes only ``run.json`` and
``log.txt``, and prints nothing.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from typing import IO, NamedTuple

from envforge.errors import EngineUnavailable, EnvforgeError, RunFailed
from envforge.events import Event, OnEvent
from envforge.training.clock import Clock, stamp
from envforge.training.executor import Ending, Executor, Process
from envforge.training.failures import Verdict, fingerprint, judge, missing_for_success
from envforge.training.job import Job, Reason
from envforge.training.journal import Journal
from envforge.training.metrics import LogReader, Pace
from envforge.training.record import LOG, RunRecord
from envforge.training.stop import StopRequests

_POLL_S = 0.1
_DIE_S = 15.0
"""How long a killed training may take to be gone, before it counts as lost."""
_BACKLOG = 4096
"""Lines that may wait to be read; a training that says more waits for us, not we for memory."""


class Surroundings(NamedTuple):
    """What the world outside the training gives to its supervisor."""

    clock: Clock
    stops: StopRequests
    on_event: OnEvent


def supervise(
    job: Job, executor: Executor, journal: Journal, surroundings: Surroundings
) -> RunRecord:
    """Take an attempt that ``journal`` has begun from its start to its judgement.

    An EnvforgeError where it cannot be started, RunFailed where the run directory cannot be
    written. Every other end is in the record.
    """
    result_file = job.run_dir / job.result.file if job.result else None
    before = fingerprint(result_file) if result_file else None
    watch = Watch(job, journal, surroundings)
    ending = _live(watch, job, executor, surroundings)
    missing = missing_for_success(watch.reader, job.result, job.run_dir, before)
    stopped = surroundings.stops.count > 0
    verdict = judge(ending, watch.reader, missing, job.exit_reasons, stopped=stopped)
    return watch.close(ending, verdict)


def _live(watch: Watch, job: Job, executor: Executor, surroundings: Surroundings) -> Ending:
    """Start, follow, and leave nothing behind; a removal that fails does not undo the end."""
    ending: Ending | None = None
    if surroundings.stops.count:
        return Ending(None)
    try:
        with (job.run_dir / LOG).open("ab", buffering=0) as log:
            started = stamp(surroundings.clock.now())
            log.write(f"# envforge: {started} {' '.join(job.argv)}\n".encode())
            with executor.start(job) as process:
                ending = watch.follow(process, log)
    except EnvforgeError as error:
        if ending is None:
            reason: Reason = "engine-lost" if isinstance(error, EngineUnavailable) else "crash"
            watch.close(Ending(None, lost=str(error)), Verdict(reason, (str(error),)))
            raise
    except OSError as error:
        raise RunFailed(f"cannot write in {job.run_dir}", because=(str(error),)) from error
    return ending


class Watch:
    """One training until its end. States: running, asked to stop, killed, ended."""

    def __init__(self, job: Job, journal: Journal, surroundings: Surroundings) -> None:
        self.reader = LogReader(job.patterns)
        self._pace = Pace()
        self._journal = journal
        self._stop_wait_s = job.stop_wait_s
        self._clock, self._stops, self._on_event = surroundings
        self._items: queue.Queue[bytes | Ending | BaseException] = queue.Queue(_BACKLOG)
        self._kill_at: float | None = None
        self._lost_at: float | None = None

    def follow(self, process: Process, log: IO[bytes]) -> Ending:
        """Read until the training has ended, obeying requests to stop on the way."""
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        while True:
            if self._obey(process):
                return Ending(None, lost="the training did not end when it was killed")
            try:
                item = self._items.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(item, Ending):
                return item
            if isinstance(item, BaseException):
                raise item
            log.write(item + b"\n")
            self._take(item)

    def close(self, ending: Ending, verdict: Verdict) -> RunRecord:
        """Put the end on record."""
        return self._journal.end(
            self.reader, self._pace.seconds_per_step, ending, verdict, self._stops.first
        )

    def _listen(self, process: Process) -> None:
        """Wait, in a thread of its own, for what only comes by waiting."""
        try:
            for line in process.lines():
                self._items.put(line)
            self._items.put(process.wait())
        except EnvforgeError as error:
            self._items.put(Ending(None, lost=str(error)))
        except BaseException as error:  # noqa: BLE001 -- raised again where somebody hears it
            self._items.put(error)

    def _take(self, line: bytes) -> None:
        kind = self.reader.read(line)
        text = self.reader.tail[-1]
        if kind == "progress":
            self._on_event(self._metric(text))
        else:
            self._on_event(Event("step" if kind == "notable" else "log", text))
        self._journal.follow(self.reader, self._pace.seconds_per_step)

    def _metric(self, text: str) -> Event:
        """``numbers``: the losses, ``seconds_per_step`` and ``left_s``, where they are known."""
        step, total = self.reader.step or 0, self.reader.total
        self._pace.add(step, self.reader.seconds_per_step, self._clock.monotonic())
        numbers = [(name, loss.last) for name, loss in self.reader.losses.items()]
        speed = {
            "seconds_per_step": self._pace.seconds_per_step,
            "left_s": self._pace.left_s(step, total),
        }
        numbers += [(name, value) for name, value in speed.items() if value is not None]
        return Event("metric", text, step, total or 0, tuple(numbers))

    def _obey(self, process: Process) -> bool:
        """Asked once: a signal, and time for a checkpoint. Asked twice, or too late: the end.

        True where even the end does not come.
        """
        if not self._stops.count:
            return False
        now = self._clock.monotonic()
        if self._kill_at is None:
            self._kill_at = now + self._stop_wait_s
            self._on_event(Event("warning", "stopping: the training may write a checkpoint"))
            with contextlib.suppress(EnvforgeError):  # a lost engine is heard of in _listen
                process.signal(signal.SIGTERM)
        if self._lost_at is None and (self._stops.count > 1 or now >= self._kill_at):
            self._lost_at = now + _DIE_S
            self._on_event(Event("warning", "killing the training"))
            with contextlib.suppress(EnvforgeError):
                process.kill()
        return self._lost_at is not None and now >= self._lost_at
