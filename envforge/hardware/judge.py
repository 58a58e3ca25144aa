"""Does this machine serve this card? Driver, kernel and container toolkit against the card.

Pure: what was detected goes in with the database's rows, findings come out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envforge.capability.database import Database
from envforge.capability.lookup import first_branch
from envforge.capability.models import Architecture, DriverBranch
from envforge.hardware.cards import DetectedGpu
from envforge.hardware.finding import Finding, FindingKey
from envforge.hardware.host import Host
from envforge.values import ComputeCapability, version_key

_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})*")


def judge_card(
    card: DetectedGpu, architecture: Architecture, host: Host, database: Database
) -> tuple[Finding, ...]:
    """Judge one card of this machine; a Jetson's driver comes with its board's own release."""
    if architecture.tegra or card.detected_by == "device-tree":
        return ()
    return (
        *_branch(card, architecture, host, database.drivers),
        *_module(card, architecture, host, database),
        *_kernel(card, architecture, host, database),
    )


def judge_host(host: Host, database: Database) -> tuple[Finding, ...]:
    """Judge what is the same for every card: NVIDIA's container toolkit against the driver."""
    driver = _key(host.driver)
    if driver is None or host.container_toolkit is None:
        return ()
    floor = database.limits.container_toolkit
    if driver >= version_key(floor.driver):
        return ()
    facts = {
        "toolkit": host.container_toolkit,
        "driver": str(host.driver),
        "needs": floor.driver,
        "source": floor.source,
    }
    return (Finding("toolkit-needs-newer-driver", None, facts),)


def is_served(card: DetectedGpu, host: Host) -> bool:
    """Tell whether the loaded driver holds the card: the kernel's word beats every table.

    Not for a driver that ``ENVFORGE_DRIVER`` only supposes. On Windows branches are numbered
    otherwise (581.x belongs to 580), but there a card is known by its driver alone.
    """
    if host.driver_detected_by == "ENVFORGE_DRIVER":
        return False
    return card.driver_bound == "nvidia" or card.detected_by in ("nvml", "nvidia-smi")


def _branch(
    card: DetectedGpu, architecture: Architecture, host: Host, drivers: Sequence[DriverBranch]
) -> tuple[Finding, ...]:
    if is_served(card, host):
        return ()
    return tuple(judge_driver(host.driver, architecture, drivers, card.address))


def judge_driver(
    driver: str | None,
    architecture: Architecture,
    drivers: Sequence[DriverBranch],
    address: str | None = None,
) -> Iterator[Finding]:
    """Judge by the tables whether a driver serves a card: neither older nor newer than it."""
    has, last = _key(driver), architecture.last_driver_branch
    if has is None:
        return
    if last is not None and has[0] > version_key(last)[0]:
        facts = {"driver": str(driver), "source": architecture.source, "last_branch": last}
        yield Finding("driver-too-new", address, facts)
    first = first_branch(architecture, drivers)
    if first is not None and has[0] < version_key(first.branch)[0]:
        facts = {"driver": str(driver), "source": first.source, "first_branch": first.branch}
        yield Finding("driver-too-old", address, facts)


def _module(
    card: DetectedGpu, architecture: Architecture, host: Host, database: Database
) -> Iterator[Finding]:
    """The open kernel module and the proprietary one do not serve the same cards."""
    if host.driver_flavour is None or is_served(card, host):
        return
    is_open = host.driver_flavour == "open"
    limits = database.limits
    bound = limits.open_module_from if is_open else limits.proprietary_module_below
    capability = ComputeCapability.parse(architecture.compute_capability)
    is_newer = capability >= ComputeCapability.parse(bound.compute_capability)
    if is_newer != is_open:
        facts = {
            "compute_capability": str(capability),
            "bound": bound.compute_capability,
            "source": bound.source,
        }
        key: FindingKey = (
            "open-module-too-old-card" if is_open else "proprietary-module-too-new-card"
        )
        yield Finding(key, card.address, facts)


def _kernel(
    card: DetectedGpu, architecture: Architecture, host: Host, database: Database
) -> Iterator[Finding]:
    """Only a card without its driver is warned: one that is served proves that it compiled."""
    kernel = _key(host.kernel)
    if kernel is None or host.wsl or card.driver_bound == "nvidia":
        return
    limit = database.limits.kernel_of(architecture.last_driver_branch)
    if limit is None or kernel[:2] < version_key(limit.fails_from):
        return
    patched = kernel[:2] <= version_key(limit.patched_through)
    yield Finding(
        "kernel-needs-patched-driver" if patched else "kernel-too-new-for-driver",
        card.address,
        {
            "kernel": host.kernel,
            "branch": limit.branch,
            "fails_from": limit.fails_from,
            "patched_through": limit.patched_through,
            "source": limit.source,
        },
    )


def _key(text: str | None) -> tuple[int, ...] | None:
    """The version that a text begins with: ``6.12.7_1`` of a kernel, ``470.256.02`` of a driver."""
    match = _VERSION.match(text or "")
    return version_key(match[0]) if match else None
