"""MaskTextSpotter's recipe on real torch, in a container and here, with upstream in miniature.

Its commits need Python 3.5, so the image of torch 1.0.1, which has 2.7, cannot train it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from spotters import RECIPE, commit, make_spotter

from envforge import assets

if TYPE_CHECKING:
    from conftest import Place
    from miniatures import Miniature

pytestmark = [pytest.mark.slow, pytest.mark.engine]
GENERATE = assets.RECIPES / RECIPE / "files/generate.py"
everywhere = pytest.mark.parametrize("place", ["local-1.13.1", "docker-1.13.1"], indirect=True)


@pytest.fixture
def upstream(tmp_path: Path) -> Miniature:
    return make_spotter(tmp_path)


def train(upstream: Miniature, place: Place, *arguments: str) -> subprocess.CompletedProcess[str]:
    return upstream.run(
        upstream.recipes / RECIPE,
        *place.flags,
        "--run-dir",
        str(upstream.recipes.parent / "run"),
        "--upstream",
        str(upstream.repository),
        *arguments,
        **place.environment,
    )


def record_of(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@everywhere
def test_it_is_staged_patched_compiled_trained_and_resumed(
    upstream: Miniature, place: Place, tmp_path: Path
) -> None:
    first = record_of(train(upstream, place, "--demo"))
    (attempt,) = first["attempts"]
    assert (first["state"], attempt["last_iteration"]) == ("SUCCEEDED", 10)
    assert attempt["losses"]["loss"]["last"] < attempt["losses"]["loss"]["first"]
    staged = json.loads((tmp_path / "run/stage.json").read_text())
    assert (staged["variant"], staged["steps"], staged["examples"]["facts"]["items"]) == (
        "modern",
        11,
        12,
    )
    assert [line.rpartition(": ")[2] for line in staged["checkout"]["patches"]] == ["applied"] * 10
    assert (Path(staged["checkout"]["path"]) / "maskrcnn_benchmark/_C.so").is_file()
    again = record_of(train(upstream, place, "--set", "max_iter=14"))
    last = again["attempts"][1]
    assert (last["reason"], last["last_iteration"]) == ("finished", 13)
    assert last["from_checkpoint"] == "checkpoints/model_0000010.pth"
    said = (tmp_path / "run/log.txt").read_text().split("# envforge: ")[2]
    assert "Loading scheduler from " in said


@everywhere
def test_bad_labels_end_with_exit_3_and_file_and_line(
    upstream: Miniature, place: Place, tmp_path: Path
) -> None:
    """Before the hundred megabytes of R-50.pkl are fetched."""
    data = tmp_path / "data"
    subprocess.run([sys.executable, GENERATE, data, "--images", "3"], check=True)
    labels = sorted((data / "synthtext/train_gts").rglob("*.txt"))[2]
    good = len(labels.read_text().splitlines())
    with labels.open("a") as stream:
        stream.write("10,10,50,10,50,30,10,30,$5,000,12,12,20,12,20,28,12,28,5\n\n")
    answer = train(upstream, place, "--data", str(data))
    assert answer.returncode == 3
    place_of = labels.relative_to(data)
    assert f"error: bad-document: the examples in {data} have 2 faults" in answer.stderr
    assert f"\n  {place_of}:{good + 1}: " in answer.stderr
    assert f"\n  {place_of}:{good + 2}: " in answer.stderr


@everywhere
def test_another_old_value_and_another_number_of_sites_end_with_exit_5_and_the_place(
    upstream: Miniature, place: Place
) -> None:
    anchors = upstream.repository / "maskrcnn_benchmark/modeling/rpn/anchor_generator.py"
    anchors.write_text(anchors.read_text().replace("dtype=np.float)\n", "dtype=float)\n"))
    commit(upstream)
    answer = train(upstream, place, "--demo")
    assert answer.returncode == 5
    assert answer.stderr.splitlines()[-1] == (
        "  numpy-without-its-alias-of-float: maskrcnn_benchmark/modeling/rpn/anchor_generator.py:"
        r" 'dtype=np\\.float\\b' must match 3 times, it matches 2"
    )
    configuration = upstream.repository / "configs/pretrain.yaml"
    configuration.write_text(configuration.read_text().replace("BASE_LR: 0.01", "BASE_LR: 0.02"))
    commit(upstream)
    answer = train(upstream, place, "--demo")
    assert answer.returncode == 5
    assert (
        "\n  configs/pretrain.yaml: SOLVER.BASE_LR: '0.01' was expected, 0.02 stands there"
        in answer.stderr
    )
