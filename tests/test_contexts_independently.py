"""Every rendered context against the data files, by a reader that shares no code with the renderer.

The contexts come from a program of their own (``plan_contexts.py``); ``context_reader.py`` reads
and judges them. ``cases/mutations.yaml`` proves that it can find something: each of its rows spoils
one thing in a context, and must be found.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest
from context_expectations import SOURCES, WHEELS, compare, read, within
from context_reader import faults

HERE = Path(__file__).parent
ROOT = HERE.parent
MUTATIONS = {row["name"]: row for row in read("tests/cases/mutations.yaml")["mutations"]}
TOOLS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A folder of every context, as another process has rendered them."""
    folder = tmp_path_factory.mktemp("contexts")
    command = [sys.executable, HERE / "plan_contexts.py", folder]
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def contexts(rendered):
    """Name of a plan -> file -> text."""
    return {
        name: {p.name: p.read_text("utf-8") for p in (rendered / name).iterdir() if p.is_file()}
        for name in (*SOURCES, *WHEELS)
    }


def test_the_reader_imports_nothing_of_envforge():
    own = ("context_expectations.py", "context_reader.py", "dockerfile_reader.py")
    for path in (Path(__file__), *(HERE / name for name in own)):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = [a.name for n in nodes if isinstance(n, ast.Import) for a in n.names]
        imported += [str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)]
        assert [name for name in imported if name.startswith(("envforge", "plan_"))] == []


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_context_says_what_the_data_say(name, contexts):
    assert faults(name, contexts[name]) == []


@pytest.mark.parametrize("name", WHEELS)
def test_a_wheel_context_says_what_the_data_say(name, contexts):
    assert faults(name, contexts[name]) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_is_spoilt_in_a_context_is_found(name, contexts):
    spoil = MUTATIONS[name]
    files = dict(contexts[spoil["of"]])
    before = files[spoil["file"]]
    files[spoil["file"]] = re.sub(spoil["find"], spoil["replace"], before, count=1)
    assert files[spoil["file"]] != before, "the mutation changes nothing"
    found = faults(spoil["of"], files)
    assert [fault for fault in found if spoil["fault"] in fault], found


def test_ranges_are_read_as_they_are_written():
    assert within("9.4.0", "<10")
    assert within("10.2.89", ">=10.2,<10.3")
    assert not within("10.2.89", "<=10.2")
    assert not within("1.10.2", ">=1.0,<1.1")
    assert not within(None, "<3.5")
    assert compare("12.2.0", "12.2") == 0


# What other people's linters say; .hadolint.yaml has the rules that do not hold here, with reasons.


def hadolint(*files: Path) -> list[dict]:
    command = [TOOLS / "hadolint", "--config", ROOT / ".hadolint.yaml", "--format", "json", *files]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_hadolint_finds_nothing_in_any_context(rendered):
    files = [rendered / name / "Dockerfile" for name in (*SOURCES, *WHEELS)]
    files.append(ROOT / "Dockerfile.base")
    with (
        ThreadPoolExecutor() as pool
    ):  # it reads one file after the other, a tenth of a second each
        found = pool.map(lambda chunk: hadolint(*chunk), (files[0::2], files[1::2]))
    assert list(chain(*found)) == []


def test_hadolint_reads_the_shell_of_a_step_too(rendered, tmp_path):
    spoilt = tmp_path / "Dockerfile"
    shutil.copy(rendered / SOURCES[0] / "Dockerfile", spoilt)
    with spoilt.open("a", encoding="utf-8") as file:
        file.write("RUN cd /src; rm $(ls)\n")
    assert {"SC2046", "DL3003"} <= {fault["code"] for fault in hadolint(spoilt)}


def scripts() -> list[Path]:
    """Every file of the repository that a shell runs, by its first line."""
    places = (ROOT / "scripts", ROOT / ".ci", ROOT / "tests", ROOT / "recipes", ROOT / "templates")
    files = (path for place in places for path in place.rglob("*") if path.is_file())
    return sorted(path for path in files if re.match(rb"#!.*\b(ba|da)?sh\b", first_line(path)))


def first_line(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.readline(80)


def test_shellcheck_finds_nothing_in_any_script():
    found = scripts()
    assert ROOT / "scripts/start" in found
    ended = subprocess.run(
        [TOOLS / "shellcheck", *found], capture_output=True, text=True, check=False
    )
    assert ended.stdout == ""
