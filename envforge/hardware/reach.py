"""Whether a CUDA program started here reaches a card: kernel driver, container, environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os.path import join

from envforge.hardware.cards import DetectedGpu
from envforge.hardware.files import names_in, there_is
from envforge.hardware.finding import Finding, FindingKey
from envforge.hardware.host import Host
from envforge.hardware.procfs import Information, said_of

_PASSING_ON = ("vfio", "pci-stub", "pciback")


def binding_finding(card: DetectedGpu, host: Host) -> Finding | None:
    """Say why no NVIDIA driver serves a card of the PCI bus; None where one does."""
    if card.detected_by != "sysfs" or card.driver_bound == "nvidia":
        return None
    if card.driver_bound is None:
        loaded = host.driver_detected_by in ("sysfs", "proc")
        return Finding("driver-ignores-card" if loaded else "no-driver", card.address)
    key: FindingKey = "other-driver-bound"
    if card.driver_bound == "nouveau":
        key = "nouveau-bound"
    elif any(word in card.driver_bound for word in _PASSING_ON):
        key = "passed-through"
    return Finding(key, card.address, {"driver": card.driver_bound})


def reach(
    cards: Sequence[DetectedGpu],
    host: Host,
    information: Mapping[str, Information],
    root: str,
    environ: Mapping[str, str],
) -> tuple[list[DetectedGpu], list[Finding]]:
    """Set ``visible`` of every card, and say what hides the hidden ones."""
    hiding = [_hiding(card, host, information, root) for card in cards]
    open_cards = [card for card, why in zip(cards, hiding, strict=True) if why is None]
    seen, chosen = _left_by_environment(open_cards, environ)
    some = _some_hidden(open_cards, host, information, root)
    flags = iter((None,) * len(open_cards) if some else seen)
    shown = [
        card._replace(visible=next(flags) if why is None else False)
        for card, why in zip(cards, hiding, strict=True)
    ]
    found = [why for why in (*hiding, some) if why is not None]
    return shown, [*_without_devices(cards, host, root, environ), *found, *chosen]


def _left_by_environment(
    cards: Sequence[DetectedGpu], environ: Mapping[str, str]
) -> tuple[Sequence[bool | None], Sequence[Finding]]:
    if "CUDA_VISIBLE_DEVICES" not in environ:
        return (True,) * len(cards), ()
    from envforge.hardware.visible import Candidate, visible_cards  # noqa: PLC0415 -- rarely set

    view = visible_cards([Candidate(card.uuid, card.mig) for card in cards], environ)
    return view.flags, view.findings


def _hiding(
    card: DetectedGpu, host: Host, information: Mapping[str, Information], root: str
) -> Finding | None:
    if finding := binding_finding(card, host):
        return finding
    said = said_of(card.address, information)
    if said and said.excluded:
        return Finding("card-excluded", card.address)
    if host.container and card.driver_bound == "nvidia" and _withheld(said, information, root):
        return Finding("container-hides-card", card.address)
    return None


def _withheld(said: Information | None, information: Mapping[str, Information], root: str) -> bool:
    """Tell by its device node: sysfs shows every card of the host, in a container too.

    NVIDIA's runtime also hides the cards it withholds from ``/proc/driver/nvidia/gpus``.
    """
    if said and said.minor is not None:
        return not there_is(join(root, f"dev/nvidia{said.minor}"))
    return (said is None and bool(information)) or not _device_nodes(root)


def _some_hidden(
    cards: Sequence[DetectedGpu], host: Host, information: Mapping[str, Information], root: str
) -> Finding | None:
    """Where ``/proc`` is hidden as a whole, nobody can tell which card a device node belongs to."""
    held = [card for card in cards if card.driver_bound == "nvidia"]
    nodes = len(_device_nodes(root))
    if not host.container or information or nodes >= len(held) or host.wsl:
        return None
    return Finding("container-hides-some", None, {"cards": str(len(held)), "devices": str(nodes)})


def _device_nodes(root: str) -> list[str]:
    names = names_in(join(root, "dev"))
    return [name for name in names if name.startswith("nvidia") and name[6:].isdecimal()]


def _without_devices(
    cards: Sequence[DetectedGpu], host: Host, root: str, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """CUDA images set NVIDIA_VISIBLE_DEVICES themselves: it does not mean that a card was given."""
    held = [card for card in cards if card.driver_bound == "nvidia"]
    if host.container and held and not host.wsl and not _device_nodes(root):
        value = environ.get("NVIDIA_VISIBLE_DEVICES")
        facts = {"cards": str(len(held)), "container": host.container}
        if value is not None:
            facts["NVIDIA_VISIBLE_DEVICES"] = value
        yield Finding("container-without-devices", None, facts)
