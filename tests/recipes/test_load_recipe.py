from __future__ import annotations

import shutil

import pytest
import yaml

from envforge import assets
from envforge.errors import DocumentError, UnknownName
from envforge.recipes import load_recipe, recipe_names, shelves

GOOD = {
    "schema": "envforge.recipe/1",
    "name": "mine",
    "summary": "a recipe",
    "torch": ">=1.0,<2",
    "files": "files",
    "command": ["{python}", "{recipe}/train.py", "--out", "{run_dir}", "--steps", "{steps}"],
    "parameters": {"steps": {"kind": "integer", "default": 10, "help": "steps"}},
    "log": {"progress": r"step (?P<step>\d+)", "loss": r"(?P<name>\w+)=(?P<value>\S+)"},
    "checkpoints": "checkpoints/*",
    "success": {"line": "^done$"},
    "shm_size_mib": 64,
}


def write(folder, document):
    (folder / "mine" / "files").mkdir(parents=True, exist_ok=True)
    text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
    (folder / "mine" / "recipe.yaml").write_text(text)
    return f"{folder}/mine"


def faults(tmp_path, **changes):
    document = {key: value for key, value in {**GOOD, **changes}.items() if value is not ...}
    with pytest.raises(DocumentError) as caught:
        load_recipe(write(tmp_path, document))
    return caught.value.because


def test_every_shipped_recipe_loads_under_its_name():
    assert "canary" in recipe_names()
    for name in recipe_names():
        loaded = load_recipe(name)
        assert loaded.recipe.name == name
        assert loaded.files.is_dir()


def test_the_smallest_recipe_loads_from_a_folder_and_from_a_shelf(tmp_path):
    path = write(tmp_path, GOOD)
    named = load_recipe("mine", (assets.RECIPES, tmp_path))
    assert load_recipe(path) == named
    assert named.reference == path
    assert {"canary", "mine"} <= set(recipe_names((assets.RECIPES, tmp_path)))


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(UnknownName) as caught:
        load_recipe("canari")
    assert caught.value.what == "unknown recipe: 'canari'"
    assert caught.value.near == ("canary",)
    assert "./canari" in caught.value.hint


@pytest.mark.parametrize("name", ["", "..", ".", "canary; rm -rf ~", "$(reboot)"])
def test_a_name_that_is_none_is_unknown(name):
    with pytest.raises(UnknownName):
        load_recipe(name)


def test_a_folder_without_a_recipe_is_said(tmp_path):
    with pytest.raises(DocumentError, match="cannot read"):
        load_recipe(f"{tmp_path}/")


def test_all_faults_of_form_are_named_at_once_each_with_its_path(tmp_path):
    found = faults(
        tmp_path,
        summary=...,
        comand=["x"],
        shm_size_mib="64m",
        log={"progress": 3, "loss": "x", "chek": "y"},
        parameters={"steps": {"kind": "int", "default": 1}},
        success="done",
    )
    assert found[0].startswith("comand: unknown key; there are schema, name, summary")
    assert found[1:] == (
        "summary: is missing",
        "parameters.steps.kind: Invalid enum value 'int'",
        "parameters.steps.help: is missing",
        "log.chek: unknown key; there are progress, loss, epoch_size, epoch_end, check, checkpoint, resumed, stopped",
        "log.progress: Expected str, got int",
        "success: expected keys and values",
        "shm_size_mib: Expected int, got str",
    )


def test_all_faults_of_sense_are_named_at_once(tmp_path):
    found = faults(
        tmp_path,
        name="Mine!",
        torch=">=1.0",
        files="../../etc",
        checkpoints="/checkpoints/*",
        show=["", "a/../../b"],
        log={
            "progress": "step (?P<stp>[0-9]+)",
            "loss": "(?P<name>x(?P<value>y)",
            "check": ".*",
        },
        command=["{python}", "{recipe}/{stpes}", "{0}", "{a.b}"],
        parameters={
            "steps": {"kind": "integer", "default": 0, "minimum": 1, "help": "x"},
            "python": {"kind": "word", "default": "a b", "help": "x"},
        },
        success={},
        shm_size_mib=0,
        stop_wait_s=-1,
    )
    assert found == (
        "name: must be the folder's name in small letters, got 'Mine!'",
        "files: '../../etc' must be a path below its folder",
        "checkpoints: '/checkpoints/*' must be a path below its folder",
        "show: '' must be a path below its folder",
        "show: 'a/../../b' must be a path below its folder",
        "files: there is no folder '../../etc' beside the document",
        "torch: '>=1.0' has no upper bound",
        "log.progress: has a group nobody reads: stp",
        "log.loss: not a regular expression: missing ), unterminated subpattern at position 0",
        "log.check: matches an empty line",
        "log.check: has no group name, outcome",
        "success: must name a line, a result or a file, else nothing says what was reached",
        "command[1]: nothing is called {stpes}",
        "command[2]: nothing is called {0}",
        "command[3]: a brace that encloses no name: '{a.b}'",
        "parameters.steps: the command does not use it",
        "parameters.steps.default: steps must be at least 1, got 0",
        "parameters.python: not a name for a parameter",
        "parameters.python.default: python must be a word, got 'a b'",
        "shm_size_mib: must be at least 1",
        "stop_wait_s: must be at least 1",
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name: [", "is not valid YAML"),
        ("name: a\nname: b", "is not valid YAML"),
        ("- a", "has 1 fault"),
        ("", "document: Expected object, got null"),
    ],
)
def test_what_is_no_document_is_said(tmp_path, text, fault):
    with pytest.raises(DocumentError) as caught:
        load_recipe(write(tmp_path, text))
    assert fault in caught.value.what or fault in str(caught.value.because)


def test_a_recipe_is_data_a_copy_elsewhere_is_the_same_recipe(tmp_path):
    shutil.copytree(assets.RECIPES / "canary", tmp_path / "canary")
    assert load_recipe(f"{tmp_path}/canary").recipe == load_recipe("canary").recipe


UPSTREAM = {
    "upstream": {"name": "theirs", "url": "https://localhost:1/x", "licence": "none"},
    "variants": {
        "1": {
            "commit": "0" * 40,
            "date": "2019-11-21",
            "torch": ">=1.0,<2",
            "why": "a test",
            "source": "a test",
            "evidence": "measured",
        }
    },
}


def shelf(tmp_path, name, document):
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return f"{tmp_path}/{name}"


def test_a_recipe_takes_upstream_files_and_variants_of_another_by_reference(tmp_path):
    write(tmp_path, {**GOOD, **UPSTREAM})
    document = {key: value for key, value in GOOD.items() if key not in ("files", "torch")}
    own = {"1": {"command": ["{python}", "{checkout}/test.py"], "log": {"progress": "tested"}}}
    document |= {"name": "yours", "shares": "mine", "variants": own, "parameters": {}}
    loaded = load_recipe(shelf(tmp_path, "yours", document))
    variant = loaded.recipe.variants["1"]
    assert (variant.commit, variant.command) == ("0" * 40, ("{python}", "{checkout}/test.py"))
    assert loaded.recipe.upstream.name == "theirs"
    assert loaded.files == (tmp_path / "mine/files").resolve()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"shares": "nonesuch"}, "shares: there is no recipe 'nonesuch' beside this one"),
        ({"shares": "../mine"}, "shares: there is no recipe '../mine' beside this one"),
        ({"shares": "mine", "files": "files"}, "files: those of mine are taken"),
    ],
)
def test_what_cannot_be_shared_is_said(tmp_path, changes, fault):
    write(tmp_path, GOOD)
    document = {key: value for key, value in GOOD.items() if key != "files"}
    with pytest.raises(DocumentError) as caught:
        load_recipe(shelf(tmp_path, "yours", {**document, "name": "yours", **changes}))
    assert fault in caught.value.because


def test_recipes_are_looked_for_by_flag_variable_and_xdg_before_ours(tmp_path, monkeypatch):
    for place in ("flag", "variable", "xdg/envforge/recipes"):
        (tmp_path / place).mkdir(parents=True)
        write(tmp_path / place, {**GOOD, "summary": place})
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert load_recipe("mine").recipe.summary == "xdg/envforge/recipes"
    monkeypatch.setenv("ENVFORGE_RECIPES", str(tmp_path / "variable"))
    assert load_recipe("mine").recipe.summary == "variable"
    found = load_recipe("mine", shelves((tmp_path / "flag",)))
    assert found.recipe.summary == "flag"
    assert found.reference == str(tmp_path / "flag/mine"), "it is found again without the flag"


def test_boxes_belong_to_samples_star_by_star(tmp_path):
    boxes = {"file": "../*/*.txt", "line": "(?P<points>x"}
    assert faults(tmp_path, samples="visu/*.png", boxes=boxes) == (
        "boxes.file: '../*/*.txt' must be a path below its folder",
        "boxes.file: its stars must be those of samples, 'visu/*.png'",
        "boxes.line: not a regular expression: missing ), unterminated subpattern at position 0",
    )


OVERRIDE = {
    "form": "argparse",
    "key": "--a",
    "file": "a.py",
    "upstream": 1,
    "value": "{a}",
    "why": "x",
}


def test_the_faults_of_variants_tiers_and_datasets_are_named_with_their_places(tmp_path):
    variant = {**UPSTREAM["variants"]["1"], "overrides": [OVERRIDE], "packages": "gone.yaml"}
    tier = {
        "memory": "2GiB",
        "set": {"steps": 5, "gone": 1},
        "why": "x",
        "source": "x",
        "evidence": "measured",
    }
    row = {
        "variant": "1",
        "torch": "1.0.1",
        "card": "x",
        "allocated_mib": 1,
        "reserved_mib": 1844,
        "step_us": 1,
        "source": "x",
    }
    found = faults(
        tmp_path,
        upstream=UPSTREAM["upstream"],
        variants={"1": variant},
        tiers=[{**tier, "measured": [row]}, tier],
        datasets={"d": {"help": "x", "asset": "gone", "check": ["{nope}"], "set": {"steps": 0.5}}},
    )
    assert found == (
        "variants.1.packages: there is no file 'gone.yaml' beside the document",
        "variants.1.overrides[0].value[0]: nothing is called {a}",
        "variants.1.overrides: the command has no place for {overrides}",
        "datasets.d.check[0]: nothing is called {nope}",
        "datasets.d.set: steps must be an integer, got '0.5'",
        "datasets.d.asset: there is no asset 'gone'",
        "tiers: must grow, the smallest memory first",
        "tiers.2GiB.set.gone: there is no such parameter",
        "tiers.2GiB.set.steps: order_of_harm does not say what harm it does",
        "tiers.2GiB.measured: 1844 MiB leave too little of 2GiB",
        "tiers.2GiB.set.gone: there is no such parameter",
        "tiers.2GiB.set.steps: order_of_harm does not say what harm it does",
    )


@pytest.mark.parametrize("name", ["a" * 5000, "a\0b"])
def test_a_name_that_no_file_can_have_is_a_fault_of_its_field(tmp_path, name):
    (found,) = faults(tmp_path, files=name)
    assert found == f"files: there is no folder {name!r} beside the document"
