"""Which NVIDIA cards the kernel sees: PCI functions in sysfs. No lspci, no driver needed."""

from __future__ import annotations

from collections.abc import Iterable
from os.path import join
from typing import NamedTuple

from envforge.hardware.files import link_name, names_in, text_of, there_is

_NVIDIA = "0x10de"
_GPU_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers: a card's audio, USB and bridge functions carry the vendor id too."""
_HEX = frozenset("0123456789abcdef")
_ID_LENGTH = len("0x1187")


class PciGpu(NamedTuple):
    """One GPU function: ``address`` as in ``0000:01:00.0``, ``id`` as in ``10de:1187``."""

    address: str
    id: str
    driver: str | None = None
    """The kernel driver that holds it: ``nvidia``, ``nouveau``, ``vfio-pci``."""


def scan(sys: str = "/sys") -> tuple[list[PciGpu], int]:
    """List NVIDIA's GPU functions in bus order, and count the virtual ones that were left out.

    On the host of a vGPU those are slices of a card that is listed itself, with the same device id;
    ``physfn`` points to it. A guest has no such link: there the slice is the card.
    """
    folder = join(sys, "bus/pci/devices")
    found = [gpu for name in names_in(folder) if (gpu := _gpu(folder, name)) is not None]
    real = [gpu for gpu in found if not there_is(join(folder, gpu.address, "physfn"))]
    real.sort(key=lambda gpu: bus_order(gpu.address))
    return real, len(found) - len(real)


def find_gpus(sys: str = "/sys") -> list[PciGpu]:
    """List NVIDIA's GPU functions, in bus order; empty where sysfs has no PCI bus."""
    return scan(sys)[0]


def _gpu(folder: str, address: str) -> PciGpu | None:
    function = join(folder, address)
    if text_of(join(function, "vendor")).lower() != _NVIDIA:
        return None
    if not text_of(join(function, "class")).lower().startswith(_GPU_CLASSES):
        return None
    device = text_of(join(function, "device")).lower()
    if len(device) != _ID_LENGTH or not device.startswith("0x") or not _HEX.issuperset(device[2:]):
        return None
    return PciGpu(address, f"10de:{device[2:]}", link_name(join(function, "driver")))


def bus_order(address: str | None) -> tuple[int, ...]:
    """Sort key of an address: a domain may have more than four digits, so text does not sort.

    Empty for text of another form. No regular expression: compiling one costs more than the scan.
    """
    parts = (address or "").lower().replace(".", ":").split(":")
    if len(parts) != 4 or not all(part and _HEX.issuperset(part) for part in parts):  # noqa: PLR2004
        return ()
    return tuple(int(part, 16) for part in parts)


def normal_address(text: str) -> str | None:
    """Spell ``00000000:0B:00.0`` of NVML and nvidia-smi as sysfs does; None for another form."""
    place = bus_order(text.strip())
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*place) if place else None


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
