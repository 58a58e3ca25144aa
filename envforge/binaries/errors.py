"""The error of a file that cannot be read as a CUDA binary."""

from __future__ import annotations

from envforge.errors import EnvforgeError


class BinaryError(EnvforgeError):
    """A file that is no binary we know, or too damaged to say anything about."""

    code = "unreadable-binary"
    exit_code = 3
