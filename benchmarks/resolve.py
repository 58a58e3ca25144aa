"""How long decisions take in process: single questions, and the matrix of all cards and releases.

    python benchmarks/resolve.py [--runs 5]

Prints the best of some runs beside what is aimed at, in processor time, which other work disturbs
less than the clock; asserts nothing, since absolute figures say more about the machine: its load is
printed with them.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Callable

from envforge.capability.database import Database
from envforge.capability.load import load
from envforge.capability.lookup import Card, find_card
from envforge.errors import Unsatisfiable
from envforge.resolver import Request, Resolution, all_routes, resolve
from envforge.values import ComputeCapability

SINGLE_MS = 20.0
MATRIX_S = 3.0
QUESTIONS: tuple[tuple[str, dict[str, str]], ...] = (
    ("gtx760", {"torch": "1.0.1"}),
    ("gtx760", {"torch": "2.15.0"}),
    ("10de:1140", {"torch": "1.0.1"}),
    ("k40", {}),
    ("k80", {"route": "wheel-variant"}),
    ("gtx1080", {"torch": "2.15.0", "route": "source"}),
    ("v100", {"torch": ">=2.8"}),
    ("h200", {}),
    ("sm_20", {}),
    ("gtx580", {"torch": ">=1"}),
    ("k40", {"torch": ">=1", "python": "3.13"}),
    ("a100", {"torch": ">=1", "cuda": "12", "gcc": "5", "route": "source"}),
)

Matrix = dict[str, dict[str, tuple[Resolution, ...]]]
"""Device id -> release -> its routes, cheapest first."""


def best(work: Callable[[], object], runs: int) -> float:
    """Return the shortest of some runs, in seconds."""
    shortest = float("inf")
    for _ in range(runs):
        start = time.process_time()
        work()
        shortest = min(shortest, time.process_time() - start)
    return shortest


def ask(database: Database, request: Request) -> Resolution | None:
    """Resolve; an unsatisfiable request costs its explanation too."""
    try:
        return resolve(database, request)
    except Unsatisfiable:
        return None


def matrix(database: Database) -> Matrix:
    """Decide every release for every device: once per capability and last driver, then fan out."""
    groups: defaultdict[tuple[str, str | None], list[str]] = defaultdict(list)
    for device in database.devices.values():
        row = database.architectures[device.compute_capability]
        groups[device.compute_capability, row.last_driver_branch].append(device.id)
    cells: Matrix = {}
    for (capability, _branch), ids in groups.items():
        card = Card(capability, ComputeCapability.parse(capability))
        found: defaultdict[str, list[Resolution]] = defaultdict(list)
        for resolution in all_routes(database, Request(card=card)):
            found[resolution.torch].append(resolution)
        row_of = {row.version: tuple(found[row.version]) for row in database.releases}
        cells.update(dict.fromkeys(ids, row_of))
    return cells


def single_lines(database: Database, runs: int) -> None:
    for gpu, parts in QUESTIONS:
        request = Request(card=find_card(database, gpu))._replace(**parts)  # type: ignore[arg-type]
        took = best(lambda request=request: ask(database, request), runs) * 1000  # type: ignore[misc]
        words = " ".join(f"--{option} {value}" for option, value in parts.items())
        print(f"{f'--gpu {gpu} {words}':<50}{took:>10.2f} ms   (aim {SINGLE_MS:.0f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    load()  # compiles the database where that is still to be done
    print(f"load of this machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print(f"{'database from its compiled form':<50}{best(load, runs) * 1000:>10.2f} ms")
    database = load()
    single_lines(database, runs)
    cells = matrix(database)
    held = sum(len(row) for row in cells.values())
    served = sum(bool(cell) for row in cells.values() for cell in row.values())
    took = best(lambda: matrix(database), max(1, runs // 2))
    words = f"{held} cells, {served} of them with a route"
    print(f"{words:<50}{took:>10.2f} s    (aim {MATRIX_S:.0f} s)")


if __name__ == "__main__":
    main()
