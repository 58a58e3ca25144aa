"""What is said where no engine answers: what was found, and the commands that help."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from envforge.errors import EngineUnavailable
from envforge.image.engine import connect
from envforge.image.engine.endpoint import docker_clients, find_endpoint

WITHOUT = "without an engine: envforge run canary --on local"


@pytest.fixture(autouse=True)
def a_plain_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No docker settings, no docker client but /usr/bin's, no dockerd on PATH."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
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
