"""Containers of a real engine: watched, read, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from image_parts import PrivateEngine, make_context, shell

from envforge.errors import EngineUnavailable, RunFailed
from envforge.image.engine import OF_A_BUILD, Build, Engine, Exit, Launch

pytestmark = pytest.mark.engine


def is_left(engine: Engine, name: str) -> bool:
    return name in [leftover.name for leftover in engine.leftovers()]


def test_by_default_a_container_is_the_caller(engine: Engine, tiny: str) -> None:
    with engine.run(shell(tiny, "id -u; id -g")) as container:
        assert list(container.logs()) == [str(os.getuid()), str(os.getgid())]


def test_a_memory_limit_shows_as_137_and_as_the_kernels_doing(engine: Engine, tiny: str) -> None:
    launch = Launch(tiny, ["tail", "/dev/zero"], memory_mib=32)
    with engine.run(launch) as container:
        assert container.wait() == Exit(137, oom_killed=True)


def be_interrupted(engine: Engine, launch: Launch) -> None:
    with engine.run(launch):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_ctrl_c_removes_the_container(engine: Engine, tiny: str) -> None:
    name = "envforge-test-interrupted"
    with pytest.raises(KeyboardInterrupt):
        be_interrupted(engine, shell(tiny, "sleep 60", name=name))
    assert not is_left(engine, name)


def test_a_container_somebody_else_removed_is_no_error(engine: Engine, tiny: str) -> None:
    with engine.run(shell(tiny, "sleep 60")) as container:
        (found,) = [left for left in engine.leftovers() if left.id == container.id]
        assert found.status == "running"
        engine.remove_leftover(found)
        with pytest.raises(RunFailed):
            container.wait()


def test_a_tag_of_a_build_is_discarded_with_what_a_killed_one_left_and_never_with_a_run(
    engine: Engine, tiny: str, tmp_path: Path
) -> None:
    tag = "envforge-test/discarded"
    (tmp_path / "Dockerfile").write_text(f"FROM {tiny}\nLABEL envforge.test={os.getpid()}\n")
    engine.build(Build(tmp_path, tag), log=tmp_path / "log.txt")
    left = engine.run(shell(tag, "sleep 600", labels=OF_A_BUILD))
    with engine.run(shell(tag, "sleep 600")) as work:
        with pytest.raises(RunFailed) as caught:
            engine.discard(tag)
        assert caught.value.what == f"the engine refused to remove the image {tag}"
        assert not is_left(engine, left.name)
        assert is_left(engine, work.name)
    engine.discard(tag)
    assert engine.image(tag) is None
    engine.discard(tag)


def test_a_gpu_the_engine_cannot_give_is_said_with_what_to_install(
    engine: Engine, tiny: str
) -> None:
    try:
        container = engine.run(shell(tiny, "exit 0", gpus=True, name="envforge-test-gpu"))
    except EngineUnavailable as error:
        assert error.what == "the engine cannot give a container a GPU"
        assert "nvidia-container-toolkit" in error.hint
        assert not is_left(engine, "envforge-test-gpu")
    else:  # a machine that has one
        container.remove()


def test_logs_and_wait_notice_a_killed_engine(own_engine: PrivateEngine, tmp_path: Path) -> None:
    context = make_context(tmp_path / "context")
    with own_engine.start() as private:
        private.build(Build(context, "envforge-test/tiny"), log=tmp_path / "log.txt")
        container = private.run(shell("envforge-test/tiny", "echo up; sleep 600", network="none"))
        lines = container.logs()
        assert next(lines) == "up"
        own_engine.kill()
        with pytest.raises(EngineUnavailable) as caught:
            list(lines)
        assert caught.value.exit_code == 6
        assert "stopped answering" in caught.value.what
        with pytest.raises(EngineUnavailable):
            container.wait()
        with pytest.raises(EngineUnavailable):
            container.remove()
