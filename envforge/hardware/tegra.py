"""The GPU inside a Jetson: no PCI function, but the board's device tree names its chip."""

from __future__ import annotations

from os.path import join
from typing import NamedTuple

from envforge.hardware.files import text_of
from envforge.values import ComputeCapability

# Compatible strings: Documentation/devicetree/bindings/arm/tegra.yaml of Linux; tegra264 as read on
# a Thor kit (https://github.com/rbonghi/jetson_stats/issues/711).
# Capabilities: https://developer.nvidia.com/cuda-gpus and /cuda-legacy-gpus beside it; 7.2 for
# Xavier: pkgs/development/cuda-modules of NixOS.
CAPABILITIES = {
    "tegra124": ComputeCapability(3, 2),  # K1: Jetson TK1
    "tegra132": ComputeCapability(3, 2),  # K1 with 64 bits: the same GK20A
    "tegra210": ComputeCapability(5, 3),  # X1: Jetson TX1, Nano
    "tegra186": ComputeCapability(6, 2),  # X2: Jetson TX2
    "tegra194": ComputeCapability(7, 2),  # Xavier
    "tegra234": ComputeCapability(8, 7),  # Orin
    "tegra264": ComputeCapability(11, 0),  # Thor; toolkits before 13.0 call it 10.1
}
WITHOUT_CUDA = frozenset({"tegra20", "tegra30", "tegra114"})


class TegraGpu(NamedTuple):
    """The GPU of a Tegra board; ``compute_capability`` is None for a chip that is not known."""

    chip: str
    name: str
    compute_capability: ComputeCapability | None


def find_tegra(root: str) -> TegraGpu | None:
    """Identify the board by ``/proc/device-tree``; None on anything but a Tegra with CUDA."""
    tree = join(root, "proc/device-tree")
    words = [word.removeprefix("nvidia,") for word in text_of(join(tree, "compatible")).split("\0")]
    # the board says what it is from the narrowest name to the widest: "tegra23x" is a family
    chips = [word for word in words if word.startswith("tegra") and word[5:].isdecimal()]
    if not chips or chips[0] in WITHOUT_CUDA:
        return None
    name = text_of(join(tree, "model")).rstrip("\0").strip() or chips[0]
    return TegraGpu(chips[0], name, CAPABILITIES.get(chips[0]))
