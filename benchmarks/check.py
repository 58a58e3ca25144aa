"""Time ``envforge check``, as a whole process, against its peers.

    python benchmarks/check.py [--rounds 30] [--collect-env /usr/bin/python3]

The peers: a Python that does nothing and, with the Python that has a torch, PyTorch's own report
(``python -m torch.utils.collect_env``). All are measured in turn within one run, warm, so that load
on the machine hits all; the figures are ratios of the medians. Beside the time on the clock stands
the processors' time, which other work disturbs less. Bytecode is written and used, as a package
installer leaves it. Nothing here is asserted: figures belong in docs/verification/.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import click

NOTHING = "python -c pass"
COLLECT_ENV = "collect_env"
COMMANDS = {
    "check --gpu gtx760 --torch 1.0.1": ["check", "--gpu", "gtx760", "--torch", "1.0.1"],
    "check --gpu gtx760 --torch 2.15.0": ["check", "--gpu", "gtx760", "--torch", "2.15.0"],
    "check --gpu k40": ["check", "--gpu", "k40"],
    "check": ["check"],
}
_ONE_IN = 5
"""``collect_env`` takes seconds: it is asked in every so many rounds."""


class Took(NamedTuple):
    """Seconds of one whole process."""

    wall: float
    cpu: float


def measure(argv: list[str]) -> Took:
    """Run it once; its children count, too."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, capture_output=True, check=False, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Took(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


@click.command()
@click.option("--rounds", default=30, show_default=True)
@click.option("--collect-env", "python", metavar="PYTHON", help="The Python that has a torch.")
def main(rounds: int, python: str | None) -> None:
    """Print a table of medians and ratios."""
    program = Path(sys.executable).with_name("envforge")
    # without a script beside the Python, it was installed with pip --target
    called = [str(program)] if program.exists() else [sys.executable, "-m", "envforge"]
    argvs = {NOTHING: [sys.executable, "-c", "pass"]}
    argvs |= {name: [*called, *words] for name, words in COMMANDS.items()}
    if python:
        argvs[COLLECT_ENV] = [python, "-m", "torch.utils.collect_env"]
    for argv in argvs.values():
        measure(argv)  # warm the page cache, the bytecode and the compiled database
    times: dict[str, list[Took]] = {name: [] for name in argvs}
    for number in range(rounds):
        for name, argv in argvs.items():
            if name != COLLECT_ENV or number % _ONE_IN == 0:
                times[name].append(measure(argv))
    _print(times)


def _print(times: dict[str, list[Took]]) -> None:
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    )
    wall = {name: statistics.median(took.wall for took in all_) for name, all_ in times.items()}
    cpu = {name: statistics.median(took.cpu for took in all_) for name, all_ in times.items()}
    for name in times:
        print(
            f"{name:<36} {wall[name] * 1e3:8.1f} ms  {wall[name] / wall[NOTHING]:6.2f}x"
            f"   processors {cpu[name] * 1e3:8.1f} ms  {cpu[name] / cpu[NOTHING]:6.2f}x"
        )
    if COLLECT_ENV in wall:
        print(f"{COLLECT_ENV} / check: {wall[COLLECT_ENV] / wall['check']:.1f}x")


if __name__ == "__main__":
    main()
