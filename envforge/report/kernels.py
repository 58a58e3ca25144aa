"""The answer of ``envforge inspect --kernels``, as text and as JSON."""

from __future__ import annotations

from itertools import groupby
from pathlib import PurePath
from typing import Any

import click

from envforge.binaries.kernels import Kernel, KernelList
from envforge.inspect import KernelSearch
from envforge.report.inspect import remark_lines
from envforge.values import ComputeCapability, DeviceCode, best_support

SCHEMA = "envforge.inspect-kernels/1"


def kernels_json(found: KernelSearch, card: ComputeCapability | None) -> dict[str, Any]:
    """The document of schema ``envforge.inspect-kernels/1``."""
    return {
        "schema": SCHEMA,
        "subject": found.path,
        "pattern": found.pattern,
        "card": str(card) if card else None,
        "files": [
            {
                "path": file.path,
                "unread_images": file.unread,
                "kernels": [_kernel_json(kernel, card) for kernel in file.kernels],
            }
            for file in found.files
        ],
        "unreadable": list(found.unreadable),
    }


def _kernel_json(kernel: Kernel, card: ComputeCapability | None) -> dict[str, Any]:
    return {
        "name": kernel.readable,
        "mangled": kernel.name,
        "codes": [str(code) for code in kernel.codes],
        "support": best_support(list(kernel.codes), card) if card else None,
    }


def kernels_text(found: KernelSearch, card: ComputeCapability | None) -> str:
    """The kernels of each file, those of the same architectures together."""
    lines = [line for file in found.files for line in _file_lines(file, card)]
    lines += remark_lines(found.unreadable)
    if not any(file.kernels for file in found.files):
        lines.append(f"{found.path}: no kernel matches {found.pattern!r}")
    return "\n".join(lines)


def _file_lines(file: KernelList, card: ComputeCapability | None) -> list[str]:
    lines = [click.style(PurePath(file.path).name, bold=True)] if file.kernels else []
    for codes, kernels in groupby(sorted(file.kernels, key=_codes), key=_codes):
        names = [kernel.readable for kernel in kernels]
        lines.append(f"  {' '.join(map(str, codes))}{_verdict(codes, card)}")
        lines += [f"    {name}" for name in names]
    if file.unread:
        lines.append(f"  ! {file.unread} images could not be unpacked")
    return lines


def _codes(kernel: Kernel) -> tuple[DeviceCode, ...]:
    return kernel.codes


def _verdict(codes: tuple[DeviceCode, ...], card: ComputeCapability | None) -> str:
    return f"   on {card}: {best_support(list(codes), card)}" if card else ""
