"""Containers of a real engine: watched, read, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from image_parts import PrivateEngine, make_context

from envforge.errors import EngineUnavailable, RunFailed
from envforge.image.engine import OF_A_BUILD, Build, Engine, Exit, Launch, Mount

pytestmark = pytest.mark.engine


def shell(image: str, script: str, **more: object) -> Launch:
    return Launch(image, ["sh", "-c", script])._replace(**more)  # type: ignore[arg-type]


def is_left(engine: Engine, name: str) -> bool:
    return name in [leftover.name for leftover in engine.leftovers()]


def test_both_streams_come_line_by_line_with_the_exit_code(engine: Engine, tiny: str) -> None:
    script = r"printf 'a\nb\rc\r\n'; echo d >&2; printf 'unfinished \303\244'; exit 4"
    with engine.run(shell(tiny, script)) as container:
        assert sorted(container.logs()) == ["a", "b", "c", "d", "unfinished ä"]
        assert container.wait() == Exit(4, oom_killed=False)
        assert container.poll() == Exit(4, oom_killed=False)
        assert is_left(engine, container.name)
    assert not is_left(engine, container.name)


def test_what_a_container_is_given(engine: Engine, tiny: str, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    (data / "x").write_text("read me\n")
    launch = shell(
        tiny,
        "id -u; id -g; pwd; cat /data/x; echo $NAME; (echo no > /data/x) 2>&1; echo yes > /out/y; "
        "df -k /dev/shm | tail -n 1; cat /proc/1/cmdline",
        user="1234:2345",
        mounts=(Mount(data, "/data"), Mount(out, "/out", read_only=False)),
        env={"NAME": "a b; $c"},
        workdir="/tmp",
        shm_size_mib=256,
        labels={"envforge.run": "r1", "envforge": "0"},
    )
    out.chmod(0o777)
    with engine.run(launch) as container:
        lines = list(container.logs())
        assert is_left(engine, container.name)
    assert lines[:5] == ["1234", "2345", "/tmp", "read me", "a b; $c"]
    assert "Read-only file system" in lines[5]
    assert lines[6].split()[1] == str(256 * 1024)
    assert "init" in lines[7]
    assert (out / "y").read_text() == "yes\n"
    assert (out / "y").stat().st_uid == 1234


def test_by_default_a_container_is_the_caller(engine: Engine, tiny: str) -> None:
    with engine.run(shell(tiny, "id -u; id -g")) as container:
        assert list(container.logs()) == [str(os.getuid()), str(os.getgid())]


def test_a_memory_limit_shows_as_137_and_as_the_kernels_doing(engine: Engine, tiny: str) -> None:
    launch = Launch(tiny, ["tail", "/dev/zero"], memory_mib=32)
    with engine.run(launch) as container:
        assert container.wait() == Exit(137, oom_killed=True)


def test_stop_asks_first_and_signal_says_what_it_is_told(engine: Engine, tiny: str) -> None:
    script = (
        "trap 'echo asked; exit 5' TERM; trap 'echo int' INT; echo up; while :; do sleep 0.1; done"
    )
    with engine.run(shell(tiny, script)) as container:
        lines = container.logs()
        assert next(lines) == "up"
        assert container.poll() is None
        container.signal("SIGINT")
        assert next(lines) == "int"
        container.stop(timeout_s=10)
        assert list(lines) == ["asked"]
        assert container.wait().code == 5
        container.signal("SIGINT")
        container.stop()


def test_a_command_inside_gives_code_and_streams_apart(engine: Engine, tiny: str) -> None:
    with engine.run(shell(tiny, "sleep 60")) as container:
        answer = container.exec(
            ["sh", "-c", "pwd; echo $A; echo bad >&2; exit 3"], env={"A": "1"}, workdir="/tmp"
        )
        assert answer == (3, "/tmp\n1\n", "bad\n")
        assert container.exec(["nothing-of-that-name"]).code in (126, 127)


def test_a_file_is_read_out_whole_through_links(engine: Engine, tiny: str, tmp_path: Path) -> None:
    script = (
        "mkdir -p /tmp/deep; head -c 3000000 /dev/zero > /tmp/deep/lib.so.1; cd /tmp; "
        "ln -s deep/lib.so.1 lib.so; ln -s /tmp/lib.so /tmp/deep/abs; ln -s ../../../../../../etc/passwd up; "
        "ln -s loop loop; echo ready; sleep 60"
    )
    with engine.run(shell(tiny, script)) as container:
        assert next(container.logs()) == "ready"
        for path in ("/tmp/deep/lib.so.1", "/tmp/lib.so", "/tmp/deep/abs"):
            read = container.read_file(path, tmp_path / "out" / "library")
            assert read == tmp_path / "out" / "library"
            assert read.read_bytes() == bytes(3_000_000)
        for path in ("/tmp/nothing", "/tmp", "/tmp/up", "/tmp/loop"):
            with pytest.raises(RunFailed):
                container.read_file(path, tmp_path / "out" / "bad")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["library"]


def test_a_start_that_fails_leaves_nothing(engine: Engine, tiny: str) -> None:
    with pytest.raises(RunFailed) as caught:
        engine.run(Launch(tiny, ["no-such-program"], name="envforge-test-fails", init=False))
    assert caught.value.what == f"no-such-program cannot be started in {tiny}"
    assert not is_left(engine, "envforge-test-fails")
    with pytest.raises(RunFailed) as caught:
        engine.run(Launch("envforge-test/nothing", ["sh"], name="envforge-test-fails"))
    assert "No such image" in caught.value.because[0]
    with pytest.raises(RunFailed):
        engine.run(
            Launch(tiny, ["sh"], name="envforge-test-fails", mounts=[Mount(Path("/no"), "/n")])
        )
    assert not is_left(engine, "envforge-test-fails")


def test_a_taken_name_is_refused_and_its_owner_stays(engine: Engine, tiny: str) -> None:
    with engine.run(shell(tiny, "sleep 60", name="envforge-test-taken")) as owner:
        with pytest.raises(RunFailed) as caught:
            engine.run(shell(tiny, "sleep 60", name="envforge-test-taken"))
        assert "already in use" in caught.value.because[0]
        assert owner.poll() is None
        again = engine.attach("envforge-test-taken")
        assert again is not None
        assert again.id == owner.id
    assert engine.attach("envforge-test-taken") is None


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


# docker-py leaks a socket for every connection that a killed engine refuses.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
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
