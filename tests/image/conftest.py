"""Images and engines for the tests of the doors; the pieces are in ``image_parts``."""

from __future__ import annotations

import gc
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from envforge.image.engine import Build, Engine

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "sources"))

import image_parts
from image_parts import ArchiveSite, PrivateEngine, make_context, private_engine


@pytest.fixture(scope="session")
def tiny_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_context(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(engine: Engine, tiny_context: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell, small enough for every test."""
    log = tmp_path_factory.mktemp("log") / "tiny.txt"
    engine.build(Build(tiny_context, "envforge-test/tiny"), log=log)
    return "envforge-test/tiny"


@pytest.fixture
def own_engine() -> Iterator[PrivateEngine]:
    """A second engine, to be killed. Not below pytest's folder: a socket's path is short."""
    with (
        tempfile.TemporaryDirectory(
            prefix="envforge-engine-", ignore_cleanup_errors=True
        ) as folder,
        private_engine(Path(folder)) as engine,
    ):
        yield engine
    with warnings.catch_warnings():
        # docker-py leaks a socket for every connection that a killed engine refuses.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def archive_site(tmp_path: Path) -> Iterator[ArchiveSite]:
    """A distribution's archive of our own, to be faulty."""
    with image_parts.archive_site(tmp_path / "site") as site:
        yield site
