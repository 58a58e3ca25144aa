"""Where a recipe is trained: in an image, or with a Python of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from envforge.capability.load import load as load_database
from envforge.capability.lookup import find_device
from envforge.errors import HostMismatch, RunFailed, UnknownName, UsageError
from envforge.events import Event, OnEvent
from envforge.hardware.host import read_host
from envforge.hardware.pci import find_gpus
from envforge.image.engine import Engine, connect
from envforge.image.lock import LOCK_NAME, Lock, find_lock, load_lock
from envforge.recipes import LoadedRecipe, Recipe
from envforge.recipes.variant import HINT_OF_TORCH, runs_on
from envforge.run.environment import make_interpreter
from envforge.run.request import On, RunRequest
from envforge.training import Executor, RunRecord
from envforge.training.docker import DockerExecutor
from envforge.training.local import LocalExecutor
from envforge.training.probe import Interpreter, probe_image, probe_interpreter
from envforge.values import DeviceCode

Device = Literal["auto", "cpu", "cuda"]


class Place(NamedTuple):
    """Where a recipe is trained, and what is known of it."""

    executor: Executor
    on: On
    python: str
    torch: str
    device: Device
    image: str | None = None
    image_id: str | None = None


@contextmanager
def find_place(
    request: RunRequest, loaded: LoadedRecipe, earlier: RunRecord | None, on_event: OnEvent
) -> Iterator[Place]:
    """Find where to train: what is asked for, else where the run has been."""
    on = request.on or (earlier.on if earlier else "docker")
    if on == "local":
        _refuse_of_local(request)
        made = make_interpreter(request.torch, loaded, on_event) if request.torch else ""
        yield _local_place(request, earlier, made)
        return
    if request.torch:
        raise UsageError("--torch is for --on local: an image brings its own")
    if request.interpreter:
        raise UsageError("--interpreter is for --on local: an image brings its own")
    with connect() as engine:
        yield _docker_place(request, earlier, engine, on_event)


def _refuse_of_local(request: RunRequest) -> None:
    if request.image:
        raise UsageError("--image is for --on docker")
    if request.torch and request.interpreter:
        raise UsageError("--torch makes an interpreter: leave out --interpreter")


def _local_place(request: RunRequest, earlier: RunRecord | None, made: str) -> Place:
    known = earlier.python if earlier and earlier.on == "local" else ""
    found = probe_interpreter(made or request.interpreter or known or sys.executable)
    device: Any = "cuda" if request.device == "gpu" else request.device
    return Place(LocalExecutor(), "local", found.python, found.torch, device)


def _docker_place(
    request: RunRequest, earlier: RunRecord | None, engine: Engine, on_event: OnEvent
) -> Place:
    image, lock = _choose_image(request, earlier)
    image_id = engine.image_id(lock.image_id if lock else image)
    if image_id is None:
        raise RunFailed(
            f"this engine does not have the image {image}",
            hint="build it: envforge build; or name another: --image TAG, --lock FILE",
        )
    if lock and lock.stage == "toolchain":
        raise UsageError(f"{image} is a toolchain: it has no torch yet", hint="envforge build")
    found = probe_image(engine, image_id) if lock is None else _told_by(lock)
    gpus = _wants_gpus(request, found, on_event)
    if lock and gpus:
        _refuse_cards([card.id for card in find_gpus()], lock)
    return Place(
        DockerExecutor(engine=engine, image=image_id, gpus=gpus),
        on="docker",
        python=found.python,
        torch=found.torch,
        device="cuda" if gpus else "cpu",
        image=image,
        image_id=image_id,
    )


def _choose_image(request: RunRequest, earlier: RunRecord | None) -> tuple[str, Lock | None]:
    """Name the image, and the lock that knows it. A run goes on in the image it has been in."""
    image = request.image
    if image is None and request.lock is None and earlier and earlier.on == "docker":
        image = earlier.image_id
    if image is None:
        lock = load_lock(request.lock or Path(LOCK_NAME))
        return lock.image, lock
    known = find_lock(request.lock or Path(LOCK_NAME))
    fits = known is not None and image in (known.image, known.image_id)
    return image, known if fits else None


def _told_by(lock: Lock) -> Interpreter:
    """The CPU route's wheel may carry CUDA libraries: nobody has said that a card runs them."""
    for_card = lock.resolution.route != "cpu"
    return Interpreter(lock.python, lock.torch, lock.resolution.cuda if for_card else None)


def _wants_gpus(request: RunRequest, found: Interpreter, on_event: OnEvent) -> bool:
    """Whether the container gets the cards: where there are any, and its torch can use them."""
    if request.device == "cpu":
        return False
    lacking = _lacking_for_gpus(found)
    if lacking is None:
        return True
    if request.device == "gpu":
        raise HostMismatch(f"no card can compute: {lacking}", hint="leave out --gpu, or give --cpu")
    on_event(Event("warning", f"training on the CPU: {lacking}"))
    return False


def _lacking_for_gpus(found: Interpreter) -> str | None:
    if found.cuda is None:
        return "the image is for the CPU"
    if not find_gpus():
        return "this machine has no NVIDIA card"
    return None if read_host().driver else "this machine's NVIDIA card has no driver"


def _refuse_cards(pci_ids: list[str], lock: Lock) -> None:
    """HostMismatch where the image's machine code runs on no card of this machine."""
    codes, seen = [DeviceCode.parse(code) for code in lock.codes], []
    for pci_id in pci_ids:
        try:
            card = find_device(load_database(), pci_id)
        except UnknownName:  # newer than the database: the training itself will tell
            return
        if not codes or any(code.support_on(card.compute_capability) != "none" for code in codes):
            return
        seen.append(f"{card.name} has compute capability {card.compute_capability}")
    raise HostMismatch(
        f"{lock.image} runs on no card of this machine",
        because=(*seen, f"the image carries {', '.join(lock.codes)}"),
        hint="train on the CPU: --cpu; or build for this card: envforge check",
    )


def refuse_torch(recipe: Recipe, place: Place) -> None:
    """Compare releases only: ``2.13.0+cpu`` and ``1.13.0a0`` are 2.13.0 and 1.13.0."""
    if not runs_on(recipe.torch, place.torch):
        where = place.image or place.python
        raise HostMismatch(
            f"{recipe.name} runs on torch {recipe.torch}, not on {place.torch}",
            because=(f"torch {place.torch} is what {where} has",),
            hint=HINT_OF_TORCH.format(spec=recipe.torch),
        )


def card_of(place: Place) -> str:
    """Name what is computed on, for what is remembered of it; empty for the CPU."""
    cards = [card.id for card in find_gpus()] if place.device != "cpu" else []
    return ", ".join(sorted(cards))
