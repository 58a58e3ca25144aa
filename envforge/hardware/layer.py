"""What a layer that asks the driver (NVML, nvidia-smi) says: the form both answers have."""

from __future__ import annotations

import re
from typing import NamedTuple

from envforge.hardware.finding import Finding
from envforge.values import ComputeCapability

_CAPABILITY = re.compile(r"([0-9]{1,2})\.([0-9])\Z")
_DRIVER = re.compile(r"[0-9]+(?:\.[0-9]+)+\Z")


class ReportedGpu(NamedTuple):
    """One card as the driver names it; None where this driver cannot say."""

    address: str | None
    pci_id: str | None
    name: str | None
    uuid: str | None
    compute_capability: ComputeCapability | None = None
    memory_mib: int | None = None
    mig: bool | None = None


class LayerReport(NamedTuple):
    """A layer's whole answer; without cards when it failed, and then ``findings`` say how."""

    gpus: tuple[ReportedGpu, ...] = ()
    driver: str | None = None
    findings: tuple[Finding, ...] = ()


def parse_capability(text: str) -> ComputeCapability | None:
    """Read ``3.5``; None for ``[N/A]`` and whatever else a driver writes."""
    match = _CAPABILITY.match(text)
    return ComputeCapability(int(match[1]), int(match[2])) if match else None


def parse_driver(text: str) -> str | None:
    """Read ``470.256.02`` (or ``552.22``, as Windows numbers it); None for anything else."""
    return text if _DRIVER.match(text) else None
