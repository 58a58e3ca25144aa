"""``envforge build --matrix``: several builds in one go; the real ones are in tests/image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envforge import cli

FLEET = """\
builds:
  shelf: {gpu: gtx780, torch: "1.0.1"}
  k40: {gpu: Tesla K40, torch: "1.13.1", route: source, ptx: true, until: toolchain}
  fermi: {gpu: sm_21, torch: "1.0.1"}
  left: {route: cpu, torch: "1.0.1"}
"""


@pytest.fixture
def fleet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("fleet.yaml").write_text(FLEET)


def planned(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["build", "--matrix", "fleet.yaml", "--dry-run", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_every_build_has_its_row_and_the_first_that_fails_decides_the_exit(fleet, capsys):
    code, out, _ = planned(capsys, "--json")
    rows = json.loads(out)["builds"]
    assert code == 4
    assert [(row["name"], row["outcome"], row["lock"]) for row in rows] == [
        ("shelf", "planned", "fleet.locks/shelf.lock"),
        ("k40", "planned", "fleet.locks/k40.lock"),
        ("fermi", "failed", "fleet.locks/fermi.lock"),
        ("left", "planned", "fleet.locks/left.lock"),
    ]
    assert rows[1]["image"].startswith("envforge/toolchain:1.13.1-11.8.0-sm_35_compute_35-")
    assert rows[2]["error"]["code"] == "unsatisfiable"
    assert rows[3]["image"].startswith("envforge/torch:1.0.1-cpu-")


def test_people_see_a_table_and_why_a_build_failed(fleet, capsys):
    _, out, err = planned(capsys)
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:5]] == [
        ["build", "outcome"],
        ["shelf", "planned"],
        ["k40", "planned"],
        ["fermi", "failed"],
        ["left", "planned"],
    ]
    assert "fermi: error: unsatisfiable: " in out
    assert "k40, 2 of 4" in err


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("builds: {}", "builds: there is none"),
        ("builds: {a/b: {gpu: k40}}", "builds: 'a/b' is no name of a file"),
        ("builds: {a: {card: k40}}", "unknown field `card`"),
        ("builds: {a: {gpu: k40}, a: {gpu: k40}}", "duplicate key: a"),
    ],
)
def test_a_faulty_matrix_is_refused_by_its_fault(fleet, capsys, text, fault):
    Path("fleet.yaml").write_text(text)
    code, _, err = planned(capsys)
    assert code == 3
    assert fault in err


@pytest.mark.parametrize("as_json", [False, True])
def test_without_an_engine_what_was_done_is_told_and_what_was_not_begun(
    fleet, capsys, monkeypatch, as_json
):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    Path("fleet.yaml").write_text(FLEET.replace("  shelf", "  fermi2: {gpu: sm_21}\n  shelf"))
    code = cli.main(["build", "--matrix", "fleet.yaml", *(["--json"] if as_json else [])])
    out, err = capsys.readouterr()
    assert code == 4, "as the first that failed"
    assert "!! not begun: k40, fermi, left" in err
    if as_json:
        rows = json.loads(out)["builds"]
        assert [row["name"] for row in rows] == ["fermi2", "shelf"]
        assert rows[1]["error"]["code"] == "engine-unavailable"
    else:
        assert [line.split()[:2] for line in out.splitlines()[1:3]] == [
            ["fermi2", "failed"], ["shelf", "failed"],
        ]  # fmt: skip
        assert "shelf: error: engine-unavailable" in out


def test_what_stands_in_the_file_is_no_flag(fleet, capsys):
    code, _, err = planned(capsys, "--gpu", "k40")
    assert code == 2
    assert "--matrix and --gpu contradict each other" in err


def test_every_faulty_build_of_a_matrix_is_named(fleet, capsys):
    Path("fleet.yaml").write_text(
        "builds: {a: {gpu: k40, torhc: '1'}, b: {gpu: k40}, c: {gpu: 3}, d: [], 7: {route: x}}"
    )
    code, _, err = planned(capsys)
    assert code == 3
    assert [line.split(": ")[1] for line in err.splitlines() if line.startswith("  fleet")] == [
        "builds.a", "builds.c", "builds.d", "builds.7",
    ]  # fmt: skip
    assert "unknown field `torhc`" in err


@pytest.mark.parametrize("text", ["", "[]", "builds: []", "build: {}", "builds: {}\nmore: 1"])
def test_what_is_no_matrix_is_refused(fleet, capsys, text):
    Path("fleet.yaml").write_text(text)
    code, _, err = planned(capsys)
    assert code == 3
    assert "fleet.yaml" in err
