"""The child of :mod:`envforge.hardware.usage`: a line of JSON every few seconds, a row per card.

Run as a script; it imports nothing of envforge. It ends when its standard input does: whoever
started it is gone then, however that came.
"""

from __future__ import annotations

import importlib
import json
import select
import sys
from typing import Any


def main() -> None:
    """Ask until nobody listens; nothing at all where there is no NVML."""
    try:
        nvml = importlib.import_module("pynvml")  # the package nvidia-ml-py has no type stubs
        nvml.nvmlInit()
        handles = [
            nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())
        ]
    except Exception:  # noqa: BLE001 -- no package, no library, no card: all the same here
        return
    while True:
        sys.stdout.write(json.dumps([_row(nvml, *each) for each in enumerate(handles)]) + "\n")
        sys.stdout.flush()
        if select.select([sys.stdin], [], [], float(sys.argv[1]))[0]:
            return


def _row(nvml: Any, index: int, handle: Any) -> tuple[int, float, float]:
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    except nvml.NVMLError:  # Fermi, and most GeForce cards of Kepler's time, do not say
        busy = -1.0
    try:
        held = nvml.nvmlDeviceGetMemoryInfo(handle).used / 2**20
    except nvml.NVMLError:
        held = -1.0
    return index, busy, round(held, 1)


if __name__ == "__main__":
    main()
