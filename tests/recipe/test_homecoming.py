"""The pupil comes home: a real engine, a real torch 1.0.1 on Python 2.7, and everything against it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PUPIL = str(Path(__file__).parent / "pupil")
LOG = logging.getLogger(__name__)
"""Shown with ``-o log_cli=true --log-cli-level=INFO``."""
KILLS = 50
STEPS = 1500


@pytest.fixture(scope="module")
def lock(engine, tmp_path_factory):
    """The lock of an image with torch 1.0.1 for the CPU, built by envforge itself."""
    folder = tmp_path_factory.mktemp("torch")
    command = [sys.executable, "-m", "envforge", "build", "--cpu", "--torch", "1.0.1"]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return folder / "envforge.lock"


class Home:
    """Runs of the pupil in one directory; ``place``: the flags that say where."""

    def __init__(self, folder: Path, *place: str) -> None:
        self.place, self.run_dir = place, folder / "run"
        self.environment = {**os.environ, "ENVFORGE_STATE": str(folder / "state"), "NO_COLOR": "1"}

    def start(self, *flags: str, **settings: object) -> subprocess.Popen[str]:
        pairs = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        command = [sys.executable, "-m", "envforge", "run", PUPIL, *self.place]
        return subprocess.Popen(
            [*command, "--cpu", "--run-dir", str(self.run_dir), *pairs, *flags],
            cwd=self.run_dir.parent,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *flags: str, **settings: object) -> tuple[int, str]:
        process = self.start(*flags, **settings)
        _, errors = process.communicate(timeout=600)
        return process.returncode, errors

    @property
    def record(self) -> dict:
        return json.loads((self.run_dir / "run.json").read_text())

    @property
    def weights(self) -> str:
        return json.loads((self.run_dir / "result.json").read_text())["weights"]

    def container(self) -> str:
        return f"envforge-run-{self.record['id'][:12]}"


@pytest.fixture
def no_leftovers(engine):
    """What is killed here cannot clean up behind itself: its containers are removed for it.

    Those that run are left: somebody else may train on this engine meanwhile.
    """
    before = {leftover.id for leftover in engine.leftovers()}
    yield
    for leftover in engine.leftovers():
        if leftover.id not in before and leftover.status != "running":
            engine.remove_leftover(leftover)


@pytest.fixture
def home(lock, tmp_path, no_leftovers):
    return Home(tmp_path, "--lock", str(lock))


def test_memory_and_nan_are_survived_one_after_the_other(home):
    """512 MiB hold two examples of 120 MiB, not four; from step 30 a rate above 0.03 gives NaN."""
    code, errors = home.run(
        "--memory", "512MiB", hog_mib=120, rate=0.08, nan_above=0.03, steps=60, delay=0.05
    )
    assert code == 0, errors
    first, second, third, fourth = home.record["attempts"]
    assert (first["reason"], first["exit_code"]) == ("host-oom", 137)
    assert first["last_iteration"] == 14
    assert second["changes"] == [{"setting": "batch", "before": 4, "after": 2}]
    assert (second["from_checkpoint"], second["first_iteration"]) == ("model_0000010.pth", 10)
    assert (second["reason"], second["because"]) == ("diverged", ["loss was nan at step 30"])
    assert (third["reason"], third["rates"]) == ("diverged", [0.04])
    assert (fourth["reason"], fourth["rates"], fourth["rate_factor"]) == ("finished", [0.02], 0.5)
    assert third["from_checkpoint"] == "model_0000020.pth"
    assert fourth["quarantined"][-1] == "model_0000020.pth: the training has diverged from it"
    assert fourth["from_checkpoint"] == "model_0000010.pth"
    assert home.record["settings"]["rate"] == 0.02
    log = (home.run_dir / "log.txt").read_text()
    assert "lr: 0.080000" in log
    assert log.rpartition("lr: ")[2].startswith("0.020000")


@pytest.mark.parametrize("python", ["local_1_0_1", "local_1_13_1"])
def test_a_process_of_this_machine_comes_home_after_nan_and_a_kill(request, python, tmp_path):
    """From step 30 a rate above 0.05 gives NaN; what goes on with half of it is killed later."""
    home = Home(tmp_path, "--on", "local", "--interpreter", request.getfixturevalue(python))
    process = home.start(rate=0.08, nan_above=0.05, steps=60, delay=0.05)
    log, give_up = home.run_dir / "log.txt", time.monotonic() + 300
    while not (log.exists() and re.search(r"iter: 3[1-9] .*lr: 0\.040000", log.read_text())):
        assert time.monotonic() < give_up
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    (training,) = (
        each for each in psutil.Process(process.pid).children() if "pupil.py" in str(each.cmdline())
    )
    training.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    first, second, third = home.record["attempts"]
    assert (first["reason"], first["because"]) == ("diverged", ["loss was nan at step 30"])
    assert (second["reason"], second["exit_code"], second["rates"]) == ("crash", 137, [0.04])
    step = third["first_iteration"]
    assert third["from_checkpoint"] == f"model_{step:07d}.pth"
    assert second["last_iteration"] - 10 <= step < 60, "no more is lost than since the last one"
    assert (third["reason"], third["rates"], third["last_iteration"]) == ("finished", [0.04], 60)


@pytest.fixture(scope="module")
def undisturbed(lock, tmp_path_factory):
    """The weights of a run that nobody killed."""
    home = Home(tmp_path_factory.mktemp("undisturbed"), "--lock", str(lock))
    code, errors = home.run(steps=STEPS, delay=0)
    assert code == 0, errors
    return home.weights


def kill(pids: list[int]) -> bool:
    """SIGKILL; whether there was anybody to kill."""
    hit = False
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            hit = True
        except ProcessLookupError:
            continue
    return hit


def processes(mark: str) -> list[int]:
    return [
        each.pid
        for each in psutil.process_iter(["cmdline"])
        if mark in " ".join(each.info["cmdline"] or [])
    ]


def trainer(engine, home: Home) -> list[int]:
    """The training itself, below the container's init."""
    container = engine.attach(home.container())
    return list(container.pids())[1:2] if container else []


def shim(engine, home: Home) -> list[int]:
    """What stands between the engine and the container: with it the container is lost."""
    container = engine.attach(home.container())
    marked = processes(container.id) if container else []
    return [pid for pid in marked if "containerd-shim" in command_of(pid)]


def command_of(pid: int) -> str:
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(psutil.Process(pid).cmdline())
    return ""


def victims(target: str, process: subprocess.Popen[str], engine, home: Home) -> list[int]:
    if target == "supervisor":
        return [process.pid]
    return trainer(engine, home) if target == "trainer" else shim(engine, home)


def changed(paths: Callable[[], list[Path]]) -> Callable[[], bool]:
    """Whether one of the files has been written since."""

    def stamps() -> dict[Path, int]:
        found = {}
        for path in paths():
            try:
                found[path] = path.stat().st_mtime_ns
            except OSError:
                continue
        return found

    before = stamps()
    return lambda: stamps() != before


def wait_for_moment(dice: random.Random, home: Home, process: subprocess.Popen[str]) -> None:
    """A random moment: of the clock, in the write of a checkpoint, or of the run's state."""
    kind = dice.choice(["clock", "checkpoint", "state"])
    if kind == "checkpoint":
        moment = changed(lambda: list(home.run_dir.glob("model_*.pth")))
    elif kind == "state":
        moment = changed(lambda: list(home.run_dir.glob("*run.json*")))
    else:
        at = time.monotonic() + dice.uniform(0.05, 2.5)
        moment = lambda: time.monotonic() >= at  # noqa: E731 -- one of three of a kind
    give_up = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < give_up and not moment():
        time.sleep(0.0005)
    time.sleep(dice.choice([0, 0, dice.uniform(0, 0.01)]))


@pytest.mark.timeout(1800)
def test_killed_at_fifty_random_moments_it_ends_with_the_same_weights(engine, home, undisturbed):
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    targets = ["supervisor", "trainer", "engine"]
    done = dict.fromkeys(targets, 0)
    process = home.start(steps=STEPS, delay=0.03)
    while sum(done.values()) < KILLS:
        target = targets[sum(done.values()) % 3]
        wait_for_moment(dice, home, process)
        assert process.poll() != 0, f"it came home after {done}, seed {seed}: make it longer"
        hit = False
        if process.poll() is None and (home.run_dir / "run.json").exists():
            hit = kill(victims(target, process, engine, home))
            done[target] += hit
        if (hit and target == "supervisor") or process.poll() is not None:
            process.wait()
            process.stderr.close()
            process = home.start()
    _, errors = process.communicate(timeout=600)
    while process.returncode == 9:  # more kills in a row than the ladder has tries
        process = home.start()
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, f"{errors}, seed {seed}"
    assert home.weights == undisturbed, f"seed {seed}"
    assert engine.attach(home.container()) is None
    LOG.info("killed %s in %d attempts, seed %d", done, len(home.record["attempts"]), seed)
