from __future__ import annotations

import ast
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from envforge.capability.load import load
from envforge.capability.models import in_range
from envforge.errors import DocumentError, PatchError
from envforge.patching import edit
from envforge.patching.series import (
    AddedFile,
    Condition,
    Edit,
    Patch,
    apply,
    edits_json,
    load_series,
    select,
)

CUSPARSE = "aten/src/ATen/native/sparse/cuda/SparseCUDABlas.cu"
# The two lines the name stands on in v1.0.0 and v1.0.1, and enough around them to be C++.
SOURCE = """\
std::string cusparseGetErrorString(cusparseStatus_t status) {
  return "";
}
inline void CUSPARSE_CHECK(cusparseStatus_t status) {
  AT_ERROR("cusparse runtime error: ", cusparseGetErrorString(status));
}
"""


EDIT = Edit(file="f.txt", find="one", replace="two", sites=1)


def patch(*edits: Edit) -> Patch:
    return Patch(
        id="a-patch",
        when=Condition(torch=">=1.0,<2"),
        why="a reason",
        source="a test",
        evidence="measured",
        edits=edits,
    )


def cusparse() -> tuple[Patch, ...]:
    chosen = select(load_series(), torch="1.0.1", cuda="10.1.243")
    return tuple(one for one in chosen if one.id == "rename-cusparse-error-string")


@pytest.fixture
def tree(tmp_path):
    path = tmp_path / CUSPARSE
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE)
    return tmp_path


# facts: the function clashes exactly in 0.4.1, 1.0.0 and 1.0.1 (upstream renamed it in 1.1.0).
@pytest.mark.parametrize(
    ("torch", "needed"),
    [("0.4.0", False), ("0.4.1", True), ("1.0.0", True), ("1.0.1", True), ("1.1.0", False)],
)
def test_the_cusparse_patch_is_selected_for_exactly_the_releases_that_clash(torch, needed):
    chosen = select(load_series(), torch=torch, cuda="10.1.243")
    assert ("rename-cusparse-error-string" in [p.id for p in chosen]) == needed


def test_the_cusparse_patch_renames_both_sites(tree):
    lines = apply(cusparse(), tree)
    text = (tree / CUSPARSE).read_text()
    assert lines == [f"rename-cusparse-error-string: {CUSPARSE}: applied"]
    assert "cusparseGetErrorString" not in text
    assert text.count("getCusparseErrorString(") == 2


def test_a_patch_that_already_stands_is_recognised(tree):
    patches = cusparse()
    apply(patches, tree)
    once = (tree / CUSPARSE).read_bytes()
    assert apply(patches, tree) == [f"rename-cusparse-error-string: {CUSPARSE}: already applied"]
    assert (tree / CUSPARSE).read_bytes() == once


def test_a_pattern_that_matches_nothing_is_an_error_naming_the_file(tree):
    lonely = Edit(file=CUSPARSE, find=r"\.data\[0\]", replace=".item()", sites=4)
    with pytest.raises(PatchError) as caught:
        apply((patch(lonely),), tree)
    assert caught.value.exit_code == 5
    assert caught.value.because == (
        rf"a-patch: {CUSPARSE}: '\\.data\\[0\\]' must match 4 times, it matches 0",
    )


def test_another_number_of_sites_changes_no_file_at_all(tree):
    other = tree / "other.txt"
    other.write_text("one")
    fits = Edit(file="other.txt", find="one", replace="two", sites=1)
    does_not = Edit(file=CUSPARSE, find="cusparseGetErrorString", replace="x", sites=3)
    with pytest.raises(PatchError, match="does not fit"):
        apply((patch(fits, does_not),), tree)
    assert other.read_text() == "one"
    assert (tree / CUSPARSE).read_text() == SOURCE


def test_a_missing_file_is_named(tree):
    with pytest.raises(PatchError) as caught:
        apply((patch(Edit(file="gone.py", find="a", replace="b", sites=1)),), tree)
    assert "gone.py" in caught.value.because[0]


def test_an_edited_file_keeps_its_mode(tree):
    script = tree / "run.sh"
    script.write_text("old\n")
    script.chmod(0o755)
    apply((patch(Edit(file="run.sh", find="old", replace="new", sites=1)),), tree)
    assert script.stat().st_mode & 0o777 == 0o755


def test_the_program_says_the_same_inside_a_build(tree, tmp_path):
    patches = cusparse()
    edits = tmp_path / "edits.json"
    edits.write_bytes(edits_json(patches))
    command = [sys.executable, edit.__file__, str(tree), str(edits)]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert first.stdout == f"rename-cusparse-error-string: {CUSPARSE}: applied\n"
    (tree / CUSPARSE).write_text("nothing of it\n")
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.startswith("patch does not fit: rename-cusparse-error-string: ")


@pytest.mark.parametrize("file", ["../escape", "/etc/passwd", "a/../../b", "-o"])
def test_a_patch_cannot_leave_its_tree(file):
    with pytest.raises((ValueError, DocumentError)):
        load_text(f"{file!r}")


def load_text(file):
    import msgspec  # noqa: PLC0415

    row = {"file": file.strip("'"), "find": "a", "replace": "b", "sites": 1}
    return msgspec.convert(row, Edit)


@given(st.text(max_size=60), st.text(max_size=60))
def test_edits_never_touch_a_file_they_do_not_match(tmp_path_factory, text, needle):
    tree = tmp_path_factory.mktemp("tree")
    path = tree / "f.txt"
    data = text.encode("utf-8", errors="replace")
    path.write_bytes(data)
    row = {"patch": "p", "file": "f.txt", "find": r"\Znever" + "x", "replace": needle, "sites": 1}
    with pytest.raises(edit.DoesNotFit):
        edit.apply_edits(str(tree), [{**row, "replace": needle + "never in the text"}])
    assert path.read_bytes() == data


def test_every_patch_of_the_series_is_needed_by_a_known_release():
    releases = [release.version for release in load().releases]
    for one in load_series():
        assert any(in_range(version, one.when.torch) for version in releases), one.id


# --- conditions ---

AXES = {
    "cuda": "10.1.243",
    "gcc": "8",
    "python": "3.8",
    "capability": "3.0",
    "cudnn": "8.7.0",
    "platform": "debian-12",
}
OTHERS = {
    "cuda": (">=10.1.243", "10.1.105"),
    "gcc": (">=8", "7"),
    "python": (">=3.8", "3.7"),
    "capability": ("<3.5", "3.5"),
    "cudnn": (">=8", "7.6.5"),
    "platform": (("debian-12", "debian-13"), "ubuntu-18.04"),
}


@pytest.mark.parametrize("axis", OTHERS)
def test_every_axis_of_a_condition_decides_alone(axis):
    bounds, outside = OTHERS[axis]
    one = (replace(patch(EDIT), when=Condition(torch=">=1.0", **{axis: bounds})),)
    assert select(one, torch="1.2.0", **AXES) == one
    assert select(one, torch="1.2.0", **{**AXES, axis: outside}) == ()
    assert select(one, torch="1.2.0", **{**AXES, axis: None}) == ()
    assert select(one, torch="1.2.0") == ()


def test_a_switch_of_the_plan_makes_a_patch_needless():
    when = Condition(torch=">=1.0", unless={"USE_DISTRIBUTED": "0", "NO_DISTRIBUTED": "1"})
    one = (replace(patch(EDIT), when=when),)
    assert select(one, torch="1.2.0", switches={"USE_DISTRIBUTED": "1"}) == one
    assert select(one, torch="1.2.0", switches={"NO_DISTRIBUTED": "1", "USE_CUDA": "1"}) == ()


def test_an_edit_of_some_releases_is_left_out_for_the_others():
    early = replace(EDIT, file="early.txt", torch="<1.2")
    assert select((patch(EDIT, early),), torch="1.2.0")[0].edits == (EDIT,)
    assert select((patch(EDIT, early),), torch="1.1.0")[0].edits == (EDIT, early)


@pytest.mark.parametrize("change", [{"find": "("}, {"replace": r"\7"}, {"applied": "*"}])
def test_a_pattern_that_is_none_is_refused_with_the_document(change):
    with pytest.raises(ValueError, match="not a pattern"):
        replace(EDIT, **change)


def test_a_patch_without_changes_must_say_where_it_is_described():
    with pytest.raises(ValueError, match="either changes, or where the missing patch is described"):
        patch()


# --- files that are added, pinned files, links ---


def adding(tmp_path, **content) -> tuple[Patch, ...]:
    return (replace(patch(EDIT), edits=(), adds=(AddedFile(file="cmake/new.cmake", **content),)),)


def test_a_file_is_added_with_its_folders(tmp_path):
    added = adding(tmp_path, content="set(X 1)\n")
    assert apply(added, tmp_path) == ["a-patch: cmake/new.cmake: added"]
    assert (tmp_path / "cmake" / "new.cmake").read_text() == "set(X 1)\n"
    assert apply(added, tmp_path) == ["a-patch: cmake/new.cmake: already applied"]


def test_a_file_is_never_added_over_another(tmp_path):
    (tmp_path / "cmake").mkdir()
    (tmp_path / "cmake" / "new.cmake").write_text("something else")
    with pytest.raises(PatchError) as caught:
        apply(adding(tmp_path, content="set(X 1)\n"), tmp_path)
    assert caught.value.because == ("a-patch: cmake/new.cmake: another file is there already",)
    assert (tmp_path / "cmake" / "new.cmake").read_text() == "something else"


def test_an_added_file_can_lie_beside_the_series(tmp_path):
    (tmp_path / "new.cmake").write_text("set(X 1)\n")
    series = tmp_path / "series.yaml"
    series.write_text(
        "patches:\n- {id: p, when: {torch: '>=1'}, why: w, source: s, evidence: measured,"
        " adds: [{file: a.cmake, beside: new.cmake}]}\n"
    )
    assert load_series(series)[0].adds[0].content == "set(X 1)\n"
    (tmp_path / "new.cmake").unlink()
    with pytest.raises(DocumentError, match="p: cannot read a file it adds"):
        load_series(series)


def test_an_edit_of_an_added_file_comes_after_it(tmp_path):
    first = adding(tmp_path, content="one\n")
    second = patch(replace(EDIT, file="cmake/new.cmake"))
    apply((*first, second), tmp_path)
    assert (tmp_path / "cmake" / "new.cmake").read_text() == "two\n"


def test_a_pinned_file_must_be_that_file(tmp_path):
    (tmp_path / "f.txt").write_text("one, and more\n")
    pinned = replace(EDIT, sha256=hashlib.sha256(b"one\n").hexdigest())
    with pytest.raises(PatchError, match="does not fit") as caught:
        apply((patch(pinned),), tmp_path)
    assert caught.value.because[0].startswith(f"a-patch: f.txt: its sha256 must be {pinned.sha256}")
    (tmp_path / "f.txt").write_text("one\n")
    assert apply((patch(pinned),), tmp_path) == ["a-patch: f.txt: applied"]
    assert apply((patch(pinned),), tmp_path) == ["a-patch: f.txt: already applied"]


@pytest.mark.parametrize(
    "change",
    [
        {"find": "^#include <b>$", "replace": "#include <a>\n#include <b>"},
        {"find": r"(b)>", "replace": r"\1.h>", "applied": r"b\.h>"},
        {"find": r"#include <(b)>", "replace": "", "applied": r"\A$"},
    ],
)
def test_what_still_matches_after_the_edit_is_not_edited_again(change, tmp_path):
    (tmp_path / "f.txt").write_text("#include <b>\n")
    one = patch(Edit(file="f.txt", sites=1, **change))
    assert apply((one,), tmp_path) == ["a-patch: f.txt: applied"]
    once = (tmp_path / "f.txt").read_text()
    assert apply((one,), tmp_path) == ["a-patch: f.txt: already applied"]
    assert (tmp_path / "f.txt").read_text() == once


def test_an_edit_that_takes_a_part_away_is_not_taken_for_made(tmp_path):
    """Its outcome ``.is_cuda()`` stands in what it is to replace."""
    (tmp_path / "f.txt").write_text("a.type().is_cuda() and b.type().is_cuda()\n")
    one = patch(Edit(file="f.txt", find=r"\.type\(\)\.is_cuda\(\)", replace=".is_cuda()", sites=2))
    assert apply((one,), tmp_path) == ["a-patch: f.txt: applied"]
    assert (tmp_path / "f.txt").read_text() == "a.is_cuda() and b.is_cuda()\n"
    assert apply((one,), tmp_path) == ["a-patch: f.txt: already applied"]


def test_an_edit_that_is_half_made_is_refused(tmp_path):
    (tmp_path / "f.txt").write_text("a.is_cuda() and b.type().is_cuda()\n")
    one = patch(Edit(file="f.txt", find=r"\.type\(\)\.is_cuda\(\)", replace=".is_cuda()", sites=2))
    with pytest.raises(PatchError) as caught:
        apply((one,), tmp_path)
    assert "must match 2 times, it matches 1" in caught.value.because[0]


def test_no_edit_follows_a_link_out_of_the_tree(tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    outside = tmp_path / "f.txt"
    outside.write_text("one\n")
    (tree / "f.txt").symlink_to(outside)
    (tree / "cmake").symlink_to(tmp_path)
    for one in (patch(EDIT), *adding(tmp_path, content="x")):
        with pytest.raises(PatchError, match="does not fit") as caught:
            apply((one,), tree)
        assert caught.value.because[0].endswith(": it leads out of the tree")
    assert outside.read_text() == "one\n"


def test_the_program_is_written_for_python_3_5():
    """Ubuntu 16.04 has no newer one, and the program runs there as it is."""
    ast.parse(Path(edit.__file__).read_text(), feature_version=(3, 5))
