"""Ask the driver what files leave open: NVML, then nvidia-smi; and join both to what files said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from envforge.hardware.cards import DetectedGpu, Layer
from envforge.hardware.finding import Finding
from envforge.hardware.host import Host
from envforge.hardware.layer import LayerReport, ReportedGpu
from envforge.hardware.nvml import ask_nvml
from envforge.hardware.pci import bus_order, same_card
from envforge.hardware.probes import Probes
from envforge.hardware.smi import ask_smi


class Joined(NamedTuple):
    """What files and driver say together."""

    cards: list[DetectedGpu]
    host: Host
    findings: list[Finding]


def ask_driver(
    cards: Sequence[DetectedGpu],
    host: Host,
    root: str,
    environ: Mapping[str, str],
    probes: Probes,
) -> Joined:
    """Fill in what the first layer that answers knows; nothing is lost when none does."""
    report = ask_nvml(root, environ, *probes)
    if report.gpus or any(finding.key == "probe-timed-out" for finding in report.findings):
        # nvidia-smi asks the same library: after a time-out it would only hang once more
        return _join(cards, host, report, "nvml")
    second = ask_smi(root, environ, probes.timeout_s)
    if second.gpus:
        return _join(cards, host, second, "nvidia-smi")
    findings = (*report.findings, *second.findings)
    return Joined(list(cards), host, list(findings))


def _join(
    cards: Sequence[DetectedGpu],
    host: Host,
    report: LayerReport,
    layer: Literal["nvml", "nvidia-smi"],
) -> Joined:
    partners = _partners(cards, report.gpus)
    findings = list(report.findings)
    joined: list[DetectedGpu] = []
    for position, card in enumerate(cards):
        said = partners.get(position)
        findings += _disagreements(card, said) if said else []
        joined.append(_filled(card, said) if said else card)
    joined += [_new(gpu, layer, host) for gpu in report.gpus if gpu not in partners.values()]
    joined.sort(key=lambda card: bus_order(card.address))
    if host.driver is None and report.driver:
        host = host._replace(driver=report.driver, driver_detected_by=layer)
    return Joined(joined, host, findings)


def _partners(cards: Sequence[DetectedGpu], gpus: Sequence[ReportedGpu]) -> dict[int, ReportedGpu]:
    """Pair by place on the bus; a Jetson's GPU has none there, so what is left over must be it."""
    named = {gpu.address: gpu for gpu in gpus if gpu.address}
    places = [same_card(card.address, named) for card in cards]
    partners = {position: named[place] for position, place in enumerate(places) if place}
    left = [gpu for gpu in gpus if gpu not in partners.values()]
    boards = [n for n, card in enumerate(cards) if card.detected_by == "device-tree"]
    if len(left) == 1 and boards:
        partners[boards[0]] = left[0]
    return partners


def _filled(card: DetectedGpu, said: ReportedGpu) -> DetectedGpu:
    return card._replace(
        name=card.name or said.name,
        uuid=card.uuid or said.uuid,
        compute_capability=card.compute_capability or said.compute_capability,
        memory_mib=said.memory_mib,
        mig=card.mig or said.mig,  # switched on, it takes the whole card away even uncut
    )


def _new(said: ReportedGpu, layer: Layer, host: Host) -> DetectedGpu:
    return DetectedGpu(
        detected_by=layer,
        address=said.address,
        pci_id=said.pci_id,
        name=said.name,
        uuid=said.uuid,
        compute_capability=said.compute_capability,
        memory_mib=said.memory_mib,
        driver_bound=None if host.wsl else "nvidia",
        mig=said.mig,
    )


def _disagreements(card: DetectedGpu, said: ReportedGpu) -> list[Finding]:
    pairs = [
        ("pci_id", card.pci_id, said.pci_id),
        ("compute_capability", card.compute_capability, said.compute_capability),
    ]
    return [
        Finding(
            "layers-disagree", card.address, {"field": field, "files": str(a), "driver": str(b)}
        )
        for field, a, b in pairs
        if a is not None and b is not None and a != b
    ]
