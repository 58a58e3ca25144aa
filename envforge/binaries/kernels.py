"""Which kernels a file holds, and for which architectures: the symbol tables of its images.

Here whole images are unpacked, so it takes seconds where a listing takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from envforge.binaries import elf, names
from envforge.binaries.content import Content, content_of, open_content
from envforge.binaries.demangle import demangle
from envforge.binaries.fatbin import Entry
from envforge.binaries.library import executable, find_fatbins
from envforge.events import Event, OnEvent, ignore
from envforge.values import DeviceCode

_FUNCTION, _CUDA_ENTRY = 2, 0x10
"""Type of a symbol, and NVIDIA's flag (STO_CUDA_ENTRY) that tells a kernel from what it calls."""


class Kernel(NamedTuple):
    """A kernel and the architectures it was compiled for."""

    name: str
    """Mangled."""
    readable: str
    """As it was written; the mangled name where nothing here can tell."""
    codes: tuple[DeviceCode, ...]


class KernelList(NamedTuple):
    """The kernels of one file."""

    path: str
    kernels: tuple[Kernel, ...]
    """In order of their readable names."""
    unread: int = 0
    """Images that could not be unpacked: damaged, or of a compression this Python lacks."""


def read_kernels(
    path: Path,
    wanted: Callable[[str], object] = bool,
    *,
    name: str = "",
    on_event: OnEvent = ignore,
) -> KernelList:
    """List the kernels of ``path`` for which ``wanted`` says yes to either form of their name.

    ``name`` stands for the path in the result. BinaryError where it is no CUDA binary.
    """
    found: dict[bytes, set[DeviceCode]] = {}
    unread = 0
    with open_content(path, name) as content:
        for entry, code in _images(content, name or str(path), on_event):
            image = names.whole(content, entry)
            unread += not image
            for kernel in kernels_of(image):
                found.setdefault(kernel, set()).add(code)
    kernels = (_kernel(mangled, codes) for mangled, codes in found.items())
    chosen = [kernel for kernel in kernels if wanted(kernel.readable) or wanted(kernel.name)]
    ordered = tuple(sorted(chosen, key=lambda kernel: (kernel.readable, kernel.name)))
    return KernelList(name or str(path), ordered, unread)


def _images(content: Content, name: str, on_event: OnEvent) -> Iterator[tuple[Entry, DeviceCode]]:
    """Yield what a driver could load, with progress in bytes of the file."""
    fatbins = executable(find_fatbins(content, name).sections)
    total = sum(fatbin.end - fatbin.offset for fatbin in fatbins)
    done = 0
    for fatbin in fatbins:
        for entry in fatbin.entries:
            if entry.code is not None:
                yield entry, entry.code
        done += fatbin.end - fatbin.offset
        on_event(Event("bytes", f"kernels of {name}", done, total))


def _kernel(mangled: bytes, codes: set[DeviceCode]) -> Kernel:
    name = mangled.decode("utf-8", "replace")
    ordered = sorted(codes, key=lambda code: (code.kind == "compute", code))
    return Kernel(name, demangle(name), tuple(ordered))


def kernels_of(image: bytes) -> Iterator[bytes]:
    """Yield the mangled names of the kernels in a whole image, SASS or PTX; none if damaged."""
    if not image.startswith(elf.ELF_MAGIC):
        yield from names.kernels(image)
        return
    for symbol in elf.read_symbols(content_of(image)):
        is_kernel = symbol.section and symbol.kind == _FUNCTION and symbol.other & _CUDA_ENTRY
        if is_kernel and symbol.name:
            yield symbol.name
