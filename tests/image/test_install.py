"""``--install-engine``: does nothing where nothing is missing, says why where it cannot help."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from image_parts import Heard, PrivateEngine, wait_until

from envforge.errors import EngineUnavailable
from envforge.image import install
from envforge.image.engine import Engine, connect
from envforge.image.install import await_answer, distribution, install_engine, start_daemon


def os_release(root: Path, text: str) -> Path:
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text(text)
    return root


@pytest.mark.engine
def test_where_all_is_there_nothing_is_installed(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("apt-get", "sudo", "dockerd"):  # whoever is called is found out
        trap = tmp_path / name
        trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
        trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    heard = Heard()
    install_engine(heard)
    assert [event.kind for event in heard.events] == ["done"]
    assert heard.texts("done") == [f"engine {engine.kind} {engine.version} answers"]
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ID=debian\n", "debian"),
        ('ID=ubuntu\nID_LIKE="debian"\n', "ubuntu"),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\n', "ubuntu"),
    ],
)
def test_debian_ubuntu_and_their_children_are_known(tmp_path: Path, text: str, found: str) -> None:
    assert distribution(os_release(tmp_path, text)) == found


def test_another_distribution_is_told_what_is_needed(tmp_path: Path) -> None:
    root = os_release(tmp_path, 'ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n')
    with pytest.raises(EngineUnavailable) as caught:
        distribution(root)
    assert caught.value.what == "--install-engine knows Debian and Ubuntu, not Fedora Linux 43"
    assert "mmdebstrap" in caught.value.because[0]


def test_without_root_or_sudo_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EngineUnavailable) as caught:
        install.root_prefix()
    assert caught.value.because == ("this is uid 1234, and there is no sudo",)


@pytest.mark.engine
def test_a_daemon_is_started_so_that_it_outlives_its_starter(
    own_engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_engine.write_wrapper()
    monkeypatch.setenv("PATH", f"{own_engine.wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", own_engine.host)
    start_daemon([], tmp_path / "dockerd.log")
    try:
        await_answer(tmp_path / "dockerd.log")
        connect().close()
    finally:
        own_engine.end_detached()
    assert wait_until(lambda: not own_engine.is_listening())


@pytest.mark.engine
def test_a_daemon_that_gives_up_shows_the_end_of_its_log(
    own_engine: PrivateEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_engine.write_wrapper()
    monkeypatch.setenv("PATH", f"{own_engine.wrapper.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_HOST", own_engine.host)
    log = tmp_path / "dockerd.log"
    start_daemon(["--storage-driver=no-such-driver"], log)
    with pytest.raises(EngineUnavailable) as caught:
        await_answer(log)
    error = caught.value
    assert error.exit_code == 6
    assert error.what == "the container engine was installed and does not start"
    assert any("no-such-driver" in line for line in error.because)
    assert str(log) in error.hint


def test_without_dockerd_there_is_nothing_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(EngineUnavailable) as caught:
        start_daemon([], tmp_path / "log")
    assert caught.value.hint == "sudo apt-get install docker.io iptables"
