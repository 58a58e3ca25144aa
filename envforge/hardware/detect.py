"""Which cards are in this machine, asked in layers; every card says which layer named it.

1. sysfs lists the PCI functions, the device tree names the GPU of a Jetson: files, at once, and
   without any driver. ``/proc/driver/nvidia`` adds model and UUID where the module is loaded.
2. NVML and then nvidia-smi are asked only where the files leave something open, each within a time
   limit: no card in sysfs although a driver is there (WSL2, some containers), a card that the
   database does not know, a UUID that ``CUDA_VISIBLE_DEVICES`` names and no file does.

``--gpu`` and ``ENVFORGE_GPU`` come before all of this, in ``check``.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from os.path import join
from typing import Literal, NamedTuple

from envforge.hardware.cards import DetectedGpu, file_cards, module_cards
from envforge.hardware.files import there_is
from envforge.hardware.finding import Finding
from envforge.hardware.host import Host, read_host
from envforge.hardware.pci import scan
from envforge.hardware.probes import Probes
from envforge.hardware.procfs import Information, count_mig_instances, described_cards, said_of
from envforge.hardware.reach import reach

Asking = Literal["never", "if-needed", "always"]
"""Whether the driver is asked for what files do not tell; memory is in no file."""

_VGPU_ENDS = frozenset(("A", "B", "B4", "C", "CME", "Q"))
_SIGNS = ("dev/nvidiactl", "dev/nvidia0", "dev/dxg")


class Detection(NamedTuple):
    """Everything found out about this machine."""

    cards: tuple[DetectedGpu, ...]
    host: Host
    findings: tuple[Finding, ...]


def detect(
    root: str = "/",
    environ: Mapping[str, str] = os.environ,
    *,
    asking: Asking = "if-needed",
    known: Container[str] | None = None,
    probes: Probes = Probes(),  # noqa: B008 -- immutable
) -> Detection:
    """Find the cards. ``known`` holds the device ids (``1187``) that need no driver to explain."""
    host = read_host(root, environ)
    information = described_cards(root)
    functions, virtual = scan(join(root, "sys"))
    cards = file_cards(root, functions, information)
    findings: list[Finding] = []
    needed = asking == "always" or (asking == "if-needed" and _is_open(cards, environ, known))
    if needed and _driver_signs(root, host):
        from envforge.hardware.asking import ask_driver  # noqa: PLC0415 -- rarely needed

        cards, host, findings = ask_driver(cards, host, root, environ, probes)
    cards = cards or module_cards(information)
    cards, reached = reach(cards, host, information, root, environ)
    own = [finding for card in cards for finding in _of_card(card, known, information, root)]
    return Detection(tuple(cards), host, (*_of_machine(host, virtual), *own, *reached, *findings))


def _is_open(
    cards: Sequence[DetectedGpu], environ: Mapping[str, str], known: Container[str] | None
) -> bool:
    """Tell whether only the driver can answer; a process costs more than all the rest of check."""
    served = [card for card in cards if card.driver_bound == "nvidia"]
    if not cards or any(_is_unknown(card, known) for card in served):
        return True
    named = environ.get("CUDA_VISIBLE_DEVICES", "").startswith(("GPU-", "MIG-"))
    return named and any(card.uuid is None for card in served)


def _is_unknown(card: DetectedGpu, known: Container[str] | None) -> bool:
    return known is not None and card.pci_id is not None and card.pci_id[5:] not in known


def _driver_signs(root: str, host: Host) -> bool:
    loaded = host.driver_detected_by in ("sysfs", "proc")
    return loaded or any(there_is(join(root, sign)) for sign in _SIGNS)


def _of_machine(host: Host, virtual: int) -> Iterator[Finding]:
    if host.wsl:
        yield Finding("wsl2")
    if virtual:
        yield Finding("vgpu-host", None, {"functions": str(virtual)})
    loaded, library = host.driver, host.driver_library
    if host.driver_detected_by in ("sysfs", "proc") and library and loaded and library != loaded:
        yield Finding("driver-library-mismatch", None, {"driver": loaded, "library": library})


def _of_card(
    card: DetectedGpu,
    known: Container[str] | None,
    information: Mapping[str, Information],
    root: str,
) -> Iterator[Finding]:
    if card.pci_id and _is_unknown(card, known):
        yield Finding("unknown-device", card.address, {"pci_id": card.pci_id})
    if card.detected_by == "device-tree" and card.compute_capability is None:
        yield Finding("unknown-tegra", None, {"name": card.name or ""})
    if card.name and _is_slice(card.name):
        yield Finding("vgpu-guest", card.address, {"model": card.name})
    if card.mig:
        instances = count_mig_instances(root, said_of(card.address, information))
        yield Finding("mig-enabled", card.address, {"instances": str(instances or 0)})


def _is_slice(model: str) -> bool:
    """``GRID V100D-8Q``, ``NVIDIA A40-48Q``, ``GRID K120Q``: a card's name, size and series."""
    brand, _, rest = model.partition(" ")
    size = rest.rpartition("-")[2] if "-" in rest else rest.partition("K")[2]
    series = size.lstrip("0123456789")
    return brand in ("GRID", "NVIDIA") and series in _VGPU_ENDS and series != size
