"""What to do after a death: which setting to give up, what to go back to, when to stop trying.

Pure: a decision is a value made of the recipe's ladder, the settings and the attempts so far.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from envforge.recipes.document import Rescale, Setting
from envforge.recipes.ladder import Ladder, LadderStep
from envforge.training.checkpoints import Saved, Scaling, number_in
from envforge.training.record import Attempt, Change


class Move(NamedTuple):
    """The next attempt: with which settings, how much of the learning rate, and why."""

    settings: Mapping[str, Setting]
    why: str
    rate_factor: float = 1.0
    """What the rates in the checkpoint are multiplied with."""
    stretch: float = 1.0
    """What the rest of its schedule is multiplied with."""


def next_move(
    ladder: Ladder, settings: Mapping[str, Setting], attempts: Sequence[Attempt]
) -> Move | None:
    """Decide what follows the last of ``attempts``; None where nothing is left to try."""
    reason = str(attempts[-1].reason)
    steps = {str(name): each for name, each in ladder.steps.items()}
    retries = {str(name): each for name, each in ladder.retries.items()}
    for step in steps.get(reason, ()):
        changed = take(step, settings)
        if changed != settings:
            return Move(changed, f"after {reason}: {step.why}")
    allowed = retries.get(reason, 0)
    used = tries(attempts)
    if used > allowed:
        return None
    again = f"after {reason}, try {used} of {allowed}"
    if reason != "diverged":
        return Move(settings, again)
    factor = float(ladder.divergence.rate_factor)
    return Move(lowered(ladder, settings), f"{again}: the learning rate times {factor:g}", factor)


def take(step: LadderStep, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings after a step."""
    changed = {**settings, **step.set}
    for name, bound in step.at_most.items():
        value = settings.get(name)
        if isinstance(value, int | float) and value > bound:
            changed[name] = bound
    return changed


def followed(move: Move, before: Mapping[str, Setting], rule: Rescale | None, done: int) -> Move:
    """Let rate and length follow a batch that the move has made smaller, after ``done`` steps.

    With half the batch half the rate (https://arxiv.org/abs/1706.02677), and twice the steps that
    are left: the same images are seen. What the move itself has set stays.
    """
    ratio = _ratio(rule.batch, before, move.settings) if rule else None
    if rule is None or ratio is None:
        return move
    settings = dict(move.settings)
    for names, follow in ((rule.linear, _linear), (rule.inverse, _inverse)):
        for name in names:
            value = settings.get(name)
            if isinstance(value, int | float) and value == before.get(name):
                settings[name] = follow(value, ratio, done)
    return Move(settings, move.why, move.rate_factor * ratio, move.stretch / ratio)


def _ratio(batch: str, before: Mapping[str, Setting], after: Mapping[str, Setting]) -> float | None:
    old, new = before.get(batch), after.get(batch)
    if not isinstance(old, int | float) or not isinstance(new, int | float) or old == new:
        return None
    return new / old


def _linear(value: float, ratio: float, _done: int) -> int | float:
    return value * ratio


def _inverse(value: float, ratio: float, done: int) -> int | float:
    """What lies behind stays where it is."""
    if value <= done:
        return value
    later = done + (value - done) / ratio
    return round(later) if isinstance(value, int) else later


def lowered(ladder: Ladder, settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return the settings with every learning rate lowered."""
    factor = float(ladder.divergence.rate_factor)
    rates = {
        name: value * factor
        for name in ladder.divergence.rates
        if isinstance(value := settings.get(name), int | float)
    }
    return {**settings, **rates}


def rate_kept(ladder: Ladder, changes: Sequence[Change]) -> float:
    """How much of its learning rate a run keeps after what a person has changed; 1.0: all.

    A checkpoint brings its own rate back: what the person asks for must be put into it.
    """
    for change in changes:
        if change.setting in ladder.divergence.rates:
            before, after = change.before, change.after
            if isinstance(before, int | float) and isinstance(after, int | float):
                return after / before if before and after else 1.0
    return 1.0


def owed(attempts: Sequence[Attempt], good: Saved, *, in_steps: bool) -> tuple[Scaling, ...]:
    """List what newer checkpoints were changed by and ``good``, which is older, was not.

    The settings have it already: without it the run would go on with a rate that has exploded.
    Before a start from nothing there is no checkpoint that is left. ``in_steps``: whether the
    schedule counts what the checkpoints count.
    """
    found = []
    for attempt in reversed(attempts):
        if attempt.from_checkpoint is None:
            break
        began = int(number_in(attempt.from_checkpoint) or 0)
        if began > good.step:
            done = began if in_steps else 0
            found.append(Scaling(attempt.rate_factor or 1.0, done, attempt.stretch or 1.0))
    return tuple(reversed(found))


def tries(attempts: Sequence[Attempt]) -> int:
    """Count the attempts that ended for the last one's reason and brought the run no further.

    A divergence is counted whatever came between: each lowers the rate, and a rate of nothing
    learns nothing.
    """
    last = attempts[-1]
    if last.reason == "diverged":
        return sum(each.reason == "diverged" for each in attempts)
    count = 0
    for each in reversed(attempts):
        if (each.reason, each.checkpoint) != (last.reason, last.checkpoint):
            break
        count += 1
    return count


def memory_settings(ladder: Ladder) -> tuple[str, ...]:
    """Name the settings that the steps against an exhausted card change."""
    steps = ladder.steps.get("gpu-oom", ())
    return tuple(dict.fromkeys(name for step in steps for name in (*step.at_most, *step.set)))
