"""What several groups of tests share: a real engine, started where none answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from envforge.image.engine import Engine, connect
from envforge.image.install import install_engine


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
