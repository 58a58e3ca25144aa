"""Build fatbins, ELF files and archives byte by byte: the writer the reader is tested against."""

from __future__ import annotations

from struct import pack
from typing import NamedTuple

PTX, SASS, LTO = 1, 2, 8
LZ4, ZSTD, SPECIFIC, FAMILY = 0x2000, 0x8000, 0x100000, 0x200000


class Image(NamedTuple):
    """One entry to write."""

    kind: int
    architecture: int
    flags: int = 0x11
    payload: bytes = b""
    version: tuple[int, int] = (1, 7)
    uncompressed_size: int = 0
    header_size: int = 64


def sass(architecture: int, *kernels: str, flags: int = 0x11) -> Image:
    return Image(SASS, architecture, flags, cubin(architecture, *kernels))


def ptx(architecture: int, *kernels: str, version: tuple[int, int] = (8, 0)) -> Image:
    lines = [f".version {version[0]}.{version[1]}\n.target sm_{architecture}\n"]
    lines += [f".visible .entry {kernel}(\n)\n{{ ret; }}\n" for kernel in kernels]
    return Image(PTX, architecture, 0x11, "".join(lines).encode(), version)


def entry(image: Image) -> bytes:
    padded = image.payload + bytes(-len(image.payload) % 8)
    packed = len(image.payload) if image.uncompressed_size else 0
    major, minor = image.version
    header = pack("<HHIQII", image.kind, 0x0101, image.header_size, len(padded), packed, 0)
    header += pack("<HHIII", minor, major, image.architecture, 0, 0)
    header += pack("<QQQ", image.flags, 0, image.uncompressed_size)
    return header + bytes(image.header_size - 64) + padded


def fatbin(*images: Image) -> bytes:
    body = b"".join(map(entry, images))
    return pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def cubin(architecture: int, *kernels: str, os_abi: int = 0x33, flags: int = 0) -> bytes:
    """An ELF file with the section names where nvcc puts them: behind the header."""
    value = (architecture << 8 if os_abi == 0x41 else architecture) | flags
    sections = [(f".text.{kernel}", b"\0" * 16) for kernel in kernels]
    return elf(*sections, machine=190, os_abi=os_abi, flags=value)


def elf(*sections: tuple[str, bytes], machine: int = 62, os_abi: int = 0, flags: int = 0) -> bytes:
    names = b"\0.shstrtab\0" + b"".join(name.encode() + b"\0" for name, _ in sections)
    names += bytes(-len(names) % 8)
    offset = 64 + len(names)
    rows = [bytes(64), pack("<IIQQQQIIQQ", 1, 3, 0, 0, 64, len(names), 0, 0, 1, 0)]
    position, body = 11, b""
    for name, data in sections:
        rows.append(
            pack("<IIQQQQIIQQ", position, 1, 0, 0, offset + len(body), len(data), 0, 0, 8, 0)
        )
        position += len(name) + 1
        body += data + bytes(-len(data) % 8)
    ident = pack("<4sBBBBB7x", b"\x7fELF", 2, 1, 1, os_abi, 0)
    header = ident + pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, 0, 0, offset + len(body), flags, 64, 0, 0, 64, len(rows), 1
    )
    return header + names + body + b"".join(rows)


def archive(*members: tuple[str, bytes]) -> bytes:
    """A GNU static archive: long names in a table of their own."""
    table = b"".join(f"{name}/\n".encode() for name, _ in members)
    out, position = b"!<arch>\n" + member("//", table), 0
    for name, data in members:
        out += member(f"/{position}", data)
        position += len(name) + 2
    return out


def member(raw_name: str, data: bytes) -> bytes:
    header = f"{raw_name:<16}{'0':<12}{'0':<6}{'0':<6}{'644':<8}{len(data):<10}`\n"
    return header.encode() + data + b"\n" * (len(data) % 2)


def lz4(data: bytes) -> bytes:
    """Pack greedily into one raw LZ4 block; small and slow, written from the format's page."""
    out, seen, start, position = bytearray(), {}, 0, 0
    while position + 12 < len(data):
        key = data[position : position + 4]
        match = seen.get(key)
        seen[key] = position
        if match is None or position - match > 0xFFFF:
            position += 1
            continue
        size = 4
        while position + size < len(data) - 5 and data[match + size] == data[position + size]:
            size += 1
        out += _sequence(data[start:position], position - match, size)
        position += size
        start = position
    return bytes(out + _sequence(data[start:], 0, 4))


def _sequence(literals: bytes, distance: int, size: int) -> bytes:
    token = min(len(literals), 15) << 4 | min(size - 4, 15)
    out = bytes([token]) + _more(len(literals)) + literals
    return out + pack("<H", distance) + _more(size - 4) if distance else out


def _more(length: int) -> bytes:
    return b"" if length < 15 else b"\xff" * ((length - 15) // 255) + bytes([(length - 15) % 255])


def packed(image: Image) -> Image:
    """The same image, packed with LZ4 as nvcc does."""
    return image._replace(
        flags=image.flags | LZ4,
        payload=lz4(image.payload),
        uncompressed_size=len(image.payload),
    )
