"""Faults of an engine in one small build: what is said, what is left, that the next goes on.

The same on a whole plan: test_faults.py. The table of all faults: docs/faults.md.
"""

from __future__ import annotations

import re
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from image_parts import Disk, Heard, PrivateEngine, make_context, private_engine, small_disk

from envforge.errors import BuildFailed, DiskFull
from envforge.image.engine import Build, Engine

pytestmark = pytest.mark.engine

STEPS = """\
RUN echo first > /tmp/first
RUN echo started; sleep 1; head -c 200000000 /dev/zero > /tmp/big && echo ended
"""


class Small(NamedTuple):
    """A private engine that reaches no network, its disk, and a context of two steps."""

    engine: PrivateEngine
    disk: Disk
    build: Build
    log: Path

    def was_cached(self) -> bool:
        """Whether the newest build took the first step from an earlier one's work."""
        said = self.log.read_text().rpartition("\n$ ")[2]
        number = re.search(r"^#(\d+) \[(tiny )?2/3\]", said, re.MULTILINE)
        assert number, said
        return f"\n#{number[1]} CACHED" in said


@pytest.fixture
def small() -> Iterator[Small]:
    # A socket's path is short: not below pytest's own folder.
    with tempfile.TemporaryDirectory(prefix="envforge-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        context = make_context(root / "context", f"ENV FRESH={uuid.uuid4()}\n{STEPS}")
        with (
            small_disk(root, 700) as disk,
            private_engine(root, data=disk.root / "data") as engine,
        ):
            yield Small(engine, disk, Build(context, "envforge-test/small"), root / "log.txt")


def nothing_is_left(engine: Engine) -> bool:
    return engine.image("envforge-test/small") is None and engine.leftovers() == ()


def test_a_full_disk_is_said_with_the_step_and_room_is_enough(small: Small) -> None:
    with small.engine.start() as engine:
        small.disk.fill(leave_mib=80)
        with pytest.raises(DiskFull) as caught:
            engine.build(small.build, log=small.log)
        error = caught.value
        assert error.exit_code == 7
        assert error.what.startswith(
            "the engine's disk is full: the build failed in step 3/3: RUN echo started"
        )
        assert any("No space left on device" in line for line in error.because)
        assert error.hint.startswith("docker system df   (what takes the room; ")
        assert error.hint.endswith(f"the whole log: {small.log}")
        assert nothing_is_left(engine)
        small.disk.free()
        engine.build(small.build, log=small.log)
        assert small.was_cached()


def test_an_engine_without_any_room_says_so_before_the_first_step(small: Small) -> None:
    with small.engine.start() as engine:
        small.disk.fill(leave_mib=0)
        with pytest.raises(DiskFull) as caught:
            engine.build(small.build, log=small.log)
        assert caught.value.what.startswith("the engine's disk is full: the build failed ")
        assert nothing_is_left(engine)
        small.disk.free()
        engine.build(small.build, log=small.log)


def test_a_killed_engine_that_is_started_again_goes_on(small: Small) -> None:
    kill = Heard("started", small.engine.kill)
    with small.engine.start() as engine, pytest.raises(BuildFailed) as caught:
        engine.build(small.build, log=small.log, on_event=kill)
    assert caught.value.what.startswith(
        "the container engine stopped answering in step 3/3: RUN echo started"
    )
    with small.engine.start() as engine:
        assert nothing_is_left(engine)
        engine.build(small.build, log=small.log)
        assert small.was_cached()
