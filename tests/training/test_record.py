from __future__ import annotations

import json
import subprocess
import sys

import pytest

from envforge.documents import to_json
from envforge.errors import DocumentError, UsageError
from envforge.recipes.document import Meaning
from envforge.training import Attempt, RunRecord, close_left_open, new_id, open_folder
from envforge.training.job import Reason
from envforge.training.record import read_record


def record_of(path, **changes):
    values = {
        "id": new_id(),
        "recipe": "toy",
        "reference": "toy",
        "run_dir": str(path),
        "on": "local",
        **changes,
    }
    return RunRecord(**values)


def test_a_directory_in_which_no_run_was_begun_is_left_as_it_was(tmp_path):
    with pytest.raises(RuntimeError), open_folder(tmp_path / "runs" / "new"):
        raise RuntimeError
    assert not (tmp_path / "runs" / "new").exists()
    (tmp_path / "empty").mkdir()
    with open_folder(tmp_path / "empty"):
        pass
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record = record_of(
        tmp_path, attempts=(Attempt(started="2026-11-22T15:35:00Z", reason="crash"),)
    )
    with open_folder(tmp_path / "run") as folder:
        assert folder.record is None
        folder.write(record)
    with open_folder(tmp_path / "run") as folder:
        assert folder.record == record


def test_a_field_of_a_newer_envforge_is_no_fault(tmp_path):
    document = json.loads(to_json(record_of(tmp_path)))
    (tmp_path / "run.json").write_text(json.dumps({**document, "mood": "good"}))
    assert read_record(tmp_path) is not None


def test_a_second_envforge_is_refused_and_told_who_works_there(tmp_path):
    with open_folder(tmp_path / "run") as folder:
        attempt = Attempt(started="2026-11-22T15:35:00Z", supervisor="host:42")
        folder.write(record_of(tmp_path, attempts=(attempt,)))
        with pytest.raises(UsageError) as caught, open_folder(tmp_path / "run"):
            pass
    assert caught.value.what == f"another envforge is at work in {tmp_path / 'run'}"
    assert caught.value.because == ("its supervisor is host:42, started 2026-11-22T15:35:00Z",)


def test_the_lock_of_a_killed_envforge_is_free(tmp_path):
    text = (
        "import os, pathlib, sys\n"
        "from envforge.training import open_folder\n"
        "with open_folder(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", text, str(tmp_path / "run")], check=False)
    assert (tmp_path / "run" / ".run.lock").exists()
    with open_folder(tmp_path / "run") as folder:
        folder.write(record_of(tmp_path))


def test_a_write_that_a_kill_broke_off_is_swept_away(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.write(record_of(tmp_path))
    (tmp_path / ".run.json.x8f").write_text('{"schema": "envf')
    with open_folder(tmp_path) as folder:
        assert folder.record is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == [".run.lock", "run.json"]


def test_a_directory_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError) as caught, open_folder(tmp_path):
        pass
    assert caught.value.because == ("it holds thesis.tex and no run.json",)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_directory_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot make the run directory"):
        open_folder(tmp_path / "file" / "run").__enter__()


@pytest.mark.parametrize("text", ["", '{"schema": "envforge.run/1"', '{"schema": "other/1"}', "[]"])
def test_a_torn_or_foreign_record_is_a_bad_document(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(DocumentError), open_folder(tmp_path):
        pass
    with pytest.raises(DocumentError), open_folder(tmp_path):  # and the lock is free again
        pass


def test_an_attempt_that_a_kill_left_open_is_closed_at_the_logs_last_sign(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step-000005.txt").write_text("5")
    attempt = Attempt(started="2026-11-22T15:35:00Z", last_iteration=7)
    with open_folder(tmp_path / "run") as folder:
        record = record_of(tmp_path, state="RUNNING", attempts=(attempt,))
        folder.write(record)
        closed = close_left_open(folder, record, "checkpoints/*")
        assert (closed.state, closed.last.reason) == ("FAILED", "crash")
        assert closed.last.ended == "2026-11-22T15:35:00Z"
        assert closed.last.because == ("envforge itself was killed during this attempt",)
        (folder.path / "log.txt").write_text("x")
        (folder.path / "checkpoints").mkdir()
        (folder.path / "checkpoints" / "step-000005.txt").write_text("5")
        closed = close_left_open(folder, record, "checkpoints/*")
        assert closed.last.checkpoint == "checkpoints/step-000005.txt"
        assert close_left_open(folder, closed, "checkpoints/*") is closed


def test_what_a_recipe_may_call_an_exit_code_is_a_reason_of_the_record():
    assert set(Meaning.__args__) <= set(Reason.__args__)
