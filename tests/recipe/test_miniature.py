"""Stage, patch, train, resume, test: the shipped Pix2Pix recipes on real torch, in a container and here.

Upstream is a miniature (``miniatures.py``); what it says are the real projects' lines.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from miniatures import Miniature, change_recipe, make

if TYPE_CHECKING:
    from conftest import Place

pytestmark = pytest.mark.slow

SHORT = ("--set", "epochs=1", "--set", "decay_epochs=1")
LONGER = ("--set", "epochs=2", "--set", "decay_epochs=1")
NEWEST = {"1.0.1": "2017-11"}
"""The variant that a torch's Python runs: later ones need a Python 3."""


def at(*places: str) -> pytest.MarkDecorator:
    """Run a test in each of these places, with a variant that runs there."""
    rows = [
        pytest.param(
            place,
            NEWEST.get(place.rpartition("-")[2], "2025-08"),
            marks=[] if place == "local" else pytest.mark.engine,
        )
        for place in places
    ]
    return pytest.mark.parametrize(("place", "variant"), rows, indirect=["place"])


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return make(tmp_path_factory.mktemp("miniature"))


@pytest.fixture
def changed(tmp_path: Path) -> Miniature:
    """One that a test may change."""
    return make(tmp_path)


def train(
    upstream: Miniature, place: Place, run_dir: Path, *arguments: str, **environment: str
) -> Any:
    return upstream.run(
        upstream.train,
        *place.flags,
        "--run-dir",
        str(run_dir),
        "--upstream",
        str(upstream.repository),
        *arguments,
        **{**place.environment, **environment},
    )


def record_of(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


@pytest.mark.parametrize(
    ("place", "variant", "patches"),
    [
        pytest.param("docker-1.0.1", "2017-11", 4, marks=pytest.mark.engine),
        pytest.param("docker-1.13.1", "2019-11", 0, marks=pytest.mark.engine),
        pytest.param("local-1.0.1", "2017-11", 4, marks=pytest.mark.engine),
        pytest.param("local-1.13.1", "2025-08", 1, marks=pytest.mark.engine),
        pytest.param("local", "2025-08", 1),
    ],
    indirect=["place"],
)
def test_it_is_staged_patched_trained_resumed_and_tested(
    upstream: Miniature, place: Place, variant: str, patches: int, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    first = record_of(
        train(upstream, place, run_dir, "--demo", "--set", f"variant={variant}", *SHORT)
    )
    assert (first["state"], first["attempts"][0]["last_iteration"]) == ("SUCCEEDED", 16)
    assert (
        first["attempts"][0]["losses"]["G_L1"]["last"]
        < first["attempts"][0]["losses"]["G_L1"]["first"]
    )
    staged = json.loads((run_dir / "stage.json").read_text())
    assert (staged["variant"], staged["examples"]["facts"]["items"], staged["epochs"]) == (
        variant,
        8,
        2,
    )
    assert len(staged["checkout"]["patches"]) == patches
    assert staged["checkout"]["verified"] is True

    again = record_of(train(upstream, place, run_dir, *LONGER))
    assert [attempt["reason"] for attempt in again["attempts"]] == ["finished", "finished"]
    assert again["attempts"][1]["from_checkpoint"] == "checkpoints/run/2_net_G.pth"
    said = (run_dir / "log.txt").read_text().split("# envforge: ")[2]
    assert "(epoch: 3, iters: 2," in said
    assert "(epoch: 2," not in said, "the epochs that were done are not done again"

    tested = record_of(
        upstream.run(
            upstream.test,
            *place.flags,
            "--from",
            str(run_dir),
            "--run-dir",
            str(tmp_path / "test"),
            **place.environment,
        )
    )
    assert (tested["state"], tested["settings"]["direction"]) == ("SUCCEEDED", "BtoA")
    pictures = tmp_path / "test/results/run/test_latest"
    assert (pictures / "index.html").is_file()
    assert sorted(path.name for path in (pictures / "images").iterdir()) == [
        "1_fake_B.png",
        "2_fake_B.png",
    ]


SITES = {
    "2025-08": ("util/visualizer.py", "import wandb\n", "without-wandb", "'^import wandb$'", 1),
    "2017-11": (
        "models/networks.py",
        "        netG.cuda(device_id=gpu_ids[0])\n",
        "cuda-takes-a-device",
        r"'\\.cuda\\(device_id=gpu_ids\\[0\\]\\)'",
        2,
    ),
}


@at("local", "local-1.0.1", "docker-1.13.1")
def test_a_site_more_than_the_patch_states_ends_with_exit_5_and_the_file(
    changed: Miniature, place: Place, variant: str, tmp_path: Path
) -> None:
    file, line, patch, pattern, stated = SITES[variant]
    changed.edit(variant, file, line, line + line)
    answer = train(changed, place, tmp_path / "run", "--demo", "--set", f"variant={variant}")
    assert answer.returncode == 5
    assert answer.stderr.splitlines()[-2:] == [
        "error: patch-does-not-fit: a patch does not fit this tree",
        f"  {patch}: {file}: {pattern} must match {stated} times, it matches {stated + 1}",
    ]
    assert not (tmp_path / "run").exists()


@at("local", "local-1.13.1", "docker-1.0.1")
def test_another_old_value_ends_with_exit_5_and_the_option(
    changed: Miniature, place: Place, variant: str, tmp_path: Path
) -> None:
    changed.edit(
        variant,
        "options/base_options.py",
        "'--ngf', type=int, default=64",
        "'--ngf', type=int, default=32",
    )
    changed.edit(variant, "options/train_options.py", "'--lr'", "'--rate'")
    answer = train(changed, place, tmp_path / "run", "--demo", "--set", f"variant={variant}")
    assert answer.returncode == 5
    assert answer.stderr.splitlines()[-4:] == [
        "error: patch-does-not-fit: upstream's configuration is not the one this recipe overrides",
        "  options/base_options.py: --ngf: 64 was expected, 32 stands there",
        "  options/train_options.py: --lr: upstream has no such option there",
        "hint: another commit, or a changed copy: see the variant's commit in the recipe",
    ]


@at("local", "local-1.0.1", "local-1.13.1", "docker-1.0.1", "docker-1.13.1")
def test_a_bad_picture_ends_with_exit_3_and_its_name(
    upstream: Miniature, place: Place, variant: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for phase in ("train", "test"):
        (data / phase).mkdir(parents=True)
        (data / phase / "7.png").write_bytes(b"\x89PNG and no more")
    answer = train(
        upstream, place, tmp_path / "run", "--data", str(data), "--set", f"variant={variant}"
    )
    assert answer.returncode == 3
    assert f"error: bad-document: the examples in {data} have 2 faults" in answer.stderr
    assert "\n  train/7.png: cannot be read: " in answer.stderr
    assert "\n  test/7.png: cannot be read: " in answer.stderr


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_without_its_patches_the_old_upstream_dies_as_the_real_one_does(
    changed: Miniature, place: Place, tmp_path: Path
) -> None:
    change_recipe(changed, "patches: [loss-values-are-scalars, cuda-takes-a-device]", "patches: []")
    change_recipe(changed, 'torch: ">=0.4,<2"', 'torch: ">=0.4,<2.16"')
    change_recipe(
        changed,
        "  retries: { gpu-oom: 1, host-oom: 1, diverged: 2, bad-checkpoint: 2, crash: 2,",
        "  retries: { ",
    )
    answer = train(changed, place, tmp_path / "run", "--demo", "--set", "variant=2017-11")
    assert answer.returncode == 9
    assert "IndexError: invalid index of a 0-dim tensor" in answer.stderr


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_module_of_the_same_name_elsewhere_is_found_before_the_training(
    changed: Miniature, place: Place, tmp_path: Path
) -> None:
    change_recipe(changed, "    imports: [models, data, options]", "    imports: [json]")
    answer = train(changed, place, tmp_path / "run", "--demo", "--set", "variant=2019-11")
    assert answer.returncode == 8
    assert "error: host-mismatch: upstream's code does not import as it must" in answer.stderr
    assert "\n  json: resolves to /" in answer.stderr


def test_a_dry_run_needs_neither_network_nor_engine_nor_torch(upstream: Miniature) -> None:
    answer = upstream.run(
        upstream.train,
        "--dry-run",
        "--vram",
        "2GiB",
        "--set",
        "variant=2019-11",
        DOCKER_HOST="unix:///nowhere",
        PIP_INDEX_URL="http://[::1]:9",
    )
    preview = json.loads(answer.stdout)
    assert (answer.returncode, preview["schema"], preview["tier"]) == (
        0,
        "envforge.preview/1",
        "2GiB",
    )
    assert {
        "setting": "--display_id",
        "upstream": "1",
        "ours": "0",
        "why": "no visdom server is needed",
    } in preview["differences"]
    assert sys.executable not in preview["command"]
