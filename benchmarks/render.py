"""How long a plan takes to become a build context, against jinja2 alone on the same template.

    python benchmarks/render.py [--rounds 30]

Both are measured in turn within one run, so that load on the machine hits both. The peer makes an
environment, reads the template and renders it with the values that envforge gave it, and does
nothing else: no patches, no data, no quoting, no digest. Nothing is asserted here; figures belong
in docs/verification/.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import click
import jinja2

from envforge import assets
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.image import render as rendering
from envforge.image.plan import Plan, make_plan
from envforge.resolver import Request, resolve

AIM_MS = 30
PLANS = {
    "gtx760, 1.0.1, from source": Request(torch="1.0.1", placed=True),
    "k40, 1.13.1, the distribution's libraries": Request(
        torch="1.13.1", route="source", platform="debian-12", placed=True
    ),
    "gtx970, 2.6.0, from source": Request(
        torch="2.6.0", route="source", platform="debian-13", placed=True
    ),
    "k80, 2.0.1, published wheel": Request(torch="2.0.1", route="wheel", placed=True),
}


class Peer(NamedTuple):
    """The same template with the same values."""

    template: str
    values: dict[str, Any]

    def render(self) -> str:
        """Render as jinja2's own documentation does it."""
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(assets.TEMPLATES), trim_blocks=True, lstrip_blocks=True
        )
        plain = dict.fromkeys(("word", "sh", "argv", "env", "json"), str)
        environment.filters.update(plain)
        return environment.get_template(self.template).render(self.values)


def peer_of(plan: Plan) -> Peer:
    """Record what the renderer gives its template."""
    given: list[Peer] = []

    def record(template: str, **values: Any) -> bytes:
        given.append(Peer(template, values))
        return b""

    with mock.patch.object(rendering, "_template", record):
        rendering.render(plan)
    return given[0]


class Taken(NamedTuple):
    """Milliseconds of one call."""

    wall: float
    processor: float


def take(work: Callable[[], object]) -> Taken:
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Taken((time.perf_counter() - wall) * 1e3, (time.process_time() - processor) * 1e3)


def least(taken: list[Taken]) -> Taken:
    """What other work on the machine disturbed least."""
    return Taken(*(min(column) for column in zip(*taken, strict=True)))


def plans() -> dict[str, Plan]:
    database = load()
    found = {}
    for name, request in PLANS.items():
        card = find_card(database, name.split(",", 1)[0])
        found[name] = make_plan(database, resolve(database, request._replace(card=card)))
    return found


@click.command()
@click.option("--rounds", default=30, show_default=True)
def main(rounds: int) -> None:
    """Print a table of the least times and their ratios."""
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; aim: {AIM_MS} ms\n")
    print("| plan | render, ms | its processor time, ms | jinja2 alone, ms | ratio |")
    print("|---|---|---|---|---|")
    for name, plan in plans().items():
        peer = peer_of(plan)
        both = [(take(partial(rendering.render, plan)), take(peer.render)) for _ in range(rounds)]
        ours, theirs = (least(list(column)) for column in zip(*both, strict=True))
        ratio = ours.processor / theirs.processor
        print(
            f"| {name} | {ours.wall:.1f} | {ours.processor:.1f} | {theirs.wall:.1f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
