"""Facts about drivers, kernels and NVIDIA's container toolkit that the host judgement rests on.

They are about the machine, not about PyTorch, so the resolver does not read them; each has its
source and its evidence like every record of the capability database.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from envforge.values import ComputeCapability

Evidence = Literal["measured", "vendor-docs", "upstream", "third-party", "inferred"]


class KernelLimit(NamedTuple):
    """From which Linux on the kernel module of a legacy branch no longer compiles."""

    branch: str
    fails_from: str
    """NVIDIA's last release of the branch, as it is."""
    patched_through: str
    """The newest kernel that a distribution's patches were seen for."""
    source: str
    evidence: Evidence


_NIXPKGS = "https://github.com/NixOS/nixpkgs/tree/master/pkgs/os-specific/linux/nvidia-x11"

KERNEL_LIMITS = (
    KernelLimit(
        branch="340",
        fails_from="5.7",
        patched_through="6.6",
        source=f"{_NIXPKGS} (340.108: first patch 5.7, broken from 6.7);"
        " https://github.com/NixOS/nixpkgs/issues/554929",
        evidence="third-party",
    ),
    KernelLimit(
        branch="390",
        fails_from="6.2",
        patched_through="6.17",
        source=f"{_NIXPKGS} (390.157: first patch 6.2, last 6.17)",
        evidence="third-party",
    ),
    KernelLimit(
        branch="470",
        fails_from="6.12",
        patched_through="7.0",
        source="https://github.com/void-linux/void-packages/issues/53759;"
        f" https://github.com/NixOS/nixpkgs/issues/534698; {_NIXPKGS} (470xx: last patch 7.0)",
        evidence="third-party",
    ),
)


class CapabilityBound(NamedTuple):
    """Which cards one of the two kernel modules serves."""

    capability: ComputeCapability
    source: str
    evidence: Evidence


OPEN_MODULE_FROM = CapabilityBound(
    ComputeCapability(7, 5),
    "https://docs.nvidia.com/datacenter/tesla/driver-installation-guide/kernel-modules.html",
    "vendor-docs",
)
PROPRIETARY_MODULE_BELOW = CapabilityBound(
    ComputeCapability(10, 0),
    "https://developer.nvidia.com/blog/"
    "nvidia-transitions-fully-towards-open-source-gpu-kernel-modules/",
    "vendor-docs",
)


class ToolkitFloor(NamedTuple):
    """The oldest driver that NVIDIA's container toolkit supports."""

    driver: str
    source: str
    evidence: Evidence


CONTAINER_TOOLKIT_FLOOR = ToolkitFloor(
    "418.81.07",
    "https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/1.12.1/install-guide.html;"
    " https://github.com/NVIDIA/nvidia-container-toolkit/issues/293",
    "vendor-docs",
)
