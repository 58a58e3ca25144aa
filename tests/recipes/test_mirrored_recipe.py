"""A recipe brought into a mirror is staged from it, when everything it came from is gone."""

from __future__ import annotations

import hashlib
import http.server
import json
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest

from envforge.errors import SourceError
from envforge.events import ignore
from envforge.mirror.recipe import create_recipe
from envforge.recipes import read_recipe
from envforge.recipes.asset import fetch_assets
from envforge.recipes.packages import lay_out_packages, load_pins
from envforge.recipes.stage import Wish, stage
from envforge.sources.mirror import Mirror, verify
from envforge.sources.store import MIRROR, OFFLINE

RECIPE = """
schema: envforge.recipe/1
name: mine
summary: a recipe
files: files
upstream: {name: theirs, url: 'URL', licence: none}
variants:
  "1":
    commit: COMMIT
    date: "2019-11-21"
    torch: ">=1.0,<3"
    why: a test
    source: a test
    evidence: measured
    modules: [a]
    packages: packages.yaml
    command: ["{python}", "{checkout}/train.py", "{overrides}"]
    overrides:
      - { form: yaml, key: a.b, file: config.yaml, upstream: 1, value: "{b}", why: a test }
assets:
  weights: {file: w.pkl, help: w, licence: none, urls: ['SITE/w.pkl'], sha256: HASH, source: t}
  unpinned: {file: u.pkl, help: u, licence: none, urls: ['SITE/u.pkl'], needed: demo, source: t}
  private: {file: p.pkl, help: p, licence: none, needed: demo, source: t}
parameters: { b: { kind: integer, default: 1, help: x } }
log: { progress: 'step (?P<step>\\d+)' }
success: { line: done }
shm_size_mib: 64
"""
WEIGHTS = b"weights" * 1000


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "w.pkl").write_bytes(WEIGHTS)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def git(folder: Path, *words: str) -> str:
    named = ["-c", "user.name=n", "-c", "user.email=n@invalid"]
    command = ["git", *named, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def recipe(tmp_path, site, monkeypatch) -> Path:
    """A recipe whose upstream, package index and site are folders of this test."""
    folder = tmp_path / "mine"
    (folder / "files").mkdir(parents=True)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "train.py").write_text("print(1)\n")
    (theirs / "config.yaml").write_text("a:\n  b: 1\n")
    git(theirs, "init", "-q")
    git(theirs, "add", "-A")
    git(theirs, "commit", "-q", "-m", "x")
    wheel = site[0] / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr("a/__init__.py", "1")
        opened.writestr("a-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: a\nVersion: 1\n")
        opened.writestr("a-1.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        opened.writestr("a-1.dist-info/RECORD", "")
    sha256 = hashlib.sha256(wheel.read_bytes()).hexdigest()
    file = {"tag": "py3-none", "name": wheel.name, "sha256": sha256}
    file["size_bytes"] = wheel.stat().st_size
    row = {"project": "a", "version": "1", "file": file}
    pins = {"tag": "cp37-cp37m", "torch": ">=1,<3", "as_of": "2019-11-21", "source": "x"}
    (folder / "packages.yaml").write_text(json.dumps({"packages": [{**pins, "rows": [row]}]}))
    text = RECIPE.replace("URL", f"file://{theirs}").replace("SITE", site[1])
    text = text.replace("HASH", hashlib.sha256(WEIGHTS).hexdigest())
    (folder / "recipe.yaml").write_text(text.replace("COMMIT", git(theirs, "rev-parse", "HEAD")))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("PIP_EXTRA_INDEX_URL", MIRROR, OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(site[0]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    return folder


def test_a_recipe_is_staged_from_its_mirror_alone(recipe, site, tmp_path, monkeypatch):
    created = create_recipe(tmp_path / "mirror", str(recipe), ignore)
    assert created.fresh
    assert created.manifest.left_out == (
        "asset unpinned: no source gives its hash",
        "asset private: it has to be brought",
    )
    assert sorted(created.manifest.inputs) == ["assets/w.pkl", "packages/a-1-py3-none-any.whl"]
    assert not create_recipe(tmp_path / "mirror", str(recipe), ignore).fresh
    assert verify(Mirror(tmp_path / "mirror")).faults == ()

    (tmp_path / "theirs").rename(tmp_path / "gone")
    for path in site[0].iterdir():
        path.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    monkeypatch.setenv(MIRROR, str(tmp_path / "mirror"))
    monkeypatch.setenv(OFFLINE, "1")
    loaded = read_recipe(recipe)
    variant = loaded.recipe.variants["1"]
    checkout = stage(Wish(loaded, variant, "1.0.1", {"b": 3}), ignore)
    assert checkout.verified
    assert Path(checkout.path, "config.yaml").read_text() == "a:\n  b: 3\n"
    (pins,) = load_pins(recipe / "packages.yaml")
    assert (lay_out_packages(pins, ignore) / "a/__init__.py").read_text() == "1"
    (weights,) = fetch_assets({"weights": loaded.recipe.assets["weights"]}, {}, ignore)
    assert Path(weights.path).read_bytes() == WEIGHTS
    with pytest.raises(SourceError) as caught:
        fetch_assets({"unpinned": loaded.recipe.assets["unpinned"]}, {}, ignore)
    assert caught.value.what == "u.pkl is not on this machine, and --offline asks no network"
