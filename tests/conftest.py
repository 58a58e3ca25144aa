"""What several groups of tests share: a real engine, started where none answers."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from envforge.hardware.room import room_at
from envforge.image.engine import Engine, connect
from envforge.image.install import install_engine

LEAST_MIB = 1024
"""With less, folders of tests, coverage and pytest's own output fail one after the other."""
ENGINE_MIB = 6 * 1024
"""The most that one module was seen to take at once (2026-11-28): podman's storage 5843 MiB, the
disk of ``test_faults.py`` 4117. What is kept comes on top: a whole session from nothing took 41 GiB
(2026-11-29), the next one little."""

settings.register_profile("same", derandomize=True)
if "ENVFORGE_EXAMPLES" not in os.environ:
    # The gate's answer depends on the change alone; new inputs are searched by hand, with a seed.
    settings.load_profile("same")


def places() -> tuple[Path, ...]:
    """Where tests write: their folders, podman's and the engine's storage, this checkout."""
    return (
        Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/var/lib/docker"), Path(__file__).parent
    )  # fmt: skip


def find_lack(needed_mib: int) -> str:
    """Say which place has less room than is needed; empty: none."""
    rooms = (room_at(place) for place in places())
    lacking = {f"{room.place} has {room.free_bytes >> 20} MiB" for room in rooms
               if room.free_bytes >> 20 < needed_mib}  # fmt: skip
    return ", ".join(sorted(lacking))


def require_room(needed_mib: int, what: str) -> None:
    """End the whole session where the disk is too full: hundreds of errors say less than this."""
    lack = find_lack(needed_mib)
    if lack:
        pytest.exit(
            f"too little room on the disk: {lack} left, {what} need {needed_mib}. Make room, or"
            " choose another TMPDIR (CONTRIBUTING.md says what tests keep on the engine)",
            returncode=pytest.ExitCode.INTERNAL_ERROR,
        )


def pytest_collection_finish(session: pytest.Session) -> None:
    """Look before the first minute is spent."""
    if not session.config.option.collectonly and any(
        item.get_closest_marker("engine") for item in session.items
    ):
        require_room(ENGINE_MIB, "tests with an engine")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look before each test: others write on this disk, too."""
    require_room(LEAST_MIB, "tests")


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Let the tests press Ctrl-C: a shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A real engine; a test never skips for it.

    Where none answers it is installed and started, if the tests were started with
    ``scripts/start test --install-engine``; else the error says what is missing.
    """
    if os.environ.get("ENVFORGE_TEST_INSTALL_ENGINE"):
        install_engine()
    with connect() as opened:
        yield opened


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
