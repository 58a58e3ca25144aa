from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from envforge.errors import HashMismatch, SourceError, UnknownName, UsageError
from envforge.recipes import load_recipe
from envforge.recipes.asset import fetch_assets, lay_out, needed_assets, refuse_unknown
from envforge.recipes.document import Asset

WEIGHTS = b"weights" * 1000
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def site(tmp_path):
    """A folder, and the address under which it is served."""
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


def asset(*urls, **changes):
    stated = {"file": "zoo/w.pkl", "help": "weights", "licence": "none", "source": "a test"}
    return Asset(**{**stated, "urls": urls, **changes})


def fetch(one, brought=None):
    events = []
    (found,) = fetch_assets({"w": one}, {"w": brought} if brought else {}, events.append)
    return found, [event.text for event in events if event.kind == "warning"]


def test_a_file_whose_hash_no_source_gives_is_recorded_and_held_to_it(site):
    folder, address = site
    one = asset(f"{address}/w.pkl")
    first, warnings = fetch(one)
    assert (first.sha256, first.recorded) == (SHA256, True)
    assert warnings == [f"no source gives the hash of zoo/w.pkl: {SHA256} is recorded"]
    assert Path(first.path).read_bytes() == WEIGHTS

    (folder / "w.pkl").write_bytes(b"other")
    again, warnings = fetch(one)
    assert (again.sha256, again.recorded, warnings) == (SHA256, False, [])
    Path(first.path).unlink()
    with pytest.raises(HashMismatch):
        fetch(one)


BIG = WEIGHTS * 600
"""More than is read at once."""


class Breaking(http.server.BaseHTTPRequestHandler):
    """Breaks off in the middle, and is gone when it is asked for the rest, until it is ``well``."""

    well = False
    asked: ClassVar[list[str]] = []

    def do_GET(self):
        rest = self.headers.get("Range", "")
        self.asked.append(rest)
        if not self.well:
            self.send_response(404 if rest else 200)
            self.send_header("Content-Length", str(0 if rest else len(BIG)))
            self.end_headers()
            self.wfile.write(b"" if rest else BIG[: 3 << 20])
            return
        start = int(rest[len("bytes=") : -1])
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(BIG) - 1}/{len(BIG)}")
        self.send_header("Content-Length", str(len(BIG) - start))
        self.end_headers()
        self.wfile.write(BIG[start:])

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize("sha256", [None, hashlib.sha256(BIG).hexdigest()])
def test_a_later_run_goes_on_with_what_an_earlier_one_has_downloaded(sha256):
    Breaking.well, Breaking.asked = False, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        one = asset(f"http://127.0.0.1:{server.server_port}/w.pkl", sha256=sha256)
        with pytest.raises(SourceError):
            fetch(one)
        Breaking.well = True
        found, _ = fetch(one)
        server.shutdown()
    assert Path(found.path).read_bytes() == BIG
    first, *others = Breaking.asked
    assert first == ""
    assert len(others) == 2
    assert others[0] == others[1] != "", "what had come is not asked for again"


def test_the_next_address_is_asked_where_one_has_moved(site):
    _, address = site
    found, _ = fetch(asset(f"{address}/gone.pkl", f"{address}/w.pkl"))
    assert found.origin == f"{address}/w.pkl"
    with pytest.raises(SourceError) as caught:
        fetch(asset(f"{address}/lost.pkl", f"{address}/too.pkl"))
    assert "lost.pkl answers HTTP 404" in caught.value.because[0]
    assert "too.pkl answers HTTP 404" in "".join(caught.value.because)


def test_another_size_than_the_stated_one_is_refused_and_not_kept(site, tmp_path):
    _, address = site
    with pytest.raises(SourceError) as caught:
        fetch(asset(f"{address}/w.pkl", size_bytes=3))
    assert "has 7000 bytes, 3 were expected" in caught.value.because[0]
    assert not list((tmp_path / "CACHE").rglob("partial/*"))


def test_a_file_that_is_brought_is_held_to_the_hash_where_there_is_one(tmp_path):
    mine = tmp_path / "mine.pkl"
    mine.write_bytes(WEIGHTS)
    found, _ = fetch(asset(), mine)
    assert (found.path, found.sha256) == (str(mine), SHA256)
    with pytest.raises(HashMismatch):
        fetch(asset(sha256="0" * 64), mine)
    with pytest.raises(UsageError, match="there is no file"):
        fetch(asset(), tmp_path / "gone")


def test_a_file_without_an_address_has_to_be_brought():
    with pytest.raises(UsageError) as caught:
        fetch(asset())
    assert caught.value.what == "w has to be brought: weights"
    assert caught.value.hint == "--asset w=FILE"


def test_assets_are_laid_out_under_their_own_names(tmp_path):
    mine = tmp_path / "mine.pkl"
    mine.write_bytes(WEIGHTS)
    found, _ = fetch(asset(), mine)
    folder = lay_out((found,), {"w": asset()})
    assert (folder / "zoo/w.pkl").read_bytes() == WEIGHTS
    assert lay_out((found,), {"w": asset()}) == folder


def test_a_run_fetches_only_what_it_needs():
    recipe = load_recipe("pix2pix-train").recipe
    common = {"dataset": "facades", "preset": ""}
    assert list(needed_assets(recipe, **common, demo=False, given=False)) == ["facades"]
    assert needed_assets(recipe, **common, demo=True, given=False) == {}
    assert needed_assets(recipe, **common, demo=False, given=True) == {}


def test_a_file_that_nothing_needs_is_refused(tmp_path):
    recipe = load_recipe("pix2pix-train").recipe
    with pytest.raises(UnknownName) as caught:
        refuse_unknown(recipe, {"weights": tmp_path})
    assert caught.value.hint == "pix2pix-train has: facades"
