"""What is noteworthy about this machine, as keys and facts; ``report`` makes the sentences."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

FindingKey = Literal[
    # the card and its kernel driver
    "no-driver",  # no NVIDIA module is loaded, nothing else holds the card
    "driver-ignores-card",  # the module is loaded and did not take the card
    "nouveau-bound",  # the free driver has no CUDA
    "passed-through",  # vfio-pci holds the card for a virtual machine
    "other-driver-bound",  # driver: which
    "card-excluded",  # the module was told to leave the card alone
    "driver-too-new",  # driver, last_branch: newer branches dropped the card
    "driver-too-old",  # driver, first_branch: the card came later
    "open-module-too-old-card",  # the open flavour needs a GSP, which came with Turing
    "proprietary-module-too-new-card",  # only the open flavour serves it
    "kernel-needs-patched-driver",  # kernel, branch, fails_from, patched_through
    "kernel-too-new-for-driver",  # the same, and no patch was seen
    "driver-library-mismatch",  # driver, library: upgraded without a reboot
    "toolkit-needs-newer-driver",  # toolkit, driver, needs
    # the card's identity
    "unknown-device",  # pci_id: not in the database
    "unknown-tegra",  # name
    "layers-disagree",  # field, files, driver
    "vgpu-guest",  # model: a slice of a card, given by a hypervisor
    "vgpu-host",  # functions: how many virtual functions were not counted as cards
    "mig-enabled",  # instances: CUDA sees one of them, never the whole card
    # where we run
    "wsl2",  # the driver is the Windows one
    "container-without-devices",  # sysfs shows the cards, /dev does not
    "container-hides-some",  # cards, devices: fewer nodes than cards, unpaired
    "container-hides-card",  # this one was not given to the container
    # what CUDA_VISIBLE_DEVICES leaves
    "visible-none",  # value
    "visible-repeated",  # value: an entry twice hides every card
    "visible-ignored",  # value, ignored: the list ends at the first bad entry
    "visible-order-unknown",  # value, selected, cards: CUDA_DEVICE_ORDER is not PCI_BUS_ID
    "visible-unmapped",  # value, entry: a UUID nobody here can resolve
    # what could not be asked
    "probe-timed-out",  # layer, timeout_s
    "probe-failed",  # layer, message
]


class Finding(NamedTuple):
    """One noteworthy fact; ``card`` is its PCI address, or None where it is about the machine."""

    key: FindingKey
    card: str | None = None
    facts: Mapping[str, str] = MappingProxyType({})
