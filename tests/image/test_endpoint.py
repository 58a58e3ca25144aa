"""What is said where no engine answers: what was found, and the commands that help."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from envforge.errors import EngineUnavailable, UsageError
from envforge.image.engine import connect
from envforge.image.engine.endpoint import accepts, docker_clients, find_endpoint
from envforge.image.engine.podman import socket_paths, start_command

WITHOUT = "without an engine: envforge run canary --on local"


@pytest.fixture(autouse=True)
def a_plain_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No docker settings, no docker client but /usr/bin's, no dockerd on PATH."""
    for name in (
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "ENVFORGE_ENGINE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    short = Path(f"/tmp/envforge-{os.getpid()}.sock")  # a socket's path is short
    yield
    short.unlink(missing_ok=True)


def refused(host: str) -> EngineUnavailable:
    with pytest.raises(EngineUnavailable) as caught:
        connect(host=host)
    assert caught.value.exit_code == 6
    assert caught.value.what == f"no container engine answers at {host}"
    assert caught.value.hint.endswith(WITHOUT)
    return caught.value


def test_a_missing_socket_is_said_with_the_clients_that_were_found(tmp_path: Path) -> None:
    error = refused(f"unix://{tmp_path}/docker.sock")
    assert error.because[-1].startswith(f"{tmp_path}/docker.sock does not exist: ")
    assert "--install-engine" in error.hint
    for path in docker_clients():
        assert any(fact.startswith(f"{path}: Docker version ") for fact in error.because)


def test_a_socket_nobody_listens_on_is_a_daemon_that_does_not_run() -> None:
    path = f"/tmp/envforge-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    error = refused(f"unix://{path}")
    assert error.because[-1] == f"{path} is there but nobody listens: dockerd is not running"
    assert "sudo systemctl start docker" in error.hint


def test_a_file_that_is_no_socket_points_at_docker_host(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = refused(f"unix://{tmp_path}/file")
    assert error.because[-1] == f"{tmp_path}/file is not a socket"
    assert error.hint.startswith("check DOCKER_HOST")


def test_a_socket_of_another_group_is_said_with_the_command_that_opens_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = f"/tmp/envforge-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, as in CI, may everything
    error = refused(f"unix://{path}")
    assert error.because[-1].startswith(f"{path}: permission denied (it belongs to ")
    assert error.hint.startswith("sudo usermod -aG docker $USER")


def test_a_remote_engine_out_of_reach_keeps_the_networks_words() -> None:
    error = refused("tcp://127.0.0.1:9")
    assert "refused" in error.because[-1]
    assert error.hint.startswith("docker -H tcp://127.0.0.1:9 version")


def test_the_environment_chooses_as_for_docker_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_endpoint().host == "unix:///var/run/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", "tcp://build-machine:2375")
    assert find_endpoint().host == "tcp://build-machine:2375"
    assert dict(find_endpoint().environment) == {"DOCKER_HOST": "tcp://build-machine:2375"}
    assert find_endpoint("unix:///x").host == "unix:///x"


def test_an_unknown_context_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "lab")
    with pytest.raises(EngineUnavailable) as caught:
        find_endpoint()
    assert caught.value.what == "no docker context is called 'lab'"
    assert caught.value.hint.startswith("docker context ls")


@pytest.fixture
def no_podman_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("CONTAINER_HOST", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_podman_the_sockets_it_was_looked_for_are_named(
    no_podman_service: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if any(accepts(f"unix://{path}") for path in socket_paths()):
        monkeypatch.setattr(os, "getuid", lambda: 1000)  # root's own socket is served here
    with pytest.raises(EngineUnavailable) as caught:
        connect(kind="podman")
    error = caught.value
    assert (error.what, error.exit_code) == ("no podman answers here", 6)
    assert error.because == (f"{socket_paths()[0]}: nobody listens", "no podman on PATH")
    assert error.hint.startswith(f"sudo apt-get install podman   (then: {start_command()})")
    assert error.hint.endswith(WITHOUT)


def test_a_missing_podman_socket_is_said_with_what_starts_the_service(
    tmp_path: Path, no_podman_service: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_HOST", f"unix://{tmp_path}/podman.sock")
    with pytest.raises(EngineUnavailable) as caught:
        connect(kind="podman")
    error = caught.value
    assert error.what == f"no podman answers at unix://{tmp_path}/podman.sock"
    assert error.because == (
        "no podman on PATH",
        f"{tmp_path}/podman.sock does not exist: no service is running",
    )
    assert error.hint.startswith(start_command())


def test_a_podman_socket_nobody_listens_on_is_a_service_that_does_not_run() -> None:
    path = f"/tmp/envforge-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(EngineUnavailable) as caught:
        connect(kind="podman", host=f"unix://{path}")
    assert caught.value.because[-1] == f"{path} is there but nobody listens"


def test_podman_over_ssh_is_told_how_to_be_forwarded() -> None:
    with pytest.raises(EngineUnavailable) as caught:
        connect(kind="podman", host="ssh://me@lab:22/run/user/1000/podman/podman.sock")
    assert caught.value.hint == (
        "forward it: ssh -nNT -L /tmp/podman.sock:/run/user/1000/podman/podman.sock "
        "ssh://me@lab:22\nthen: export CONTAINER_HOST=unix:///tmp/podman.sock"
    )


def test_an_engine_of_another_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVFORGE_ENGINE", "containerd")
    with pytest.raises(UsageError) as caught:
        connect()
    assert caught.value.what == "'containerd' is no engine: docker or podman"
