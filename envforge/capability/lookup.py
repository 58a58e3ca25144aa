"""Questions to the database about cards, releases and toolkits. Unknown names are refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

from envforge.capability.database import Database
from envforge.capability.models import (
    Architecture,
    CondaBuild,
    CudaToolkit,
    Device,
    DriverBranch,
    Platform,
    ReleaseNote,
    TorchRelease,
    VariantInstall,
    Wheel,
    in_range,
    parse_range,
)
from envforge.capability.names import board_names, marketing_names, normalise, without_qualifiers
from envforge.errors import AmbiguousName, UnknownName, UsageError
from envforge.values import ComputeCapability, DeviceCode, Support, best_support, version_key

if TYPE_CHECKING:  # decoded on demand: see Database
    from envforge.capability.memory import CardMemory
    from envforge.capability.vendor import Library

# Compiled at first use: one call needs one or two of them, and check must feel instant.
_PCI_ID = r"(?:10de:)?([0-9a-f]{4})"
_CAPABILITY = r"(?:sm_|compute_)(\d{2,3})|(\d{1,2}\.\d)"
_PLAIN = r"[0-9]+(?:\.[0-9]+)*"
_SPECIFIER = r"[0-9.,<>=!~* ]+"
_LONGEST = 200
"""Characters of a version request; Python itself refuses numbers of thousands of digits."""
_LETTERS = 2
"""What tells variants of one card apart: K40c, K40m, 970M."""


class Card(NamedTuple):
    """A card, or a whole compute capability where only that was given."""

    name: str
    compute_capability: ComputeCapability
    chip: str | None = None
    pci_id: str | None = None
    """``10de:1187``; None where several ids share the name."""


def find_card(database: Database, text: str) -> Card:
    """Identify what ``--gpu`` says: a name, a PCI id or a compute capability.

    UnknownName with near matches; AmbiguousName where chips of different capability share it.
    """
    word = text.strip().lower()
    if match := re.fullmatch(_CAPABILITY, word):
        return _by_capability(database, match[2] or _dotted(match[1]), text)
    if word.startswith("10de:"):
        return find_device(database, word)
    return _by_name(database, text)


def _dotted(number: str) -> str:
    return str(ComputeCapability.from_number(int(number)))


def _by_capability(database: Database, capability: str, text: str) -> Card:
    architecture = database.architectures.get(capability)
    if architecture is None:
        raise UnknownName(
            "compute capability", text, hint=f"known: {', '.join(database.architectures)}"
        )
    return Card(
        f"{architecture.name} (compute capability {capability})",
        ComputeCapability.parse(capability),
    )


def find_device(database: Database, pci_id: str) -> Card:
    """Identify a card by ``10de:1187``; UnknownName when no GPU has that id."""
    match = re.fullmatch(_PCI_ID, pci_id.lower())
    device = database.devices.get(match[1]) if match else None
    if device is None:
        raise UnknownName(
            "PCI id", pci_id, hint="find it with: envforge check, or lspci -nn -d 10de:"
        )
    return _card(device, " / ".join(marketing_names(device.name)))


def _card(device: Device, name: str) -> Card:
    capability = ComputeCapability.parse(device.compute_capability)
    return Card(name, capability, device.chip, f"10de:{device.id}")


def _by_name(database: Database, text: str) -> Card:
    ids = _ids_of(database, normalise(text)) or _ids_of_series(database, text)
    if not ids:
        if board := _board(database, text):
            return board
        raise UnknownName("card", text, near_names(database, text), hint=_CARD_HINT)
    devices = [database.devices[device_id] for device_id in ids]
    if len({device.compute_capability for device in devices}) > 1:
        raise AmbiguousName(
            text,
            tuple(_choice(device) for device in devices),
            hint=f"name the PCI id: --gpu 10de:{ids[-1]} (lspci -nn -d 10de: shows yours)",
        )
    shown = _shown_name(devices, normalise(text)) or text
    if len(devices) == 1:
        return _card(devices[0], shown)
    chips = sorted({device.chip for device in devices})
    capability = ComputeCapability.parse(devices[0].compute_capability)
    return Card(shown, capability, "/".join(chips))


_CARD_HINT = "give a name (gtx760), a PCI id (10de:1187) or a compute capability (sm_35)"


def _ids_of(database: Database, key: str) -> tuple[str, ...]:
    """Ids of a normalised name; ``k40`` also means K40c, K40m and the like."""
    if ids := database.names.get(key):
        return ids
    if not key or not key[-1].isdigit():
        return ()
    return _ids_where(database, lambda name: name.startswith(key) and _is_variant(name[len(key) :]))


def _is_variant(rest: str) -> bool:
    return rest.isalpha() and len(rest) <= _LETTERS


def _ids_where(database: Database, fits: Callable[[str], bool]) -> tuple[str, ...]:
    """Ids of all names that fit; compiling an expression would cost more than this search."""
    return tuple(sorted({i for name, ids in database.names.items() if fits(name) for i in ids}))


def _ids_of_series(database: Database, text: str) -> tuple[str, ...]:
    """Ids of all that begins as ``text`` without its memory and form: a variant nobody listed."""
    key = normalise(without_qualifiers(text))
    if key == normalise(text) or not database.names.get(key):
        return ()
    number_ends = key[-1].isdigit()

    def begins(name: str) -> bool:
        goes_on = number_ends and name[len(key) : len(key) + 1].isdigit()
        return name.startswith(key) and not goes_on

    return _ids_where(database, begins)


def _board(database: Database, text: str) -> Card | None:
    """Find a Jetson, whose GPU has no PCI id, by its board's name; None where several fit."""
    key = normalise(text)
    fitting = {
        architecture.compute_capability
        for architecture in database.architectures.values()
        for board in architecture.boards
        for name in map(normalise, board_names(board))
        if architecture.tegra and (key.startswith(name) or (key and name.startswith(key)))
    }
    if len(fitting) != 1:
        return None
    return Card(text, ComputeCapability.parse(fitting.pop()))


def _choice(device: Device) -> dict[str, str]:
    return {
        "pci_id": f"10de:{device.id}",
        "chip": device.chip,
        "compute_capability": device.compute_capability,
        "name": " / ".join(marketing_names(device.name)),
    }


def _shown_name(devices: Iterable[Device], key: str) -> str | None:
    """Spell the name as pci.ids does: what all matching names begin with."""
    names = [name for device in devices for name in marketing_names(device.name)]
    matching = [name for name in names if key in normalise(name)]
    common = _common_start(matching).strip()
    return common if key in normalise(common) else None


def _common_start(names: Sequence[str]) -> str:
    """What all begin with; no number is cut in two."""
    common = os.path.commonprefix(list(names))  # noqa: RUF071 -- letters are meant, not paths
    cut = common[-1:].isdigit() and any(name[len(common) :][:1].isdigit() for name in names)
    return common.rpartition(" ")[0] if cut else common


def near_names(database: Database, text: str) -> tuple[str, ...]:
    """Find card names that look like ``text``, best first."""
    from difflib import get_close_matches  # noqa: PLC0415 -- only on the way to an error

    boards = (board for row in database.architectures.values() for board in row.boards)
    known = [*database.names, *(normalise(name) for row in boards for name in board_names(row))]
    return tuple(get_close_matches(normalise(text), known, n=5, cutoff=0.6))


def architecture_of(database: Database, card: Card) -> Architecture:
    """Return the row of the card's compute capability."""
    return database.architectures[str(card.compute_capability)]


def find_platform(database: Database, name: str) -> Platform:
    """Return the platform called ``name``; UnknownName with the known ones."""
    for platform in database.platforms:
        if platform.name == name:
            return platform
    known = ", ".join(platform.name for platform in database.platforms)
    raise UnknownName("platform", name, hint=f"known platforms: {known}")


@lru_cache(maxsize=64)
def matcher(option: str, spec: str | None) -> Callable[[str], bool]:
    """Turn a version request into a predicate.

    None accepts all; ``10.1`` accepts 10.1 and 10.1.243; ``>=1.8,<2`` is read as pip reads it, once
    for each version: an explanation asks the same ones many times. UsageError for anything that is
    neither.
    """
    if spec is None:
        return lambda _version: True
    plain = spec.strip()
    if len(plain) <= _LONGEST and re.fullmatch(_PLAIN, plain):
        wanted = version_key(plain)
        return lambda version: version_key(version)[: len(wanted)] == wanted
    return _pip_matcher(option, plain)


def _pip_matcher(option: str, spec: str) -> Callable[[str], bool]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415

    try:
        if len(spec) > _LONGEST or not re.fullmatch(_SPECIFIER, spec):
            raise InvalidSpecifier(spec)
        accepted = SpecifierSet(spec)
    except InvalidSpecifier:
        raise UsageError(
            f"{option}: {spec[:_LONGEST]!r} is not a version",
            hint=f"write it as pip does: {option} '>=1.8,<2'",
        ) from None
    return cache(accepted.contains)


def install_of(database: Database, torch: str) -> VariantInstall:
    """Return how the CUDA variants of a release are installed."""
    return next(row for row in database.variant_installs if in_range(torch, row.torch))


def pip_arguments(database: Database, torch: str, variant: str | None) -> tuple[str, ...]:
    """Return what ``pip install`` is given for a wheel; ``variant`` None is the default one."""
    if variant is None:
        return (f"torch=={torch}",)
    words = install_of(database, torch).arguments
    return tuple(word.format(torch=torch, variant=variant) for word in words)


def releases_matching(database: Database, spec: str | None) -> tuple[TorchRelease, ...]:
    """Return the known releases ``spec`` allows, newest first; UnknownName when it allows none."""
    accepts = matcher("--torch", spec)
    found = tuple(release for release in database.releases if accepts(release.version))
    if not found:
        raise UnknownName(
            "torch release",
            str(spec),
            _near_releases(database, str(spec)),
            hint=f"newest known: {database.releases[0].version}; a release that is not in the"
            " database is refused, never assumed",
        )
    return found


def _near_releases(database: Database, spec: str) -> tuple[str, ...]:
    from difflib import get_close_matches  # noqa: PLC0415 -- only on the way to an error

    versions = [release.version for release in database.releases]
    return tuple(get_close_matches(spec.strip("<>=!~* "), versions, n=4, cutoff=0.5))


def toolkits_of(database: Database, cuda: str) -> list[CudaToolkit]:
    """Return the toolkits a wheel's ``9.0.176`` or ``11.8`` can mean."""
    wanted = version_key(cuda)
    return [row for row in database.toolkits if version_key(row.version)[: len(wanted)] == wanted]


def driver_floor(database: Database, cuda: str) -> str | None:
    """Return the oldest driver a program built with ``cuda`` starts on; None where not known.

    Minor-version compatibility counts (11.x from 450.80.02): it covers programs that carry SASS.
    """
    known = database.driver_floors
    if cuda not in known:
        known[cuda] = _driver_floor(database, cuda)
    return known[cuda]


def _driver_floor(database: Database, cuda: str) -> str | None:
    floors = [
        floor
        for row in toolkits_of(database, cuda)
        for floor in (row.driver_min_compatible, row.driver_min)  # 11.0: its own is the older
        if floor
    ]
    return min(floors, key=version_key, default=None)


def first_branch(
    architecture: Architecture, drivers: Sequence[DriverBranch]
) -> DriverBranch | None:
    """Derive the first branch that knows the card: that of the first toolkit which compiles for it.

    None where the range has no lower bound, or no branch of the database is that new.
    """
    lower = parse_range(architecture.cuda).lower
    fitting = [row for row in drivers if lower and version_key(row.cuda_max) >= lower[:2]]
    return min(fitting, key=lambda row: version_key(row.branch), default=None)


def notes_of(database: Database, release: str) -> tuple[ReleaseNote, ...]:
    """Return what is worth knowing of a release and has no field."""
    return tuple(note for note in database.notes if in_range(release, note.torch))


def memory_of(database: Database, card: Card) -> tuple[int, ...]:
    """Return the sizes in MiB the card was sold with, ascending; empty where no source says.

    Of one GPU: a board with two shows as two cards.
    """
    ids = [card.pci_id.removeprefix("10de:")] if card.pci_id else []
    ids = ids or list(_ids_of(database, normalise(card.name)))
    sizes = {
        size
        for row in database.memory
        for device_id in ids
        if device_id in row.ids
        for size in _sizes(row, database.devices[device_id])
    }
    return tuple(sorted(sizes))


def _sizes(row: CardMemory, device: Device) -> Iterator[int]:
    """Leave out variants of other chips, and of other models where the device's name is exact."""
    chip = device.chip.removesuffix("B")
    variants = [
        variant
        for variant in row.variants
        if not variant.chips or chip in {name.removesuffix("B") for name in variant.chips}
    ]
    if row.name in marketing_names(device.name):
        variants = [variant for variant in variants if "(" not in variant.model] or variants
    for variant in variants:
        yield from variant.memory_mib


def covers_cudnn(
    database: Database, version: str, cuda: str, card: ComputeCapability
) -> bool | None:
    """Tell whether this cuDNN computes on ``card``; None where no source says.

    Only the lower end is known: old versions have no code for the cards that came after them.
    """
    for row in database.cudnn.coverage:
        if in_range(version, row.versions) and in_range(cuda, row.cuda):
            return in_range(str(card), row.compute_capability)
    return None


def cudnn_support(database: Database, wheel: Wheel, card: ComputeCapability) -> Support | None:
    """How ``card`` runs the cuDNN of a wheel; None where that was not measured."""
    if wheel.cudnn is None:
        return None
    if covers_cudnn(database, wheel.cudnn.version, wheel.cuda, card) is False:
        return "none"
    if wheel.cudnn.project is None:
        # Linked in. What the main library carries beside torch's kernels has no PTX.
        linked = wheel.measured.library_codes if wheel.measured else ()
        return best_support(_codes(linked), card) if linked else None
    library = find_library(database, wheel.cudnn.project, wheel.cudnn.version)
    return _weakest(library, card) if library else None


def find_library(database: Database, project: str, version: str) -> Library | None:
    """Return the measured library package, or None."""
    for library in database.libraries:
        if (library.project, library.version) == (project, version):
            return library
    return None


_ENGINES = ("_engines_", "_ext.")
"""Parts of cuDNN that offer further ways to compute what the others can, too."""


def _weakest(library: Library, card: ComputeCapability) -> Support | None:
    found = {
        best_support(_codes(codes), card)
        for part, codes in library.parts.items()
        if not any(mark in part for mark in _ENGINES)
    }
    if len(found) > 1 and "none" in found:
        return "partial"
    order: tuple[Support, ...] = ("none", "ptx-jit", "native")
    return next((support for support in order if support in found), None)


def _codes(codes: Iterable[str]) -> list[DeviceCode]:
    return [DeviceCode.parse(code) for code in codes]


def wheel_risks(database: Database, wheel: Wheel, card: ComputeCapability) -> tuple[str, ...]:
    """Name what may fail on ``card`` though the wheel's own kernels run on it.

    ``cudnn-none`` and ``linalg-none``: no code for the card; ``-partial``: not in every part;
    ``-ptx-jit``: compiled by the driver at first use. What was not measured is no risk here.
    """
    found = {
        "cudnn": cudnn_support(database, wheel, card),
        "linalg": wheel.linalg.support_on(card) if wheel.linalg else None,
    }
    parts = (f"{part}-{support}" for part, support in found.items() if support not in _FINE)
    return (*parts, *seen_risks(database, wheel.cuda, card))


_FINE = (None, "native")


def seen_risks(database: Database, cuda: str, card: ComputeCapability) -> tuple[str, ...]:
    """Name what was seen to fail with builds of this CUDA on such cards: ids of ``risks.yaml``."""
    return tuple(
        risk.id
        for risk in database.risks
        if in_range(cuda, risk.cuda) and in_range(str(card), risk.compute_capability)
    )


def conda_risks(database: Database, build: CondaBuild, card: ComputeCapability) -> tuple[str, ...]:
    """Name what may fail on ``card`` with a build of conda-forge: as :func:`wheel_risks`.

    An installer takes the newest cuDNN that the build accepts: that one is judged.
    """
    accepted = (
        candidate.version
        for candidate in database.cudnn.builds
        if in_range(candidate.version, build.cudnn or "<0") and in_range(build.cuda, candidate.cuda)
    )
    newest = next(accepted, None)
    covered = covers_cudnn(database, newest, build.cuda, card) if newest else None
    lacking = ("conda-cudnn-none",) if covered is False else ()
    return (*lacking, *seen_risks(database, build.cuda, card))
