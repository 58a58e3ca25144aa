"""The cards that files tell of: PCI functions in sysfs, a Jetson's device tree, ``/proc``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from envforge.hardware.pci import PciGpu
from envforge.hardware.procfs import Information, count_mig_instances, said_of
from envforge.hardware.tegra import find_tegra
from envforge.values import ComputeCapability

Layer = Literal["sysfs", "device-tree", "nvml", "nvidia-smi", "proc"]


class DetectedGpu(NamedTuple):
    """One card of this machine; None where no layer that was asked could tell."""

    detected_by: Layer
    address: str | None = None
    pci_id: str | None = None
    name: str | None = None
    """As the driver or the board names it; a card that only sysfs lists has no name yet."""
    uuid: str | None = None
    compute_capability: ComputeCapability | None = None
    """As the driver or the board says; for a known PCI id the database says it."""
    memory_mib: int | None = None
    driver_bound: str | None = None
    """The kernel driver that holds it: ``nvidia``, ``nouveau``, ``vfio-pci``."""
    visible: bool | None = None
    """Whether a CUDA program started here can see it; None where nobody can tell."""
    mig: bool | None = None
    """Whether it is cut into instances, of which CUDA sees one."""


def file_cards(
    root: str, bus: Sequence[PciGpu], information: Mapping[str, Information]
) -> list[DetectedGpu]:
    """List the cards in bus order, a Jetson's own GPU first; no process, no library."""
    return [*_tegra_card(root), *_pci_cards(root, bus, information)]


def _pci_cards(
    root: str, bus: Sequence[PciGpu], information: Mapping[str, Information]
) -> Iterator[DetectedGpu]:
    for function in bus:
        said = said_of(function.address, information)
        instances = count_mig_instances(root, said)
        yield DetectedGpu(
            detected_by="sysfs",
            address=function.address,
            pci_id=function.id,
            name=said.model if said else None,
            uuid=said.uuid if said else None,
            driver_bound=function.driver or ("nvidia" if said else None),
            mig=None if instances is None else instances > 0,
        )


def _tegra_card(root: str) -> Iterator[DetectedGpu]:
    if tegra := find_tegra(root):
        yield DetectedGpu(
            detected_by="device-tree",
            name=tegra.name,
            compute_capability=tegra.compute_capability,
        )


def module_cards(information: Mapping[str, Information]) -> list[DetectedGpu]:
    """List the cards by ``/proc`` alone, where sysfs is hidden and the driver gives no answer."""
    return [
        DetectedGpu("proc", address, None, said.model, said.uuid, driver_bound="nvidia")
        for address, said in information.items()
    ]
