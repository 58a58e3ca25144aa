"""Images and engines for the tests of the doors; the pieces are in ``image_parts``."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from envforge.image.engine import Build, Engine, connect
from envforge.image.install import install_engine

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "sources"))

import image_parts
from image_parts import (
    TINY,
    ArchiveSite,
    PrivateEngine,
    Runtime,
    make_context,
    own_podman,
    private_engine,
)


@pytest.fixture(scope="session")
def tiny_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_context(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(engine: Engine, tiny_context: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with a shell, small enough for every test."""
    log = tmp_path_factory.mktemp("log") / "tiny.txt"
    engine.build(Build(tiny_context, TINY), log=log)
    return TINY


@pytest.fixture(scope="session")
def podman() -> Iterator[Engine]:
    """A real podman with a storage of its own; a test never skips for it.

    Where there is none it is installed as the engine is: ``scripts/start test --install-engine``.
    """
    if os.environ.get("ENVFORGE_TEST_INSTALL_ENGINE"):
        install_engine(kind="podman")
    with (
        tempfile.TemporaryDirectory(
            prefix="envforge-podman-", dir="/var/tmp", ignore_cleanup_errors=True
        ) as folder,
        own_podman(Path(folder)),
        connect(kind="podman") as opened,
    ):
        yield opened


@pytest.fixture(scope="session")
def tiny_podman(
    podman: Engine, tiny_context: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The same image in podman's own storage."""
    podman.build(Build(tiny_context, TINY), log=tmp_path_factory.mktemp("log") / "tiny.txt")
    return TINY


@pytest.fixture
def runtime(engine: Engine, tmp_path: Path) -> Runtime:
    return functools.partial(image_parts.runtime, engine, log=tmp_path / "runtime.txt")


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


@pytest.fixture
def archive_site(tmp_path: Path) -> Iterator[ArchiveSite]:
    """A distribution's archive of our own, to be faulty."""
    with image_parts.archive_site(tmp_path / "site") as site:
        yield site
