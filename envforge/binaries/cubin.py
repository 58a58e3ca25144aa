"""The architecture of a bare cubin: an ELF file of NVIDIA's machine, outside any fatbin."""

from __future__ import annotations

import re

from envforge.binaries import elf
from envforge.binaries.content import Content
from envforge.binaries.errors import BinaryError
from envforge.binaries.fatbin import Defect
from envforge.values import ComputeCapability, DeviceCode

_OLD_ABI = 0x33
"""Up to CUDA 12.8, and in 12.9 below sm_100; the newer one moves the fields by a byte."""
_OLD_SPECIFIC, _NEW_SPECIFIC = 0x800, 0x8

_NOTE_LIMIT = 4096
_TOOL_ARGUMENTS = re.compile(rb"-arch[= ]sm_(\d+)([af]?)\b")


def read_code(content: Content, *, defects: list[Defect]) -> DeviceCode:
    """Return what a bare cubin was made for; BinaryError if it is none."""
    header = elf.read_header(content, 0, content.size)
    if header is None or header.machine != elf.MACHINE_CUDA:
        raise BinaryError("not a cubin")
    old = header.os_abi == _OLD_ABI
    number = (header.flags if old else header.flags >> 8) & 0xFF
    specific = header.flags & (_OLD_SPECIFIC if old else _NEW_SPECIFIC)
    suffix = "a" if specific else _suffix_by_note(content, number, defects)
    return DeviceCode("sm", ComputeCapability.from_number(number), suffix)


def _suffix_by_note(content: Content, number: int, defects: list[Defect]) -> str:
    """Return the suffix from the arguments ptxas notes down.

    No flag tells sm_100f from sm_100 in CUDA 12.9, nor sm_90a from sm_90 in 13.0.
    """
    for section in elf.read_sections(content, 0, content.size, defects=defects):
        if section.name == ".note.nv.tkinfo":
            size = min(section.end - section.offset, _NOTE_LIMIT)
            match = _TOOL_ARGUMENTS.search(content.read(size, section.offset))
            if match is not None and int(match[1]) == number:
                return match[2].decode()
    return ""
