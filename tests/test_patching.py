from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.errors import DocumentError, PatchError
from envforge.patching import edit
from envforge.patching.series import (
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


def patch(*edits: Edit) -> Patch:
    return Patch(
        id="a-patch",
        when=Condition(torch=">=1.0,<2"),
        why="a reason",
        source="a test",
        evidence="measured",
        edits=edits,
    )


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
    lines = apply(select(load_series(), torch="1.0.1", cuda="10.1.243"), tree)
    text = (tree / CUSPARSE).read_text()
    assert lines == [f"rename-cusparse-error-string: {CUSPARSE}: applied"]
    assert "cusparseGetErrorString" not in text
    assert text.count("getCusparseErrorString(") == 2


def test_a_patch_that_already_stands_is_recognised(tree):
    patches = select(load_series(), torch="1.0.1", cuda="10.1.243")
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
    patches = select(load_series(), torch="1.0.1", cuda=None)
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
        assert any(one in select((one,), torch=version, cuda=None) for version in releases)
