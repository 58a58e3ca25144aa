"""Rules and relaxations in words: the only place where a decision becomes a sentence."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from envforge.capability.models import Risk
from envforge.resolver.lifts import LIFTED
from envforge.resolver.model import Broken, Relaxation, Request, Resolution, Toolkits

_RULES = {
    "kernels": "torch {torch}'s {variant} wheel carries {codes}: none of it runs on compute"
    " capability {compute_capability}",
    "shipped-kernels": "{route}'s build of torch {torch} for CUDA {cuda} carries {codes}: none"
    " of it runs on compute capability {compute_capability}",
    "tegra": "compute capability {compute_capability} is found on Jetson boards only; every build"
    " known here is for x86-64 machines",
    "nvcc": "nvcc compiles for compute capability {compute_capability} ({architecture}) only with"
    " CUDA {range}",
    "torch-cuda": "torch {torch} compiles only with CUDA {range}",
    "torch-capability": "torch {torch} can be built only for compute capability {range}, the card"
    " is {compute_capability}",
    "cuda-gcc": "CUDA {cuda} accepts only gcc {range} as host compiler",
    "torch-gcc": "torch {torch} needs gcc {range}",
    "torch-python": "torch {torch} is known to work with Python {pythons}",
    "wheel-python": "torch {torch} is published for these Pythons: {tags}",
    "wheel-glibc": "torch {torch}'s wheel needs glibc {glibc} or newer",
    "last-driver": "the last driver for compute capability {compute_capability} is branch {branch};"
    " CUDA {cuda} needs driver {floor}",
    "first-driver": "compute capability {compute_capability} ({architecture}) is known to drivers"
    " from branch {branch} on, here is {driver}",
    "driver-at-hand": "CUDA {cuda} needs driver {floor} or newer, here is {driver}",
    "general": "{why}",
}

_NOTES = {
    "ptx-jit": "carries no machine code of this card: the driver compiles PTX at first use",
    "not-built-yet": "platform rendered and checked against the data, not built yet by anybody",
    "wheel-alone": "nothing but the wheel comes that way: numpy and the like are yours to install",
    "cpu": "computes on the CPU, not on a card",
    "python-from-source": "the platform has no such Python: it is built from CPython's own sources,"
    " without torchvision; not verified with a real torch",
    "cudnn-none": "its cuDNN has no code for this card: torch.backends.cudnn.enabled = False",
    "conda-cudnn-none": "the newest cuDNN it accepts has no code for this card:"
    " torch.backends.cudnn.enabled = False",
    "cudnn-partial": "its cuDNN has code for this card only in part",
    "cudnn-ptx-jit": "its cuDNN carries only PTX for this card",
    "linalg-none": "its linear algebra (torch.linalg) has no code for this card",
    "linalg-partial": "its linear algebra (torch.linalg) lacks code for this card in part",
    "linalg-ptx-jit": "its linear algebra (torch.linalg) carries only PTX for this card",
}


def rule_text(rule: Broken) -> str:
    """Say what the rule demands and what is there instead."""
    return _RULES[rule.kind].format(**dict(rule.facts))


def note_text(key: str, risks: Iterable[Risk] = ()) -> str:
    """Say what a note of a resolution warns of; ``risks`` of the database word their own."""
    words = {risk.id: f"{risk.text} [{risk.source}]" for risk in risks}
    if key.startswith(LIFTED):
        patch = key.removeprefix(LIFTED)
        return f"its sources alone refuse this Python: patch {patch} lifts that rule"
    return words.get(key) or _NOTES.get(key) or f"known risk {key}: envforge check tells more"


def toolkit_lines(toolkits: Toolkits, request: Request) -> list[str]:
    """Say which toolkits compile for the card at all, among those the release takes."""
    lines = []
    card = request.card
    code = f"sm_{card.compute_capability.number}" if card else "the card"
    if toolkits.compiling:
        lines.append(f"nvcc of CUDA {_series(toolkits.compiling)} would still compile for {code}")
    if toolkits.refusing:
        lines.append(
            f"nvcc of CUDA {_series(toolkits.refusing)} refuses {code}"
            f" (known to CUDA {toolkits.card_range}) [{toolkits.source}]"
        )
    return lines


def _series(versions: tuple[str, ...]) -> str:
    """``9.0.176, 9.1.85, 9.2.88, 9.2.148`` -> ``9.0, 9.1, 9.2``."""
    return ", ".join(dict.fromkeys(".".join(version.split(".")[:2]) for version in versions))


def relaxation_text(relaxation: Relaxation, request: Request) -> str:
    """Say what leaving out one part of the request gives, with the command for it."""
    resolution = relaxation.gives
    if relaxation.drop == "gpu":
        return f"without the card: {summary(resolution)}: {build_command(resolution, None)}"
    command = route_command(resolution, card_flag(request), relaxation.pip)
    if relaxation.drop == "driver":
        return f"with a newer driver: {summary(resolution)}: {command}"
    return f"without --{relaxation.drop}: {summary(resolution)}: {command}"


def summary(resolution: Resolution) -> str:
    """Name a resolution in half a line."""
    parts = [f"torch {resolution.torch}"]
    if resolution.route == "cpu":
        parts.append("on the CPU")
    elif resolution.cuda:
        parts.append(f"with CUDA {resolution.cuda}")
    if resolution.gcc:
        parts.append(f"and gcc {resolution.gcc.split('.')[0]}")
    if resolution.platform:
        parts.append(f"on {resolution.platform}")
    return f"{' '.join(parts)} (route {resolution.route})"


def card_flag(request: Request) -> str | None:
    """What to give to ``--gpu`` so that the same card is meant."""
    if request.card is None:
        return None
    return request.card.pci_id or f"sm_{request.card.compute_capability.number}"


def route_command(resolution: Resolution, card: str | None, pip: Iterable[str]) -> str:
    """The command that takes this route. ``pip``: what ``pip install`` is given for a wheel."""
    if resolution.route in ("wheel", "wheel-variant"):
        return shlex.join([*_pip(resolution), *pip])
    if resolution.route == "conda-forge":
        packages = [f"pytorch={resolution.torch}", f"cuda-version={resolution.cuda}"]
        packages += [f"python={resolution.python}"] if resolution.python else []
        return shlex.join(["conda", "install", "-c", "conda-forge", *packages])
    if resolution.route == "distribution":
        return shlex.join(["apt", "install", str(resolution.package)])
    return build_command(resolution, card)


def _pip(resolution: Resolution) -> list[str]:
    return [f"python{resolution.python or '3'}", "-m", "pip", "install"]


def build_command(resolution: Resolution, card: str | None) -> str:
    """The envforge command that builds this resolution."""
    target = ["--gpu", card, "--route", resolution.route] if card else ["--cpu"]
    built = resolution.python_origin == "source"  # never chosen where a platform has another
    place = ["--platform", str(resolution.platform), "--python", str(resolution.python)]
    words = ["envforge", "build", *target, "--torch", resolution.torch, *(place if built else [])]
    return shlex.join(words)
