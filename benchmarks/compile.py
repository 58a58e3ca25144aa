"""What one architecture saves the CUDA compiler, against the list upstream publishes for.

    python benchmarks/compile.py [--rounds 3]

Builds (or finds) the toolchain image of a plan for a GTX 780 and compiles ``sort.cu`` in it: for
the card alone, and for every architecture of the release's own default wheel that this toolkit
knows. Both in turn within one run; the figure is the ratio of the medians. Nothing is asserted.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click

from envforge.build import BuildRequest, build, prepare
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.events import ignore
from envforge.image.engine import Container, Launch, Mount, connect
from envforge.resolver import Request

TORCH = "1.13.1"
FILE = "/benchmark/sort.cu"


def gencode(codes: tuple[str, ...]) -> list[str]:
    """``("sm_35",)`` -> ``["-gencode=arch=compute_35,code=sm_35"]``."""
    return [f"-gencode=arch=compute_{code.partition('_')[2]},code={code}" for code in codes]


def measure(container: Container, codes: tuple[str, ...]) -> float:
    """Seconds of one compilation."""
    start = time.perf_counter()
    answer = container.exec(["nvcc", "-c", FILE, "-o", "/tmp/sort.o", *gencode(codes)])
    assert answer.code == 0, answer.stderr
    return time.perf_counter() - start


def toolchain(folder: Path) -> str:
    """Build the toolchain image, or find it."""
    database = load()
    request = Request(
        card=find_card(database, "gtx780"), torch=TORCH, route="source", platform="debian-12"
    )
    wanted = BuildRequest(request, until="toolchain", lock=folder / "envforge.lock")
    return build(prepare(database, wanted), wanted, ignore).lock.image


@click.command()
@click.option("--rounds", default=3, show_default=True)
def main(rounds: int) -> None:
    """Print both medians and their ratio."""
    published = next(w.codes for w in load().wheels if (w.torch, w.variant) == (TORCH, None))
    lists = {"the card alone": ("sm_35",), "as upstream publishes": published}
    times: dict[str, list[float]] = {name: [] for name in lists}
    with tempfile.TemporaryDirectory() as folder, connect() as engine:
        here = Mount(Path(__file__).parent, "/benchmark")
        launch = Launch(toolchain(Path(folder)), ["sleep", "infinity"], mounts=[here])
        with engine.run(launch) as container:
            for _ in range(rounds):
                for name, codes in lists.items():
                    times[name].append(measure(container, codes))
    base = statistics.median(times["as upstream publishes"])
    for name, codes in lists.items():
        median = statistics.median(times[name])
        print(f"{name:<24} {median:6.1f} s  {median / base:5.2f}x  {' '.join(codes)}")


if __name__ == "__main__":
    main()
