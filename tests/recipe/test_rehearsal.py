"""The operators of a rehearsal on real torches, old and new; cards are seen in docs/verification."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from envforge import assets
from envforge.errors import HostMismatch
from envforge.events import ignore
from envforge.image.engine import Launch, Mount
from envforge.verify import rehearse_local

if TYPE_CHECKING:
    from envforge.image.engine import Engine

pytestmark = pytest.mark.slow
FOLDER = assets.TEMPLATES / "verify"
# The CPU stands in for the card: single precision against double.
ON_THE_CPU = """
import sys
sys.path.insert(0, sys.argv[1])
import rehearse as r
r.CARD = "cpu"
r.OPERATORS += [
    ("spoilt", "none", lambda make: [make(3) + (0.01 if make.dtype == r.torch.float else 0)]),
    ("dies", "none", lambda make: r.os.kill(r.os.getpid(), 9)),
]
"""
HERE = f"{ON_THE_CPU}\nfor job in r.jobs():\n    if job[0] != 'dies': r.say(**r.row_of(*job))"
CHILD = f"{ON_THE_CPU}\nr.say(**r.row_of(*sys.argv[2:]))"
TOGETHER = f"""{ON_THE_CPU}
r.COMMAND = [sys.executable, "-c", {CHILD!r}, sys.argv[1]]
r.jobs = lambda: [(name, "float") for name in sys.argv[2:]]
for row in r.rows(2): r.say(**row)
"""


def rows_in(lines: list[str]) -> list[dict]:
    return [json.loads(line) for line in lines if line.startswith("{")]


def expect_all_right(lines: list[str], absent: set[str]) -> None:
    *rows, training = rows_in([*lines[1:], lines[0]])
    assert training["training"] == pytest.approx(training["on_cpu"])
    single = {row["operator"]: row for row in rows if row["precision"] == "float"}
    assert len(single) > 25
    assert {name for name, row in single.items() if row["outcome"] == "absent"} == absent
    faulty = {name: row for name, row in single.items() if row["outcome"] in ("wrong", "failed")}
    assert list(faulty) == ["spoilt"], faulty
    assert faulty["spoilt"]["error"] > 1e-3


def said_by(python: str, program: str, *arguments: str) -> list[str]:
    argv = [python, "-W", "ignore", "-c", program, str(FOLDER), *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def test_every_operator_of_todays_torch_computes_as_in_double_precision(torch_python):
    lines = said_by(torch_python, HERE)
    expect_all_right(lines, absent=set())
    half = {
        row["operator"]: row["outcome"] for row in rows_in(lines) if row.get("precision") == "half"
    }
    # The truth of half precision is that of numbers rounded to it.
    assert half == dict.fromkeys(("arithmetic", "convolution", "matrix_products"), "right")


def test_an_operator_that_kills_its_process_is_the_only_one_that_fails(torch_python):
    *rows, training = rows_in(
        said_by(torch_python, TOGETHER, "training", "dies", "sums", "masking")
    )
    assert {row["operator"]: row["outcome"] for row in rows} == {
        "dies": "failed", "sums": "right", "masking": "right",
    }  # fmt: skip
    (dead,) = [row for row in rows if row["operator"] == "dies"]
    assert dead["said"] == "its process ended with -9"
    assert training["training"] == pytest.approx(training["on_cpu"])


@pytest.mark.engine
def test_a_torch_of_2019_lacks_some_and_computes_the_rest(engine: Engine, docker_1_0_1: str):
    program = f"from __future__ import print_function; {HERE}"
    launch = Launch(
        docker_1_0_1, ["python2.7", "-c", program, "/verify"], mounts=[Mount(FOLDER, "/verify")]
    )
    with engine.run(launch) as container:
        lines = list(container.logs())
    expect_all_right(lines, absent={"fourier", "grid_sampling"})


@pytest.mark.engine
def test_a_torch_of_2019_computes_in_several_processes(engine: Engine, docker_1_0_1: str):
    argv = ["python2.7", "-c", TOGETHER, "/verify", "training", "dies", "sums"]
    with engine.run(Launch(docker_1_0_1, argv, mounts=[Mount(FOLDER, "/verify")])) as container:
        *rows, training = rows_in(list(container.logs()))
    assert {row["operator"]: row["outcome"] for row in rows} == {"dies": "failed", "sums": "right"}
    assert training["training"][-1] < training["training"][0]


def test_without_a_card_there_is_nothing_to_rehearse_on(torch_python):
    with pytest.raises(HostMismatch) as error:
        rehearse_local(torch_python, (), {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, ignore)
    assert error.value.what == "no card of this machine can be used"
    (because,) = error.value.because
    assert because.startswith("torch 2.")
    assert because.endswith(" sees no card")
