"""``python -m envforge`` and the console script."""

from __future__ import annotations

import gc
import io
import sys

_YOUNG_OBJECTS = 100_000
"""A short command never makes that many; a long one is still collected."""


def main() -> None:
    """Run the command line and exit with its code.

    A tenth of the time of ``envforge check`` would go into collecting garbage: while modules are
    imported, and once more over everything when the interpreter ends.
    """
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
    from envforge.cli import main as run_command_line  # noqa: PLC0415 -- keeps imports lazy

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal of another encoding is no bug
    code = run_command_line()
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
