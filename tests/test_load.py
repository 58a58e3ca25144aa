"""The compiled form of the database: never stale, never torn, in the wheel from the start."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from envforge.capability import load as loading
from envforge.capability.database import Database
from envforge.capability.load import load
from envforge.capability.tables import DATA, compile_yaml
from envforge.errors import DocumentError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def database() -> Database:
    return compile_yaml()


def test_the_compiled_form_is_the_yaml(database, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second = load(), load()
    assert first == second == database
    assert [p.suffix for p in (tmp_path / "envforge").iterdir()] == [".msgpack"]


def test_a_changed_file_is_never_answered_from_an_old_compilation(tmp_path, monkeypatch):
    before = loading.content_hash()
    copy = tmp_path / "data"
    copy.mkdir()
    for path in DATA.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        (copy / path.name).write_text(text + "# one more line\n", encoding="utf-8")
    monkeypatch.setattr(loading, "_DATA", str(copy))
    assert loading.content_hash() != before


def test_a_torn_compiled_file_is_compiled_again(tmp_path, monkeypatch, database):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load()
    compiled = next((tmp_path / "envforge").iterdir())
    compiled.write_bytes(compiled.read_bytes()[:1000])
    assert load() == database


def test_what_few_questions_need_is_decoded_only_when_asked_for():
    program = (
        "import sys; from envforge.capability.load import load; database = load();"
        "print('envforge.capability.vendor' in sys.modules, end=' ');"
        "print(len(database.cudnn.builds))"
    )
    load()
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "False 105\n"


def test_a_damaged_file_of_a_wheel_is_named(tmp_path, monkeypatch, database):
    carried = tmp_path / loading.compiled_name("0123abcd")
    carried.write_bytes(msgspec.msgpack.encode(database))
    monkeypatch.setattr(loading, "_DATA", str(tmp_path))
    assert (load(), loading.content_hash()) == (database, "0123abcd")
    carried.write_bytes(carried.read_bytes()[:1000])
    with pytest.raises(DocumentError, match=r"database-0123abcd\.msgpack is damaged") as caught:
        load()
    assert caught.value.hint == "install envforge again"


@pytest.mark.slow
def test_a_wheel_carries_the_compiled_database_and_no_yaml_of_it(tmp_path):
    """Built as pip builds it, unpacked, its cache on a path that cannot be written."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), "."]
    subprocess.run(command, cwd=ROOT, check=True)
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(unpacked)
    data = unpacked / "envforge/capability/data"
    compiled = loading.compiled_name(loading.content_hash())
    assert sorted(path.name for path in data.iterdir()) == ["NOTICE", compiled]
    program = (
        "import sys; from envforge.capability import load; database = load.load();"
        "print(load.__file__, 'yaml' in sys.modules, len(database.devices), load.content_hash())"
    )
    environ = {"PYTHONPATH": str(unpacked), "XDG_CACHE_HOME": "/dev/null/cache"}
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environ,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    module = unpacked / "envforge/capability/load.py"
    assert answer.stdout == f"{module} False 1230 {loading.content_hash()}\n"
