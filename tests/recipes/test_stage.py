from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from envforge.errors import PatchError, SourceError, UnknownName, UsageError
from envforge.recipes import read_recipe
from envforge.recipes.stage import Wish, find_mirror, patches_of, stage

SERIES = """
patches:
- id: rename
  when: {torch: '>=1.0,<1.2'}
  why: a test
  source: a test
  evidence: measured
  edits:
  - {file: train.py, find: old, replace: new, sites: 2}
"""
RECIPE = """
schema: envforge.recipe/1
name: mine
summary: a recipe
files: files
upstream: {name: theirs, url: 'https://localhost:1/theirs', licence: none, omit: [pictures], series: series.yaml}
variants:
  "1":
    commit: COMMIT
    date: "2019-11-21"
    torch: ">=1.0,<3"
    why: a test
    source: a test
    evidence: measured
    patches: [rename]
    command: ["{python}", "{checkout}/train.py", "{overrides}"]
    overrides:
      - { form: yaml, key: a.b, file: config.yaml, upstream: 1, value: "{b}", why: a test }
parameters: { b: { kind: integer, default: 1, help: x } }
log: { progress: 'step (?P<step>\\d+)' }
success: { line: done }
shm_size_mib: 64
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ENVFORGE_MIRROR", raising=False)


@pytest.fixture
def upstream(tmp_path):
    """A repository of one commit, with a file nobody needs."""
    folder = tmp_path / "theirs"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures/big.gif").write_text("big")
    (folder / "train.py").write_text("old = 1\nprint(old)\n")
    (folder / "config.yaml").write_text("a:\n  b: 1  # one\n")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        signed = ["-c", "user.name=n", "-c", "user.email=n@invalid"]
        subprocess.run(["git", *signed, *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def wish(tmp_path, upstream):
    def make(torch="1.0.1", source=upstream, commit=None, **settings):
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=upstream, capture_output=True, text=True, check=True
        ).stdout.strip()
        folder = tmp_path / "mine"
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "series.yaml").write_text(SERIES)
        (folder / "recipe.yaml").write_text(RECIPE.replace("COMMIT", commit or head))
        loaded = read_recipe(folder)
        return Wish(loaded, loaded.recipe.variants["1"], torch, {"b": 1, **settings}, source)

    return make


def test_a_checkout_is_the_commits_files_patched_and_edited(wish, events):
    checkout = stage(wish(b=7), events.append)
    assert checkout.patches == ("rename: train.py: applied",)
    assert checkout.edits == ("config.yaml: a.b: 7",)
    assert checkout.verified
    tree = files(checkout)
    assert tree == {"train.py": "new = 1\nprint(new)\n", "config.yaml": "a:\n  b: 7  # one\n"}


def files(checkout):
    root = Path(checkout.path)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*.*")}


@pytest.fixture
def events():
    return []


def test_what_was_staged_is_taken_again_while_its_files_are_the_same(wish, events):
    first = stage(wish(), events.append)
    second = stage(wish(), events.append)
    assert (first.reused, second.reused) == (False, True)
    assert first.path == second.path
    with Path(first.path, "train.py").open("a") as stream:
        stream.write("print('changed')\n")
    third = stage(wish(), events.append)
    assert third.reused is False
    assert files(third)["train.py"] == "new = 1\nprint(new)\n"
    assert events[-2].text == f"{first.path} was changed since it was staged: it is made anew"


def test_other_settings_or_another_torch_get_another_checkout(wish, events):
    paths = {
        stage(wish(), events.append).path,
        stage(wish(b=2), events.append).path,
        stage(wish(torch="2.0.1"), events.append).path,
    }
    assert len(paths) == 3


def test_a_patch_whose_condition_does_not_hold_is_left_out(wish):
    assert [patch.id for patch in patches_of(wish(torch="1.0.1.post2"))] == ["rename"]
    assert patches_of(wish(torch="1.2.0")) == ()


def test_a_patch_that_fits_another_number_of_sites_leaves_nothing(wish, upstream, events, tmp_path):
    made = wish()
    (upstream / ".git").rename(tmp_path / "history")
    (upstream / "train.py").write_text("old\n")
    with pytest.raises(PatchError) as caught:
        stage(made, events.append)
    assert caught.value.because == ("rename: train.py: 'old' must match 2 times, it matches 1",)
    assert not list((tmp_path / "cache/envforge/checkouts").glob("*"))


def test_a_commit_that_is_not_there_is_said(wish, events):
    with pytest.raises(SourceError, match="does not have commit 0000"):
        stage(wish(commit="0" * 40), events.append)


def test_a_copy_without_history_is_used_and_called_unverified(wish, upstream, events, tmp_path):
    made = wish()
    (upstream / ".git").rename(tmp_path / "history")
    checkout = stage(made, events.append)
    assert checkout.verified is False
    assert stage(made, events.append).reused is False, "nobody knows whether it is still the same"


def test_a_mirror_is_asked_before_the_network(wish, monkeypatch, tmp_path, events):
    monkeypatch.setenv("ENVFORGE_MIRROR", str(tmp_path))
    checkout = stage(wish(source=None), events.append)
    assert checkout.origin == str(tmp_path / "theirs")
    monkeypatch.setenv("ENVFORGE_MIRROR", str(tmp_path / "mine"))
    with pytest.raises(UsageError, match="has no theirs"):
        stage(wish(source=None), events.append)


def test_a_patch_that_is_in_no_series_is_unknown(wish):
    made = wish()
    variant = msgspec.structs.replace(made.variant, patches=("nonesuch",))
    with pytest.raises(UnknownName, match="unknown patch: 'nonesuch'"):
        patches_of(made._replace(variant=variant))


def test_without_an_upstream_nothing_is_asked_of_a_mirror(wish, monkeypatch):
    monkeypatch.delenv("ENVFORGE_MIRROR", raising=False)
    assert find_mirror(wish().loaded.recipe.upstream) is None
