"""Measure published torch wheels and write what is in them into the database.

    python scripts/measure_wheels.py VERSION[:TAG] ...

For each version the default wheel is downloaded with pip into a folder of its own, measured and
removed, one after the other; its row in ``envforge/capability/data/wheels.yaml`` is rewritten, or
made where there is none, and what changed is said. The diff is there to be reviewed. TAG is the
Python (``cp312-cp312``); without it the file that was measured before, else the third newest
Python. About two minutes and 3 GB of TMPDIR a wheel.
"""

from __future__ import annotations

import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from email.parser import BytesParser
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from format_data import plain, write_rows
from package_index import files_of
from packaging.requirements import Requirement
from packaging.version import Version
from refresh_wheels import TARGET, files_by_version

from envforge.binaries import elf, names
from envforge.binaries.content import Content, open_content
from envforge.binaries.fatbin import Fatbin
from envforge.binaries.kernels import kernels_of
from envforge.binaries.library import find_fatbins
from envforge.binaries.parts import codes_of
from envforge.capability.models import Linalg, Measurement, Wheel, WheelCudnn, WheelFile
from envforge.capability.tables import read_table
from envforge.events import Event, OnEvent, ignore
from envforge.report.progress import progress
from envforge.sources.fetch import WheelInput, fetch_wheel
from envforge.sources.store import Store
from envforge.values import DeviceCode, version_key

LIBRARY = re.compile(r"\.so(?:\.\d+)*\Z")
OWN = re.compile(rb"N2at6native|N2at4cuda|2at6native")
"""``at::native`` and ``at::cuda``, mangled; the last one inside an anonymous namespace."""
PINNED = re.compile(r"(?:nvidia|cuda|pytorch-triton|triton)(?:-|\Z)")
ARCH_LIST = re.compile(rb"\0((?:sm|compute)_\d+[af]?(?: (?:sm|compute)_\d+[af]?)*)\0")
CUDNN_VERSION = re.compile(rb"\xb8(....)\xc3", re.DOTALL)
"""``mov eax, N; ret``: all that cudnnGetVersion() does."""


class Seen(NamedTuple):
    """What one library of a wheel holds."""

    path: str
    role: str
    every: tuple[tuple[DeviceCode, ...], ...]
    """The codes of each fatbin."""
    sets: tuple[tuple[DeviceCode, ...], ...]
    """Of those with a kernel: what nvcc makes of a source without one is no code."""
    own: tuple[tuple[DeviceCode, ...], ...]
    """Of those that hold something of torch's own namespaces."""
    glibc: str | None
    glibcxx: str | None
    cudnn: str | None
    arch_list: str | None


class Facts(NamedTuple):
    """What one wheel says, before it is put into the words of the database."""

    seen: tuple[Seen, ...]
    requires: tuple[str, ...]
    cuda: str


def main(arguments: list[str]) -> None:
    if not arguments:
        raise SystemExit(__doc__)
    published = files_by_version(files_of("torch"))
    for argument in arguments:
        version, _, tag = argument.partition(":")
        wheels: tuple[Wheel, ...] = read_table(TARGET)
        before = find_row(wheels, version)
        files = tuple(published.get(Version(version), ()))
        file = choose(files, before, tag)
        after = row_of(version, file, files, measure(version, file))
        write_rows(TARGET, plain(inserted(wheels, before, after)))
        print("\n".join(differences(before, after)) or f"torch {version}: exactly the row there is")


def find_row(wheels: Iterable[Wheel], version: str) -> Wheel | None:
    rows = (wheel for wheel in wheels if wheel.torch == version and wheel.variant is None)
    return next(rows, None)


def choose(files: tuple[WheelFile, ...], row: Wheel | None, tag: str) -> WheelFile:
    if not files:
        raise SystemExit("the package index has no Linux x86_64 wheel of that version")
    if not tag and row is not None and row.measured is not None:
        known = [file for file in files if file.name == row.measured.file]
    else:
        known = [file for file in files if file.tag == tag or not tag][-3:][:1]
    if not known:
        raise SystemExit(f"no such file; there are {', '.join(file.tag for file in files)}")
    return known[0]


def inserted(wheels: tuple[Wheel, ...], before: Wheel | None, after: Wheel) -> list[Wheel]:
    """Put a row in the place of the old one, or before the first of an older release."""
    if before is not None:
        return [after if wheel is before else wheel for wheel in wheels]
    key = version_key(after.torch)
    older = (n for n, wheel in enumerate(wheels) if version_key(wheel.torch) < key)
    place = next(older, len(wheels))
    return [*wheels[:place], after, *wheels[place:]]


def differences(before: Wheel | None, after: Wheel) -> Iterator[str]:
    if before is None:
        yield f"torch {after.torch}: a new row"
        return
    for name in after.__struct_fields__:
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield f"torch {after.torch}: {name} was {plain(old)}, is {plain(new)}"


def measure(version: str, file: WheelFile) -> Facts:
    """Download one wheel, read it, and remove it."""
    with TemporaryDirectory(prefix="envforge-measure-") as name, progress(quiet=False) as on_event:
        wanted = WheelInput("torch", version, file.name, file.sha256, file.size_bytes, file.tag)
        return read_facts(fetch_wheel(wanted, Store(Path(name)), on_event), on_event)


def read_facts(path: Path, on_event: OnEvent = ignore) -> Facts:
    """Read a wheel; its libraries are unpacked beside it one by one."""
    seen = []
    with zipfile.ZipFile(path) as wheel, TemporaryDirectory(dir=path.parent) as folder:
        for info in wheel.infolist():
            if LIBRARY.search(info.filename):
                on_event(Event("step", f"measuring {info.filename}"))
                seen.append(look(wheel, info, Path(folder)))
        return Facts(tuple(seen), pins(wheel), cuda_of(wheel))


def look(wheel: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path) -> Seen:
    unpacked = Path(wheel.extract(info, folder))
    try:
        with open_content(unpacked, info.filename) as content:
            return look_inside(content, info.filename)
    finally:
        unpacked.unlink()


def look_inside(content: Content, path: str) -> Seen:
    sections = {
        section.name: section for section in elf.read_sections(content, 0, content.size, defects=[])
    }
    strings = read(content, sections.get(".dynstr"))
    found = find_fatbins(content, path)
    fatbins = [one for one in found.sections.get(".nv_fatbin", []) if one.entries]
    held = [(plain_codes(one), smallest_image(content, one)) for one in fatbins]
    return Seen(
        path=path,
        role=found.role,
        every=tuple(codes for codes, _ in held),
        sets=tuple(codes for codes, image in held if any(kernels_of(image))),
        own=tuple(codes for codes, image in held if OWN.search(image)),
        glibc=newest(rb"\0GLIBC_(\d+(?:\.\d+)+)(?=\0)", strings),
        glibcxx=newest(rb"\0GLIBCXX_(\d+(?:\.\d+)+)(?=\0)", strings),
        cudnn=cudnn_of(content, sections),
        arch_list=arch_list_of(content, sections) if "libtorch_python" in path else None,
    )


def read(content: Content, section: elf.Section | None) -> bytes:
    return b"" if section is None else content.read(section.end - section.offset, section.offset)


def newest(pattern: bytes, strings: bytes) -> str | None:
    versions = (match.decode() for match in re.findall(pattern, strings))
    return max(versions, key=version_key, default=None)


def plain_codes(fatbin: Fatbin) -> tuple[DeviceCode, ...]:
    return tuple(sorted({code.device for code in codes_of(fatbin)}, key=listing_order))


def listing_order(code: DeviceCode) -> tuple[bool, DeviceCode]:
    return code.kind == "compute", code


def smallest_image(content: Content, fatbin: Fatbin) -> bytes:
    """Return the image that is unpacked the soonest; the others have the same kernels."""
    images = [entry for entry in fatbin.entries if entry.code is not None]
    smallest = min(images, key=lambda entry: entry.image_size, default=None)
    return b"" if smallest is None else names.whole(content, smallest)


def cudnn_of(content: Content, sections: dict[str, elf.Section]) -> str | None:
    """Return what cudnnGetVersion() of a copy linked into the library answers."""
    # Exported up to 1.6; from 1.7 on a local symbol.
    both = (elf.read_symbols(content, dynamic=dynamic) for dynamic in (True, False))
    for symbol in chain.from_iterable(both):
        if symbol.name == b"cudnnGetVersion" and symbol.section:
            code = content.read(16, place_of(symbol.value, sections.values()))
            match = CUDNN_VERSION.search(code)
            return spelled(int.from_bytes(match[1], "little")) if match else None
    return None


def place_of(address: int, sections: Iterable[elf.Section]) -> int:
    """Return where in the file the byte lies that is loaded to ``address``."""
    return next(
        section.offset + address - section.address
        for section in sections
        if section.address and 0 <= address - section.address < section.end - section.offset
    )


def spelled(number: int) -> str:
    """7402 -> 7.4.2."""
    return f"{number // 1000}.{number % 1000 // 100}.{number % 100}"


def arch_list_of(content: Content, sections: dict[str, elf.Section]) -> str | None:
    found = ARCH_LIST.findall(read(content, sections.get(".rodata")))
    return max(found, key=len).decode() if found else None


def pins(wheel: zipfile.ZipFile) -> tuple[str, ...]:
    metadata = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    lines = BytesParser().parsebytes(wheel.read(metadata)).get_all("Requires-Dist") or []
    requirements = [Requirement(line) for line in lines]
    return tuple(spelled_pin(one) for one in requirements if PINNED.match(one.name))


def spelled_pin(one: Requirement) -> str:
    extras = f"[{','.join(sorted(one.extras))}]" if one.extras else ""
    return f"{one.name}{extras}{one.specifier}"


def cuda_of(wheel: zipfile.ZipFile) -> str:
    text = wheel.read("torch/version.py").decode()
    match = re.search(r"^cuda(?:: [^=]+)? = '([\d.]+)'", text, re.MULTILINE)
    if match is None:
        raise SystemExit("torch/version.py names no CUDA: this wheel computes on the CPU")
    return match[1]


def row_of(version: str, file: WheelFile, files: tuple[WheelFile, ...], facts: Facts) -> Wheel:
    own = [one for one in facts.seen if one.own and one.role == "torch"]
    main = sorted(own, key=lambda one: -len(one.own))
    sets = Counter(codes for one in main for codes in one.own)
    ((codes, alike),) = sets.most_common(1)
    every = {code for group in sets for code in group}
    glibc = max((one.glibc for one in facts.seen if one.glibc), key=version_key)
    linked = next((one.cudnn for one in main if one.cudnn), None)
    return Wheel(
        torch=version,
        cuda=facts.cuda,
        codes=tuple(map(str, codes)),
        glibc_min=glibc,
        cudnn=cudnn_row(facts.requires, linked),
        linalg=linalg_row(facts.seen),
        measured=Measurement(
            file=file.name,
            fatbins=sum(sets.values()),
            fatbins_alike=alike,
            rare_codes=tuple(sorted(map(str, every - set(codes)))),
            library_codes=union(main),
            libraries=tuple(Path(one.path).name for one in main),
            arch_list=next((one.arch_list for one in facts.seen if one.arch_list), None),
            glibcxx_min=max((one.glibcxx for one in facts.seen if one.glibcxx), key=version_key),
            requires=facts.requires,
        ),
        files=files,
        evidence="measured",
        source=f"measured from the PyPI wheel, sha256 {file.sha256}",
    )


def union(libraries: Iterable[Seen]) -> tuple[str, ...]:
    codes = {code for one in libraries for group in one.sets for code in group}
    return tuple(str(code) for code in sorted(codes) if code.kind == "sm")


def cudnn_row(requires: tuple[str, ...], linked: str | None) -> WheelCudnn | None:
    for requirement in map(Requirement, requires):
        if requirement.name.startswith("nvidia-cudnn"):
            (pin,) = requirement.specifier
            return WheelCudnn(
                version=pin.version,
                project=requirement.name,
                source="METADATA of the wheel (measured)",
            )
    if linked is None:
        return None
    source = "cudnnGetVersion() in the copy linked into the wheel (measured)"
    return WheelCudnn(version=linked, source=source)


def linalg_row(seen: Iterable[Seen]) -> Linalg | None:
    for one in seen:
        if one.role == "linear-algebra" and one.every:
            counts = Counter(code for group in one.every for code in group)
            ordered = sorted(counts, key=listing_order)
            return Linalg(
                fatbins=len(one.every), codes={str(code): counts[code] for code in ordered}
            )
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
