"""Train as on a card of less memory.

    vram_program.py MIB SCRIPT ARGUMENT...

Caps torch's allocator at so many MiB where torch can (1.8 and newer,
https://pytorch.org/docs/stable/generated/torch.cuda.set_per_process_memory_fraction.html); an
older one gets a ballast beside it that leaves no more than that. Then the script runs as if it had
been started itself. At the end it says, on a line of its own, the peak:
``envforge-memory: allocated 1578 MiB, reserved 1626 MiB, of 1843 MiB``.
Runs on Python 2.7 too; it imports nothing of envforge.
"""

from __future__ import print_function

import atexit
import os
import runpy
import sys

import torch

MIB = 2**20


def cap(limit_mib):
    """Return the ballast, to be held; None where the allocator itself keeps the limit."""
    total = torch.cuda.get_device_properties(0).total_memory
    if limit_mib * MIB >= total:
        return None
    if hasattr(torch.cuda, "set_per_process_memory_fraction"):
        torch.cuda.set_per_process_memory_fraction(limit_mib * MIB / float(total), 0)
        return None
    return torch.empty(total - limit_mib * MIB, dtype=torch.uint8, device="cuda")


def say_peak(limit_mib, ballast):
    held = ballast.numel() if ballast is not None else 0
    reserved = getattr(torch.cuda, "max_memory_reserved", None) or torch.cuda.max_memory_cached
    peaks = [(peak() - held) // MIB for peak in (torch.cuda.max_memory_allocated, reserved)]
    print(
        "envforge-memory: allocated %d MiB, reserved %d MiB, of %d MiB"
        % (peaks[0], peaks[1], limit_mib)
    )
    sys.stdout.flush()


def main(limit_mib, script):
    if torch.cuda.is_available():
        ballast = cap(limit_mib)
        atexit.register(say_peak, limit_mib, ballast)
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    limit, sys.argv = int(sys.argv[1]), sys.argv[2:]
    main(limit, sys.argv[0])
