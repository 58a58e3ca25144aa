"""What containers of every engine have in common: watched, read, stopped, and never left behind."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from image_parts import shell

from envforge.errors import RunFailed
from envforge.image.engine import Engine, Exit, Launch, Mount
from envforge.image.inside import host_in

pytestmark = pytest.mark.engine


class Place(NamedTuple):
    engine: Engine
    tiny: str
    """An image with a shell."""

    def names(self) -> list[str]:
        return [each.name for each in self.engine.leftovers()]


@pytest.fixture(params=[("engine", "tiny"), ("podman", "tiny_podman")], ids=["docker", "podman"])
def place(request: pytest.FixtureRequest) -> Place:
    engine, tiny = request.param
    return Place(request.getfixturevalue(engine), request.getfixturevalue(tiny))


def test_both_streams_come_line_by_line_with_the_exit_code(place: Place) -> None:
    script = r"printf 'a\nb\rc\r\n'; echo d >&2; sleep 0.2; printf 'unfinished \303\244'; exit 4"
    with place.engine.run(shell(place.tiny, script)) as container:
        assert sorted(container.logs()) == ["a", "b", "c", "d", "unfinished ä"]
        assert container.wait() == Exit(4, oom_killed=False)
        assert container.poll() == Exit(4, oom_killed=False)
        assert container.name in place.names()
    assert container.name not in place.names()


def test_what_a_container_is_given(place: Place, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    out.chmod(0o777)
    (data / "x").write_text("read me\n")
    launch = shell(
        place.tiny,
        "id -u; id -g; pwd; cat /data/x; echo $NAME; (echo no > /data/x) 2>&1; echo yes > /out/y; "
        "df -k /dev/shm | tail -n 1; cat /proc/1/cmdline; echo; tail -n +3 /proc/net/dev",
        user="1234:2345",
        mounts=(Mount(data, "/data"), Mount(out, "/out", read_only=False)),
        env={"NAME": "a b; $c"},
        workdir="/tmp",
        shm_size_mib=256,
        network="none",
        labels={"envforge.run": "r1", "envforge": "0"},
    )
    with place.engine.run(launch) as container:
        lines = list(container.logs())
        assert container.mounts() == ("/data", "/out")
        assert container.name in place.names()
    assert lines[:5] == ["1234", "2345", "/tmp", "read me", "a b; $c"]
    assert "Read-only file system" in lines[5]
    assert lines[6].split()[1] == str(256 * 1024)
    assert "init" in lines[7]
    assert [line.split(":")[0].strip() for line in lines[8:]] == ["lo"]
    assert (out / "y").read_text() == "yes\n"
    assert (out / "y").stat().st_uid == 1234


def test_stop_asks_first_and_signal_says_what_it_is_told(place: Place) -> None:
    script = (
        "trap 'echo asked; exit 5' TERM; trap 'echo int' INT; echo up; while :; do sleep 0.1; done"
    )
    with place.engine.run(shell(place.tiny, script)) as container:
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
        assert container.pids() == ()


def test_commands_and_testinfra_inside(place: Place) -> None:
    with place.engine.run(shell(place.tiny, "sleep 60")) as container:
        answer = container.exec(
            ["sh", "-c", "pwd; echo $A; echo bad >&2; exit 3"], env={"A": "1"}, workdir="/tmp"
        )
        assert answer == (3, "/tmp\n1\n", "bad\n")
        assert container.exec(["nothing-of-that-name"]).code in (126, 127)
        assert host_in(container).run("cat %s", "/no such").rc == 1
        assert host_in(container).check_output("echo %s", "a 'b'; $c") == "a 'b'; $c"


def test_a_file_is_read_out_whole_through_links(place: Place, tmp_path: Path) -> None:
    script = (
        "mkdir -p /tmp/deep; head -c 3000000 /dev/zero > /tmp/deep/lib.so.1; cd /tmp; "
        "ln -s deep/lib.so.1 lib.so; ln -s /tmp/lib.so /tmp/deep/abs; ln -s deep folder; "
        "ln -s ../../../../../../etc/nothing up; ln -s loop loop; echo ready; sleep 60"
    )
    with place.engine.run(shell(place.tiny, script)) as container:
        assert next(container.logs()) == "ready"
        for path in ("deep/lib.so.1", "lib.so", "deep/abs", "folder/lib.so.1"):
            read = container.read_file(f"/tmp/{path}", tmp_path / "out" / "library")
            assert read == tmp_path / "out" / "library"
            assert read.read_bytes() == bytes(3_000_000)
        for path in ("/tmp/nothing", "/tmp", "/tmp/up", "/tmp/loop"):
            with pytest.raises(RunFailed):
                container.read_file(path, tmp_path / "out" / "bad")
        found = container.files(lambda name: "lib.so" in name, tmp_path, under="/tmp/folder")
        assert [name for name, _ in found] == ["/tmp/deep/lib.so.1"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["library"]


def test_a_start_that_fails_leaves_nothing(place: Place) -> None:
    name = "envforge-test-fails"
    before = place.names()
    for launch in (
        Launch(place.tiny, ["nothing-of-that-name"], name=name, init=False),
        Launch("envforge-test/nothing", ["sh"], name=name),
        Launch(place.tiny, ["sh"], name=name, mounts=[Mount(Path("/no"), "/n")]),
    ):
        with pytest.raises(RunFailed) as caught:
            place.engine.run(launch)
        assert caught.value.what.endswith(f" in {launch.image}")
    assert place.names() == before


def test_a_taken_name_is_refused_and_its_owner_stays(place: Place) -> None:
    launch = shell(place.tiny, "sleep 60", name="envforge-test-taken")
    with place.engine.run(launch) as owner:
        with pytest.raises(RunFailed) as caught:
            place.engine.run(launch)
        assert "already in use" in caught.value.because[0]
        assert owner.poll() is None
        again = place.engine.attach("envforge-test-taken")
        assert again is not None
        assert again.id == owner.id
    assert place.engine.attach("envforge-test-taken") is None
