"""How the layers that ask the driver are asked. Apart from them: they are rarely loaded."""

from __future__ import annotations

from typing import NamedTuple


class Probes(NamedTuple):
    """How long each layer may take as a whole, and how NVML is asked.

    Without persistence mode the first question wakes the cards up: seconds, with eight of them.
    """

    timeout_s: float = 15.0
    nvml_argv: tuple[str, ...] | None = None
    """None: this Python with nvidia-ml-py."""
