"""MaskTextSpotter's patches: what they make of upstream's lines, and that they fit upstream."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from envforge import assets
from envforge.patching.series import apply, load_series, select
from envforge.recipes import load_recipe

SERIES = assets.RECIPES / "masktextspotter-train" / "patches" / "series.yaml"
ICDAR = "maskrcnn_benchmark/data/datasets/icdar.py"
COMMITS = (
    "7109132ff0ffbe77832e4b067b174d70dcc37df4",
    "d63ce1c8d3bd22391a855586e33519e2ce20147b",
)
# The lines the patch finds, at their depth, and enough around them to be a parser.
PARSER = """\
import os
class Dataset(object):
    def read(self, lines):
        charsboxes = []
        for line in lines:
            charbbs = []
            for word in [self.line2boxes(line)]:
                if True:
                    charbb = []
                if len(word) > 9:
                    for char in word[17::9]:
                        charbb = [char]
                        charbbs.append(charbb.copy())
                    charsboxes.append(charbbs)
        return charsboxes

    def line2boxes(self, line):
        parts = line.strip().split({split})
        return parts
"""
QUAD = "10,10,50,10,50,30,10,30"
C, FIVE = "12,12,20,12,20,28,12,28,c", "22,12,30,12,30,28,22,28,5"


def patches(torch, *ids):
    return tuple(
        patch for patch in select(load_series(SERIES), torch=torch) if not ids or patch.id in ids
    )


@pytest.fixture(params=["','", "',', 8"], ids=["d63ce1c", "7109132"])
def parser(request, tmp_path):
    path = tmp_path / ICDAR
    path.parent.mkdir(parents=True)
    path.write_text(PARSER.format(split=request.param))
    lines = apply(patches("1.0.1", "icdar-ground-truth"), tmp_path)
    assert [line.rpartition(": ")[2] for line in lines] == ["applied"] * 3
    scope = {}
    exec(path.read_text(), scope)  # the patched parser itself
    return scope["Dataset"]()


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        (f"{QUAD},$5,000", ["$5,000"]),
        (f"{QUAD},c5,{C},{FIVE}", ["c5", "c", "5"]),
        (f"{QUAD},$5,000,{FIVE}", ["$5,000", "5"]),
        (f"{QUAD},x,1,1,2,1,2,2,1,2,,,{C}", ["x", ",", "c"]),
        (f"{QUAD},1978", ["1978"]),
        (f"{QUAD},", [""]),
        (f"\ufeff{QUAD},word", ["word"]),
    ],
)
def test_the_patched_parser_reads_transcriptions_with_commas_and_characters(parser, line, texts):
    parts = parser.line2boxes(line)
    assert parts[8::9] == texts
    assert [part.strip("\ufeff") for part in parts[:8]] == QUAD.split(",")
    assert len(parts) == 9 * len(texts)


def test_a_word_without_characters_keeps_its_place_among_those_with(parser):
    boxes = parser.read([f"{QUAD},a,{C}", f"{QUAD},plain", f"{QUAD},b,{FIVE}"])
    assert boxes == [[["c"]], [[]], [["5"]]]


def test_torch_bool_is_replaced_below_1_2_only():
    def chosen(torch):
        return "uint8-masks-before-torch.bool" in [patch.id for patch in patches(torch)]

    assert [chosen(torch) for torch in ("1.0.1", "1.1.0", "1.2.0", "2.11.0")] == [
        True,
        True,
        False,
        False,
    ]
    (bools,) = patches("1.0.1", "uint8-masks-before-torch.bool")
    assert sum(edit.sites for edit in bools.edits) == 6


@pytest.mark.parametrize(
    ("line", "patched"),
    [
        ("  if (input.type().is_cuda()) {", "  if (input.is_cuda()) {"),
        ("  if (grad.type().is_cuda()) {", "  if (grad.is_cuda()) {"),
    ],
)
def test_what_is_left_of_a_line_is_not_taken_for_the_edit_already_made(tmp_path, line, patched):
    path = tmp_path / "maskrcnn_benchmark" / "csrc" / "ROIAlign.h"
    path.parent.mkdir(parents=True)
    path.write_text(f"{line}\n{line}\n")
    (series,) = patches("2.11.0", "extension-for-todays-tensor")
    (edit,) = [edit for edit in series.edits if edit.file.endswith("/ROIAlign.h")]
    one = (type(series)(**{**fields(series), "edits": (edit,)}),)
    assert apply(one, tmp_path)[0].endswith(": applied")
    assert path.read_text() == f"{patched}\n{patched}\n"
    assert apply(one, tmp_path)[0].endswith(": already applied")


def fields(struct):
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


def test_every_variant_names_patches_there_are_and_every_patch_is_named():
    recipe = load_recipe("masktextspotter-train").recipe
    named = {name for variant in recipe.variants.values() for name in variant.patches}
    assert named == {patch.id for patch in load_series(SERIES)}


@pytest.mark.upstream
@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize(("torch", "edits"), [("1.0.1", 12), ("2.11.0", 46)])
def test_every_edit_fits_the_real_upstream_once(tmp_path, commit, torch, edits):
    repository = Path(os.environ["ENVFORGE_MIRROR"]) / "MaskTextSpotter"
    packed = tmp_path / "tree.tar"
    for command in (
        ["git", "-C", repository, "archive", "-o", packed, commit],
        ["tar", "xf", packed, "-C", tmp_path],
    ):
        subprocess.run(command, check=True)
    outcomes = [line.rpartition(": ")[2] for line in apply(patches(torch), tmp_path)]
    assert outcomes == ["applied"] * edits
    assert set(apply(patches(torch), tmp_path)) == {
        f"{line.rpartition(': ')[0]}: already applied" for line in apply(patches(torch), tmp_path)
    }
    left = [
        path
        for path in (tmp_path / "maskrcnn_benchmark" / "csrc").rglob("*.*")
        if re.search(r"^[^/]*\bTHC", path.read_text(), re.MULTILINE)
    ]
    assert bool(left) == (torch == "1.0.1")
