"""What several groups of tests share: a real engine, started where none answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from envforge.image.engine import Engine, connect
from envforge.image.install import install_engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A real engine. Where none answers it is installed and started: a test never skips for it."""
    install_engine()
    with connect() as opened:
        yield opened


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--update-golden``."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")
