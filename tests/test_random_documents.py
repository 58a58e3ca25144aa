"""Whatever stands in a document: it is read, or refused by a documented error that can be said.

``ENVFORGE_EXAMPLES`` as in test_random_options.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envforge
from envforge import assets
from envforge.binaries.editable import editable_roots
from envforge.capability.tables import DATA, read_table
from envforge.documents import parse_yaml, to_json
from envforge.errors import EnvforgeError
from envforge.events import ignore
from envforge.image.lock import load_lock
from envforge.matrix import load_matrix
from envforge.patching.series import PYTORCH, load_series
from envforge.recipes import asset, stage
from envforge.recipes.document import Override
from envforge.recipes.load import read_recipe
from envforge.recipes.packages import load_pins
from envforge.recipes.stage import Checkout
from envforge.recipes.value import check_old_values
from envforge.report.errors import error_json, error_text
from envforge.run.staged import STAGE, Inputs, Staged, read_staged
from envforge.sources import apt, archive
from envforge.sources.mirror import Answer, Manifest, Mirror, Row, read_journal
from envforge.sources.recording import open_recording
from envforge.training.messages import TABLE, load_messages
from envforge.training.record import RunRecord, read_record
from envforge.training.remembered import NAME as REMEMBERED
from envforge.training.remembered import recall
from envforge.training.series import read_series

EXAMPLES = int(os.environ.get("ENVFORGE_EXAMPLES", "25"))
READ = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
SCALARS = ["1.10", "1e999", "null", "~", "true", "no", "0x1f", "-1", "9" * 400, "''", "[]", "{}",
           "&a", "*a", "!!python/object:os.system", "2024-01-01", ">=1,<2", "<<", "|", "{", "- -",
           "\t", "\0", "\ufeff", "\u2028", "[" * 5000, "{a: " * 999, "2024-13-45", "\udcff"]  # fmt: skip
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
    """Cut a document down to the ends of its lists: a whole one takes long to read."""
    return [yaml.safe_dump(_ends(parse_yaml(path.read_text(encoding="utf-8"), path.name)))]


def _ends(value: Any) -> Any:
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return [_ends(each) for each in value[:1] + value[1:][-1:]]
    return {key: _ends(each) for key, each in value.items()} if isinstance(value, dict) else value


class Document(NamedTuple):
    """A kind of file that envforge reads, and did not write in this very call."""

    name: str
    known: list[str]
    read: Callable[[Path], object]
    """Given the path of the file."""
    modules: str
    """Those that read it."""
    beside: Path | None = None
    """A folder whose files lie beside it."""


SHA = "ab" * 32
LOCKED = Path(__file__).parents[1] / "docs/verification/2026-11-22-torch-1.13.1-sm35/envforge.lock"
RUN = RunRecord(id="1", recipe="canary", reference="canary", run_dir="runs/one", on="docker")
CHECKOUT = Checkout(path="p", upstream="u", commit="c", origin="o", verified=True, patches=(),
                    files_sha256=SHA)  # fmt: skip
MANIFEST = Manifest(kind="recipe", name="canary", title="t", created="c", envforge="0", inputs={})
FOUND = archive.FoundArchive("http://a.example", ())
ANSWER = Answer(sha256=SHA, size_bytes=7)
YAML_OLD = Override(form="yaml", key="a.b", file="old.yaml", upstream="1e-3", value="1", why="w")
YACS_OLD = Override(form="yacs", key="SOLVER.LR", file="none.yaml", otherwise="old.py",
                    upstream="0.1", value="1", why="w")  # fmt: skip
ARGS_OLD = Override(form="argparse", key="--lr", file="old.txt", upstream="0.1", value="1", why="w")
RELEASE = (
    "Origin: Debian\nCodename: bookworm\nDate: Sat, 06 Sep 2025 10:00:00 UTC\nValid-Until: x\n"
)
DEB822 = "Types: deb\nURIs: http://a.example/debian\nSuites: sid\nComponents: main\n"
DIRECT = '{"url": "file:///srv/a%20b", "dir_info": {"editable": true}}'
PINS = sorted(assets.RECIPES.glob("*/packages/*.yaml"))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _json(*values: object) -> list[str]:
    return [to_json(value) for value in values]


def _old_value(override: Override) -> Callable[[Path], object]:
    def reading(path: Path) -> object:
        (path.parent / "none.yaml").write_text("{}")
        return check_old_values((override,), path.parent)

    return reading


def _absent_or(read: Callable[[Path], object]) -> Callable[[Path], object]:
    def reading(path: Path) -> object:
        with contextlib.suppress(archive._Absent):  # find_archive makes one error of them all
            return read(path)
        return None

    return reading


DOCUMENTS = [
    Document(f"data/{path.name}", some_rows(path), read_table, "capability.tables")
    for path in sorted(DATA.glob("*.yaml"))
] + [
    *(Document(f"{path.parent.name}/recipe.yaml", [_text(path)],
               lambda path: read_recipe(path.parent), "recipes.load", beside=path.parent)
      for path in sorted(assets.RECIPES.glob("*-train/recipe.yaml"))),
    Document("packages.yaml", [row for path in PINS for row in some_rows(path)], load_pins,
             "recipes.packages"),
    Document("series.yaml", some_rows(PYTORCH), load_series, "patching.series"),
    Document("fleet.yaml", ['builds:\n  k40: {gpu: Tesla K40, torch: "1.13.1", ptx: true}\n'],
             load_matrix, "matrix"),
    Document("messages.yaml", some_rows(TABLE), load_messages.__wrapped__, "training.messages"),
    Document("any.yaml", ["a: 1\nb: [1, 2]\n", "- {a: &x 1, b: *x}\n", "x: |\n  text\n"],
             lambda path: parse_yaml(path.read_text(encoding="utf-8", errors="replace"), "any.yaml"),
             "documents"),
    Document("envforge.lock", [_text(LOCKED)], load_lock, "image.lock"),
    Document("run.json", _json(RUN), lambda path: read_record(path.parent), "training.record"),
    Document(STAGE, _json(Staged(inputs=Inputs()), Staged(inputs=Inputs(), checkout=CHECKOUT)),
             lambda path: read_staged(path.parent), "run.staged"),
    Document("series.jsonl", ["\n".join(map(json.dumps, [{"at": 1.5, "attempt": 0}] * 3))],
             lambda path: list(read_series(path)), "training.series"),
    Document(REMEMBERED, ['{"settings": {"canary on H200": {"batch": 1}}}'],
             lambda path: recall("canary", "H200", path.parent), "training.remembered"),
    Document("assets.json", [json.dumps({"https://a.example/a.pth": SHA})],
             asset.recorded, "recipes.asset"),
    Document("plans/canary.json", _json(MANIFEST, MANIFEST.sealed()),
             lambda path: Mirror(path.parent.parent).find("plan", "canary"), "sources.mirror"),
    Document("recordings/journal", ["".join(_json(Row("dists/sid/Release", ANSWER)) * 2)],
             read_journal, "sources.mirror"),
    Document("recordings/state.json", ['{"mark": "ab", "address": "http://a.example", "releases": {}}'],
             lambda path: open_recording(path.parent, FOUND), "sources.recording"),
    Document("checkout/staged.json", _json(CHECKOUT),
             lambda path: stage._reused(path.with_suffix(""), ignore), "recipes.stage"),
    Document("old.yaml", ["a:\n  b: 1e-3\n"], _old_value(YAML_OLD), "recipes.value"),
    Document("old.py", ["_C.SOLVER.LR = 0.1\n"], _old_value(YACS_OLD), "recipes.value"),
    Document("old.txt", ["p.add_argument('--lr', default=0.1)\n"], _old_value(ARGS_OLD),
             "recipes.value"),
    Document("etc/os-release", ["ID=debian\nVERSION_ID='12'\n"],
             lambda path: apt.load_os_release(path.parent.parent), "sources.apt"),
    Document("etc/apt/sources.list", ["deb [arch=amd64] http://a.example/debian sid main # x\n"],
             lambda path: apt.load_sources(path.parent.parent.parent), "sources.apt"),
    Document("etc/apt/sources.list.d/a.sources", [DEB822],
             lambda path: apt.load_sources(path.parents[3]), "sources.apt"),
    Document("Release", [RELEASE],
             _absent_or(lambda path: archive.parse_release(path.read_bytes(), "sid")),
             "sources.archive"),
    Document("lib/python3/site-packages/a.dist-info/direct_url.json", [DIRECT],
             lambda path: editable_roots(path.parents[1]), "binaries.editable"),
]  # fmt: skip

ANSWERS = {
    "binaries.interpreter": "the path of the Python that was asked",
    "capability.database": "the compiled database, found by the hash of its YAML",
    "capability.load": "the same, or what a wheel carries: test_load damages both",
    "capability.ptx": "the same",
    "hardware.nvml": "test_random_machines and test_driver_layers",
    "hardware.usage": "of a child of ours",
    "image.bootstrap": "the labels of a base that carries ours",
    "image.dialect": "the Dockerfile that was rendered",
    "image.engine.container": "UTF-8, not a document",
    "image.engine.podman_builder": "podman's own words",
    "image.verify": "of our program in a container",
    "patching.edit": "the edits that were rendered",
    "recipes.dataset": "of a recipe's own check",
    "recipes.faults": "a value of recipe.yaml",
    "recipes.schema": "what was just made",
    "run.survey": "of our program",
    "training.checkpoint_program": "its own arguments",
    "training.checkpoints": "of our program",
    "training.failures": "the result a training wrote: test_failures",
    "training.probe": "of our program",
    "training.survey_program": "its own arguments",
    "verify": "of our program",
}
"""Modules that parse what is no document of a user's: what it is instead."""
PARSING = re.compile(
    r"parse_yaml\(|load_yaml\(|load_json\(|json\.decode\(|json\.loads?\(|Decoder\(|msgpack\.decode|yaml\.compose"
    r"|msgspec\.convert\("
)


def test_every_module_that_reads_documents_is_known() -> None:
    package = Path(envforge.__file__).parent
    reading = {
        ".".join(path.relative_to(package).with_suffix("").parts)
        for path in package.rglob("*.py")
        if PARSING.search(path.read_text(encoding="utf-8"))
    }
    text_only = {"sources.apt", "sources.archive"}
    assert reading | text_only == {each.modules for each in DOCUMENTS} | set(ANSWERS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_any_document(folder: Path, document: Document) -> None:
    path = folder / document.name.replace("/", "-") / document.name
    path.parent.mkdir(parents=True, exist_ok=True)
    if document.beside:
        shutil.copytree(document.beside, path.parent, dirs_exist_ok=True)
    write(path, document.known[-1])
    document.read(path)

    @READ
    @given(documents_like(document.known))
    def read(text: str) -> None:
        write(path, text)
        survives(lambda: document.read(path))

    read()
