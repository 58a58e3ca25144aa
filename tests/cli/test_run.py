"""``envforge run`` as a process: signals, kills, streams, exit codes."""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOY = str(Path(__file__).parents[1] / "training" / "toy")
COMMAND = (sys.executable, "-m", "envforge", "run")


def interpreter(folder, torch="__version__ = '2.13.0'\nclass version: cuda = None\n"):
    """Make a Python that has what says it is torch."""
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(torch)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return interpreter(tmp_path_factory.mktemp("python"))


@pytest.fixture
def envforge(tmp_path, python):
    """Start ``envforge run`` of the toy in ``tmp_path/run``; settings are keyword arguments."""

    def start(*flags, stderr=subprocess.PIPE, **settings):
        pairs = [word for pair in settings.items() for word in ("--set", "{}={}".format(*pair))]
        place = ["--on", "local", "--interpreter", python, "--run-dir", "run"]
        return subprocess.Popen(
            [*COMMAND, TOY, *place, *pairs, *flags],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )

    return start


def finish(process, timeout=60):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def record(tmp_path):
    return json.loads((tmp_path / "run" / "run.json").read_text())


def wait_for_step(tmp_path, step):
    log = tmp_path / "run" / "log.txt"
    deadline = time.monotonic() + 60
    while not (log.exists() and f"step: {step}/" in log.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


LOADING = """
import os, pathlib, time
__version__ = "2.13.0"
class version: cuda = None
class Tensor: pass
def load(path, **_):
    pathlib.Path("loading").write_text(str(os.getpid()))
    while pathlib.Path("slow").exists():
        time.sleep(0.02)
    return {}
"""
"""What says it is torch, and takes its time over a checkpoint: a big one, or a disk far away."""


@pytest.fixture
def looking(tmp_path):
    """An envforge in a process group of its own that looks into the checkpoints of a run."""
    recipe = tmp_path / "toy"
    shutil.copytree(TOY, recipe)
    text = (recipe / "recipe.yaml").read_text()
    (recipe / "recipe.yaml").write_text(text.replace("{ verify: existence }", "{ verify: torch }"))
    python = interpreter(tmp_path / "python", LOADING)
    place = ["--on", "local", "--interpreter", python, "--run-dir", "run"]
    environment = {**os.environ, "NO_COLOR": "1"}
    started = []

    def start(*flags):
        started.append(
            subprocess.Popen(
                [*COMMAND, f"{recipe}/", *place, *flags],
                cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
                text=True, start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    assert finish(start("--set", "habit=killed"))[0] == 9
    (tmp_path / "run" / "slow").touch()
    yield start
    for process in started:
        process.kill()


def wait_for(path):
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


@pytest.mark.parametrize(
    ("number", "whom"),
    [(signal.SIGTERM, "group"), (signal.SIGINT, "group"), (signal.SIGTERM, "child first")],
)
def test_asked_while_checkpoints_are_looked_into_it_stops_and_can_go_on(
    looking, tmp_path, number, whom
):
    """Shells, schedulers and service managers ask every process of a run, not only the first."""
    error, code = {"SIGTERM": ("stopped", 75), "SIGINT": ("interrupted", 130)}[number.name]
    process = looking("--set", "habit=good")
    child = int(wait_for(tmp_path / "run" / "loading"))
    if whom == "child first":
        os.kill(child, number)
    else:
        os.killpg(process.pid, number)
    found, _, err = finish(process)
    assert (found, err.splitlines()[-3:]) == (
        code,
        [
            f"error: {error}: toy was stopped before its next attempt",
            "  the last one ended for this: crash",
            f"hint: to go on: envforge run {tmp_path}/toy --run-dir {tmp_path}/run",
        ],
    )
    document = record(tmp_path)
    assert (document["state"], document["settings"]["habit"]) == ("CANCELLED", "killed")
    assert [each["stopped_by"] for each in document["attempts"]] == [signal.Signals(number).name]
    (tmp_path / "run" / "slow").unlink()
    assert finish(looking("--set", "habit=good"))[0] == 0
    last = record(tmp_path)["attempts"][-1]
    assert (last["from_checkpoint"], last["reason"]) == ("checkpoints/step-000005.txt", "finished")
    assert [each["setting"] for each in last["changes"]] == ["habit"]


def test_plain_lines_on_stderr_and_the_outcome_on_stdout(envforge, tmp_path):
    code, out, err = finish(envforge())
    assert code == 0
    lines = err.splitlines()
    assert lines[0].startswith("training toy with torch 2.13.0 of ")
    assert lines[1] == "step 1/20  loss 1.0000  200.0 steps/s  0 s left"
    assert "checkpoint: checkpoints/step-000005.txt" in lines
    assert lines[-1] == "toy: passed"
    assert out.splitlines()[0].startswith("toy succeeded, 20 steps, 200.0 steps/s, ")
    assert out.splitlines()[-1].split() == [
        "report.html", "run.json", "log.txt", "checkpoints/step-000020.txt", "toy.json"
    ]  # fmt: skip
    assert "  checks      1 ok" in out
    assert "  loss        1.0000 -> 0.0500 (least 0.0500)" in out


def test_json_is_the_record_alone_on_stdout(envforge, tmp_path):
    code, out, err = finish(envforge("--json"))
    assert code == 0
    assert json.loads(out) == record(tmp_path)
    assert "training toy" in err


def test_json_of_a_failure_is_the_record_and_the_diagnosis_goes_to_stderr(envforge, tmp_path):
    code, out, err = finish(envforge("--json", "--quiet", habit="fails"))
    assert code == 9
    assert json.loads(out) == record(tmp_path)
    assert json.loads(out)["attempts"][0]["reason"] == "check-failed"
    assert err.splitlines()[0] == "error: run-failed: toy did not pass its own checks"


def test_a_failure_without_json_says_nothing_on_stdout(envforge):
    code, out, err = finish(envforge(habit="gpu-oom"))
    assert (code, out) == (9, "")
    assert "error: run-failed: toy exhausted the card's memory" in err
    assert "  RuntimeError: CUDA out of memory." in err


def test_quiet_says_nothing_and_verbose_everything(envforge):
    assert finish(envforge("--quiet")) == (0, "", "")
    _, _, err = finish(envforge("-v", habit="bytes", steps=25))
    assert len([line for line in err.splitlines() if line.startswith("step ")]) >= 5


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--set", "stepz=1"], 3, "error: unknown-name: unknown setting: 'stepz'"),
        (["--set", "steps"], 2, "error: usage: --set 'steps' is not of the form KEY=VALUE"),
        (["--set", "steps=1; rm -rf /"], 2, "error: usage: steps must be an integer"),
        (["--on", "moon"], 2, "Invalid value for '--on'"),
    ],
)
def test_bad_input_is_refused_at_the_door(envforge, tmp_path, flags, code, message):
    found, out, err = finish(envforge(*flags))
    assert (found, out) == (code, "")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_without_a_lock_or_engine_it_says_what_to_do(tmp_path):
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    answer = subprocess.run(
        [*COMMAND, "canary"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert answer.returncode == 6
    assert "envforge run canary --on local" in answer.stderr
    assert not list(tmp_path.glob("runs/*"))


def test_ctrl_c_once_waits_for_the_checkpoint_and_the_run_goes_on_later(envforge, tmp_path):
    process = envforge(steps=100_000)
    wait_for_step(tmp_path, 12)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    last = record(tmp_path)["attempts"][0]
    assert f"error: interrupted: toy was stopped at step {last['last_iteration']}" in err
    assert (last["reason"], last["exit_code"], last["stopped_by"]) == ("cancelled", 75, "SIGINT")
    assert (tmp_path / "run" / last["checkpoint"]).exists()
    assert f"hint: to go on: envforge run {TOY} --run-dir {tmp_path / 'run'}" in err
    code, _, _ = finish(envforge(steps=last["last_iteration"] + 5))
    assert code == 0
    assert record(tmp_path)["attempts"][1]["first_iteration"] == last["last_iteration"]


def test_a_schedulers_sigterm_is_exit_75(envforge, tmp_path):
    process = envforge("--json", steps=100_000)
    wait_for_step(tmp_path, 12)
    process.send_signal(signal.SIGTERM)
    code, out, _ = finish(process)
    assert code == 75
    assert json.loads(out)["state"] == "CANCELLED"


def test_ctrl_c_twice_kills_a_deaf_training_now(envforge, tmp_path):
    process = envforge(steps=100_000, habit="deaf")
    wait_for_step(tmp_path, 12)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    code, _, _ = finish(process)
    assert code == 130
    assert time.monotonic() - started < 5
    assert record(tmp_path)["attempts"][0]["exit_code"] == 137


def test_a_second_envforge_is_refused_while_the_first_works(envforge, tmp_path):
    first = envforge(steps=100_000)
    wait_for_step(tmp_path, 12)
    code, _, err = finish(envforge())
    assert code == 2
    assert f"another envforge is at work in {tmp_path / 'run'}" in err
    assert record(tmp_path)["attempts"][0]["supervisor"].split(":")[1] in err
    first.send_signal(signal.SIGTERM)
    assert finish(first)[0] == 75


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_weights(envforge, tmp_path):
    """kill -9 of envforge: run.json is readable each time, no training is left, none doubled."""
    steps, seed = 150, random.Random(20261122)
    for _ in range(5):
        process = envforge(steps=steps)
        time.sleep(seed.uniform(0.2, 1.2))
        process.kill()
        process.communicate()
        if (tmp_path / "run" / "run.json").exists():
            record(tmp_path)
    code, _, err = finish(envforge(steps=steps))
    assert code == 0, err
    attempts = record(tmp_path)["attempts"]
    assert {attempt["reason"] for attempt in attempts[:-1]} <= {"crash"}
    assert attempts[-1]["reason"] == "finished"
    killed = json.loads((tmp_path / "run" / "toy.json").read_text())
    assert killed == {"passed": True, "weights": _weights(steps)}


def _weights(steps):
    import hashlib  # noqa: PLC0415

    weights = ""
    for step in range(1, steps + 1):
        weights = hashlib.sha256((weights + str(step)).encode()).hexdigest()
    return weights


def test_on_a_terminal_one_line_moves(envforge, tmp_path):
    leader, follower = pty.openpty()
    process = envforge(stderr=follower, delay=0.02)
    os.close(follower)
    seen = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the terminal's way to say that nobody is left
            break
        seen += chunk
    os.close(leader)
    assert finish(process)[0] == 0
    text = seen.decode()
    assert "checkpoint: checkpoints/step-000005.txt" in text
    assert "steps/s" in text
    assert "\x1b[" in text  # the cursor goes back to the line


def test_help_imports_nothing_heavy():
    text = (
        "import sys, contextlib\n"
        "from envforge.cli import main\n"
        "with contextlib.redirect_stdout(None): main(['run', '--help'])\n"
        "heavy = {'rich.progress', 'docker', 'requests', 'psutil', 'yaml', 'filelock'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)))\n"
    )
    answer = subprocess.run([sys.executable, "-c", text], capture_output=True, check=False)
    assert answer.stderr.decode() in ("", "\n")
