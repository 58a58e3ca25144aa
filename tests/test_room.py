"""A session on a full disk ends at once, with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FULL = "/proc"
"""A file system that has no room, for nobody."""


def session(target: str, *options: str, place: str = FULL) -> subprocess.CompletedProcess[str]:
    """Run one test in a pytest of its own whose TMPDIR lies on a full disk.

    ``-s``: capturing makes files there, too, before any check can speak.
    """
    program = (
        "import sys, tempfile, pytest; tempfile.tempdir = sys.argv[1];"
        "sys.exit(pytest.main(sys.argv[2:]))"
    )
    return subprocess.run(
        [sys.executable, "-c", program, place, target, "-q", "-s", *options],
        cwd=ROOT, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


def test_a_full_disk_ends_the_session_before_its_first_test():
    answer = session("tests/test_values.py")
    assert answer.returncode == pytest.ExitCode.INTERNAL_ERROR
    (line,) = [line for line in answer.stdout.splitlines() + answer.stderr.splitlines()
               if "too little room" in line]  # fmt: skip
    assert f"{FULL} has 0 MiB left, tests need " in line
    assert "passed" not in answer.stdout


def test_tests_with_an_engine_are_refused_before_the_engine_is_asked():
    answer = session("tests/image/test_engine_run.py")
    assert answer.returncode == pytest.ExitCode.INTERNAL_ERROR
    assert "tests with an engine need " in answer.stdout + answer.stderr


def test_a_list_of_tests_needs_no_room():
    answer = session("tests/image/test_engine_run.py", "--collect-only")
    assert answer.returncode == 0


def test_where_there_is_room_tests_run(tmp_path):
    answer = session("tests/test_values.py", place=str(tmp_path))
    assert answer.returncode == 0, answer.stdout
    assert " passed" in answer.stdout
