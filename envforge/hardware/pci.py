"""Which NVIDIA cards the kernel sees: PCI functions in sysfs. No lspci, no driver needed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_NVIDIA = "0x10de"
_GPU_CLASSES = ("0x0300", "0x0302")
"""VGA and 3D controllers: a card's audio, USB and bridge functions carry the vendor id too."""


class PciGpu(NamedTuple):
    """One GPU function: ``address`` as in ``0000:01:00.0``, ``id`` as in ``10de:1187``."""

    address: str
    id: str


def find_gpus(sys: Path = Path("/sys")) -> list[PciGpu]:
    """List NVIDIA's GPU functions, in bus order; empty where sysfs has no PCI bus."""
    try:
        functions = sorted((sys / "bus/pci/devices").iterdir())
    except OSError:
        return []
    return [gpu for function in functions if (gpu := _gpu(function)) is not None]


def _gpu(function: Path) -> PciGpu | None:
    if _attribute(function / "vendor") != _NVIDIA:
        return None
    if not _attribute(function / "class").startswith(_GPU_CLASSES):
        return None
    return PciGpu(function.name, f"10de:{_attribute(function / 'device').removeprefix('0x')}")


def _attribute(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return ""
