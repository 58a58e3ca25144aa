"""``python -m envforge`` and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from envforge.cli import main as run_command_line  # noqa: PLC0415 -- keeps imports lazy

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
