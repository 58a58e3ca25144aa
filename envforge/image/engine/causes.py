"""Why a step ended, where its output says so: at the end of the memory, or of the disk.

A build tool says it once, amid what its other jobs still say and before the traces of those that
called it: the last lines of a step may not have it. gcc: "Killed signal terminated program
cc1plus"; nvcc: "died due to signal 9"; a linker: "terminated with signal 9"; a shell: "Killed".
"""

from __future__ import annotations

import re

from envforge.errors import BuildFailed, DiskFull, OutOfMemory

_SIGNS: tuple[tuple[type[BuildFailed], re.Pattern[str]], ...] = (
    (
        DiskFull,
        re.compile(
            r"no space left on device|disk quota exceeded|You don't have enough free space",
            re.IGNORECASE,
        ),
    ),
    (
        OutOfMemory,
        re.compile(
            r"Killed signal terminated program|(terminated|died due to|killed by) signal 9\b"
            r"|terminated with signal 9\b|out of memory allocating|virtual memory exhausted"
            r"|LLVM ERROR: out of memory|Cannot allocate memory|std::bad_alloc"
            r"|(^|\s)Killed$|\bexit code: 137\b"
        ),
    ),
)


def cause_in(line: str) -> type[BuildFailed] | None:
    """Return the kind of failure that a line of a failed step tells of, None for all others."""
    return next((error for error, sign in _SIGNS if sign.search(line)), None)


_HINTS: dict[type[BuildFailed], str] = {
    DiskFull: "docker system df   (what takes the room; docker builder prune frees build caches, "
    "finished objects of compilers too); then run the same command again, it goes on",
    OutOfMemory: "give the engine's machine more memory, or swap; then run the same command "
    "again, it goes on from the compilers' cache",
}
_WORDS: dict[type[BuildFailed], str] = {
    DiskFull: "the engine's disk is full",
    OutOfMemory: "the memory of the engine's machine ended",
}


def failure(
    cause: type[BuildFailed] | None, where: str, because: tuple[str, ...], log: str
) -> BuildFailed:
    """Word a failed build. ``where``: ``in step 2/3: RUN make``, or the client's exit code."""
    what, hint = f"the build failed {where}", f"the whole log: {log}"
    if cause is None:
        return BuildFailed(what, because=because, hint=hint)
    return cause(f"{_WORDS[cause]}: {what}", because=because, hint=f"{_HINTS[cause]}\n{hint}")
