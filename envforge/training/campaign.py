"""All attempts of a run: after each death what the recipe's ladder says, until it is done.

Every decision is on record before it is carried out, so that a kill at any moment loses the work
since the last checkpoint and nothing else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from envforge.errors import EngineUnavailable, Stopped
from envforge.events import Event
from envforge.recipes.document import Rescale, Setting
from envforge.recipes.ladder import Ladder
from envforge.training.checkpoints import (
    Recovered,
    Saved,
    Scaling,
    Suspicion,
    find_saved,
    look_into,
    number_in,
    protect,
    recover,
    scale,
)
from envforge.training.executor import Executor
from envforge.training.failures import Verdict
from envforge.training.job import Job
from envforge.training.journal import Journal
from envforge.training.ladder import (
    Move,
    followed,
    memory_settings,
    next_move,
    owed,
    rate_kept,
)
from envforge.training.record import Attempt, Change, Lowering, RunRecord
from envforge.training.remembered import remember
from envforge.training.supervisor import Surroundings, supervise

_ENGINE_WAIT_S = 120.0
"""How long an engine may take to come back: a restart of its service takes seconds."""
_ENGINE_POLL_S = 2.0


class Plan(NamedTuple):
    """How a run's attempts are made."""

    job: Callable[[Mapping[str, Setting], Saved | None], Job]
    """The job for these settings, to go on from this checkpoint; None: from nothing."""
    executor: Executor
    ladder: Ladder
    rescale: Rescale | None = None
    """What follows the batch."""
    card: str = ""
    """What the run computes on, for what is remembered of it; empty: nothing is."""


def persevere(
    plan: Plan,
    settings: Mapping[str, Setting],
    changes: tuple[Change, ...],
    journal: Journal,
    surroundings: Surroundings,
) -> RunRecord:
    """Train until it is done, stopped, or the ladder ends; return what is in ``run.json``.

    ``changes`` are those that a person asked for. Raises what :func:`supervise` raises.
    """
    campaign, stops = _Campaign(plan, journal, surroundings), surroundings.stops
    kept = rate_kept(plan.ladder, changes)
    move = campaign.left_over(settings, kept) or Move(settings, "", kept)
    while True:
        try:
            campaign.attempt(move, changes)
        except Stopped:
            return journal.stop(stops.first or "SIGTERM")
        record = journal.record
        settings = record.settings
        if record.last.reason in ("finished", "cancelled", "preempted", "check-failed"):
            return record
        following = next_move(plan.ladder, settings, campaign.attempts)
        if following is None:
            return record
        if stops.first:
            return journal.stop(stops.first)
        move = following
        surroundings.on_event(Event("warning", f"starting again {move.why}"))
        changes = ()


class _Campaign:
    """The attempts that this envforge has made of a run."""

    def __init__(self, plan: Plan, journal: Journal, surroundings: Surroundings) -> None:
        self._plan, self._journal, self._surroundings = plan, journal, surroundings
        self._first = len(journal.record.attempts)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Those of this envforge: a person who starts a run again gives it all its tries anew."""
        return self._journal.record.attempts[self._first :]

    def left_over(self, settings: Mapping[str, Setting], rate_kept: float) -> Move | None:
        """What an earlier envforge had decided, and was killed over.

        A person who answers a divergence with a rate of their own is not improved upon.
        """
        record = self._journal.record
        noted = record.lowering
        if noted is not None:
            return Move(noted.settings, noted.why, noted.factor, noted.stretch)
        if not record.attempts or record.last.reason != "diverged" or rate_kept != 1:
            return None
        return next_move(self._plan.ladder, settings, (record.last,))

    def attempt(self, move: Move, changes: tuple[Change, ...]) -> None:
        """Make one attempt, from the newest good checkpoint there is."""
        before = self._journal.record.settings
        job = self._plan.job(move.settings, None)
        recovered = self._recover(job)
        good = recovered.good
        if self._journal.record.lowering is None:
            move = followed(move, before, self._plan.rescale, _steps_done(job, good))
        rates = self._change_checkpoint(job, recovered, move)
        if good is not None:
            protect(good, job.run_dir)
            job = self._plan.job(move.settings, good)
        else:
            job = self._plan.job(move.settings, None)
        own = changes or _changes(before, move.settings)
        self._journal.begin(
            own,
            move.settings,
            job.argv,
            why=move.why,
            from_checkpoint=str(good.files[0].relative_to(job.run_dir)) if good else None,
            quarantined=recovered.quarantined,
            rate_factor=move.rate_factor if good and move.rate_factor != 1 else None,
            stretch=move.stretch if good and move.stretch != 1 else None,
            rates=rates,
            forgets=tuple(job.rule.forgets) if good and job.rule else (),
        )
        self._supervise(job)
        self._remember(move.settings)

    def _recover(self, job: Job) -> Recovered:
        if not find_saved(job.run_dir, job.checkpoints, job.rule):
            return Recovered(None)
        attempts = self._journal.record.attempts
        last = attempts[-1] if attempts else None
        suspicion = None
        if last is not None and last.reason == "diverged":
            began = number_in(last.from_checkpoint or "")
            at = int(began) if began else None
            suspicion = Suspicion(last.good_iteration, last.good_at, at)
        recovered = recover(job, self._plan.executor, f"attempt-{len(attempts)}", suspicion)
        for fact in recovered.quarantined:
            self._surroundings.on_event(Event("warning", f"set aside {fact}"))
        return recovered

    def _change_checkpoint(self, job: Job, recovered: Recovered, move: Move) -> tuple[float, ...]:
        """Change rates and schedule in the checkpoint, once: a note of how it was comes before."""
        good, journal = recovered.good, self._journal
        if good is None or job.ladder.verify != "torch":
            return recovered.rates
        done, counted = _steps_done(job, good), _counts_steps(job)
        scalings = [
            *owed(journal.record.attempts, good, in_steps=counted),
            Scaling(move.rate_factor, done, move.stretch),
        ]
        if all((each.factor, each.stretch) == (1.0, 1.0) for each in scalings):
            return recovered.rates
        name = str(good.files[0].relative_to(job.run_dir))
        now = max(path.stat().st_mtime_ns for path in good.files)
        noted = journal.record.lowering
        if noted is None or noted.checkpoint != name:
            noted = Lowering(
                checkpoint=name,
                modified_ns=now,
                factor=move.rate_factor,
                stretch=move.stretch,
                settings=dict(move.settings),
                why=move.why,
            )
            journal.change(lowering=noted)
        if noted.modified_ns != now:
            return recovered.rates  # done before the kill
        return scale(good, scalings, job, self._plan.executor)

    def _supervise(self, job: Job) -> None:
        """Take the attempt to its end; an engine that went away is waited for."""
        try:
            supervise(job, self._plan.executor, self._journal, self._surroundings)
        except EngineUnavailable:
            if next_move(self._plan.ladder, self._journal.record.settings, self.attempts) is None:
                raise
        last = self._journal.record.last
        if last.reason == "finished":
            self._look_at_the_result(job)
        if last.reason == "engine-lost" and "engine-lost" in self._plan.ladder.retries:
            self._wait_for_engine(job)

    def _look_at_the_result(self, job: Job) -> None:
        """Overrule a success whose last checkpoint is none.

        Weights may go bad after the last line of progress, and upstreams exit 0 all the same.
        """
        saved = find_saved(job.run_dir, job.checkpoints, job.rule)[:1] if job.rule else []
        if not saved or job.ladder.verify != "torch":
            return
        fault, _ = look_into(saved[0], job, self._plan.executor)
        if fault:
            name = saved[0].files[0].relative_to(job.run_dir)
            self._journal.overrule(Verdict("bad-checkpoint", (f"{name}: {fault}",)))

    def _wait_for_engine(self, job: Job) -> None:
        """Wait until what was left running can be cleared: then the engine is back."""
        clock = self._surroundings.clock
        deadline = clock.monotonic() + _ENGINE_WAIT_S
        self._surroundings.on_event(Event("warning", "waiting for the container engine"))
        while clock.monotonic() < deadline and not self._surroundings.stops.count:
            with contextlib.suppress(EngineUnavailable):
                self._plan.executor.clear(job.run_id, job.stop_wait_s)
                return
            self._surroundings.stops.wait(_ENGINE_POLL_S)

    def _remember(self, settings: Mapping[str, Setting]) -> None:
        """Keep what has fitted the card once steps were taken, or would have been needed."""
        names = memory_settings(self._plan.ladder)
        reached = self._journal.record.last.checkpoint is not None
        stepped = any(each.why.startswith("after gpu-oom") for each in self.attempts)
        died = self._journal.record.last.reason == "gpu-oom"
        if self._plan.card and names and stepped and reached and not died:
            kept = {name: settings[name] for name in names if name in settings}
            remember(self._journal.record.recipe, self._plan.card, kept)


def _steps_done(job: Job, good: Saved | None) -> int:
    """How many steps lie behind; 0 where a checkpoint counts something else."""
    return good.step if good is not None and _counts_steps(job) else 0


def _counts_steps(job: Job) -> bool:
    return job.rule is None or job.rule.unit == "step"


def _changes(before: Mapping[str, Setting], after: Mapping[str, Setting]) -> tuple[Change, ...]:
    return tuple(
        Change(setting=name, before=before.get(name), after=after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
