"""Whatever stands in a document: it is read, or refused by a documented error that can be said.

``ENVFORGE_EXAMPLES`` as in test_random_options.py.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envforge import assets
from envforge.capability.load import DATA, read_table
from envforge.documents import parse_yaml, to_json
from envforge.errors import EnvforgeError
from envforge.image.lock import Lock, load_lock
from envforge.patching.series import PYTORCH, load_series
from envforge.recipes.load import read_recipe
from envforge.report.errors import error_json, error_text
from envforge.training.record import RunRecord, read_record

EXAMPLES = int(os.environ.get("ENVFORGE_EXAMPLES", "25"))
READ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SCALARS = ["1.10", "1e999", "null", "~", "true", "no", "0x1f", "-1", "9" * 400, "''", "[]", "{}",
           "&a", "*a", "!!python/object:os.system", "2024-01-01", ">=1,<2", "<<", "|", "{", "- -",
           "\t", "\0", "\ufeff", "\u2028"]  # fmt: skip
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@st.composite
def spoilt(draw: st.DrawFn, known: list[str]) -> str:
    """Take a good document and change a few pieces of it."""
    text = draw(st.sampled_from(known))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        taken = draw(st.sampled_from([0, 0, 1, 3, 12, 80]))
        put = draw(st.sampled_from(SCALARS) | st.text(max_size=6) | plain.map(str))
        text = text[:at] + put + text[at + taken :]
    return text


def documents_like(known: list[str]) -> st.SearchStrategy[str]:
    return st.one_of(spoilt(known), spoilt(known), plain.map(json.dumps), st.text())


def survives(read: Callable[[], object]) -> None:
    """Reading gives a document, or an error with a documented exit that can be said in words."""
    try:
        read()
    except EnvforgeError as error:
        assert error.exit_code in {2, 3, 4, 5, 8}, error
        assert error_text(error)
        assert json.loads(to_json(error_json(error)))


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("documents")


def some_rows(path: Path) -> list[str]:
    """Cut a file of the database into documents of a few rows: whole ones take long to read."""
    head, *rows = path.read_text(encoding="utf-8").split("\n- ")
    few = rows[:2] + rows[len(rows) // 2 :][:2] + rows[-2:]
    return ["\n- ".join([head, *few[at : at + 2]]) + "\n" for at in range(0, len(few), 2)]


TABLES = {path.name: some_rows(path) for path in sorted(DATA.glob("*.yaml"))}


@READ
@given(data=st.data(), name=st.sampled_from(sorted(TABLES)))
def test_any_table_of_the_database(folder: Path, data: st.DataObject, name: str) -> None:
    path = write(folder / name, data.draw(documents_like(TABLES[name])))
    survives(lambda: read_table(path))


def test_any_recipe(folder: Path) -> None:
    places = sorted(assets.RECIPES.glob("*/recipe.yaml"))
    known = [path.read_text(encoding="utf-8") for path in places]
    recipe = folder / "recipe"
    recipe.mkdir()

    @READ
    @given(documents_like(known))
    def read(text: str) -> None:
        write(recipe / "recipe.yaml", text)
        survives(lambda: read_recipe(recipe))

    read()


def test_any_patch_series(folder: Path) -> None:
    @READ
    @given(documents_like(some_rows(PYTORCH)))
    def read(text: str) -> None:
        path = write(folder / "series.yaml", text)
        survives(lambda: load_series(path))

    read()


@READ
@given(data=st.data())
def test_any_lock(folder: Path, data: st.DataObject) -> None:
    good = to_json(data.draw(st.builds(Lock)))
    path = write(folder / "envforge.lock", data.draw(documents_like([good])))
    survives(lambda: load_lock(path))


@READ
@given(data=st.data())
def test_any_record_of_a_run(folder: Path, data: st.DataObject) -> None:
    good = to_json(data.draw(st.builds(RunRecord)))
    write(folder / "run.json", data.draw(documents_like([good])))
    survives(lambda: read_record(folder))


@READ
@given(documents_like(["a: 1\nb: [1, 2]\n", "- {a: &x 1, b: *x}\n", "x: |\n  text\n"]))
def test_any_yaml(text: str) -> None:
    survives(lambda: parse_yaml(text, "any.yaml"))
