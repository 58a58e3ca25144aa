"""The packages of real interpreters."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

import pytest
from fatbin_writer import elf, fatbin, sass

from envforge.binaries.errors import BinaryError
from envforge.binaries.interpreter import find_torch, is_interpreter, open_interpreter
from envforge.binaries.subject import read_source
from envforge.events import ignore

LIBRARY = elf((".nv_fatbin", fatbin(sass(35, "_Z1kv"))))


@pytest.fixture
def environment(tmp_path) -> Path:
    """A virtual environment with one library in it."""
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "_C.so").write_bytes(LIBRARY)
    return tmp_path / "venv"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *[(name, True) for name in ("python", "python3", "python3.11", "python3.13t", "pypy3.9")],
        *[
            (name, False)
            for name in ("python_magic.whl", "python.so", "libpython3.11.so", "pythonw")
        ],
    ],
)
def test_an_interpreter_is_told_by_its_name(tmp_path, name, expected):
    path = tmp_path / name
    assert not is_interpreter(path)
    path.touch(0o755)
    assert is_interpreter(path) == expected


def test_a_library_folder_is_no_interpreter(environment):
    (folder,) = environment.glob("lib/python*")
    assert not is_interpreter(folder)


def test_an_environments_python_means_its_own_packages(environment):
    source = open_interpreter(environment / "bin/python", ignore)
    assert source.path.endswith("site-packages")
    assert [Path(one.path).name for one in read_source(source).libraries] == ["_C.so"]


def test_a_module_in_the_current_directory_is_not_run(environment, monkeypatch, tmp_path):
    (tmp_path / "sysconfig.py").write_text("raise SystemExit('taken for the library')")
    monkeypatch.chdir(tmp_path)
    assert open_interpreter(Path("venv/bin/python"), ignore).path.endswith("site-packages")


def test_the_torch_of_an_editable_install_is_found(environment, tmp_path):
    (packages,) = environment.glob("lib/python*/site-packages")
    assert find_torch(environment / "bin/python") is None
    project = tmp_path / "pytorch"
    (project / "torch").mkdir(parents=True)
    (project / "torch" / "__init__.py").touch()
    (packages / "torch.pth").write_text(f"{project}\n")
    assert find_torch(environment / "bin/python") == project / "torch"


def test_condas_python_means_the_whole_environment(tmp_path):
    for folder in ("bin", "conda-meta", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lib" / "libmagma.so").write_bytes(LIBRARY)
    python = tmp_path / "bin" / "python"
    python.symlink_to(sys.executable)
    source = open_interpreter(python, ignore)
    assert source.path == str(tmp_path)
    assert len(read_source(source).libraries) == 1


def test_what_does_not_answer_as_a_python_is_refused(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    with pytest.raises(BinaryError, match="does not answer as a Python"):
        open_interpreter(python, ignore)
