"""What a run was prepared with: ``stage.json`` in its directory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from envforge import documents
from envforge.errors import DocumentError
from envforge.recipes.asset import Fetched
from envforge.recipes.dataset import Examples
from envforge.recipes.difference import Difference
from envforge.recipes.stage import Checkout
from envforge.run.request import RunRequest

STAGE = "stage.json"


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """What the user gave beside settings; a run that goes on has it from the time before."""

    upstream: str | None = None
    data: str | None = None
    demo: bool = False
    taken: str | None = None
    assets: dict[str, str] = {}
    vram_mib: int | None = None
    memory_mib: int | None = None


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The card as the training's own torch sees it."""

    name: str
    memory_mib: int
    capability: str


class Staged(msgspec.Struct, frozen=True, kw_only=True):
    """The document ``stage.json``, schema ``envforge.stage/1``. Fields are added, never renamed."""

    schema: str = "envforge.stage/1"
    inputs: Inputs
    variant: str = ""
    python_tag: str = ""
    torch: str = ""
    card: Card | None = None
    checkout: Checkout | None = None
    packages: str | None = None
    """The folder of pinned packages; null where the interpreter had all."""
    examples: Examples | None = None
    assets: tuple[Fetched, ...] = ()
    differences: tuple[Difference, ...] = ()
    steps: int | None = None
    """The length of the training, in items where epochs are counted."""
    epochs: int | None = None
    shorter: dict[str, int] = {}
    """Presets that are shorter than that, with their steps."""
    estimated_s: float | None = None
    """From what was measured on the card that is named beside it."""
    estimated_on: str = ""


def read_staged(run_dir: Path) -> Staged | None:
    """Read ``stage.json``; None where there is none that can be read."""
    try:
        return documents.load_json(run_dir / STAGE, Staged)
    except DocumentError:
        return None


def write_staged(run_dir: Path, staged: Staged) -> None:
    """Replace ``stage.json``."""
    documents.write_atomically(run_dir / STAGE, documents.to_json(staged).encode())


def inputs_of(request: RunRequest, before: Staged | None, taken: Staged | None) -> Inputs:
    """Take what is given now, else what this run had, else what the run it takes from had.

    Real data replaces a demo, and a demo replaces data.
    """
    asked = Inputs(
        upstream=_absolute(request.upstream),
        data=_absolute(request.data),
        demo=request.demo,
        taken=_absolute(request.taken),
        assets={name: str(path.resolve()) for name, path in request.assets.items()},
        vram_mib=request.vram_mib,
        memory_mib=request.memory_mib,
    )
    old = before.inputs if before else None
    if old is None and taken is not None:
        kept = {"upstream": taken.inputs.upstream, "assets": taken.inputs.assets}
        old = Inputs(data=taken.inputs.data, demo=taken.inputs.demo, **kept)  # type: ignore[arg-type]
    if old is None:
        return asked
    chosen = asked if asked.data or asked.demo else old
    return Inputs(
        upstream=asked.upstream or old.upstream,
        data=chosen.data,
        demo=chosen.demo,
        taken=asked.taken or old.taken,
        assets={**old.assets, **asked.assets},
        vram_mib=asked.vram_mib or old.vram_mib,
        memory_mib=asked.memory_mib or old.memory_mib,
    )


def _absolute(path: Path | None) -> str | None:
    return str(path.resolve()) if path else None
