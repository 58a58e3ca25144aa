"""Keep the checkpoints of a running training few, and one of them known to be good.

Upstreams keep them all (MaskTextSpotter: 120 of 350 MiB) or only the newest, which may be the one
that is torn or holds the NaN. A thread looks now and then at the newest but one, which is whole,
and deletes what is older than the recipe wants to keep; never that good one.
"""

from __future__ import annotations

import contextlib
import threading

from envforge.errors import EnvforgeError
from envforge.events import Event, OnEvent
from envforge.training.checkpoints import Saved, find_saved, look_into, prune
from envforge.training.executor import Executor
from envforge.training.job import Job

EVERY_S = 60.0
"""Looking into one takes an import of torch: seconds of one core."""


class Keeper:
    """Looks until it is closed; a recipe without a rule keeps what upstream keeps."""

    def __init__(
        self, job: Job, executor: Executor, on_event: OnEvent, every_s: float = EVERY_S
    ) -> None:
        self._job, self._executor, self._on_event = job, executor, on_event
        self._every_s = every_s
        self._good: Saved | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if job.rule is not None:
            self._thread.start()

    def close(self) -> None:
        """Stop looking; what is being looked into is waited for."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            with contextlib.suppress(EnvforgeError, OSError):  # another time, then
                self.look()

    def look(self) -> None:
        """Look into the newest whole checkpoint that is not the newest, then prune."""
        job = self._job
        saved = find_saved(job.run_dir, job.checkpoints, job.rule)
        if job.rule is None or len(saved) <= job.rule.keep:
            return
        candidate = saved[1] if len(saved) > 1 else saved[0]
        if self._good is None or candidate.files != self._good.files:
            fault, _ = look_into(candidate, job, self._executor)
            if fault:
                words = f"{candidate.files[0].name} {fault}"
                self._on_event(Event("warning", words))
                return
            self._good = candidate
        prune(saved, job.rule.keep, self._good)
