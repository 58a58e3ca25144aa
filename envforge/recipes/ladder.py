"""What a recipe gives up, in which order, when a training dies: its document's part ``ladder``.

A step changes settings; one that would change none (the user's own are smaller already) is passed
over, so a recipe needs no step for each card. Which reasons there are is said by the run's record.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Memory = Literal["gpu-oom", "host-oom", "shm", "open-files"]
"""The reasons that a smaller setting can help against."""
Retried = Literal[
    "gpu-oom", "host-oom", "diverged", "bad-checkpoint", "hang", "crash", "engine-lost"
]
Decimal = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(\.[0-9]+)?$")]
"""A number with a point is quoted in YAML: ``"0.5"``."""
Text = Annotated[str, msgspec.Meta(min_length=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class LadderStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step down: what it changes and what that costs."""

    why: Text
    at_most: dict[str, int] = {}
    """A number is lowered to this; one that is lower stays."""
    set: dict[str, int | str] = {}


class Explosion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a finite loss has diverged: so many times its running median, so many lines in a row."""

    loss: Text
    times_median: Count
    lines: Count = 3
    after: Count = 20
    """Lines before there is a median to speak of; it is taken over twice as many. Where an attempt
    goes on from a checkpoint, its first lines are compared with the median before it."""


class Divergence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of the learning rate when a run goes back behind its first bad value."""

    rate_factor: Decimal = "0.5"
    """Upstream's optimizers and schedules restore the very rate that exploded: it is lowered in
    the checkpoint, too."""
    rates: tuple[str, ...] = ()
    """The parameters that are learning rates."""
    explosion: Explosion | None = None


class Ladder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often, and how changed, a training is started again."""

    steps: dict[Memory, tuple[LadderStep, ...]] = {}
    """Taken in turn, each from the last good checkpoint in a new process."""
    retries: dict[Retried, Count] = {}
    """For each reason, how often in a row without a new checkpoint; a reason that is not there
    ends the run, memory after its last step."""
    divergence: Divergence = Divergence()
    silence_s: Count | None = None
    """So long without a line of progress is a hang; null: no silence is too long."""
    images_per_step: str | None = None
    """The parameter that is the batch."""
    verify: Literal["torch", "existence"] = "torch"
    """How a checkpoint is known to be good: it loads and every number in it is finite; or, for
    files of another kind, it is there and not empty."""
