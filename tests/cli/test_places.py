"""Places that cannot be written, and disks that are full: said as what they are, never as a bug."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import jsonschema
import pytest

from envforge import cli
from envforge.hardware.room import find_full, room_at

CLOSED = "/sys/envforge"
"""A file system in which nobody may make a directory, root neither."""
PLAN = ("build", "--gpu", "gtx780", "--torch", "1.0.1", "--dry-run")
SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/error-1.json").read_text())


def call(capsys, *arguments):
    code = cli.main(list(arguments))
    return code, *capsys.readouterr()


@pytest.mark.parametrize(
    "words",
    [
        (*PLAN, "-o", f"{CLOSED}/context"),
        ("build", *PLAN[1:5], "--backend", "shell", "-o", f"{CLOSED}/context"),
        ("mirror", "create", f"{CLOSED}/mirror", *PLAN[1:5]),
    ],
)
def test_a_place_that_cannot_be_written_is_named(capsys, words):
    code, _, err = call(capsys, *words)
    assert code == 2
    assert f"error: usage: {CLOSED}" in err
    assert "hint: other places" in err


def test_a_cache_that_cannot_be_written_is_named(capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", CLOSED)
    code, _, err = call(capsys, *PLAN)
    assert code == 2
    assert CLOSED in err
    assert "XDG_CACHE_HOME" in err


@pytest.mark.parametrize("option", ["-o", "--wheel"])
def test_a_file_where_a_folder_is_to_be_is_a_wrong_option(capsys, tmp_path, option):
    (tmp_path / "file").write_text("kept")
    code, _, err = call(capsys, *PLAN, option, str(tmp_path / "file"))
    assert code == 2
    assert option in err
    assert (tmp_path / "file").read_text() == "kept"


def test_a_directory_is_no_lock(capsys, tmp_path):
    code, _, err = call(capsys, *PLAN, "--lock", str(tmp_path))
    assert code == 2
    assert "'--lock'" in err


@pytest.mark.engine
@pytest.mark.parametrize(
    "option", [("--lock", f"{CLOSED}/envforge.lock"), ("--wheel", f"{CLOSED}/wheels")]
)
def test_a_lock_that_cannot_be_written_ends_a_build_before_it_begins(
    engine, capsys, monkeypatch, tmp_path, option
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    code, _, err = call(capsys, *PLAN[:-1], *option)
    assert code == 2
    assert f"error: usage: nothing can be written into {CLOSED}" in err
    assert "->" not in err, "no step was begun"


def test_a_bug_is_told_where_no_log_can_be_written(capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", CLOSED)

    def broken(_name):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("importlib.import_module", broken)
    code, _, err = call(capsys, "check")
    assert code == 1
    assert "this is a bug in envforge: RuntimeError: unforeseen" in err
    assert "Traceback" in err
    assert "please report it" in err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_though_the_write_knew_no_path(capsys, monkeypatch, number):
    def full(_name):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("importlib.import_module", full)
    monkeypatch.setattr(tempfile, "tempdir", "/proc")  # a file system without room, as root's, too
    code, _, err = call(capsys, "check")
    assert code == 7
    assert "error: disk-full" in err
    assert "/proc: 0 MiB free" in err


def test_a_full_disk_that_an_option_names_is_told(capsys, monkeypatch):
    def full(_name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("importlib.import_module", full)
    code, _, err = call(capsys, "mirror", "create", "/proc/mirror")
    assert code == 7
    assert "/proc: 0 MiB free" in err


def test_the_room_of_a_place_that_is_not_there_yet_is_its_parents(tmp_path):
    seen = os.statvfs(tmp_path)
    room = room_at(tmp_path / "not" / "yet")
    assert room.place == tmp_path
    assert abs(room.free_bytes - seen.f_bavail * seen.f_frsize) < 2**30
    assert not find_full([tmp_path, tmp_path / "again"])
    assert [room.place for room in find_full([Path("/proc"), Path("/proc/self")])] == [
        Path("/proc")
    ]


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b"])
def test_no_name_is_too_odd_to_be_asked_for_its_room(name):
    assert room_at(Path(name)).place == Path.cwd()


@pytest.mark.parametrize(
    "words",
    [
        ("build", "--bogus"),
        ("build", "--route", "nope"),
        ("nope",),
        ("mirror", "verify", __file__),
        ("build", "--matrix", "there-is-none.yaml"),
    ],
)
def test_a_wrong_option_is_a_json_document_too(capsys, words):
    code, out, err = call(capsys, *words, "--json")
    assert code == 2
    document = json.loads(out)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["error"]["code"] == "usage"
    assert document["error"]["message"] in err
