"""A question to another program ends in time, whatever the program does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envforge.hardware.child import ask

ENVIRON = {"PATH": "/usr/bin:/bin"}
PATIENCE_S = 1.0  # a shell must have started by then, also on a busy machine


def script(folder: Path, *lines: str) -> list[str]:
    path = folder / "program"
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return [str(path)]


def is_over(pid: str) -> bool:
    """Gone within moments, or a zombie that this machine's init has not collected yet."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_the_answer_holds_both_streams_and_the_exit_code(tmp_path: Path) -> None:
    answer = ask(script(tmp_path, "echo out", "echo err >&2", "exit 9"), ENVIRON, 10)
    assert (answer.text, answer.exit_code, answer.timed_out) == ("out\nerr\n", 9, False)


def test_the_program_runs_in_the_c_locale(tmp_path: Path) -> None:
    answer = ask(script(tmp_path, "echo $LC_ALL"), {**ENVIRON, "LC_ALL": "de_DE.UTF-8"}, 10)
    assert answer.text == "C\n"


@pytest.mark.parametrize("argv", [["/nonexistent/nvidia-smi"], ["/etc/passwd"], [""]])
def test_a_program_that_cannot_be_started_is_an_empty_answer(argv: list[str]) -> None:
    assert ask(argv, ENVIRON, 10) == ("", None, False)


def test_bytes_that_are_no_text_do_not_stop_the_answer(tmp_path: Path) -> None:
    assert ask(script(tmp_path, r"printf 'a\377b'"), ENVIRON, 10).text == "a�b"


def test_a_program_that_hangs_is_left_after_its_time_and_what_it_said_is_kept(
    tmp_path: Path,
) -> None:
    before = time.monotonic()
    answer = ask(script(tmp_path, "echo first", "sleep 60"), ENVIRON, PATIENCE_S)
    assert time.monotonic() - before < 20
    assert (answer.text, answer.exit_code, answer.timed_out) == ("first\n", None, True)


def test_a_program_that_ignores_to_be_ended_is_killed_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    lines = ["trap '' TERM INT", "sleep 60 &", f"echo $$ $! >{pid}", "wait", "sleep 60"]
    assert ask(script(tmp_path, *lines), ENVIRON, PATIENCE_S).timed_out
    leader, child = pid.read_text().split()
    assert not Path(f"/proc/{leader}").exists()
    assert is_over(child)


def test_ctrl_c_ends_the_program_too(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    argv = script(tmp_path, f"echo $$ >{pid}.new; mv {pid}.new {pid}", "sleep 60")
    code = f"from envforge.hardware.child import ask; ask({argv!r}, {ENVIRON!r}, 60)"
    asking = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    while not pid.exists():
        assert asking.poll() is None
        time.sleep(0.02)
    asking.send_signal(signal.SIGINT)
    assert asking.wait(timeout=10) != 0
    assert is_over(pid.read_text().strip())


def test_a_grandchild_that_keeps_the_pipe_open_does_not_hold_envforge(tmp_path: Path) -> None:
    """It left the group, so nothing can end it; a driver that blocks a process looks the same."""
    pid = tmp_path / "pid"
    lines = [f"setsid sh -c 'echo $$ >{pid}; exec sleep 60' &", "echo first", "exit 0"]
    before = time.monotonic()
    answer = ask(script(tmp_path, *lines), ENVIRON, PATIENCE_S)
    assert time.monotonic() - before < 20
    assert answer.text == "first\n"
    os.kill(int(pid.read_text()), signal.SIGKILL)
