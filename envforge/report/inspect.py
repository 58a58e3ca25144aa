"""The answer of ``envforge inspect``, as text and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import click

from envforge.binaries.fatbin import PtxVersion
from envforge.binaries.library import Library
from envforge.binaries.parts import Part
from envforge.binaries.subject import Subject
from envforge.binaries.verdict import Verdict
from envforge.inspect import Inspection, Installed
from envforge.values import Support

SCHEMA = "envforge.inspect/1"
_WORDS: dict[Support, str] = {
    "native": "machine code of the card",
    "ptx-jit": "PTX only, compiled by the driver at first use",
    "partial": "the main kernels run, something beside them does not",
    "none": "does not run",
}


DriverFor = Callable[[str], "str | None"]
"""From a version of the PTX language to the oldest driver that compiles it, where that is known."""


def _unknown(_version: str) -> None:
    return None


def inspection_json(inspection: Inspection, driver_for: DriverFor = _unknown) -> dict[str, Any]:
    """The document of schema ``envforge.inspect/1``."""
    return {
        "schema": SCHEMA,
        "subject": inspection.subject.path,
        "files": [_file_json(library) for library in inspection.subject.libraries],
        "unreadable": list(inspection.subject.unreadable),
        "left_out": list(inspection.subject.left_out),
        "verdicts": {
            str(found.card): _verdict_json(found, driver_for) for found in inspection.verdicts
        },
    }


def _file_json(library: Library) -> dict[str, Any]:
    return {
        "path": library.path,
        "role": library.role,
        "sass": [str(code) for code in library.sass],
        "ptx": [str(code) for code in library.ptx],
        "counts": library.counts,
        "parts": [
            {
                "role": part.role,
                "fatbins": part.fatbins,
                "codes": [str(code) for code in part.carried()],
            }
            for part in library.parts
        ],
        "defects": [f"{defect.offset:#x}: {defect.what}" for defect in library.defects],
    }


def _verdict_json(found: Verdict, driver_for: DriverFor = _unknown) -> dict[str, Any]:
    version = str(found.ptx_version) if found.ptx_version else None
    return {
        "support": found.support,
        "own": found.own,
        "missing": [
            {"path": role.path, "role": role.role, "support": role.support}
            for role in found.missing
        ],
        "ptx_version": version,
        "driver_min": driver_for(version) if version else None,
    }


def installed_json(installed: Installed) -> dict[str, Any]:
    """The field ``installed`` of ``envforge.check/1``."""
    verdicts = installed.inspection.verdicts
    return {
        "path": installed.path,
        "torch": installed.torch,
        "verdicts": {str(found.card): _verdict_json(found) for found in verdicts},
    }


def installed_text(installed: Installed) -> str:
    """One paragraph: which PyTorch is there, and how it runs on each card."""
    name = f"torch {installed.torch}" if installed.torch else "PyTorch"
    lines = [f"{click.style('installed:', bold=True)} {name} in {installed.path}"]
    if not installed.inspection.subject.libraries:
        return "\n".join([*lines, "  it has no device code: it computes on the CPU only"])
    lines += [
        f"  {line}" for found in installed.inspection.verdicts for line in _verdict_lines(found)
    ]
    return "\n".join(lines)


def inspection_text(inspection: Inspection, driver_for: DriverFor = _unknown) -> str:
    """Each library with the kernels it holds by role, then the verdict on each card."""
    subject = inspection.subject
    remarks = remark_lines(subject.unreadable, subject.left_out)
    if not subject.libraries:
        return "\n".join([nothing_found(subject), *remarks])
    lines = [line for library in subject.libraries for line in _library_lines(library)]
    lines += remarks
    if len(inspection.verdicts) == 1:
        return "\n".join([*lines, "", *_verdict_lines(inspection.verdicts[0], driver_for)])
    return "\n".join([*lines, "", *_summary_lines(inspection.verdicts, driver_for)])


def nothing_found(subject: Subject) -> str:
    """One line: there is no device code, and how many files that was seen in."""
    if not subject.looked_at:
        return f"{subject.path}: there is no library in it"
    files = "1 file" if subject.looked_at == 1 else f"{subject.looked_at} files"
    return f"{subject.path}: no device code for NVIDIA cards in {files}"


def remark_lines(unreadable: tuple[str, ...], left_out: tuple[str, ...] = ()) -> list[str]:
    """What was not read, and why."""
    lines = [f"! {reason}" for reason in unreadable]
    lines += [
        f"! not looked into, it is mounted: {place} (container:NAME:{place} does)"
        for place in left_out
    ]
    return lines


def _library_lines(library: Library) -> list[str]:
    lines = [click.style(PurePath(library.path).name, bold=True)]
    lines += [_part_line(part) for part in library.parts]
    if not library.parts:
        lines.append(f"  {library.role:<15} {' '.join(library.counts)}")
    lines += [f"  ! {defect.offset:#x}: {defect.what}" for defect in library.defects]
    return lines


def _part_line(part: Part) -> str:
    codes = " ".join(str(code) for code in part.carried())
    return f"  {part.role:<15} {codes or 'no architecture in all'}  ({part.fatbins} fatbins)"


def _verdict_lines(found: Verdict, driver_for: DriverFor = _unknown) -> list[str]:
    lines = [f"on compute capability {found.card}: {found.support}: {_WORDS[found.support]}"]
    if found.ptx_version:
        lines.append(f"  {_driver_words(found.ptx_version, driver_for)}")
    for role in found.missing:
        runs = f"{role.runs} of {role.fatbins} fatbins run"
        lines.append(f"  {PurePath(role.path).name}, {role.role}: {role.support} ({runs})")
    return lines


def _driver_words(version: PtxVersion, driver_for: DriverFor) -> str:
    driver = driver_for(str(version))
    needed = f", needs driver >= {driver}" if driver else ""
    return f"the driver must know PTX {version}{needed}"


def _summary_lines(verdicts: tuple[Verdict, ...], driver_for: DriverFor) -> list[str]:
    """Group the cards by verdict: ``native   3.5 3.7 5.0``."""
    lines = []
    for support, words in _WORDS.items():
        cards = [str(found.card) for found in verdicts if found.support == support]
        if cards:
            lines.append(f"{support:<8} {' '.join(cards)}  ({words})")
    versions = {found.ptx_version for found in verdicts if found.ptx_version}
    return lines + [f"  {_driver_words(version, driver_for)}" for version in sorted(versions)]
