"""Machine code that upstream compiles for itself: built, found, and judged for the card."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envforge.binaries.library import read_library
from envforge.binaries.verdict import verdict
from envforge.errors import BuildFailed
from envforge.events import Event, OnEvent
from envforge.recipes.document import Extension
from envforge.run.place import Place
from envforge.run.staged import Card
from envforge.training.errand import Errand
from envforge.values import ComputeCapability

_TAIL = 20


class Compilation(NamedTuple):
    """What to compile, where, and for which card; None: for the CPU."""

    extension: Extension
    tree: Path
    card: Card | None


def compile_extension(
    compilation: Compilation, errand: Errand, place: Place, on_event: OnEvent
) -> None:
    """Compile in the tree; BuildFailed where it fails or its code does not run on the card.

    Without a card nothing of the extension's environment is set: it asks for CUDA.
    """
    extension, tree, card = compilation
    on_event(Event("step", "compiling upstream's extension"))
    wanted = {}
    if card is not None:
        wanted = {
            name: text.replace("{arch_list}", card.capability)
            for name, text in extension.environment.items()
        }
    said = place.executor.carry_out(errand._replace(environment={**errand.environment, **wanted}))
    if said.exit_code:
        raise BuildFailed(
            "upstream's extension does not compile",
            because=(f"exit code {said.exit_code}", *said.lines[-_TAIL:]),
        )
    products = sorted(tree.glob(extension.product))
    if not products:
        raise BuildFailed(
            "upstream's extension was not built",
            because=(f"there is no {extension.product}", *said.lines[-_TAIL:]),
        )
    if card is not None:
        _refuse_foreign(products, card)


def _refuse_foreign(products: list[Path], card: Card) -> None:
    """An extension that was built without CUDA compiles, imports, and fails hours later."""
    capability = ComputeCapability.parse(card.capability)
    judged = verdict([read_library(path) for path in products], capability)
    if judged.own in ("none", "partial"):
        raise BuildFailed(
            f"upstream's extension has no code for {card.name}",
            because=tuple(f"{path.name}: {judged.own} for {card.capability}" for path in products),
            hint="the image needs the CUDA toolkit: build its devel stage",
        )
