"""The program that rehearses a smaller card, with a torch that only says it has one.

With a real one it was run on an H200: docs/verification/2026-11-22-pix2pix.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from envforge import training

PROGRAM = Path(training.__file__).parent / "vram_program.py"
TORCH = """
uint8 = 'uint8'
class Ballast:
    def __init__(self, size): self.size = size
    def numel(self): return self.size
def empty(size, dtype, device):
    print('ballast of %d MiB of %s on %s' % (size // 2**20, dtype, device))
    return Ballast(size)
class cuda:
    is_available = staticmethod(lambda: AVAILABLE)
    class properties: total_memory = 8192 * 2**20
    get_device_properties = staticmethod(lambda index: cuda.properties)
    max_memory_allocated = staticmethod(lambda: (HELD + 1000) * 2**20)
    max_memory_cached = staticmethod(lambda: (HELD + 1200) * 2**20)
"""
CAPPED = """
    max_memory_reserved = max_memory_cached
    set_per_process_memory_fraction = staticmethod(lambda part, index: print('cap %g on %d' % (part, index)))
"""
SCRIPT = "import sys, own; print(__name__, sys.argv[1:], own.__file__.endswith('/own.py'))"


@pytest.fixture
def rehearse(tmp_path):
    (tmp_path / "script").mkdir()
    (tmp_path / "script/train.py").write_text(SCRIPT)
    (tmp_path / "script/own.py").write_text("")

    def run(limit, *, available=True, capped=True, held=0):
        (tmp_path / "torch.py").write_text(
            f"AVAILABLE, HELD = {available}, {held}\n{TORCH}{CAPPED if capped else ''}"
        )
        command = [sys.executable, PROGRAM, str(limit), tmp_path / "script/train.py", "--a", "b"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        )
        return answer.stdout.splitlines()

    return run


RAN = "__main__ ['--a', 'b'] True"


def test_the_allocator_is_capped_and_the_peak_said_at_the_end(rehearse):
    assert rehearse(2048) == [
        "cap 0.25 on 0",
        RAN,
        "envforge-memory: allocated 1000 MiB, reserved 1200 MiB, of 2048 MiB",
    ]


def test_a_torch_that_cannot_be_capped_gets_a_ballast_that_does_not_count(rehearse):
    assert rehearse(2048, capped=False, held=6144) == [
        "ballast of 6144 MiB of uint8 on cuda",
        RAN,
        "envforge-memory: allocated 1000 MiB, reserved 1200 MiB, of 2048 MiB",
    ]


def test_a_card_that_is_smaller_anyway_is_left_as_it_is(rehearse):
    assert rehearse(9000)[0] == RAN


def test_without_a_card_the_script_runs_as_if_started_itself(rehearse):
    assert rehearse(2048, available=False) == [RAN]
