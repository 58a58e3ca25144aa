"""``envforge mirror``: what is said, in words and as JSON, and the exits."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import jsonschema
import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from mirror_parts import DEB, INPUTS, PLAN, small_mirror

from envforge import cli
from envforge.sources.mirror import Manifest, Mirror
from envforge.sources.store import MIRROR, OFFLINE

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    return small_mirror(tmp_path)


@pytest.fixture
def envforge(capsys):
    """Call envforge in this process; exit code, stdout, stderr."""

    def call(*words):
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def check(name, text):
    document = json.loads(text)
    schema = json.loads((SCHEMAS / f"{name}-1.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def test_a_whole_mirror_is_said_to_be_whole(envforge, mirror):
    code, said, _ = envforge("mirror", "verify", mirror.root)
    assert (code, said) == (0, "whole: 1 manifests, 4 files, 15.4 kB\n")
    code, said, _ = envforge("mirror", "verify", mirror.root, "--json")
    assert code == 0
    assert check("mirror-verify", said)["faults"] == []


def test_a_missing_deb_ends_with_exit_5_and_is_named(envforge, mirror):
    mirror.store.path_of(hashlib.sha256(DEB).hexdigest()).unlink()
    code, said, _ = envforge("mirror", "verify", mirror.root, "--quiet")
    assert code == 5
    assert said == (
        "not whole: 1 manifests, 4 files, 15.4 kB\n"
        f"  plans/{PLAN}: pool/a.deb: missing\n"
        "hint: envforge mirror create   with the same plan fetches what is missing\n"
    )
    code, said, _ = envforge("mirror", "verify", mirror.root, "--json")
    assert code == 5
    assert check("mirror-verify", said)["faults"] == [
        {"manifest": f"plans/{PLAN}", "file": "pool/a.deb", "what": "missing"}
    ]


def test_no_mirror_ends_with_exit_5_and_the_command_that_makes_one(envforge, tmp_path):
    code, _, said = envforge("mirror", "verify", tmp_path)
    assert code == 5
    assert f"{tmp_path} is not a mirror" in said
    assert f"envforge mirror create {tmp_path} --gpu CARD --torch VERSION" in said


def test_pruning_says_how_much_would_go_and_then_how_much_went(envforge, mirror):
    _, said, _ = envforge("mirror", "prune", mirror.root, "--plan", PLAN[:8], "--dry-run")
    assert said == f"would remove plans/{PLAN}\nwould remove 4 files, 15.4 kB; 0 stay\n"
    code, said, _ = envforge("mirror", "prune", mirror.root, "--plan", PLAN[:8], "--json")
    assert code == 0
    assert check("mirror-prune", said)["files"] == 4
    assert mirror.manifests() == ()


def test_a_plan_it_does_not_hold_is_refused_with_those_it_holds(envforge, mirror):
    code, _, said = envforge("mirror", "prune", mirror.root, "--plan", "ffff")
    assert code == 3
    assert f"the mirror holds: {PLAN[:12]}" in said


def test_what_is_served_is_what_the_mirror_holds_until_ctrl_c(mirror):
    words = [sys.executable, "-m", "envforge", "mirror", "serve", str(mirror.root), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = ""
            while not said.endswith("}\n"):
                said += process.stdout.readline()
            address = check("mirror-serve", said)["address"]
            with urllib.request.urlopen(f"{address}/pool/a.deb", timeout=20) as answer:
                assert answer.read() == DEB
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("words", [("build", "--gpu", "gtx780"), ("run", "canary")])
def test_a_mirror_that_is_not_there_is_said_before_anything_begins(envforge, tmp_path, words):
    code, _, said = envforge(*words, "--offline", "--mirror", tmp_path / "none")
    assert code == 2
    assert f"Directory '{tmp_path}/none' does not exist" in said
    assert "ENVFORGE_OFFLINE" not in os.environ, "a flag ends with its command"


@pytest.mark.parametrize("name", ["build", "run"])
def test_the_flags_are_short_for_the_variables_that_the_store_reads(name):
    command = cli.cli.get_command(None, name)
    variables = {each.name: each.envvar for each in command.params}
    assert (variables["mirror"], variables["offline"]) == (MIRROR, OFFLINE)


def test_the_published_form_of_a_manifest_is_the_one_that_is_read():
    published = json.loads((SCHEMAS / "mirror-1.json").read_text())
    read = json.loads(json.dumps(msgspec.json.schema(Manifest)))
    assert {key: published[key] for key in read} == read


def test_a_manifest_that_is_written_has_its_published_form(mirror):
    manifest = check("mirror", mirror.path_of("plan", PLAN).read_text())
    assert set(manifest["inputs"]) == set(INPUTS)


def test_a_command_that_is_proposed_can_be_typed_though_the_path_has_a_space(envforge, tmp_path):
    code, _, err = envforge("mirror", "verify", tmp_path / "my mirror")
    assert code == 5
    hint = next(line for line in err.splitlines() if line.startswith("hint: "))
    words = shlex.split(hint.removeprefix("hint: "))
    assert words[:4] == ["envforge", "mirror", "create", str(tmp_path / "my mirror")]


def test_a_moments_work_makes_no_line_of_bytes(envforge, mirror):
    _, _, err = envforge("mirror", "verify", mirror.root)
    assert err.splitlines() == ["-> hashing 4 files", "ok hashed 4 files"]
