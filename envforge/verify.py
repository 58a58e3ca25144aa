"""Whether an image is still what its lock says, and computes on the card at hand.

``verify`` asks the image of a lock everything again that was asked before it was locked.
``rehearse`` lets a newer card stand in for the one a build is for: its driver compiles the build's
PTX, so torch's own kernels can be seen computing although nobody here has the old card.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import platformdirs

from envforge import assets
from envforge.build.prepare import plan_of
from envforge.capability.database import Database
from envforge.capability.lookup import Card
from envforge.check import identify
from envforge.errors import HostMismatch, LockDrift, VerificationFailed
from envforge.events import Event, OnEvent
from envforge.image import verify as inside
from envforge.image.engine import Engine, Launch, Mount
from envforge.image.lock import Lock, find_drift, outcome_facts
from envforge.resolver import Resolution
from envforge.sources.child import lines_of, spawn
from envforge.training.probe import probe_interpreter
from envforge.values import ComputeCapability, DeviceCode, Support, best_support

_PROGRAM = "rehearse.py"
_INSIDE = "/envforge-verify"
_CACHE_INSIDE = "/envforge-jit"
_LAZY = {
    # A library built for PTX alone is otherwise compiled whole before its first kernel runs:
    # https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#lazy-loading
    "CUDA_MODULE_LOADING": "LAZY",
    "CUDA_CACHE_MAXSIZE": str(4 << 30),
}

Outcome = Literal["right", "wrong", "failed", "absent"]


class Operator(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of kernel, computed on the card and in double precision on the CPU."""

    operator: str
    part: str
    """What computes it: torch's own kernels by kind, or the library's name."""
    precision: str
    outcome: Outcome
    """``absent``: this torch does not have it. ``failed``: the card refused, or the CPU before it;
    ``said`` has the words.
    """
    error: float | None = None
    """Largest deviation, results and gradients, as a part of the largest value."""
    first_s: float | None = None
    """Seconds of the first time: compiled from PTX, unless an earlier rehearsal left that in the
    driver's cache, loaded, computed."""
    again_s: float | None = None
    said: str | None = None


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """A small net trained on both sides from the same values."""

    training: tuple[float, ...]
    on_cpu: tuple[float, ...]
    step_s: float


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The card that stood in, and what it was given to execute."""

    card: str
    capability: tuple[int, int]
    torch: str
    cuda: str
    codes: tuple[str, ...]
    """What torch says it was compiled for; empty for releases that cannot say."""
    ready_s: float
    """Until the first kernel had run."""
    processes: int
    """How many computed at a time."""


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What a card at hand computed with a build for another one."""

    schema: Literal["envforge.rehearsal/1"] = "envforge.rehearsal/1"
    standing: Standing
    executed: Support
    """``ptx-jit``: the driver compiled PTX; ``native``: the build has code for this very card."""
    codes: tuple[str, ...]
    operators: tuple[Operator, ...]
    training: Training

    @property
    def wrong(self) -> tuple[Operator, ...]:
        """Operators that computed something else, or nothing."""
        return tuple(row for row in self.operators if row.outcome in ("wrong", "failed"))

    @property
    def trained(self) -> bool:
        """Whether the loss fell on the card as it did on the CPU; False for NaN."""
        first, last, truth = (
            self.training.training[0],
            self.training.training[-1],
            self.training.on_cpu[-1],
        )
        return last < first and abs(last - truth) <= _SAME_LOSS * first


_SAME_LOSS: Final = 0.01
"""Of the first loss: rounding alone lets two trainings drift apart step by step."""


def find_stand_in(database: Database, resolution: Resolution) -> Card | None:
    """Return a card of this machine that could rehearse a build if the build carried PTX."""
    codes = [DeviceCode.parse(code) for code in resolution.codes]
    if resolution.route != "source" or resolution.compute_capability is None:
        return None
    target = ComputeCapability.parse(resolution.compute_capability)
    for card, _layer in identify(database, None):
        capability = card.compute_capability
        if capability > target and best_support(codes, capability) == "none":
            return card
    return None


def verify_lock(
    database: Database, lock: Lock, engine: Engine, on_event: OnEvent
) -> inside.Verified:
    """Ask the lock's image everything again.

    VerificationFailed at the first check that fails, LockDrift where the image is another one or
    has other packages, HostMismatch where the engine does not have it.
    """
    found = engine.image_id(lock.image)
    if found is None:
        raise HostMismatch(
            f"the engine has no {lock.image}", hint="envforge build --locked   makes it again"
        )
    if found != lock.image_id:
        raise LockDrift(
            f"{lock.image} is not the image of the lock",
            because=(f"image: locked {lock.image_id}, now {found}",),
            hint="envforge build --locked   makes it again",
        )
    seen = inside.verify(engine, lock.image_id, plan_of(database, lock), on_event)
    now = msgspec.structs.replace(lock, packages=seen.packages)
    drift = find_drift(outcome_facts(lock), outcome_facts(now))
    if drift:
        raise LockDrift("the image's packages are not the lock's", because=tuple(map(str, drift)))
    return seen


def rehearse_image(engine: Engine, lock: Lock, on_event: OnEvent) -> Rehearsal:
    """Rehearse in a container of the lock's image, with every card of this machine.

    HostMismatch where no card is seen or none can execute the build; EngineUnavailable where the
    engine gives no container a card; VerificationFailed where the program ends before its end.
    """
    launch = Launch(
        lock.image_id,
        [lock.python, f"{_INSIDE}/{_PROGRAM}"],
        mounts=[
            Mount(assets.TEMPLATES / "verify", _INSIDE),
            Mount(_compiled_code(), _CACHE_INSIDE, read_only=False),
        ],
        env={**_LAZY, "CUDA_CACHE_PATH": _CACHE_INSIDE, "HOME": "/tmp"},  # noqa: S108 -- inside
        network="none",
        gpus=True,
    )
    with engine.run(launch) as container:
        return _rehearsal(container.logs(), lock.codes, on_event)


def rehearse_local(
    interpreter: str, codes: tuple[str, ...], environment: Mapping[str, str], on_event: OnEvent
) -> Rehearsal:
    """Rehearse with an interpreter of this machine; ``codes`` of a lock, or () to ask torch.

    Raises as :func:`rehearse_image`; UsageError where there is no such interpreter.
    """
    python = probe_interpreter(interpreter).python
    program = str(assets.TEMPLATES / "verify" / _PROGRAM)
    env = {"CUDA_CACHE_PATH": str(_compiled_code()), **environment, **_LAZY}
    with (
        tempfile.TemporaryDirectory(prefix="envforge-") as folder,
        spawn([python, program], env=env, cwd=Path(folder)) as process,
    ):
        return _rehearsal(lines_of(process), codes, on_event)


def _compiled_code() -> Path:
    """Return where the driver keeps what it compiled: minutes that are not spent twice."""
    folder = platformdirs.user_cache_path("envforge") / "jit"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _rehearsal(lines: Iterable[str], codes: tuple[str, ...], on_event: OnEvent) -> Rehearsal:
    said: list[str] = []
    rows = list(_rows(lines, said, on_event))
    if rows and "error" in rows[0]:
        raise HostMismatch(
            "no card of this machine can be used",
            because=(str(rows[0]["error"]),),
            hint="a rehearsal needs a card, of any newer architecture, and its driver",
        )
    if not rows or "training" not in rows[-1]:
        raise VerificationFailed("the rehearsal broke off", because=tuple(said[-15:]))
    standing = msgspec.convert(rows[0], Standing)
    return Rehearsal(
        standing=standing,
        executed=_executed(codes or standing.codes, standing),
        codes=codes or standing.codes,
        operators=tuple(sorted((msgspec.convert(row, Operator) for row in rows[1:-1]), key=_order)),
        training=msgspec.convert(rows[-1], Training),
    )


def _order(row: Operator) -> tuple[str, str, str]:
    """They come as they are done."""
    return row.part, row.operator, row.precision


def _rows(lines: Iterable[str], said: list[str], on_event: OnEvent) -> Iterator[dict[str, Any]]:
    """Yield the program's own lines; what the libraries say besides is kept in ``said``."""
    for line in lines:
        row = None
        with contextlib.suppress(json.JSONDecodeError):
            row = json.loads(line)
        if not isinstance(row, dict):
            said.append(line)
            on_event(Event("log", line))
            continue
        if "operator" in row:
            on_event(Event("done", f"{row['operator']} ({row['precision']}): {row['outcome']}"))
        yield row


def _executed(codes: tuple[str, ...], standing: Standing) -> Support:
    """What the card was given, by the rule every verdict is made with."""
    card = ComputeCapability(*standing.capability)
    executed = best_support([DeviceCode.parse(code) for code in codes], card)
    if executed == "none":
        raise HostMismatch(
            f"a {standing.card} cannot stand in for this build",
            because=(f"it carries {' '.join(codes) or 'nothing'}, the card is {card}",),
            hint="envforge build --ptx ...   adds PTX, which newer cards can execute",
        )
    return executed
