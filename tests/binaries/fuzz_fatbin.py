"""Coverage-guided fuzzing of the whole reader, run by hand; needs atheris.

    python tests/binaries/fuzz_fatbin.py CORPUS -max_total_time=600 [-runs=1000000]
    python tests/binaries/fuzz_fatbin.py --seed CORPUS        # write the seeds
    python tests/binaries/fuzz_fatbin.py --plant CORPUS …     # a bounds bug that must be found
    coverage run tests/binaries/fuzz_fatbin.py --replay CORPUS   # lines the corpus reaches

The content given to the reader fails on any read outside of the file, and what comes back is
checked: entries in order, inside their fatbin, inside the file. Seeds are the captures, cut off
at every header boundary, with their payloads shortened so that mutation meets headers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import fatbin_writer as writer
from test_flatbuffer import flatbuffer

with atheris.instrument_imports(include=["envforge.binaries"]):
    from envforge.binaries import fatbin, kernels, library, names, parts, verdict
    from envforge.binaries.content import Content, content_of
    from envforge.binaries.errors import BinaryError
    from envforge.values import ComputeCapability

CAPTURES = Path(__file__).parent / "captures"
LARGEST_IMAGE = 1 << 16
NAMES = ("libtorch_cuda.so", "libtorch_cuda_linalg.so", "_C.so", "libcudnn.so.8")


class OverRead(AssertionError):
    """The reader asked for bytes that are not there."""


def strict(data: bytes) -> Content:
    def read(size: int, offset: int) -> bytes:
        if not 0 <= offset <= offset + size <= len(data):
            raise OverRead(f"{size} bytes at {offset} of {len(data)}")
        return data[offset : offset + size]

    return Content(read, len(data))


def check(found: library.Found, size: int) -> None:
    """No entry lies outside of its fatbin, no fatbin outside of the file."""
    for fatbins in found.sections.values():
        for one in fatbins:
            assert 0 <= one.offset < one.end <= size
            for entry in one.entries:
                start, end = entry.payload
                assert one.offset <= entry.offset <= start <= end <= one.end


def one_input(data: bytes) -> None:
    name = NAMES[len(data) % len(NAMES)]
    content = strict(data)
    try:
        found = library.find_fatbins(content, name)
    except BinaryError:
        found = library.Found(name, "fatbin", {"fatbin": fatbin.Fatbins().walk(content)}, [])
    check(found, len(data))
    sorted_parts = parts.sort_fatbins(content, library._deciding(found), found.role)
    verdict.verdict(library._library(found, sorted_parts), ComputeCapability(3, 5))
    for fatbins in found.sections.values():
        for entry in (entry for one in fatbins for entry in one.entries):
            names.kernels(names.beginning(content, entry, 512))
            assert all(
                isinstance(name, bytes) for name in kernels.kernels_of(whole(content, entry))
            )


def whole(content: Content, entry: fatbin.Entry) -> bytes:
    """Images of a damaged header may be large: one that takes long to unpack is left out."""
    return names.whole(content, entry) if entry.image_size < LARGEST_IMAGE else b""


def write_seeds(corpus: Path) -> None:
    corpus.mkdir(parents=True, exist_ok=True)
    for capture in sorted(CAPTURES.iterdir()):
        if capture.suffix == ".md":
            continue
        data = capture.read_bytes()
        content = content_of(data)
        sizes = {len(data)}
        for one in fatbin.Fatbins().walk(content):
            sizes |= {one.offset + step for step in (0, 1, 8, 15, 16)}
            for entry in one.entries:
                sizes |= {entry.offset + step for step in (0, 1, 16, 63, 64)}
                sizes |= {entry.payload[0], entry.payload[1]}
        for number, size in enumerate(sorted(sizes)):
            (corpus / f"{capture.name}.{number}").write_bytes(data[:size])
        for one in fatbin.Fatbins().walk(content):
            (corpus / f"{capture.name}.at{one.offset}").write_bytes(data[one.offset : one.end])
    one = writer.fatbin(writer.sass(100, "_Z1kv"))
    cask = writer.elf((".cask_resource", one + flatbuffer(300) + one), (".nv_fatbin", one))
    (corpus / "cask").write_bytes(cask)
    (corpus / "archive").write_bytes(writer.archive(("a.o", writer.elf((".nv_fatbin", one)))))


def plant_a_bug() -> None:
    """Forget that an entry must end inside its fatbin."""
    source = Path(fatbin.__file__).read_text(encoding="utf-8")
    guard = " or following > limit"
    assert guard in source
    exec(compile(source.replace(guard, ""), fatbin.__file__, "exec"), fatbin.__dict__)
    library.Fatbins = fatbin.Fatbins


def main() -> None:
    if sys.argv[1] == "--seed":
        write_seeds(Path(sys.argv[2]))
        return
    if sys.argv[1] == "--replay":
        for path in sorted(Path(sys.argv[2]).iterdir()):
            one_input(path.read_bytes())
        return
    if "--plant" in sys.argv:
        sys.argv.remove("--plant")
        plant_a_bug()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
