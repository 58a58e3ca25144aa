"""Time ``envforge check``, as a whole process, against a Python that does nothing.

    python benchmarks/check.py [--rounds 30]

Both are measured in turn within one run, warm, so that load on the machine hits both; the figure
is the ratio of the medians. Nothing here is asserted: figures belong in docs/verification/.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import click

PEER = [sys.executable, "-c", "pass"]
COMMANDS = {
    "check --gpu gtx760 --torch 1.0.1": ["check", "--gpu", "gtx760", "--torch", "1.0.1"],
    "check --gpu gtx760 --torch 2.15.0": ["check", "--gpu", "gtx760", "--torch", "2.15.0"],
    "check --gpu k40": ["check", "--gpu", "k40"],
    "check": ["check"],
}


def measure(argv: list[str]) -> float:
    """Seconds of one whole process."""
    start = time.perf_counter()
    subprocess.run(argv, capture_output=True, check=False)
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=30, show_default=True)
def main(rounds: int) -> None:
    """Print a table of medians and ratios."""
    times: dict[str, list[float]] = {"python -c pass": [], **{name: [] for name in COMMANDS}}
    program = str(Path(sys.executable).with_name("envforge"))
    argvs = {name: [program, *args] for name, args in COMMANDS.items()}
    for argv in (PEER, *argvs.values()):
        measure(argv)  # warm the page cache and the compiled database
    for _ in range(rounds):
        times["python -c pass"].append(measure(PEER))
        for name, argv in argvs.items():
            times[name].append(measure(argv))
    base = statistics.median(times["python -c pass"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:<36} {median * 1e3:7.1f} ms  {median / base:5.2f}x")


if __name__ == "__main__":
    main()
