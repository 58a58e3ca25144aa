"""Every error a user can meet, with its code and exit code.

::

    EnvforgeError                 1
    ├── UsageError                2   usage
    ├── DocumentError             3   bad-document       every fault of a file, with its path
    ├── UnknownName               3   unknown-name       near matches
    ├── AmbiguousName             3   ambiguous-name     the choices
    ├── Unsatisfiable             4   unsatisfiable      minimal rules, relaxations
    ├── MissingPatch              4   missing-patch      where the patch is described
    ├── NoFittingCudnn            4   no-cudnn
    ├── SourceError               5   source-unreachable network, registry, archive
    │   └── HashMismatch          5   hash-mismatch
    ├── PatchError                5   patch-does-not-fit
    ├── EngineUnavailable         6   engine-unavailable
    ├── BuildFailed               7   build-failed       step, log tail, log file
    │   ├── DiskFull              7   disk-full          the engine's, or this machine's
    │   ├── OutOfMemory           7   out-of-memory      one compiler alone was too much
    │   └── VerificationFailed    7   verification-failed
    ├── HostMismatch              8   host-mismatch
    ├── LockDrift                 8   lock-drift         what is not as the lock says, and how
    ├── RunFailed                 9   run-failed
    ├── Stopped                  75   stopped            resumable
    └── Interrupted             130   interrupted

A message has three parts: *what* happened, *because* (facts), and a *hint*, a command to type.
They are raised where the facts are known and caught once, in ``envforge.cli``.
"""

from __future__ import annotations

import errno
import os
from typing import Any

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM_SAID = tuple(map(os.strerror, _NO_ROOM))


class EnvforgeError(Exception):
    """The root. ``because`` holds facts, one a line; ``hint`` is a command or a next step."""

    code = "bug"
    exit_code = 1

    def __init__(self, what: str, *, because: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.because = because
        self.hint = hint

    def facts(self) -> dict[str, Any]:
        """Return the machine-readable part of ``{"error": ...}``."""
        return {
            "code": self.code,
            "message": self.what,
            "because": list(self.because),
            "hint": self.hint,
        }


class UsageError(EnvforgeError):
    """Flags that contradict each other, or a value of the wrong form."""

    code = "usage"
    exit_code = 2


class DocumentError(EnvforgeError):
    """A document that does not have the form it must have; ``because`` lists every fault."""

    code = "bad-document"
    exit_code = 3


class UnknownName(EnvforgeError):
    """A card, release, platform or recipe that is not in the database."""

    code = "unknown-name"
    exit_code = 3

    def __init__(self, kind: str, name: str, near: tuple[str, ...] = (), *, hint: str = "") -> None:
        because = (f"near matches: {', '.join(near)}",) if near else ()
        super().__init__(f"unknown {kind}: {name!r}", because=because, hint=hint)
        self.near = near

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "near": list(self.near)}


class AmbiguousName(EnvforgeError):
    """A name that several chips of different compute capability are sold under."""

    code = "ambiguous-name"
    exit_code = 3

    def __init__(self, name: str, choices: tuple[dict[str, str], ...], *, hint: str) -> None:
        super().__init__(
            f"{name!r} is sold with chips of different compute capability",
            because=tuple(
                f"{row['pci_id']}  {row['chip']:<8} {row['compute_capability']:<5} {row['name']}"
                for row in choices
            ),
            hint=hint,
        )
        self.choices = choices

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "choices": list(self.choices)}


class Unsatisfiable(EnvforgeError):
    """No plan fits the request. ``conflict`` is the resolver's value; ``report`` words it."""

    code = "unsatisfiable"
    exit_code = 4

    def __init__(self, what: str, conflict: Any) -> None:
        super().__init__(what)
        self.conflict = conflict


class MissingPatch(EnvforgeError):
    """A plan that needs a patch which is known and not carried."""

    code = "missing-patch"
    exit_code = 4


class NoFittingCudnn(EnvforgeError):
    """A plan that is to have cuDNN, and no version fits its toolkit, its release and its card."""

    code = "no-cudnn"
    exit_code = 4


class SourceError(EnvforgeError):
    """A source that cannot be fetched: network, registry, archive, repository."""

    code = "source-unreachable"
    exit_code = 5


class HashMismatch(SourceError):
    """Bytes that are not the pinned ones. Nothing of them is kept."""

    code = "hash-mismatch"


class PatchError(EnvforgeError):
    """A patch that changed no site, or another number of sites than it states."""

    code = "patch-does-not-fit"
    exit_code = 5


class EngineUnavailable(EnvforgeError):
    """No container engine answers, or a tool beside it is missing."""

    code = "engine-unavailable"
    exit_code = 6


class BuildFailed(EnvforgeError):
    """A step of an image build ended badly."""

    code = "build-failed"
    exit_code = 7


class DiskFull(BuildFailed):
    """A disk has no room left: the engine's, or the one with envforge's cache."""

    code = "disk-full"

    @staticmethod
    def is_told_by(error: Exception) -> bool:
        """Whether an error of a file, or the words of a tool, say that there is no room."""
        said = str(error)
        return getattr(error, "errno", None) in _NO_ROOM or any(
            words in said for words in _NO_ROOM_SAID
        )

    @classmethod
    def here(cls, *because: str) -> DiskFull:
        """Word the error for a disk of this machine."""
        return cls(
            "no room is left on this machine's disk",
            because=because,
            hint="make room, or choose other places: XDG_CACHE_HOME, TMPDIR",
        )


class OutOfMemory(BuildFailed):
    """A process of a build was killed because the memory ended."""

    code = "out-of-memory"


class VerificationFailed(BuildFailed):
    """The image was built and is not what the plan promises. No lock is written."""

    code = "verification-failed"


class HostMismatch(EnvforgeError):
    """This machine's card or driver does not fit the lock."""

    code = "host-mismatch"
    exit_code = 8


class LockDrift(EnvforgeError):
    """What would be built, or was, is not what the lock says. The lock is left as it is."""

    code = "lock-drift"
    exit_code = 8


class RunFailed(EnvforgeError):
    """A run that did not reach its end; the finer reason is in its record."""

    code = "run-failed"
    exit_code = 9


class Stopped(EnvforgeError):
    """A run stopped from outside (scheduler, SIGTERM) that can go on later."""

    code = "stopped"
    exit_code = 75


class Interrupted(EnvforgeError):
    """Ctrl-C."""

    code = "interrupted"
    exit_code = 130
