"""Value types of the field: versions, compute capability, device code. No I/O.

The two binary rules live here and nowhere else: which device code runs on which card.
Source: CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility"
(https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility), and for the
suffixes ``a`` and ``f`` "Feature Set Compiler Targets" of the same guide.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal, NamedTuple

Support = Literal["native", "ptx-jit", "partial", "none"]
"""How a card runs a binary; ``partial`` only ever describes a library as a whole."""

_CAPABILITY = re.compile(r"(\d{1,2})\.(\d)\Z")
_CODE = re.compile(r"(sm|compute)_(\d{2,3})([af]?)\Z")


@cache
def version_key(text: str) -> tuple[int, ...]:
    """Turn ``"10.1.243"`` into ``(10, 1, 243)``; ValueError for anything but dotted integers."""
    try:
        return tuple(map(int, text.split(".")))
    except ValueError:
        raise ValueError(f"not a version of dotted integers: {text!r}") from None


class VersionRange(NamedTuple):
    """A half-open range of versions: ``>=5.0,<10.3``.

    Bounds are written ``<next`` because ``<=10.2`` excludes 10.2.89, which nobody means. Every
    range of the database has this form; requests of users are pip specifiers, not this.
    """

    text: str
    lower: tuple[int, ...]
    upper: tuple[int, ...] | None

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read ``">=5.0,<10.3"``, ``">=7.5"`` or ``"<6"``; ValueError for any other operator."""
        lower: tuple[int, ...] = ()
        upper: tuple[int, ...] | None = None
        for part in text.split(","):
            if part.startswith(">="):
                lower = version_key(part[2:])
            elif part.startswith("<") and not part.startswith("<="):
                upper = version_key(part[1:])
            else:
                raise ValueError(f"not a range of the form >=A,<B: {text!r}")
        return cls(text, lower, upper)

    def __contains__(self, version: object) -> bool:
        key = version_key(str(version))
        return self.lower <= key and (self.upper is None or key < self.upper)


class ComputeCapability(NamedTuple):
    """A card's compute capability, ordered as NVIDIA orders them: ``3.5 < 10.0``."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> ComputeCapability:
        """Read ``"3.5"``; ValueError for anything else."""
        match = _CAPABILITY.match(text)
        if match is None:
            raise ValueError(f"not a compute capability: {text!r} (expected the form 3.5)")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def from_number(cls, number: int) -> ComputeCapability:
        """Read the decimal form of a binary's header: ``35``, ``103``."""
        return cls(*divmod(number, 10))

    @property
    def number(self) -> int:
        """The decimal form of ``sm_35`` and of a binary's header: ``35``."""
        return self.major * 10 + self.minor

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class DeviceCode(NamedTuple):
    """One architecture a binary carries: ``sm_35`` (SASS), ``compute_50`` (PTX), ``sm_90a``."""

    kind: Literal["sm", "compute"]
    capability: ComputeCapability
    suffix: str = ""
    """``a``: this capability only. ``f``: this family (major version) only. Empty: neither."""

    @classmethod
    @cache
    def parse(cls, text: str) -> DeviceCode:
        """Read ``"sm_35"``, ``"sm_90a"``, ``"compute_100f"``; ValueError for anything else."""
        match = _CODE.match(text)
        if match is None:
            raise ValueError(f"not device code: {text!r} (expected the form sm_35 or compute_35)")
        kind: Literal["sm", "compute"] = "sm" if match[1] == "sm" else "compute"
        return cls(kind, ComputeCapability.from_number(int(match[2])), match[3])

    def support_on(self, card: ComputeCapability) -> Support:
        """How ``card`` runs this code: ``native``, ``ptx-jit`` or ``none``.

        SASS for X.y runs on X.z with z >= y. PTX for N runs on every card >= N, if the driver's
        compiler knows that PTX version (the driver is judged elsewhere).
        """
        runs = self.capability <= card
        if self.suffix == "a":
            runs = self.capability == card
        elif self.suffix == "f" or self.kind == "sm":
            runs = runs and self.capability.major == card.major
        if not runs:
            return "none"
        return "native" if self.kind == "sm" else "ptx-jit"

    def __str__(self) -> str:
        return f"{self.kind}_{self.capability.number}{self.suffix}"


def best_support(codes: list[DeviceCode], card: ComputeCapability) -> Support:
    """The best any of ``codes`` gives on ``card``; SASS is preferred to PTX."""
    found = {code.support_on(card) for code in codes}
    return "native" if "native" in found else "ptx-jit" if "ptx-jit" in found else "none"
