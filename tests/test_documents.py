from __future__ import annotations

import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge import documents
from envforge.errors import DocumentError


class Row(msgspec.Struct, forbid_unknown_fields=True):
    version: str
    count: int = 0


def test_a_version_stays_the_text_that_was_typed():
    document = documents.parse_yaml("a: 1.10\nb: no\nc: 2019-02-05\nd: 10\ne: true\nf: null", "x")
    assert document == {"a": "1.10", "b": "no", "c": "2019-02-05", "d": 10, "e": True, "f": None}


def test_a_duplicate_key_is_a_fault():
    with pytest.raises(DocumentError) as caught:
        documents.parse_yaml("a: x\nb: y\na: z\n", "rules.yaml")
    assert caught.value.what == "rules.yaml is not valid YAML"
    assert "duplicate key: a" in caught.value.because[0]


def test_all_faulty_rows_are_reported_at_once():
    document = {"rows": [{"version": "1"}, {"version": 2}, {"version": "3", "size": 1}]}
    with pytest.raises(DocumentError) as caught:
        documents.convert_rows(document, "rows", Row, "file.yaml")
    assert caught.value.what == "file.yaml has 2 faulty rows"
    assert caught.value.because == (
        "file.yaml: rows[1]: Expected `str`, got `int` - at `$.version`",
        "file.yaml: rows[2]: Object contains unknown field `size`",
    )


def test_yaml_cannot_build_python_objects():
    with pytest.raises(DocumentError, match="not valid YAML"):
        documents.parse_yaml("!!python/object/apply:os.system ['true']", "evil.yaml")


@given(st.text())
def test_any_text_is_read_or_refused_never_a_traceback(text):
    try:
        documents.parse_yaml(text, "any.yaml")
    except DocumentError as error:
        assert error.exit_code == 3


def test_the_same_value_gives_the_same_bytes():
    assert documents.to_json({"b": 1, "a": [2]}) == '{\n  "a": [\n    2\n  ],\n  "b": 1\n}\n'


def test_a_name_that_is_no_utf_8_is_said_in_json():
    name = os.fsdecode(b"caf\xe9")
    assert documents.to_json({"files": [{"path": name}], name: 1}) == (
        '{\n  "caf\\\\xe9": 1,\n  "files": [\n    {\n      "path": "caf\\\\xe9"\n    }\n  ]\n}\n'
    )


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    documents.write_atomically(path, b"old")

    def full_disk(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(documents.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        documents.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("text", ["{a: 1}: b", "[a]: b", "- {x: y}: z"])
def test_a_key_that_is_no_plain_value_is_an_error_with_its_place(text):
    with pytest.raises(DocumentError) as caught:
        documents.parse_yaml(text, "recipe.yaml")
    assert "a key is a mapping or a list" in caught.value.because[0]
    assert "line 1" in caught.value.because[0]


@pytest.mark.parametrize("text", ["(", "[[a]", "a{99999999999}", "(?P<1>x)"])
def test_a_pattern_that_is_none_or_will_be_read_otherwise_is_refused(text):
    with pytest.raises(ValueError) as caught:
        documents.compile_pattern(text)
    assert str(caught.value)


def test_a_file_that_is_no_utf_8_is_refused_by_name(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    with pytest.raises(DocumentError, match=f"cannot read {path}"):
        documents.load_yaml(path)
