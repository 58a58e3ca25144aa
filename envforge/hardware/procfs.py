"""What the loaded NVIDIA module says about its cards under ``/proc/driver/nvidia``: no process.

https://download.nvidia.com/XFree86/Linux-x86_64/470.256.02/README/procinterface.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from envforge.hardware.files import names_in, text_of, there_is
from envforge.hardware.pci import normal_address, same_card

_LINE = re.compile(r"^([A-Za-z ]+):[ \t]*(.*?)[ \t]*$", re.MULTILINE)
_UUID = re.compile(r"GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_MINOR = re.compile(r"[0-9]{1,6}\Z")


class Information(NamedTuple):
    """One card as its kernel driver describes it; None where the driver does not say."""

    model: str | None = None
    uuid: str | None = None
    """None also while the card was never used: the driver writes ``GPU-????????-…`` then."""
    minor: int | None = None
    """The N of ``/dev/nvidiaN``; drivers before 384 or so do not write it."""
    excluded: bool = False


def described_cards(root: Path) -> dict[str, Information]:
    """Map the PCI address of every card the module holds to what it says about the card."""
    folder = root / "proc/driver/nvidia/gpus"
    return {
        address: parse_information(text_of(folder / name / "information"))
        for name in names_in(folder)
        if (address := normal_address(name))
    }


def said_of(address: str | None, information: Mapping[str, Information]) -> Information | None:
    """Return what the module says about the card at ``address``."""
    place = same_card(address, information)
    return information[place] if place else None


def parse_information(text: str) -> Information:
    """Read one ``information`` file. ``GPU Blacklisted`` is what 470 called ``GPU Excluded``."""
    fields = {name.strip(): value for name, value in _LINE.findall(text)}
    uuid = fields.get("GPU UUID", "").lower().replace("gpu-", "GPU-", 1)
    minor = fields.get("Device Minor", "")
    model = fields.get("Model", "")
    return Information(
        model=None if model in ("", "Unknown") else model,
        uuid=uuid if _UUID.match(uuid) else None,
        minor=int(minor) if _MINOR.match(minor) else None,
        excluded="Yes" in (fields.get("GPU Excluded"), fields.get("GPU Blacklisted")),
    )


def count_mig_instances(root: Path, said: Information | None) -> int | None:
    """Count the compute instances cut out of the card; None where the driver does not tell.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/device-nodes-and-capabilities.html
    """
    mig = root / f"proc/driver/nvidia/capabilities/gpu{said.minor if said else None}/mig"
    if not there_is(mig):
        return None
    return sum(
        name.startswith("ci")
        for instance in names_in(mig)
        if instance.startswith("gi")
        for name in names_in(mig / instance)
    )
