"""The layers are enforced: a module that imports from above is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def house(tmp_path):
    """A copy of the package and its contracts."""
    shutil.copytree(
        ROOT / "envforge", tmp_path / "envforge", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder):
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_house_keeps_its_layers(house):
    answer = lint(house)
    assert answer.returncode == 0, answer.stdout


def test_an_import_from_above_breaks_the_gate(house):
    path = house / "envforge/capability/lookup.py"
    path.write_text(path.read_text() + "\nfrom envforge.report import sentences  # noqa\n")
    answer = lint(house)
    assert answer.returncode == 1
    assert "envforge.capability is not allowed to import envforge.report" in answer.stdout


def test_a_module_without_a_layer_breaks_the_gate(house):
    (house / "envforge/utils.py").write_text('"""Nobody said where this belongs."""\n')
    answer = lint(house)
    assert answer.returncode == 1
    assert "envforge.utils" in answer.stdout


def test_a_socket_in_the_decision_core_breaks_the_gate(house):
    path = house / "envforge/resolver/rules.py"
    path.write_text(path.read_text() + "\nimport socket  # noqa\n")
    answer = lint(house)
    assert answer.returncode == 1
    assert "envforge.resolver is not allowed to import socket" in answer.stdout
