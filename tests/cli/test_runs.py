"""``envforge runs``, beside an envforge that is at work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from envforge.documents import to_json
from envforge.training.record import RunRecord

TOY = str(Path(__file__).parents[1] / "training" / "toy")
SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"
ENVFORGE = (sys.executable, "-m", "envforge")


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """A Python that has (what says it is) torch."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "torch").mkdir()
    text = "__version__ = '2.13.0'\nclass version: cuda = None\n"
    (folder / "torch" / "__init__.py").write_text(text)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def envforge(tmp_path):
    """Call envforge in ``tmp_path``; exit code, stdout, stderr."""

    def call(*words):
        answer = subprocess.run(
            [*ENVFORGE, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**os.environ, "NO_COLOR": "1"}, check=False,
        )  # fmt: skip
        return answer.returncode, answer.stdout, answer.stderr

    return call


@pytest.fixture
def at_work(tmp_path, python):
    """An envforge that trains the toy in ``runs/a`` for a long time."""
    command = [*ENVFORGE, "run", TOY, "--on", "local", "--interpreter", python]
    with subprocess.Popen(
        [*command, "--run-dir", "runs/a", "--set", "steps=100000", "--set", "delay=0.01"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        log = tmp_path / "runs" / "a" / "log.txt"
        deadline = time.monotonic() + 60
        while not (log.exists() and b"step: 12/" in log.read_bytes()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
        process.kill()


def check(name, text):
    schema = json.loads((SCHEMAS / f"{name}-1.json").read_text())
    document = json.loads(text)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def test_a_run_is_listed_followed_stopped_and_goes_on(envforge, at_work, tmp_path):
    code, out, _ = envforge("runs", "list")
    assert code == 0
    assert out.splitlines()[1].split()[:3] == ["runs/a", "toy", "running"] or "running," in out
    with subprocess.Popen(
        [*ENVFORGE, "runs", "follow", "runs/a"], cwd=tmp_path, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True,
    ) as following:  # fmt: skip
        line = following.stderr.readline()
        assert line.startswith("step ")
        assert "loss " in line
        code, out, err = envforge("runs", "stop", "runs/a")
        assert (code, err) == (0, "")
        assert out.startswith("cancelled at step ")
        assert at_work.wait(timeout=30) == 130
        _, err = following.communicate(timeout=30)
        assert following.returncode == 130
        assert "error: interrupted: toy was stopped at step " in err
    record = json.loads((tmp_path / "runs/a/run.json").read_text())
    assert record["attempts"][-1]["reason"] == "cancelled"
    code, _, err = envforge("runs", "stop", "runs/a")
    assert (code, err.splitlines()[0]) == (2, "error: usage: nobody is at work in runs/a")
    document = check("runs", envforge("runs", "list", "--json")[1])
    assert (document["runs"][0]["held"], document["runs"][0]["run"]["state"]) == (
        False, "CANCELLED"
    )  # fmt: skip


def test_a_second_envforge_in_the_same_directory_is_told_how_to_look_at_it(envforge, at_work):
    code, _, err = envforge("run", TOY, "--run-dir", "runs/a")
    assert code == 2
    assert "another envforge is at work in " in err
    assert "hint: look at it: envforge runs follow " in err


def test_a_stopped_run_is_resumed_as_it_was(envforge, python, tmp_path):
    words = ("run", TOY, "--on", "local", "--interpreter", python, "--run-dir", "runs/b")
    assert envforge(*words, "--set", "habit=killed")[0] == 9
    record = json.loads((tmp_path / "runs/b/run.json").read_text())
    record["settings"]["habit"] = "good"  # as if the cause had been mended
    (tmp_path / "runs/b/run.json").write_text(json.dumps(record))
    code, _, err = envforge("runs", "resume", "runs/b")
    assert code == 0, err
    record = json.loads((tmp_path / "runs/b/run.json").read_text())
    assert [each["reason"] for each in record["attempts"]] == ["crash", "finished"]
    assert record["attempts"][1]["first_iteration"] == 5


def test_a_profile_and_a_report_of_a_finished_run(envforge, python, tmp_path):
    words = ("run", TOY, "--on", "local", "--interpreter", python, "--run-dir", "runs/c")
    assert envforge(*words)[0] == 0
    page = tmp_path / "runs/c/report.html"
    page.unlink()
    code, out, _ = envforge("runs", "report", "runs/c")
    assert (code, out.strip()) == (0, str(page))
    assert page.stat().st_size > 1_000_000
    code, out, _ = envforge("runs", "profile", "runs/c")
    assert (code, out.splitlines()[0]) == (0, "too few samples to say")
    assert check("profile", envforge("runs", "profile", "runs/c", "--json")[1])["kind"] == "unknown"


@pytest.mark.parametrize("verb", ["follow", "stop", "resume", "profile", "report"])
def test_a_directory_without_a_run_is_said(envforge, verb):
    code, _, err = envforge("runs", verb, "nowhere")
    assert (code, err.splitlines()[0]) == (2, "error: usage: nowhere holds no run")


def test_a_run_that_was_never_begun_has_nothing_to_follow(envforge, tmp_path):
    record = RunRecord(id="1", recipe="canary", reference="canary", run_dir="runs/a", on="docker")
    (tmp_path / "run.json").write_text(to_json(record))
    code, _, err = envforge("runs", "follow", ".")
    assert (code, err.splitlines()) == (2, [
        "error: usage: the run in . was never begun",
        "hint: envforge runs resume .",
    ])  # fmt: skip


def test_no_runs_are_no_error(envforge):
    assert envforge("runs", "list")[:2] == (0, "no runs\n")


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        (b'{"schema": "envforge.run/1"', "truncated"),
        (b'{"name": "of another program"}', "required field"),
        (b"\xff\xfe", "utf-8"),
    ],
)
def test_a_run_that_cannot_be_read_is_told_and_the_others_listed(
    envforge, python, tmp_path, written, fault
):
    words = ("run", TOY, "--on", "local", "--interpreter", python, "--run-dir", "runs/c")
    assert envforge(*words)[0] == 0
    (tmp_path / "runs/d").mkdir()
    (tmp_path / "runs/d/run.json").write_bytes(written)
    code, out, err = envforge("runs", "list", "--json")
    assert code == 0
    assert [each["folder"] for each in check("runs", out)["runs"]] == ["runs/c"]
    (told,) = err.splitlines()
    assert told.startswith("!! ")
    assert "runs/d/run.json" in told
    assert fault in told
