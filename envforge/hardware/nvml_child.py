"""The child of :mod:`envforge.hardware.nvml`: one line of JSON per answer, as soon as it is known.

Run as a script; it imports nothing of envforge. Every field is asked by itself, because a driver
answers only the questions of its own time.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any


def main() -> None:
    """Write what NVML knows to standard output."""
    try:
        nvml = importlib.import_module("pynvml")  # the package nvidia-ml-py has no type stubs
    except ImportError:
        rows: Iterator[dict[str, Any]] = iter([{"fault": "nvidia-ml-py is not installed"}])
    else:
        rows = collect(nvml)
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()  # what was said before a hang still counts


def collect(nvml: Any) -> Iterator[dict[str, Any]]:
    """Yield the driver, then card after card; a fault where the library cannot be used."""
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        yield {"fault": str(error)}
        return
    yield {"driver": _asked(nvml, nvml.nvmlSystemGetDriverVersion)}
    for index in range(count):
        yield {"index": index, **_card(nvml, index)}


def _card(nvml: Any, index: int) -> dict[str, Any]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:  # lost from the bus, or not ours to open
        return {"fault": str(error)}
    pci = _asked(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    capability = _asked(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    memory = _asked(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    mig = _asked(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return {
        "name": _asked(nvml, nvml.nvmlDeviceGetName, handle),
        "uuid": _asked(nvml, nvml.nvmlDeviceGetUUID, handle),
        "bus_id": _text(pci.busId) if pci is not None else None,
        "pci_device_id": pci.pciDeviceId if pci is not None else None,
        "compute_capability": ".".join(map(str, capability)) if capability else None,
        "memory_bytes": memory.total if memory is not None else None,
        "mig": mig[0] if mig else None,
    }


def _asked(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return _text(question(*arguments))
    except nvml.NVMLError:
        return None


def _text(value: Any) -> Any:
    """Versions of the package before 11.5 answer in bytes."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


if __name__ == "__main__":
    main()
