"""Which NVIDIA cards the kernel sees: PCI functions in sysfs. No lspci, no driver needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from envforge.hardware.files import link_name, names_in, text_of, there_is

_NVIDIA = "0x10de"
_GPU_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers: a card's audio, USB and bridge functions carry the vendor id too."""
_ID = re.compile(r"0x([0-9a-f]{4})\Z")
_ADDRESS = re.compile(r"([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])\Z")


class PciGpu(NamedTuple):
    """One GPU function: ``address`` as in ``0000:01:00.0``, ``id`` as in ``10de:1187``."""

    address: str
    id: str
    driver: str | None = None
    """The kernel driver that holds it: ``nvidia``, ``nouveau``, ``vfio-pci``."""


class PciScan(NamedTuple):
    """One pass over the bus."""

    gpus: list[PciGpu]
    """In bus order."""
    virtual: int
    """How many virtual functions were left out.

    On the host of a vGPU they are slices of a card that is listed itself, with the same device id;
    ``physfn`` points to it. A guest has no such link: there the slice is the card.
    """


def scan(sys: Path = Path("/sys")) -> PciScan:
    """List NVIDIA's GPU functions; empty where sysfs has no PCI bus."""
    folder = sys / "bus/pci/devices"
    found = [gpu for name in names_in(folder) if (gpu := _gpu(folder / name)) is not None]
    real = [gpu for gpu in found if not there_is(folder / gpu.address / "physfn")]
    real.sort(key=lambda gpu: bus_order(gpu.address))
    return PciScan(real, len(found) - len(real))


def find_gpus(sys: Path = Path("/sys")) -> list[PciGpu]:
    """List NVIDIA's GPU functions, in bus order; empty where sysfs has no PCI bus."""
    return scan(sys).gpus


def _gpu(function: Path) -> PciGpu | None:
    if text_of(function / "vendor").lower() != _NVIDIA:
        return None
    if not text_of(function / "class").lower().startswith(_GPU_CLASSES):
        return None
    match = _ID.match(text_of(function / "device").lower())
    return (
        PciGpu(function.name, f"10de:{match[1]}", link_name(function / "driver")) if match else None
    )


def bus_order(address: str | None) -> tuple[int, ...]:
    """Sort key of an address: a domain may have more than four digits, so text does not sort."""
    match = _ADDRESS.match(address or "")
    return tuple(int(part, 16) for part in match.groups()) if match else ()


def normal_address(text: str) -> str | None:
    """Spell ``00000000:0B:00.0`` of NVML and nvidia-smi as sysfs does; None for another form."""
    match = _ADDRESS.match(text.strip().lower())
    if match is None:
        return None
    return f"{int(match[1], 16):04x}:{match[2]}:{match[3]}.{match[4]}"


def same_card(address: str | None, others: Iterable[str]) -> str | None:
    """Find the address among ``others``, also where its domain was cut to 16 bits.

    Hyper-V's domains have 32 bits for the driver and 16 for the kernel: the driver's
    ``3E3F8E05:00:00.0`` (https://github.com/NVIDIA/nvidia-docker/issues/816) is ``8e05:00:00.0``.
    """
    if address is None:
        return None
    known = list(others)
    if address in known:
        return address
    near = [other for other in known if _short(other) == _short(address)]
    return near[0] if len(near) == 1 else None


def _short(address: str) -> tuple[int, ...]:
    domain, *rest = bus_order(address) or (0,)
    return (domain & 0xFFFF, *rest)


def pci_id_of(number: int) -> str | None:
    """``10de:2335`` of NVML's and nvidia-smi's ``0x233510DE``; None for another vendor."""
    vendor = f"{number & 0xFFFF:04x}"
    return f"{vendor}:{number >> 16 & 0xFFFF:04x}" if f"0x{vendor}" == _NVIDIA else None
