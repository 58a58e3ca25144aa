"""What is noteworthy about this machine, in words: one sentence per key of ``hardware.finding``."""

from __future__ import annotations

from typing import Any

from envforge.hardware.finding import Finding, FindingKey

SENTENCES: dict[FindingKey, str] = {
    "no-driver": "no driver holds the card: the NVIDIA kernel module is not loaded",
    "driver-ignores-card": "the loaded NVIDIA module does not hold the card",
    "nouveau-bound": "nouveau holds the card: it has no CUDA, NVIDIA's own driver must replace it",
    "passed-through": "{driver} holds the card for a virtual machine: it can be used only in there",
    "other-driver-bound": "{driver} holds the card, not NVIDIA's driver: no CUDA",
    "card-excluded": "the NVIDIA module was told to leave this card alone (NVreg_ExcludedGpus)",
    "driver-too-new": "driver {driver} does not serve the card: its last branch is {last_branch}",
    "driver-too-old": "driver {driver} is older than the card, which needs branch {first_branch}",
    "open-module-too-old-card": "the open NVIDIA module serves compute capability {bound} and"
    " newer: this card ({compute_capability}) needs the proprietary one",
    "proprietary-module-too-new-card": "from compute capability {bound} on only the open NVIDIA"
    " module serves a card, the proprietary one is loaded",
    "kernel-needs-patched-driver": "Linux {kernel}: NVIDIA's last {branch} driver compiles only"
    " before {fails_from}; distributions patch it up to {patched_through}",
    "kernel-too-new-for-driver": "Linux {kernel} is too new for driver branch {branch}: patches"
    " were seen up to {patched_through}; use a long-term kernel",
    "driver-library-mismatch": "kernel module {driver} and library {library} differ: reboot after"
    " the upgrade",
    "toolkit-needs-newer-driver": "NVIDIA container toolkit {toolkit} supports drivers from {needs}"
    " on, here is {driver}",
    "unknown-device": "{pci_id} is not in the database",
    "unknown-tegra": "the chip of {name} is not in the database",
    "layers-disagree": "{field}: the files say {files}, the driver says {driver}",
    "vgpu-guest": "{model}: a slice of a card, given by a hypervisor",
    "vgpu-host": "{functions} virtual functions are slices of these cards and not listed",
    "mig-enabled": "cut into instances ({instances} found): a CUDA program sees one of them",
    "wsl2": "Windows Subsystem for Linux: the driver is the Windows one, and numbered as there",
    "container-without-devices": "{container} container without device nodes: start it with its"
    " cards (docker run --gpus all)",
    "container-hides-some": "{cards} cards on the bus, {devices} given to this container: which of"
    " them cannot be told",
    "container-hides-card": "not given to this container",
    "visible-none": "CUDA_VISIBLE_DEVICES={value} hides every card",
    "visible-repeated": "CUDA_VISIBLE_DEVICES={value} names a card twice: that hides every card",
    "visible-ignored": "CUDA_VISIBLE_DEVICES={value}: {ignored} is ignored",
    "visible-order-unknown": "CUDA_VISIBLE_DEVICES={value} leaves {selected} of {cards} cards;"
    " which, only CUDA knows (order {order}): set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name UUIDs",
    "visible-unmapped": "CUDA_VISIBLE_DEVICES: {entry} could not be mapped to a card",
    "probe-timed-out": "{layer} gave no answer in {timeout_s} s: the driver may hang",
    "probe-failed": "{layer} failed: {message}",
}


def finding_text(finding: Finding) -> str:
    """Say it in one sentence, with its source where it has one."""
    source = finding.facts.get("source")
    text = SENTENCES[finding.key].format(**finding.facts)
    return f"{text} [{source}]" if source else text


def finding_json(finding: Finding) -> dict[str, Any]:
    """Key, facts and sentence."""
    return {"key": finding.key, "facts": dict(finding.facts), "text": finding_text(finding)}
