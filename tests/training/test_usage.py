"""What a training uses, sampled from real processes and a real file."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from envforge.errors import EngineUnavailable
from envforge.hardware import usage as cards
from envforge.training import SystemClock, usage
from envforge.training.stacks import dump_stacks
from envforge.training.usage import Sampler


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Sample ten times a second."""
    monkeypatch.setattr(usage, "EVERY_S", 0.1)


def wait_for(holds, within_s=20.0):
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_busy_process_is_seen_busy_and_its_memory_counted():
    spin = "kept = bytearray(64 << 20)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", spin]) as process:
        points = []
        sampler = Sampler(lambda: [process.pid], points.append, SystemClock())
        wait_for(lambda: len(points) >= 5)
        sampler.close()
        process.kill()
    last = points[-1]
    assert max(point.cpu for point in points) > 0.02  # a share of a core, on a crowded machine too
    assert last.memory_mib > 64
    assert last.cores == os.cpu_count()
    assert 0 <= last.waiting <= 1
    assert 0 <= last.machine_cpu <= 1


def test_processes_that_nobody_can_name_are_no_fault():
    def pids():
        raise EngineUnavailable("gone")

    points = []
    sampler = Sampler(pids, points.append, SystemClock())
    wait_for(lambda: len(points) >= 2)
    sampler.close()
    assert (points[0].cpu, points[0].memory_mib) == (0.0, 0.0)


def test_a_full_disk_ends_no_sampling():
    calls = []

    def add(point):
        calls.append(point)
        raise OSError(28, "No space left on device")

    sampler = Sampler(lambda: [os.getpid()], add, SystemClock())
    wait_for(lambda: len(calls) >= 3)
    sampler.close()


CHILD = """
import sys, time
for row in ([[0, 0.25, 100.0], [1, 0.75, 200.5]], [[0, 0.5, 100.0]]):
    print(row, flush=True)
    time.sleep(0.3)
print("half a li", end="", flush=True)
sys.stdin.read()
"""


def test_the_cards_child_is_heard_and_ended(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(CHILD)
    monkeypatch.setattr(cards, "CHILD", child)
    monkeypatch.setattr(cards, "DRIVERS", (tmp_path,))
    watch = cards.CardWatch(1)
    wait_for(lambda: len(watch.newest()) == 2)
    assert watch.newest()[1] == cards.CardUse(1, 0.75, 200.5)
    wait_for(lambda: len(watch.newest()) == 1)
    watch.close()


def test_without_a_driver_no_child_is_started(monkeypatch, tmp_path):
    monkeypatch.setattr(cards, "DRIVERS", (tmp_path / "none",))
    watch = cards.CardWatch(1)
    assert watch.newest() == ()
    watch.close()


def test_a_child_without_nvml_says_nothing_and_ends():
    answer = subprocess.run(
        [sys.executable, "-I", cards.CHILD, "0.1"], stdin=subprocess.DEVNULL, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert answer.stdout == b""


def test_a_sleeping_pythons_stack_is_written(tmp_path):
    # some kernels let only a process's parents look into it (Yama's ptrace_scope)
    allow = (
        "import ctypes, time\nctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)\n"
    )
    nap = allow + "def nap():\n    print('in', flush=True)\n    time.sleep(600)\nnap()"
    with subprocess.Popen([sys.executable, "-c", nap], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in\n"
        assert dump_stacks([process.pid], tmp_path / "stacks.txt")
        process.kill()
    assert "nap (<string>" in (tmp_path / "stacks.txt").read_text()
    assert not dump_stacks([2**22 + 1], tmp_path / "none.txt")
    assert not (tmp_path / "none.txt").exists()
