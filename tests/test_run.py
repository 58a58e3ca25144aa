"""``run()`` in this process, on trainings that are real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from envforge.errors import (
    DocumentError,
    HostMismatch,
    Interrupted,
    RunFailed,
    Stopped,
    UnknownName,
    UsageError,
)
from envforge.events import ignore
from envforge.image.lock import BaseLock, Lock, write_lock
from envforge.resolver import Resolution
from envforge.run import RunRequest, preview, require_success, run
from envforge.run.place import _docker_place, _refuse_cards
from envforge.training import Attempt, Change, RunRecord

TOY = str(Path(__file__).parent / "training" / "toy")


@pytest.fixture(autouse=True)
def in_a_new_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def interpreter(folder, torch="2.13.0+cpu", body=""):
    """Make a Python that has (what says it is) torch, and return its path."""
    (folder / torch / "torch").mkdir(parents=True, exist_ok=True)
    (folder / torch / "torch" / "__init__.py").write_text(
        f"{body}\n__version__ = {torch!r}\nclass version: cuda = None\n"
    )
    path = folder / torch / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={folder / torch} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def toy(tmp_path):
    """Train the toy; settings are keyword arguments."""
    python = interpreter(tmp_path / "pythons")
    events = []

    def train(run_dir="run", *, recipe=TOY, watch=events.append, **settings):
        request = RunRequest(
            recipe,
            on="local",
            interpreter=python,
            run_dir=Path(run_dir),
            settings={name: str(value) for name, value in settings.items()},
        )
        return run(request, watch)

    train.events = events
    train.python = python
    return train


def test_a_run_leaves_its_record_log_and_checkpoints(toy):
    record = toy()
    require_success(record)
    assert sorted(path.name for path in Path("run").iterdir() if path.name[0] != ".") == [
        "checkpoints", "log.txt", "run.json", "series.jsonl", "stage.json", "toy.json"
    ]  # fmt: skip
    document = json.loads(Path("run/run.json").read_text())
    assert (document["schema"], document["state"]) == ("envforge.run/1", "SUCCEEDED")
    assert (document["torch"], document["on"]) == ("2.13.0+cpu", "local")
    assert document["settings"] == {"steps": 20, "delay": 0.005, "habit": "good"}
    assert toy.events[0].text.startswith("training toy with torch 2.13.0+cpu of ")


def test_without_a_run_directory_each_run_gets_its_own(toy):
    requests = RunRequest(TOY, on="local", interpreter=toy.python, settings={"steps": "1"})
    folders = {Path(run(requests, toy.events.append).run_dir) for _ in range(2)}
    assert len(folders) == 2
    assert {folder.parent for folder in folders} == {Path("runs").resolve()}
    assert all(folder.name.startswith("toy-20") for folder in folders)


def test_a_failed_run_says_why_with_the_end_of_the_log_and_its_file(toy):
    record = toy(habit="fails")
    with pytest.raises(RunFailed) as caught:
        require_success(record)
    error = caught.value
    assert error.what == "toy did not pass its own checks"
    assert error.because[:3] == (
        "check weights failed: they are what they are",
        "ended with exit code 1",
        f"the end of {Path('run/log.txt').resolve()}:",
    )
    assert error.because[-1] == "  toy: failed (weights)"
    assert error.hint == (
        f"once the cause is mended: envforge run {TOY} --run-dir {Path('run').resolve()}"
    )
    assert error.exit_code == 9


def test_a_run_goes_on_with_its_own_settings_and_says_what_changed(toy):
    toy(habit="killed", steps=30)
    record = toy(habit="good")
    require_success(record)
    assert record.settings["steps"] == 30
    assert [attempt.reason for attempt in record.attempts] == ["crash", "finished"]
    assert record.last.changes == (Change(setting="habit", before="killed", after="good"),)
    assert (record.last.first_iteration, record.last.last_iteration) == (5, 30)


def test_a_run_that_has_succeeded_is_left_alone_until_something_changes(toy):
    first = toy()
    before = Path("run/run.json").stat().st_mtime_ns
    assert toy() == first
    assert Path("run/run.json").stat().st_mtime_ns == before
    assert toy.events[-1].text == "toy has already succeeded here"
    assert len(toy(steps=25).attempts) == 2


@pytest.fixture
def steep(toy, tmp_path):
    """Train a toy that diverges at a learning rate above 0.05; its ladder halves it."""
    folder = tmp_path / "steep" / "toy"
    shutil.copytree(TOY, folder)
    text = (folder / "recipe.yaml").read_text()
    for old, new in (
        ('  - "{device}"\n', '  - "{device}"\n  - "{rate}"\n'),
        ("parameters:\n", 'parameters:\n  rate: { kind: number, default: "0.01", help: rate }\n'),
        ("verify: existence", "verify: existence, retries: { diverged: 2 }"),
        ("verify: existence", "verify: existence, divergence: { rates: [rate] }"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (folder / "recipe.yaml").write_text(text)
    return lambda **settings: toy(recipe=f"{folder}/", **settings)


def rates(record):
    return [
        (change.before, change.after)
        for attempt in record.attempts
        for change in attempt.changes
        if change.setting == "rate"
    ]


def test_the_same_command_goes_on_with_what_the_ladder_has_come_down_to(steep, toy):
    first = steep(habit="steep", rate=0.2)
    require_success(first)
    assert (first.settings["rate"], rates(first)) == (0.05, [(0.2, 0.1), (0.1, 0.05)])
    again = steep(habit="steep", rate="0.20", steps=30)
    require_success(again)
    assert again.settings["rate"] == 0.05
    assert again.last.changes == (Change(setting="steps", before=20, after=30),)
    assert len(again.attempts) == len(first.attempts) + 1
    assert [event.text for event in toy.events if event.text.startswith("rate ")] == [
        "rate stays 0.05: earlier attempts gave up 0.2; any other value would change it"
    ]


def test_another_value_than_before_is_what_is_trained_with(steep):
    steep(habit="steep", rate=0.2)
    record = steep(habit="good", rate=0.04, steps=30)
    require_success(record)
    assert (record.settings["rate"], record.last.rate_factor) == (0.04, pytest.approx(0.8))
    assert rates(steep(habit="good", rate=0.2, steps=40))[-1] == (0.04, 0.2)


def test_a_preview_of_the_same_command_has_what_the_run_will_have(steep, tmp_path):
    steep(habit="steep", rate=0.2)
    request = RunRequest(f"{tmp_path}/steep/toy/", on="local", run_dir=Path("run"),
                         settings={"rate": "0.2", "steps": "30"})  # fmt: skip
    assert preview(request).settings["rate"] == 0.05


def test_a_recipe_may_want_to_be_verified_again(toy, tmp_path):
    shutil.copytree(TOY, tmp_path / "toy")
    path = tmp_path / "toy" / "recipe.yaml"
    path.write_text(path.read_text() + "when_finished: start-again\n")
    toy(recipe=f"{tmp_path}/toy")
    record = toy(recipe=f"{tmp_path}/toy")
    assert [attempt.reason for attempt in record.attempts] == ["finished", "finished"]
    assert record.last.first_iteration == 20


def test_a_directory_of_another_recipe_is_refused(toy, tmp_path):
    shutil.copytree(TOY, tmp_path / "other")
    path = tmp_path / "other" / "recipe.yaml"
    path.write_text(path.read_text().replace("name: toy", "name: other", 1))
    toy()
    with pytest.raises(UsageError, match="holds a run of toy, not of other"):
        toy(recipe=f"{tmp_path}/other")


def test_a_second_run_in_the_same_directory_is_refused(toy):
    refused = []

    def watch(event):
        if event.kind == "metric" and event.done == 5:
            with pytest.raises(UsageError, match="another envforge is at work in") as caught:
                toy()
            refused.append(caught.value.because)

    require_success(toy(watch=watch))
    assert refused[0][0].startswith("its supervisor is ")


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [(signal.SIGINT, Interrupted, 130), (signal.SIGTERM, Stopped, 75)],
)
def test_a_signal_stops_it_after_a_checkpoint_and_it_can_go_on(toy, number, error, code):
    def watch(event):
        if event.kind == "metric" and event.done == 7:
            signal.raise_signal(number)

    record = toy(watch=watch, steps=500)
    with pytest.raises(error) as caught:
        require_success(record)
    last = record.last
    assert caught.value.exit_code == code
    assert caught.value.what == f"toy was stopped at step {last.last_iteration}"
    assert caught.value.because == (f"the newest checkpoint is {last.checkpoint}",)
    assert record.state == "CANCELLED"
    after = toy(steps=last.last_iteration + 3)
    require_success(after)
    assert after.last.first_iteration == last.last_iteration


def test_an_attempt_left_open_is_closed_and_its_training_ended_before_the_next(toy):
    """What kill -9 of envforge leaves: an open attempt, and a training that lives on."""
    record = toy(habit="killed")
    path = Path("run/run.json")
    document = json.loads(path.read_text())
    document["state"] = "RUNNING"
    document["attempts"][0].update(ended=None, reason=None, exit_code=None)
    path.write_text(json.dumps(document))
    command = ["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 & echo $!"]
    environment = {**os.environ, "ENVFORGE_RUN": record.id}
    answer = subprocess.run(command, env=environment, capture_output=True, check=True)
    orphan = int(answer.stdout)
    after = toy(habit="good")
    require_success(after)
    assert [attempt.reason for attempt in after.attempts] == ["crash", "finished"]
    assert after.attempts[0].because == ("envforge itself was killed during this attempt",)
    warnings = [event.text for event in toy.events if event.kind == "warning"]
    assert warnings == [f"an earlier envforge left process {orphan} running: it was stopped"]
    assert not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == "zombie"


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"recipe": "canari"}, UnknownName, "unknown recipe: 'canari'"),
        ({"settings": {"step": "1"}}, UnknownName, "unknown setting: 'step'"),
        ({"settings": {"steps": "x"}}, UsageError, "steps must be an integer, got 'x'"),
        ({"interpreter": "/no/python"}, UsageError, "there is no interpreter '/no/python'"),
        ({"image": "debian"}, UsageError, "--image is for --on docker"),
        ({"on": "docker"}, UsageError, "--interpreter is for --on local: an image brings its own"),
    ],
)
def test_what_cannot_start_is_said_and_leaves_no_directory(toy, request_, error, message):
    request = RunRequest(TOY, on="local", interpreter=toy.python)._replace(**request_)
    with pytest.raises(error) as caught:
        run(request, toy.events.append)
    assert caught.value.what == message
    assert not list(Path("runs").glob("*"))


def test_an_interpreter_without_torch_is_named_with_its_own_words(toy):
    request = RunRequest(TOY, on="local", interpreter=sys.executable)
    with pytest.raises(HostMismatch) as caught:
        run(request, toy.events.append)
    assert caught.value.what == f"{sys.executable} has no torch that imports"
    assert caught.value.because == ("ModuleNotFoundError: No module named 'torch'",)
    assert "--interpreter PATH" in caught.value.hint


def test_a_torch_that_prints_while_it_imports_is_understood(tmp_path, toy):
    noisy = interpreter(tmp_path / "noisy", "1.0.1", body="print('hello from torch')")
    request = RunRequest(TOY, on="local", interpreter=noisy, settings={"steps": "1"})
    assert run(request, toy.events.append).torch == "1.0.1"


@pytest.mark.parametrize("version", ["0.4.1", "3.0.0", "unknown"])
def test_a_torch_outside_the_recipes_range_is_refused(tmp_path, toy, version):
    old = interpreter(tmp_path / "old", version)
    with pytest.raises(HostMismatch, match=r"toy runs on torch >=1.0,<3, not on ") as caught:
        run(RunRequest(TOY, on="local", interpreter=old), toy.events.append)
    assert caught.value.hint.startswith("envforge build --torch '>=1.0,<3' --gpu CARD")


def test_an_interpreter_that_hangs_is_given_up(tmp_path):
    from envforge.training.probe import probe_interpreter  # noqa: PLC0415

    slow = interpreter(tmp_path, "1.0.1", body="import time; time.sleep(60)")
    with pytest.raises(HostMismatch, match="does not answer"):
        probe_interpreter(slow, timeout_s=0.5)


def test_a_broken_record_is_a_bad_document(toy):
    Path("run").mkdir()
    Path("run/run.json").write_text("{")
    with pytest.raises(DocumentError):
        toy()


def test_the_interpreter_of_a_run_is_remembered(toy):
    toy(habit="quits")
    record = run(RunRequest(TOY, run_dir=Path("run")), toy.events.append)
    assert (record.on, record.python) == ("local", toy(habit="good").python)


def test_the_hint_of_a_stopped_run_without_a_checkpoint():
    attempt = Attempt(started="2026-11-22T15:35:00Z", reason="cancelled", stopped_by="SIGINT")
    record = RunRecord(
        id="x",
        recipe="toy",
        reference="toy",
        run_dir="/r",
        on="local",
        state="CANCELLED",
        attempts=(attempt,),
    )
    with pytest.raises(Interrupted) as caught:
        require_success(record)
    assert caught.value.because == ("no checkpoint was saved",)


def lock_of(route="wheel", stage="runtime", codes=("sm_35",)):
    resolution = Resolution(
        route=route,
        torch="1.0.1",
        support="native",
        evidence="measured",
        source="x",
        cuda="9.0",
        codes=codes,
    )
    return Lock(
        plan="0" * 64,
        stage=stage,
        created="2026-11-22T15:35:00Z",
        resolution=resolution,
        image="envforge/torch:1.0.1",
        image_id="sha256:aa",
        python="/usr/bin/python2.7",
        base=BaseLock(
            image="b", image_id="sha256:bb", releases=(), packages_sha256="0", rootfs_sha256="0"
        ),
        files={},
        inputs={},
        packages=(),
        patches=(),
        database="0",
        verified=(),
    )


class FakeEngine:
    """An engine that has one image."""

    def image_id(self, ref):
        return "sha256:aa" if ref in ("envforge/torch:1.0.1", "sha256:aa") else None


def place(written, earlier=None, **request):
    if written:
        write_lock(Path("envforge.lock"), written)
    return _docker_place(RunRequest("toy", **request), earlier, FakeEngine(), ignore)


def test_the_lock_says_which_image_python_and_torch():
    found = place(lock_of(route="cpu"))
    assert (found.image, found.image_id) == ("envforge/torch:1.0.1", "sha256:aa")
    assert (found.python, found.torch, found.device) == ("/usr/bin/python2.7", "1.0.1", "cpu")


def test_an_image_the_lock_knows_needs_no_probe():
    for name in ("envforge/torch:1.0.1", "sha256:aa"):
        assert place(lock_of(), image=name, device="cpu").torch == "1.0.1"


def test_a_run_goes_on_in_the_image_it_has_been_in():
    earlier = RunRecord(
        id="x", recipe="toy", reference="toy", run_dir="/r", on="docker", image_id="sha256:aa"
    )
    assert place(lock_of(), earlier, device="cpu").image_id == "sha256:aa"
    gone = msgspec.structs.replace(earlier, image_id="sha256:cc")
    with pytest.raises(RunFailed, match="this engine does not have the image sha256:cc"):
        place(lock_of(), gone)
    assert place(lock_of(), gone, device="cpu", lock=Path("envforge.lock")).image_id == "sha256:aa"


@pytest.mark.parametrize(
    ("lock", "request_", "error", "message"),
    [
        (None, {}, DocumentError, "there is no envforge.lock"),
        (lock_of(), {"image": "debian"}, RunFailed, "this engine does not have the image debian"),
        (lock_of(stage="toolchain"), {}, UsageError, "is a toolchain: it has no torch yet"),
        (lock_of(route="cpu"), {"device": "gpu"}, HostMismatch, "the image is for the CPU"),
    ],
)
def test_an_image_that_cannot_train_is_refused(lock, request_, error, message):
    with pytest.raises(error, match=message):
        place(lock, **request_)


def test_an_image_whose_code_runs_on_no_card_of_the_machine_is_refused():
    k40, h200 = "10de:1024", "10de:2335"
    _refuse_cards([k40], lock_of())
    _refuse_cards([h200, k40], lock_of())
    _refuse_cards(["10de:ffff"], lock_of())
    _refuse_cards([h200], lock_of(codes=("compute_35",)))
    with pytest.raises(HostMismatch) as caught:
        _refuse_cards([h200], lock_of())
    assert caught.value.what == "envforge/torch:1.0.1 runs on no card of this machine"
    assert caught.value.because[1] == "the image carries sm_35"
    assert "compute capability 9.0" in caught.value.because[0]
