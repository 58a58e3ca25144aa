"""A recipe with an upstream, from its request to the moment before it starts; no torch is needed."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from envforge.errors import BuildFailed, HostMismatch, UsageError
from envforge.recipes import load_recipe
from envforge.recipes.document import CheckpointRule, Extension
from envforge.report.staging import staged_text
from envforge.run import RunRequest, require_success, run
from envforge.run.extension import Compilation, compile_extension
from envforge.run.place import Place
from envforge.run.preflight import refuse_small_disk, refuse_too_few_files
from envforge.run.staged import Card, Inputs, Staged, inputs_of, read_staged
from envforge.training.errand import Errand
from envforge.training.local import LocalExecutor

RECIPE = r"""
schema: envforge.recipe/1
name: mine
summary: a recipe
files: files
upstream: {name: theirs, url: 'https://localhost:1/theirs', licence: none}
variants:
  one:
    commit: COMMIT
    date: "2019-11-21"
    torch: ">=1.0,<3"
    why: a test
    source: a test
    evidence: measured
    modules: [needed]
    imports: [own]
    environment: { PYTHONPATH: "{checkout}", GREETING: hello }
    command: ["{python}", "{checkout}/train.py", "{run_dir}", "{data}", "{overrides}", "{on_device}", "{resume}"]
    on_device: { cpu: [--on-cpu], cuda: [--on-card] }
    extension: { command: ["{python}", build.py], environment: { ARCH: "{arch_list}" }, product: "built*.so" }
    overrides:
      - { form: argparse, key: --size, file: train.py, upstream: 4, value: "{size}", why: a test }
datasets:
  words:
    help: a file of words
    check: ["{python}", "{recipe}/words.py", "{data}"]
    layout: [words.txt]
parameters: { size: { kind: integer, default: 4, help: x } }
links: { data/words: "{data}/words.txt" }
log: { progress: 'step (?P<step>\d+)' }
success: { line: '^done', file: result.txt }
shm_size_mib: 64
"""
TRAIN = """
import argparse, os, sys
parser = argparse.ArgumentParser()
parser.add_argument('run_dir')
parser.add_argument('data')
parser.add_argument('--size', type=int, default=4)
parser.add_argument('--on-cpu', action='store_true')
options = parser.parse_args()
import own
words = open('data/words').read().split()
print('step %d' % len(words))
print(os.environ['GREETING'], options.size, options.on_cpu, os.environ['CUDA_VISIBLE_DEVICES'] == '')
open(options.run_dir + '/result.txt', 'w').write('x')
print('done')
"""
WORDS = """
import json, sys
words = open(sys.argv[1] + '/words.txt').read().split()
print('data: ' + json.dumps({'items': len(words)}))
"""


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture
def python(tmp_path):
    """A Python that has (what says it is) torch, and a package that upstream needs."""
    site = tmp_path / "site"
    (site / "torch").mkdir(parents=True)
    (site / "torch/__init__.py").write_text(
        "__version__ = '1.0.1'\n"
        "class version: cuda = None\n"
        "class cuda:\n    is_available = staticmethod(lambda: False)\n"
    )
    (site / "needed.py").write_text("")
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={site}:$PYTHONPATH exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def recipe(tmp_path):
    upstream = tmp_path / "theirs"
    upstream.mkdir()
    (upstream / "train.py").write_text(TRAIN)
    (upstream / "own.py").write_text("")
    (upstream / "build.py").write_text(
        "import os\nassert 'ARCH' not in os.environ\nopen('built.so', 'w')\n"
    )
    signed = ["-c", "user.name=n", "-c", "user.email=n@invalid"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *signed, *words], cwd=upstream, check=True)
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=upstream, capture_output=True, text=True, check=True).stdout
    (tmp_path / "mine/files").mkdir(parents=True)
    (tmp_path / "mine/files/words.py").write_text(WORDS)
    (tmp_path / "mine/recipe.yaml").write_text(RECIPE.replace("COMMIT", commit.strip()))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/words.txt").write_text("a b c")
    return tmp_path / "mine"


def request(recipe, python, **changes):
    folder = recipe.parent
    known = {"upstream": folder / "theirs", "data": folder / "data", "run_dir": Path("run")}
    return RunRequest(f"{recipe}", on="local", interpreter=str(python), **{**known, **changes})


def test_everything_is_prepared_and_trained_and_on_record(recipe, python):
    told = []
    record = run(
        request(recipe, python, settings={"size": "7"}), lambda _event: None, on_staged=told.append
    )
    require_success(record)
    assert "hello 7 True True" in Path("run/log.txt").read_text()
    assert (record.last.last_iteration, record.settings["variant"]) == (3, "one")
    staged = read_staged(Path("run"))
    assert staged == told[0]
    assert (staged.variant, staged.torch, staged.examples.items) == ("one", "1.0.1", 3)
    assert [(row.setting, row.upstream, row.ours, row.why) for row in staged.differences] == [
        ("--size", "4", "7", "asked for")
    ]
    assert (Path(staged.checkout.path) / "built.so").is_file()
    text = staged_text(staged)
    assert f"upstream  https://localhost:1/theirs at {staged.checkout.commit[:12]}, from " in text
    assert "examples  words: " in text
    assert text.endswith("  --size   4         7     asked for")


def test_a_run_that_goes_on_has_its_data_and_upstream_from_the_time_before(recipe, python):
    run(request(recipe, python), lambda _event: None)
    again = RunRequest(f"{recipe}", run_dir=Path("run"), settings={"size": "5"})
    record = run(again, lambda _event: None)
    require_success(record)
    assert [(each.setting, each.before, each.after) for each in record.last.changes] == [
        ("size", 4, 5)
    ]


def test_a_missing_package_that_is_pinned_nowhere_is_named(recipe, python, tmp_path):
    (tmp_path / "site/needed.py").unlink()
    with pytest.raises(HostMismatch) as caught:
        run(request(recipe, python), lambda _event: None)
    assert caught.value.what == "the interpreter lacks what upstream imports"
    assert caught.value.because == ("needed: ModuleNotFoundError: No module named 'needed'",)


def test_a_module_of_the_same_name_that_comes_first_is_found(recipe, python, tmp_path):
    (tmp_path / "site/own.py").write_text("")
    (tmp_path / "site/sitecustomize.py").write_text("import own")
    with pytest.raises(HostMismatch) as caught:
        run(request(recipe, python), lambda _event: None)
    assert caught.value.because == (f"own: resolves to {tmp_path}/site/own.py",)


@pytest.mark.parametrize(
    ("program", "what"),
    [
        ("raise SystemExit('no compiler')", "upstream's extension does not compile"),
        ("pass", "upstream's extension was not built"),
    ],
)
def test_an_extension_that_is_not_there_afterwards_is_found(recipe, python, program, what):
    (recipe.parent / "theirs/.git").rename(recipe.parent / "history")
    (recipe.parent / "theirs/build.py").write_text(program)
    with pytest.raises(BuildFailed) as caught:
        run(request(recipe, python), lambda _event: None)
    assert caught.value.what == what
    assert not Path("run").exists()


def test_what_the_user_has_on_pythonpath_is_seen_behind_upstreams_own(
    recipe, python, tmp_path, monkeypatch
):
    (tmp_path / "users").mkdir()
    (tmp_path / "site/needed.py").rename(tmp_path / "users/needed.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "users"))
    require_success(run(request(recipe, python), lambda _event: None))


def test_gpu_where_torch_sees_no_card_is_refused(recipe, python):
    with pytest.raises(HostMismatch) as caught:
        run(request(recipe, python, device="gpu"), lambda _event: None)
    assert caught.value.what == "no card can compute"


def test_a_rehearsal_without_a_card_says_that_nothing_is_capped(recipe, python):
    events = []
    run(request(recipe, python, vram_mib=2048), events.append)
    warnings = [event.text for event in events if event.kind == "warning"]
    assert warnings == ["no card: nothing is capped, the values are a card's"]


def test_torch_and_interpreter_contradict_each_other(recipe, python):
    with pytest.raises(UsageError, match="--torch makes an interpreter"):
        run(request(recipe, python, torch="1.0.1"), lambda _event: None)


def test_what_is_given_now_replaces_what_was_given_before():
    asked = RunRequest("x", data=Path("/new"))
    old = Staged(inputs=Inputs(demo=True, upstream="/u", assets={"a": "/a"}, vram_mib=4096))
    now = inputs_of(asked, old, None)
    assert now == Inputs(data="/new", upstream="/u", assets={"a": "/a"}, vram_mib=4096)
    assert inputs_of(RunRequest("x", demo=True), Staged(inputs=now), None).data is None
    taken = Staged(inputs=Inputs(data="/d", vram_mib=1024, upstream="/u"))
    assert inputs_of(RunRequest("x"), None, taken) == Inputs(data="/d", upstream="/u")


def test_a_disk_that_is_too_small_for_the_checkpoints_is_said_before(tmp_path):

    recipe = load_recipe("pix2pix-train").recipe
    rule = CheckpointRule(parts=("{number}",), unit="step", size_mib=10**9, every="save_every")
    refuse_small_disk(recipe, tmp_path)
    with pytest.raises(HostMismatch) as caught:
        refuse_small_disk(msgspec.structs.replace(recipe, checkpoint=rule), tmp_path)
    assert "5000000000 MiB are needed" in caught.value.because[0]


def test_a_limit_of_open_files_that_cannot_be_raised_is_said_before():

    recipe = load_recipe("pix2pix-train").recipe
    refuse_too_few_files(recipe, "local")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine has no limit")
    with pytest.raises(HostMismatch) as caught:
        refuse_too_few_files(msgspec.structs.replace(recipe, open_files=hard + 1), "local")
    assert caught.value.what == f"pix2pix-train needs {hard + 1} open files, the limit is {hard}"


def test_the_record_of_the_stage_is_read_by_others(recipe, python):
    run(request(recipe, python), lambda _event: None)
    document = json.loads(Path("run/stage.json").read_text())
    assert document["schema"] == "envforge.stage/1"
    assert document["inputs"]["data"] == str(recipe.parent / "data")
    schema = Path(__file__).parent.parent / "docs/schemas/stage-1.json"
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(document)


LIBRARY = Path(__file__).parent / "binaries/captures/nvcc-11.8,sm_35=2,sm_90=2,compute_35=1.so"


@pytest.mark.parametrize("capability", ["3.5", "5.0", "9.0", "3.0"])
def test_an_extension_is_judged_by_its_machine_code_for_the_card(tmp_path, capability):
    shutil.copy(LIBRARY, tmp_path / "_C.so")
    card = Card(name="a card", memory_mib=2048, capability=capability)
    extension = Extension(command=("true",), environment={"ARCH": "{arch_list}"}, product="_C*.so")
    place = Place(LocalExecutor(), "local", sys.executable, "1.0.1", "cuda")
    errand = Errand(("sh", "-c", f'test "$ARCH" = {capability}'), workdir=str(tmp_path))
    compilation = Compilation(extension, tmp_path, card)
    if capability != "3.0":
        compile_extension(compilation, errand, place, lambda _event: None)
        return
    with pytest.raises(BuildFailed) as caught:
        compile_extension(compilation, errand, place, lambda _event: None)
    assert caught.value.what == "upstream's extension has no code for a card"
    assert caught.value.because == ("_C.so: none for 3.0",)
