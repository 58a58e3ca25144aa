"""What the commands print with --json has the published form (docs/schemas)."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import msgspec
import pytest

from envforge import cli
from envforge.image.lock import Lock
from envforge.recipes.schema import recipe_schema

SCHEMAS = Path(__file__).parent.parent / "docs/schemas"
CAPTURES = Path(__file__).parent / "binaries/captures"


def check(name, document):
    schema = json.loads((SCHEMAS / f"{name}-1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)


def answer(capsys, *arguments):
    cli.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("path", sorted(SCHEMAS.iterdir()), ids=lambda path: path.stem)
def test_every_schema_is_one(path):
    jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))


@pytest.mark.parametrize("gpu", ["gtx760", "k40", "k80", "gtx1080", "v100", "t4", "h200", "sm_21"])
def test_check_answers_in_its_published_form(capsys, gpu):
    document = answer(capsys, "check", "--gpu", gpu)
    check("error" if "error" in document else "check", document)


def test_check_without_a_card_answers_in_its_published_form(capsys):
    check("check", answer(capsys, "check"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--gpu", "gt730"],
        ["check", "--gpu", "gtx761"],
        ["check", "--gpu", "gtx760", "--torch", "2.15.0"],
        ["check", "--gpu", "gtx760", "--torch", "x"],
    ],
)
def test_errors_have_their_published_form(capsys, arguments):
    check("error", answer(capsys, *arguments))


def test_the_other_commands_answer_in_their_published_forms(capsys):
    check("explain", answer(capsys, "explain", "--gpu", "gtx760", "--torch", "1.0.1"))
    check("list", answer(capsys, "list", "torch"))
    sample = next(path for path in sorted(CAPTURES.iterdir()) if path.suffix == ".so")
    check("inspect", answer(capsys, "inspect", str(sample), "--quiet"))


def test_a_dry_run_answers_in_its_published_form(capsys):
    for recipe in ("canary", "pix2pix-train", "pix2pix-test", "masktextspotter-train"):
        check("preview", answer(capsys, "run", recipe, "--dry-run", "--vram", "4GiB"))


@pytest.mark.parametrize("card", [[], ["--gpu", "k40"]])
def test_kernels_and_differences_have_their_published_forms(capsys, card):
    first, second = (str(path) for path in sorted(CAPTURES.glob("*.o"))[:2])
    kernels = answer(capsys, "inspect", first, "--kernels", "axpy", "--quiet", *card)
    check("inspect-kernels", kernels)
    difference = answer(capsys, "inspect", "--diff", first, second, "--quiet", *card)
    assert difference["files"]
    check("inspect-diff", difference)


def test_the_published_form_of_a_recipe_is_the_one_that_is_read():
    schema = json.loads((SCHEMAS / "recipe-1.json").read_text())
    assert schema == recipe_schema(), (
        "python -m envforge.recipes.schema > docs/schemas/recipe-1.json"
    )


def test_the_published_form_of_a_lock_is_the_one_that_is_read():
    published = json.loads((SCHEMAS / "lock-1.json").read_text())
    read = json.loads(json.dumps(msgspec.json.schema(Lock)))
    assert {key: published[key] for key in read} == read


def test_a_matrix_answers_in_its_published_form(capsys, tmp_path):
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text('builds: {a: {gpu: k40, torch: "1.0.1"}, b: {gpu: sm_21, torch: "1.0.1"}}')
    check("matrix", answer(capsys, "build", "--matrix", str(fleet), "--dry-run", "--quiet"))
