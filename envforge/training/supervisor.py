"""One attempt of a training, watched from outside: started, read, stopped, judged, recorded.

The supervisor stands outside the training process because old frameworks lie about their end. It
reads through a :class:`Process`, knows time through a :class:`Clock`, writes only ``run.json``,
``log.txt``, ``series.jsonl`` and, of a hanging training, its stacks; it prints nothing.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator
from typing import IO, NamedTuple

from envforge.errors import EngineUnavailable, EnvforgeError, RunFailed
from envforge.events import Event, OnEvent
from envforge.training.clock import Clock, stamp
from envforge.training.executor import Ending, Executor, Process
from envforge.training.failures import Verdict, fingerprint, judge, missing_for_success
from envforge.training.job import Job, Reason
from envforge.training.journal import Journal
from envforge.training.keeper import Keeper
from envforge.training.metrics import LogReader, Pace
from envforge.training.record import LOG, SERIES, RunRecord
from envforge.training.series import Series
from envforge.training.stacks import dump_stacks
from envforge.training.stop import StopRequests
from envforge.training.usage import Sampler

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
    written = job.run_dir / job.written if job.written else None
    earlier = fingerprint(written) if written else None
    watch = Watch(job, journal, surroundings)
    ending = _live(watch, job, executor, surroundings)
    missing = missing_for_success(watch.reader, job.result, job.run_dir, before)
    if written and fingerprint(written) in (None, earlier):
        missing = (*missing, f"{job.written} was not written")
    if job.exit_code not in (None, ending.exit_code):
        missing = (*missing, f"a success ends with exit code {job.exit_code}")
    asked = surroundings.stops.first
    seen = judge(ending, watch.reader, missing, job.exit_reasons, stopped_by=asked)
    return watch.close(ending, seen if asked or watch.ours is None else watch.ours)


def _live(watch: Watch, job: Job, executor: Executor, surroundings: Surroundings) -> Ending:
    """Start, follow, and leave nothing behind; a removal that fails does not undo the end."""
    ending: Ending | None = None
    if surroundings.stops.count:
        return Ending(None)
    try:
        with contextlib.ExitStack() as stack:
            log = stack.enter_context((job.run_dir / LOG).open("ab", buffering=0))
            started = stamp(surroundings.clock.now())
            log.write(f"# envforge: {started} {' '.join(job.argv)}\n".encode())
            process = stack.enter_context(executor.start(job))
            stack.enter_context(watch.recording(process, executor))
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
        parts = job.rule.parts if job.rule else ()
        explosion = job.ladder.divergence.explosion
        usual = journal.record.usual_before
        self.reader = LogReader(job.patterns, parts, explosion, usual, job.total)
        self.ours: Verdict | None = None
        """Why we ended it ourselves; None where we did not."""
        self._job = job
        self._pace = Pace()
        self._journal = journal
        self._clock, self._stops, self._on_event = surroundings
        self._items: queue.Queue[bytes | Ending | BaseException] = queue.Queue(_BACKLOG)
        self._kill_at: float | None = None
        self._lost_at: float | None = None
        self._heard_at = self._clock.monotonic()
        self._good_at: float | None = None
        self._stacks: str | None = None
        self._series: Series | None = None
        self._sampler: Sampler | None = None

    @contextlib.contextmanager
    def recording(self, process: Process, executor: Executor) -> Iterator[None]:
        """Write curves, and keep the checkpoints few and known to be good, as long as it lasts."""
        attempt = len(self._journal.record.attempts) - 1
        self._series = Series(self._job.run_dir / SERIES, attempt)
        self._sampler = Sampler(process.pids, self._series.add, self._clock)
        keeper = Keeper(self._job, executor, self._on_event)
        try:
            yield
        finally:
            keeper.close()
            self._sampler.close()
            self._series.close()

    def follow(self, process: Process, log: IO[bytes]) -> Ending:
        """Read until the training has ended, obeying requests to stop on the way."""
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        while True:
            if self._obey(process):
                return Ending(None, lost="the training did not end when it was killed")
            try:
                item = self._items.get(timeout=_POLL_S)
            except queue.Empty:
                self._mind_silence(process)
                continue
            if isinstance(item, Ending):
                return item
            if isinstance(item, BaseException):
                raise item
            log.write(item + b"\n")
            self._take(item)
            self._mind_values(process)

    def close(self, ending: Ending, verdict: Verdict) -> RunRecord:
        """Put the end on record."""
        peak = self._sampler.peak_gpu_mib if self._sampler else None
        return self._journal.end(
            self.reader,
            self._pace.seconds_per_step,
            ending,
            verdict,
            stopped_by=self._stops.first,
            memory_mib=self.reader.memory_mib or peak,
            good_at=self._good_at,
            stacks=self._stacks,
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
        if kind == "progress" or self.reader.step is None:
            self._heard_at = self._clock.monotonic()
        if kind == "progress":
            self._take_progress(text)
        else:
            self._on_event(Event("step" if kind == "notable" else "log", text))
        self._journal.follow(self.reader, self._pace.seconds_per_step)

    def _take_progress(self, text: str) -> None:
        now, step = self._clock.now().timestamp(), self.reader.step or 0
        if self.reader.good_step == step:
            self._good_at = now
        self._pace.add(step, self.reader.seconds_per_step, self._clock.monotonic())
        if self._series is not None:
            losses = {name: loss.last for name, loss in self.reader.losses.items()}
            self._series.add_losses(now, step, losses, self._pace.seconds_per_step)
        self._on_event(self._metric(text, step))

    def _metric(self, text: str, step: int) -> Event:
        """``numbers``: the losses; speed, time left and memory, where they are known."""
        numbers = [(name, loss.last) for name, loss in self.reader.losses.items()]
        pace, images = self._pace.seconds_per_step, self._job.images_per_step
        speed = {
            "seconds_per_step": pace,
            "left_s": self._pace.left_s(step, self.reader.total),
            "images_per_s": images / pace if images and pace else None,
            "memory_mib": self._held_mib(),
        }
        numbers += [(name, value) for name, value in speed.items() if value is not None]
        return Event("metric", text, step, self.reader.total or 0, tuple(numbers))

    def _held_mib(self) -> float | None:
        """On the card, as the training or the driver says; else in the machine."""
        sampler = self._sampler
        seen = (sampler.gpu_memory_mib or sampler.memory_mib) if sampler else None
        return self.reader.memory_mib or seen

    def _mind_values(self, process: Process) -> None:
        """Kill at the first bad value: asked politely, it would save it as its last checkpoint."""
        if self.reader.bad_value and self.ours is None and not self._stops.count:
            self.ours = Verdict("diverged", (self.reader.bad_value,))
            self._end(process, f"diverged: {self.reader.bad_value}")

    def _mind_silence(self, process: Process) -> None:
        """A training that says nothing for too long hangs: look where, and end it."""
        limit = self._job.ladder.silence_s
        silent = self._clock.monotonic() - self._heard_at
        if limit is None or silent < limit or self.ours is not None or self._stops.count:
            return
        name = f"stacks-{len(self._journal.record.attempts)}.txt"
        with contextlib.suppress(EnvforgeError, OSError):
            if dump_stacks(process.pids(), self._job.run_dir / name):
                self._stacks = name
        words = f"no progress for {silent:.0f} s"
        where = f"its stacks are in {name}" if self._stacks else "its stacks end the log"
        self.ours = Verdict("hang", (words, where))
        if self._stacks:
            self._end(process, f"hanging: {words}")
        else:  # PYTHONFAULTHANDLER makes a Python 3 write its stacks as it dies of this
            self._end(process, f"hanging: {words}", signal.SIGABRT)

    def _end(self, process: Process, why: str, number: int = signal.SIGKILL) -> None:
        self._on_event(Event("warning", why))
        self._lost_at = self._clock.monotonic() + _DIE_S
        with contextlib.suppress(EnvforgeError):  # a lost engine is heard of in _listen
            if number == signal.SIGKILL:
                process.kill()
            else:
                process.signal(number)

    def _obey(self, process: Process) -> bool:
        """Asked once: a signal, and time for a checkpoint. Asked twice, or too late: the end.

        True where even the end does not come.
        """
        now = self._clock.monotonic()
        if self._stops.count and self._lost_at is None:
            if self._kill_at is None:
                self._kill_at = now + self._job.stop_wait_s
                self._on_event(Event("warning", "stopping: the training may write a checkpoint"))
                with contextlib.suppress(EnvforgeError):  # a lost engine is heard of in _listen
                    process.signal(signal.SIGTERM)
            if self._stops.count > 1 or now >= self._kill_at:
                self._end(process, "killing the training")
        return self._lost_at is not None and now >= self._lost_at
