"""How fast the listing of a library is, as a ratio to cuobjdump in the same run.

    python benchmarks/binaries.py libtorch_cuda.so … --cuobjdump /path/to/cuobjdump [--cold]

*reads ms* is what the listing's reads take alone, repeated without looking at what they give.

Ratios, because absolute figures say more about the machine; never asserted in a test. ``--cold``
drops the file from the page cache before each run with posix_fadvise, which needs no rights.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from envforge.binaries.content import open_content
from envforge.binaries.library import find_fatbins, list_code, read_library

LISTING = (
    "import sys; from pathlib import Path; from envforge.binaries.library import list_code; "
    "print(list_code(Path(sys.argv[1])).counts)"
)


def drop(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def best(work: Callable[[], object], path: Path, *, runs: int, cold: bool) -> float:
    """Return the shortest of some runs, in seconds."""
    shortest = float("inf")
    for _ in range(runs):
        if cold:
            drop(path)
        start = time.perf_counter()
        work()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def repeat_reads(path: Path) -> Callable[[], None]:
    """Return a function that reads what a listing reads and does nothing with it."""
    places: list[tuple[int, int]] = []
    with open_content(path) as content:

        def read(size: int, offset: int) -> bytes:
            places.append((size, offset))
            return content.read(size, offset)

        find_fatbins(content._replace(read=read), path.name)

    def repeat() -> None:
        with open_content(path) as content:
            for size, offset in places:
                content.read(size, offset)

    return repeat


def measure(path: Path, cuobjdump: str, *, cold: bool) -> tuple[float, ...]:
    """Return seconds: cuobjdump's listings, ours as a process, in process, reads, with roles."""

    def listings() -> None:
        run(cuobjdump, "-all", "-lelf", path)
        run(cuobjdump, "-all", "-lptx", path)

    if not cold:
        run("cat", path)
    return (
        best(listings, path, runs=2, cold=cold),
        best(lambda: run(sys.executable, "-c", LISTING, path), path, runs=10, cold=cold),
        best(lambda: list_code(path), path, runs=25, cold=cold),
        best(repeat_reads(path), path, runs=25, cold=cold),
        best(lambda: read_library(path), path, runs=3, cold=cold),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("libraries", nargs="+", type=Path)
    parser.add_argument("--cuobjdump", default="cuobjdump")
    parser.add_argument("--cold", action="store_true")
    options = parser.parse_args()
    print(
        "| library | MB | images | cuobjdump s | process ms | x | in process ms | x | reads ms "
        "| roles ms |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for path in options.libraries:
        theirs, process, listing, reads, roles = measure(path, options.cuobjdump, cold=options.cold)
        images = sum(list_code(path).counts.values())
        print(
            f"| {path.name} | {path.stat().st_size / 1e6:.0f} | {images} | {theirs:.2f} "
            f"| {process * 1e3:.0f} | {theirs / process:.0f} "
            f"| {listing * 1e3:.1f} | {theirs / listing:.0f} | {reads * 1e3:.1f} "
            f"| {roles * 1e3:.0f} |"
        )
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nlargest memory of this process, roles included: {own:.0f} MiB")


if __name__ == "__main__":
    main()
