"""What the loaded NVIDIA module says about its cards under ``/proc/driver/nvidia``: no process.

https://download.nvidia.com/XFree86/Linux-x86_64/470.256.02/README/procinterface.html
"""

from __future__ import annotations

from collections.abc import Mapping
from os.path import join
from typing import NamedTuple

from envforge.hardware.files import names_in, text_of, there_is
from envforge.hardware.pci import normal_address, same_card

_UUID_LENGTH = len("GPU-00000000-0000-0000-0000-000000000000")
_UUID_LETTERS = frozenset("0123456789abcdef-")
_MINORS = frozenset(str(minor) for minor in range(256))


class Information(NamedTuple):
    """One card as its kernel driver describes it; None where the driver does not say."""

    model: str | None = None
    uuid: str | None = None
    """None also while the card was never used: the driver writes ``GPU-????????-…`` then."""
    minor: int | None = None
    """The N of ``/dev/nvidiaN``; drivers before 384 or so do not write it."""
    excluded: bool = False


def described_cards(root: str) -> dict[str, Information]:
    """Map the PCI address of every card the module holds to what it says about the card."""
    folder = join(root, "proc/driver/nvidia/gpus")
    return {
        address: parse_information(text_of(join(folder, name, "information")))
        for name in names_in(folder)
        if (address := normal_address(name))
    }


def said_of(address: str | None, information: Mapping[str, Information]) -> Information | None:
    """Return what the module says about the card at ``address``."""
    place = same_card(address, information)
    return information[place] if place else None


def parse_information(text: str) -> Information:
    """Read one ``information`` file. ``GPU Blacklisted`` is what 470 called ``GPU Excluded``."""
    lines = (line.partition(":") for line in text.splitlines())
    fields = {name.strip(): value.strip() for name, _, value in lines}
    minor = fields.get("Device Minor", "")
    model = fields.get("Model", "")
    return Information(
        model=None if model in ("", "Unknown") else model,
        uuid=_uuid(fields.get("GPU UUID", "")),
        minor=int(minor) if minor in _MINORS else None,
        excluded="Yes" in (fields.get("GPU Excluded"), fields.get("GPU Blacklisted")),
    )


def _uuid(text: str) -> str | None:
    """Accept ``GPU-3812f520-…``; not the question marks of a card that was never used."""
    digits = text[4:].lower()
    whole = len(text) == _UUID_LENGTH and _UUID_LETTERS.issuperset(digits)
    return f"GPU-{digits}" if whole and text.startswith("GPU-") else None


def count_mig_instances(root: str, said: Information | None) -> int | None:
    """Count the compute instances cut out of the card; None where the driver does not tell.

    https://docs.nvidia.com/datacenter/tesla/mig-user-guide/device-nodes-and-capabilities.html
    """
    mig = join(root, f"proc/driver/nvidia/capabilities/gpu{said.minor if said else None}/mig")
    if not there_is(mig):
        return None
    return sum(
        name.startswith("ci")
        for instance in names_in(mig)
        if instance.startswith("gi")
        for name in names_in(join(mig, instance))
    )
