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
ON_THE_CPU = (
    "import sys, json; sys.path.insert(0, sys.argv[1]); import rehearse as r; r.CARD = 'cpu';"
    "r.OPERATORS.append(('spoilt', 'none', lambda make:"
    " [make(3) + (0.01 if make.dtype == r.torch.float else 0)]));"
    "[print(json.dumps(row)) for row in r.rows()]"
)


def expect_all_right(lines: list[str], absent: set[str]) -> None:
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    single = {row["operator"]: row for row in rows if row["precision"] == "float"}
    assert len(single) > 25
    assert {name for name, row in single.items() if row["outcome"] == "absent"} == absent
    faulty = {name: row for name, row in single.items() if row["outcome"] in ("wrong", "failed")}
    assert list(faulty) == ["spoilt"], faulty
    assert faulty["spoilt"]["error"] > 1e-3


def test_every_operator_of_todays_torch_computes_as_in_double_precision(torch_python):
    answer = subprocess.run(
        [torch_python, "-c", ON_THE_CPU, str(FOLDER)], capture_output=True, text=True, check=True
    )
    lines = answer.stdout.splitlines()
    expect_all_right(lines, absent=set())
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    half = {row["operator"]: row["outcome"] for row in rows if row["precision"] == "half"}
    # The truth of half precision is that of numbers rounded to it.
    assert half == dict.fromkeys(("arithmetic", "convolution", "matrix_products"), "right")


@pytest.mark.engine
def test_a_torch_of_2019_lacks_some_and_computes_the_rest(engine: Engine, docker_1_0_1: str):
    program = f"from __future__ import print_function; {ON_THE_CPU}"
    launch = Launch(
        docker_1_0_1, ["python2.7", "-c", program, "/verify"], mounts=[Mount(FOLDER, "/verify")]
    )
    with engine.run(launch) as container:
        lines = list(container.logs())
    expect_all_right(lines, absent={"fourier", "grid_sampling"})


def test_without_a_card_there_is_nothing_to_rehearse_on(torch_python):
    with pytest.raises(HostMismatch) as error:
        rehearse_local(torch_python, (), {**os.environ, "CUDA_VISIBLE_DEVICES": ""}, ignore)
    assert error.value.what == "no card of this machine can be used"
    (because,) = error.value.because
    assert because.startswith("torch 2.")
    assert because.endswith(" sees no card")
