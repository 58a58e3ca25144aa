"""What the interpreter that trains has, asked of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from envforge import training
from envforge.errors import HostMismatch
from envforge.run.place import Place
from envforge.run.staged import Card
from envforge.training.errand import Errand
from envforge.training.job import Mounted

_MARK = "envforge-survey "
_PROGRAMS = Path(training.__file__).parent


class Survey(NamedTuple):
    """What it said."""

    tag: str
    python: str
    torch: str
    card: Card | None
    missing: Mapping[str, str]
    """Module -> why it does not import."""
    astray: Mapping[str, str]
    """Upstream's own module -> why it is not the checkout's."""


class Question(NamedTuple):
    """What to ask."""

    modules: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    checkout: str = ""
    """As the place sees it."""
    script: str = ""
    """The training's script: Python puts its folder first."""
    mounts: tuple[Mounted, ...] = ()
    environment: Mapping[str, str] = {}


def survey(place: Place, question: Question) -> Survey:
    """Ask; HostMismatch where it cannot answer."""
    program = program_of(place, "survey")
    wanted = {
        "modules": question.modules,
        "imports": question.imports,
        "below": question.checkout,
        "first": question.script.rpartition("/")[0],
        "card": place.device != "cpu",
    }
    argv = (place.python, "-W", "ignore", program.target, json.dumps(wanted))
    errand = Errand(argv, (program, *question.mounts), question.environment, cards=True)
    said = place.executor.carry_out(errand)
    for line in reversed(said.lines):
        if line.startswith(_MARK):
            return _read(json.loads(line.removeprefix(_MARK)))
    raise HostMismatch(f"{place.python} does not answer", because=said.lines[-3:])


def _read(found: Any) -> Survey:
    card = found["card"]
    known = Card(name=card[0], memory_mib=card[1], capability=card[2]) if card else None
    return Survey(
        found["tag"], found["python"], found["torch"], known, found["missing"], found["astray"]
    )


def program_of(place: Place, name: str) -> Mounted:
    """Where the place sees one of envforge's own small programs."""
    path = _PROGRAMS / f"{name}_program.py"
    return Mounted(path, str(path) if place.on == "local" else f"/envforge/{path.name}")
