"""Images and containers are inspected through the engine; nothing runs in them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from image_parts import make_context, wait_until

from envforge import cli
from envforge.image.engine import Build, Container, Engine, Launch, Mount

pytestmark = pytest.mark.engine

SAMPLE = next((Path(__file__).parent.parent / "binaries/captures").glob("*.so"))
"""A real library that nvcc linked."""


def call(capsys, *arguments):
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory) -> Iterator[str]:
    """A small image with one library in it."""
    folder = tmp_path_factory.mktemp("inspected")
    context = make_context(folder, "COPY libsample.so /opt/site-packages/\n")
    shutil.copy(SAMPLE, context / "libsample.so")
    engine.build(Build(context, "envforge-test/inspected-here"), log=folder / "log.txt")
    yield "envforge-test/inspected-here"
    engine.remove("envforge-test/inspected-here")


def processes(container):
    return sorted(row[1] for row in container._api.top(container.id)["Processes"])


@pytest.fixture
def container(engine: Engine, image: str, tmp_path) -> Iterator[Container]:
    """A running container of it, with a second library in a directory of the host."""
    mounted = tmp_path / "data"
    mounted.mkdir()
    shutil.copy(SAMPLE, mounted / "_C.so")
    launch = Launch(
        image, ["sleep", "600"], name="envforge-test-inspected", mounts=[Mount(mounted, "/data")]
    )
    with engine.run(launch) as running:
        assert wait_until(lambda: len(processes(running)) == 2)  # its init, and sleep
        yield running


def paths(out):
    return [file["path"] for file in json.loads(out)["files"]]


def test_an_image_is_read_without_being_run(capsys, engine, image):
    for target in (image, f"image:{image}"):
        code, out, _ = call(capsys, "inspect", target, "--json", "--quiet")
        assert code == 0
        assert paths(out) == ["/opt/site-packages/libsample.so"]
    assert engine._client.containers.list(all=True, filters={"ancestor": image}) == []


def test_a_running_container_is_read_and_nothing_runs_in_it(capsys, engine, container):
    before = processes(container)
    for target in (container.name, f"container:{container.name}", f"container:{container.id[:12]}"):
        code, out, _ = call(capsys, "inspect", target, "--json", "--quiet")
        assert code == 0
        assert paths(out) == ["/opt/site-packages/libsample.so"]
        assert json.loads(out)["left_out"] == ["/data"]
    assert processes(container) == before
    assert container._api.inspect_container(container.id)["ExecIDs"] is None
    assert container.poll() is None


def test_what_changed_in_a_container_is_seen_and_a_volume_where_it_is_asked_for(capsys, container):
    container.exec(["ln", "-s", "/data", "/tmp/link"])
    name = f"container:{container.name}"
    for place in ("/data", "/data/", "/tmp/link", "/data/_C.so"):
        code, out, _ = call(capsys, "inspect", f"{name}:{place}", "--json", "--quiet")
        assert (code, paths(out)) == (0, ["/data/_C.so"])
    code, _, err = call(capsys, "inspect", f"{name}:/gone", "--quiet")
    assert code == 3
    assert err == "error: unreadable-binary: there is no /gone in envforge-test-inspected\n"


def test_a_disk_too_small_is_said_before_it_is_full(capsys, container, monkeypatch):
    place = "envforge.image.engine.container.shutil.disk_usage"
    monkeypatch.setattr(place, lambda _: SimpleNamespace(free=10))
    code, _, err = call(capsys, "inspect", f"container:{container.name}:/data", "--quiet")
    assert code == 3
    assert err == (
        "error: unreadable-binary: no room to copy data/_C.so\n"
        f"  it has {SAMPLE.stat().st_size} bytes, 10 are free\n"
        "hint: set TMPDIR to a larger disk\n"
    )


def test_a_mount_that_was_left_out_is_said_with_what_to_type(capsys, container):
    _, out, _ = call(capsys, "inspect", f"container:{container.name}", "--quiet")
    assert "! not looked into, it is mounted: /data (container:NAME:/data does)" in out


def test_a_name_that_is_an_image_and_a_container_is_asked_back(
    capsys, engine, image, container, tmp_path
):
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\n")
    engine.build(Build(tmp_path, container.name), log=tmp_path / "log.txt")
    try:
        code, _, err = call(capsys, "inspect", container.name, "--quiet")
    finally:
        engine.remove(container.name)
    assert code == 2
    assert err == (
        "error: usage: 'envforge-test-inspected' is an image and a container\n"
        "hint: envforge inspect image:envforge-test-inspected   or   "
        "envforge inspect container:envforge-test-inspected\n"
    )


@pytest.mark.parametrize(("kind", "list_command"), [("image", "images"), ("container", "ps -a")])
def test_what_the_engine_does_not_have_is_refused(capsys, engine, kind, list_command):
    code, _, err = call(capsys, "inspect", f"{kind}:envforge-test-gone", "--quiet")
    assert code == 3
    assert err == (
        f"error: unknown-name: unknown {kind}: 'envforge-test-gone'\n"
        f"hint: docker {list_command} lists what the engine has\n"
    )
