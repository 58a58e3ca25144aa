"""The program that looks into checkpoints, run by a real torch as the supervisor runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from envforge.training.checkpoints import PROGRAM

pytestmark = pytest.mark.slow

MAKE = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 20])
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
schedule.step()
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
         "scheduler": schedule.state_dict(), "iteration": 3, "losses": [1.0, 0.5],
         "half": torch.ones(2).half(), "count": torch.tensor([2 ** 40])}
torch.save(state, "good.pth")
torch.save(model, "module.pth")
state["losses"].append(float("inf"))
torch.save(state, "inf-loss.pth")
state["losses"].pop()
for name, value in (("nan", float("nan")), ("inf", float("inf"))):
    state["model"]["bias"][1] = value
    torch.save(state, name + ".pth")
state["model"]["bias"][1] = 0.0
state["half"] = torch.tensor([1.0, float("nan")]).half()
torch.save(state, "half.pth")
"""
SHOW = """
import torch
state = torch.load("good.pth", map_location="cpu", **{EXTRA})
print(state["optimizer"]["param_groups"][0]["lr"], state["scheduler"]["base_lrs"],
      state["scheduler"].get("_last_lr", [0.025]), state["iteration"],
      ",".join(map(str, sorted(state["scheduler"]["milestones"]))),
      float(list(state["optimizer"]["state"].values())[0]["momentum_buffer"].abs().sum()) > 0)
"""


@pytest.fixture(scope="module")
def folder(torch_python, tmp_path_factory):
    made = tmp_path_factory.mktemp("checkpoints")
    subprocess.run([torch_python, "-W", "ignore", "-c", MAKE], cwd=made, check=True)
    whole = (made / "good.pth").read_bytes()
    (made / "torn.pth").write_bytes(whole[: len(whole) // 2])
    (made / "empty.pth").touch()
    (made / "text.pth").write_text("<Error><Code>AccessDenied</Code></Error>")
    return made


def ask(python, folder, *words):
    answer = subprocess.run(
        [python, "-W", "ignore", PROGRAM, *words], cwd=folder, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    rows = [json.loads(line[len("checkpoint: ") :]) for line in answer.stdout.splitlines()]
    return {row["file"]: row for row in rows}


@pytest.fixture(scope="module")
def answers(torch_python, folder):
    """What it says of every file: torch is imported once for all of them."""
    names = sorted(path.name for path in folder.iterdir())
    return ask(torch_python, folder, "verify", *names, "missing.pth")


def test_a_whole_and_finite_checkpoint_is_good_and_says_its_rate(answers):
    assert answers["good.pth"] == {"file": "good.pth", "fault": "", "rates": [0.1]}
    assert answers["module.pth"]["fault"] == ""


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("nan.pth", "model.bias is not finite"),
        ("inf.pth", "model.bias is not finite"),
        ("half.pth", "half is not finite"),
        ("inf-loss.pth", "losses.2 is not finite"),
        ("empty.pth", "is empty"),
    ],
)
def test_a_number_that_is_none_is_found_wherever_it_lies(answers, name, fault):
    assert answers[name]["fault"] == fault


@pytest.mark.parametrize("name", ["torn.pth", "text.pth", "missing.pth"])
def test_what_does_not_load_is_said_in_one_line(answers, name):
    assert answers[name]["fault"].startswith("does not load: ")
    assert "\n" not in answers[name]["fault"]


def test_the_rate_is_lowered_in_optimizer_and_schedule_and_nothing_else_changes(
    torch_python, folder
):
    before = (folder / "good.pth").read_bytes()
    answers = ask(torch_python, folder, "scale", "[[0.5, 5, 2.0], [0.5, 5, 1.0]]", "good.pth")
    assert answers["good.pth"]["rates"] == [0.025]
    code = SHOW.replace("**{EXTRA}", "")
    shown = subprocess.run(
        [torch_python, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True,
        check=True,
    ).stdout.split()  # fmt: skip
    assert shown == ["0.025", "[0.025]", "[0.025]", "3", "4,35", "True"]
    assert sorted(path.name for path in Path(folder).glob("*.envforge")) == []
    (folder / "good.pth").write_bytes(before)


def test_a_bad_checkpoint_is_not_touched(torch_python, folder):
    before = (folder / "nan.pth").read_bytes()
    assert ask(torch_python, folder, "scale", "[[0.5, 0, 1.0]]", "nan.pth")["nan.pth"]["fault"]
    assert (folder / "nan.pth").read_bytes() == before
