"""What a machine's driver, kernel and container toolkit serve. Decoded on demand: few need it.

Annotations are native, as in :mod:`envforge.capability.models`.
"""

import msgspec

from envforge.capability.models import Capability, Fact, Version


class KernelLimit(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which Linux on the kernel module of a legacy branch no longer compiles."""

    branch: Version
    fails_from: Version
    """NVIDIA's last release of the branch, as it is."""
    patched_through: Version
    """The newest kernel that a distribution's patches were seen for."""


class ModuleBound(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cards one of NVIDIA's two kernel modules serves."""

    compute_capability: Capability


class ToolkitFloor(Fact, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The oldest driver that NVIDIA's container toolkit supports."""

    driver: Version


class MachineLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file ``limits.yaml``."""

    open_module_from: ModuleBound
    proprietary_module_below: ModuleBound
    container_toolkit: ToolkitFloor
    kernels: tuple[KernelLimit, ...]

    def kernel_of(self, branch: str | None) -> KernelLimit | None:
        """Return the limit of a driver's branch."""
        return next((row for row in self.kernels if row.branch == branch), None)
