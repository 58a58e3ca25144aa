"""Which cards a set of libraries runs on, judged role by role."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from envforge.binaries.fatbin import PtxVersion
from envforge.binaries.library import Library
from envforge.binaries.parts import NEARLY_ALL, Code, Part
from envforge.binaries.role import OPTIONAL, VENDOR, Role
from envforge.values import ComputeCapability, DeviceCode, Support, best_support

STRAYS = 0.05
"""Up to this share of a part's fatbins is no support at all: 1 of 33 fatbins of torch 2.15's
linear algebra has sm_75, 3 of 208 of torch 2.8's own kernels sm_90a."""


class RoleVerdict(NamedTuple):
    """How the kernels of one role in one file run on a card."""

    role: Role
    path: str
    support: Support
    runs: int
    """Fatbins of which the card can run an image, out of ``fatbins``."""
    fatbins: int
    ptx_version: PtxVersion | None = None
    """The PTX ISA the driver must know, where PTX is needed."""


class Verdict(NamedTuple):
    """How a set of libraries runs on a card."""

    card: ComputeCapability
    support: Support
    """``partial``: the own kernels run, something beside them does not: see ``missing``."""
    own: Support
    """torch's own kernels alone, or an extension's where there is no torch in the set."""
    roles: tuple[RoleVerdict, ...]
    missing: tuple[RoleVerdict, ...]
    """What has no or not all code for the card."""
    ptx_version: PtxVersion | None = None
    """The newest PTX ISA needed; a driver that does not know it cannot compile."""


def verdict(libraries: Library | Iterable[Library], card: ComputeCapability) -> Verdict:
    """Judge what ``card`` can run of ``libraries``, which belong together."""
    members = [libraries] if isinstance(libraries, Library) else list(libraries)
    roles = tuple(_judge(part, library.path, card) for library in members for part in library.parts)
    own = _worst(role for role in roles if role.role == _own_role(roles))
    judged = [role for role in roles if role.role not in OPTIONAL]
    missing = tuple(role for role in judged if role.support in ("partial", "none"))
    versions = [role.ptx_version for role in judged if role.ptx_version is not None]
    return Verdict(
        card=card,
        support="partial" if missing and own != "none" else own,
        own=own,
        roles=roles,
        missing=missing,
        ptx_version=max(versions, default=None),
    )


class Lack(NamedTuple):
    """The kernels of one role in one library, and the architectures asked for that they lack."""

    path: str
    role: Role
    codes: tuple[DeviceCode, ...]
    """In the order they were asked for."""
    having: tuple[int, ...]
    """How many of the fatbins carry each of ``codes``."""
    fatbins: int
    """Fatbins of this role that hold a kernel."""


def find_lacks(
    libraries: Library | Iterable[Library], wanted: Iterable[DeviceCode]
) -> tuple[Lack, ...]:
    """Return what is missing of the architectures a build was asked for: every library, each role.

    ``libraries`` come from :func:`~envforge.binaries.library.read_library` or a
    :class:`~envforge.binaries.subject.Subject`; ``wanted`` is exact: ``sm_35`` is not carried by
    a library of ``sm_37`` or ``compute_35``, whatever a card could run.

    Judged is what such a build compiles itself: torch's own kernels, its linear algebra (MAGMA),
    gloo, and extensions. Left out are NVIDIA's libraries (they keep NVIDIA's list, linked in or
    beside), what torch offers on newer cards only (attention, cuSPARSELt, NVSHMEM), and kernels
    whose names tell nothing and that carry another list. One code is lacking when fewer than
    nearly all (99 %) of a role's fatbins have it. Kernels no library has lack nothing: whether
    torch's are there at all is the caller's question (``library.own``).

    Order: as ``libraries``. Nothing is raised.
    """
    members = [libraries] if isinstance(libraries, Library) else list(libraries)
    asked = tuple(wanted)
    judged = (
        (library.path, part)
        for library in members
        for part in library.parts
        if part.role not in VENDOR | OPTIONAL
    )
    lacks = (_lack(path, part, asked) for path, part in judged)
    return tuple(lack for lack in lacks if lack.codes)


def _lack(path: str, part: Part, asked: tuple[DeviceCode, ...]) -> Lack:
    carried, counts = part.carried(), part.counts()
    codes = tuple(code for code in asked if code not in carried)
    return Lack(path, part.role, codes, tuple(counts.get(code, 0) for code in codes), part.fatbins)


def _own_role(roles: tuple[RoleVerdict, ...]) -> Role | None:
    """Return the role that decides: torch's, else that of whatever the set consists of."""
    present = [role.role for role in roles]
    preferred: tuple[Role, ...] = ("torch", "extension", "linear-algebra")
    return next((role for role in preferred if role in present), next(iter(present), None))


def _worst(roles: Iterable[RoleVerdict]) -> Support:
    found = {role.support for role in roles}
    if not found:
        return "none"
    if "none" in found and len(found) > 1:
        return "partial"
    order: tuple[Support, ...] = ("none", "partial", "ptx-jit", "native")
    return next(support for support in order if support in found)


def _judge(part: Part, path: str, card: ComputeCapability) -> RoleVerdict:
    counts: dict[Support, int] = {"native": 0, "ptx-jit": 0, "none": 0}
    versions: set[PtxVersion] = set()
    for group in part.sets:
        support = best_support([code.device for code in group.codes], card)
        counts[support] += group.fatbins
        if support == "ptx-jit":
            versions.add(_ptx_needed(group.codes, card))
    support = _support(counts, vendor=part.role in VENDOR)
    return RoleVerdict(
        role=part.role,
        path=path,
        support=support,
        runs=counts["native"] + counts["ptx-jit"],
        fatbins=part.fatbins,
        ptx_version=max(versions, default=None) if support == "ptx-jit" else None,
    )


def _ptx_needed(codes: tuple[Code, ...], card: ComputeCapability) -> PtxVersion:
    """Return the ISA of the PTX a driver takes: the newest architecture the card has."""
    usable = [
        code for code in codes if code.ptx_version and code.device.support_on(card) == "ptx-jit"
    ]
    best = max(code.device.capability for code in usable)
    return min(
        code.ptx_version
        for code in usable
        if code.ptx_version is not None and code.device.capability == best
    )


def _support(counts: dict[Support, int], *, vendor: bool) -> Support:
    total = sum(counts.values())
    running = counts["native"] + counts["ptx-jit"]
    if vendor:
        return "native" if counts["native"] else "ptx-jit" if running else "none"
    if counts["native"] >= NEARLY_ALL * total:
        return "native"
    if running >= NEARLY_ALL * total:
        return "ptx-jit"
    return "partial" if running > STRAYS * total else "none"
