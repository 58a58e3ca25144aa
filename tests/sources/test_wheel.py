"""Wheels through a real pip from a real index on 127.0.0.1."""

from __future__ import annotations

import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
from sources_site import Heard, Site, files_of, make_wheel, publish, send, wheel_input

from envforge.errors import HashMismatch, SourceError
from envforge.events import Event
from envforge.sources.fetch import fetch_wheel
from envforge.sources.pip import find_pip
from envforge.sources.store import Store

NAME = "demo-1.0-cp27-cp27mu-manylinux1_x86_64.whl"
DATA = make_wheel(NAME, bytes(3_000_000))
WHEEL = wheel_input(NAME, DATA)


@pytest.fixture(autouse=True)
def only_this_index(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's whole pip configuration: one index."""
    for name in [*os.environ]:
        if name.startswith(("PIP_", "SSL_CERT_")) or name.endswith(
            ("_proxy", "_PROXY", "_CA_BUNDLE")
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.address}/simple/")


def test_a_wheel_for_another_python_comes_from_the_users_own_index(
    site: Site, store: Store, heard: Heard
) -> None:
    publish(site, NAME, DATA)
    path = fetch_wheel(WHEEL, store, heard)
    assert path.read_bytes() == DATA
    assert files_of(store) == [str(path.relative_to(store.root))]
    assert {"step", "bytes", "done"} <= heard.kinds()
    last = [event for event in heard.events if event.kind == "bytes"][-1]
    assert (last.done, last.total) == (len(DATA), len(DATA))


def test_a_wheel_in_the_store_asks_nobody(site: Site, store: Store) -> None:
    publish(site, NAME, DATA)
    path = fetch_wheel(WHEEL, store)
    site.answers.clear()
    site.asked.clear()
    assert fetch_wheel(WHEEL, store) == path
    assert site.asked == []


@pytest.mark.parametrize(
    "name",
    [
        "demo-1.0.post2-cp36-cp36m-manylinux1_x86_64.whl",
        "demo-1.0-py2.py3-none-any.whl",
        "demo-1.0-py3-none-any.whl",
        "demo-2.7.1+cpu-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "demo-1.0-py3-none-manylinux_2_28_x86_64.whl",
        "demo-1.0-cp37-abi3-linux_x86_64.whl",
    ],
)
def test_every_form_of_tag_is_asked_for_rightly(site: Site, store: Store, name: str) -> None:
    data = make_wheel(name)
    publish(site, name.replace("+", "%2B"), data)
    site.serve("/simple/demo/", f'<a href="/files/{name}">{name}</a>'.encode(), "text/html")
    site.serve(f"/files/{name}", data)
    assert fetch_wheel(wheel_input(name, data), store).read_bytes() == data


def test_a_flipped_byte_is_refused_and_nothing_is_kept(site: Site, store: Store) -> None:
    flipped = bytearray(DATA)
    flipped[len(flipped) // 2] ^= 1
    publish(site, NAME, bytes(flipped))
    with pytest.raises(HashMismatch) as caught:
        fetch_wheel(WHEEL, store)
    error = caught.value
    assert error.exit_code == 5
    assert error.what == f"{NAME} does not have the pinned hash; nothing of it was kept"
    assert error.because[0] == f"expected sha256 {WHEEL.sha256}"
    assert error.because[1].startswith("received sha256 ")
    assert error.because[1] != f"received sha256 {WHEEL.sha256}"
    assert files_of(store) == []


def test_an_index_without_the_file_is_said_to_lack_it(site: Site, store: Store) -> None:
    publish(site, "demo-2.0-cp27-cp27mu-manylinux1_x86_64.whl", b"another release")
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL, store)
    assert caught.value.exit_code == 5
    assert caught.value.what == f"cannot fetch {NAME}: the package index does not have it"
    assert any("(from versions: 2.0)" in line for line in caught.value.because)
    assert files_of(store) == []


def test_an_index_out_of_reach_is_not_mistaken_for_one_without_the_file(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL, store)
    assert caught.value.what == f"cannot fetch {NAME}: the package index is out of reach"
    assert "pip config list" in caught.value.hint
    assert files_of(store) == []


def test_a_proxys_certificate_is_told_apart_from_a_missing_file(
    tls_site: Site, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tls_site, NAME, DATA)
    monkeypatch.setenv("PIP_INDEX_URL", f"{tls_site.address}/simple/")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL, store)
    assert caught.value.what == (
        f"cannot fetch {NAME}: the package index's certificate is not accepted"
    )
    assert "PIP_CERT" in caught.value.hint


def test_with_the_proxys_certificate_given_the_wheel_comes(
    tls_site: Site, certificate: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tls_site, NAME, DATA)
    monkeypatch.setenv("PIP_INDEX_URL", f"{tls_site.address}/simple/")
    monkeypatch.setenv("PIP_CERT", str(certificate))
    assert fetch_wheel(WHEEL, store).read_bytes() == DATA


def test_a_name_that_is_no_wheels_is_refused_before_pip_runs(store: Store, site: Site) -> None:
    with pytest.raises(SourceError) as caught:
        fetch_wheel(WHEEL._replace(name="demo; rm -rf.whl"), store)
    assert caught.value.what == "'demo; rm -rf.whl' is not the name of a wheel"
    assert site.asked == []


def test_ctrl_c_ends_pip_and_leaves_nothing(site: Site, store: Store) -> None:
    released = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        released.wait(20)
        send(handler, data=b"too late")

    publish(site, NAME, DATA)
    site.answers[f"/files/{NAME}"] = stall

    def press_ctrl_c(event: Event) -> None:
        if event.text.startswith("Collecting"):
            os.kill(os.getpid(), signal.SIGINT)

    try:
        with pytest.raises(KeyboardInterrupt):
            fetch_wheel(WHEEL, store, press_ctrl_c)
    finally:
        released.set()
    assert files_of(store) == []
    assert not [
        child for child in psutil.Process().children(recursive=True) if "pip" in child.name()
    ]


def test_two_builds_at_once_download_once(site: Site, store: Store) -> None:
    def slowly(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.5)
        send(handler, data=DATA)

    publish(site, NAME, DATA)
    site.answers[f"/files/{NAME}"] = slowly
    threads = [threading.Thread(target=fetch_wheel, args=(WHEEL, store)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.gets(f"/files/{NAME}")) == 1


def test_without_any_pip_the_error_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(SourceError) as caught:
        find_pip()
    assert caught.value.what == "no pip to fetch wheels with"
    assert "ensurepip" in caught.value.hint


def test_a_pip_on_path_serves_where_this_interpreter_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "pip3"
    script.write_text("#!/bin/sh\necho pip 20.0.2 from /usr/lib\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    found = find_pip()
    assert found.argv == (str(script),)
    assert str(found.version) == "20.0.2"
