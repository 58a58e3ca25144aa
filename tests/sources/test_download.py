"""Files over HTTP: interrupted, resumed, replaced by a page, cut by a certificate."""

from __future__ import annotations

import functools
import hashlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sources_site import Heard, Site, files_of, send, send_and_break

from envforge.errors import DiskFull, HashMismatch, SourceError
from envforge.sources import download
from envforge.sources.fetch import fetch_first, fetch_url
from envforge.sources.store import Store

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()
PATH = "/cuda_10.1.243_418.87.00_linux.run"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_PAUSE_S", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(site: Site, store: Store, on_event: Heard | None = None) -> Path:
    return fetch_url(site.address + PATH, SHA256, "cuda.run", store, on_event or Heard())


def test_a_file_comes_whole_with_its_progress(site: Site, store: Store, heard: Heard) -> None:
    site.serve(PATH, DATA)
    assert fetch(site, store, heard).read_bytes() == DATA
    last = [event for event in heard.events if event.kind == "bytes"][-1]
    assert (last.done, last.total) == (len(DATA), len(DATA))
    site.asked.clear()
    fetch(site, store)
    assert site.asked == []


def test_a_broken_connection_is_resumed_where_it_broke(
    site: Site, store: Store, heard: Heard
) -> None:
    def break_once(handler: BaseHTTPRequestHandler) -> None:
        site.serve(PATH, DATA)
        send_and_break(handler, data=DATA, upto=300_000)

    site.answers[PATH] = break_once
    assert fetch(site, store, heard).read_bytes() == DATA
    first, second = site.gets(PATH)
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 300_000
    assert any("resuming" in event.text for event in heard.events)


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(site: Site, store: Store) -> None:
    site.answers[PATH] = functools.partial(send_and_break, data=DATA, upto=200_000)
    with pytest.raises(SourceError) as caught:
        fetch(site, store)
    assert caught.value.exit_code == 5
    assert caught.value.what == f"cannot fetch cuda.run from {site.address}{PATH}"
    assert "will be resumed" in caught.value.because[-1]
    site.serve(PATH, DATA)
    site.asked.clear()
    assert fetch(site, store).read_bytes() == DATA
    assert site.gets(PATH)[0].startswith("bytes=")
    assert files_of(store) == [f"sha256/{SHA256[:2]}/{SHA256}"]


def test_a_server_that_cannot_resume_is_asked_for_everything(site: Site, store: Store) -> None:
    def ignore_range(handler: BaseHTTPRequestHandler) -> None:
        del handler.headers["Range"]
        send(handler, data=DATA)

    store.partial_of(SHA256).write_bytes(DATA[:1000])
    site.answers[PATH] = ignore_range
    assert fetch(site, store).read_bytes() == DATA


def test_a_remnant_of_another_file_is_dropped_and_the_file_fetched_anew(
    site: Site, store: Store
) -> None:
    store.partial_of(SHA256).write_bytes(b"x" * 1000)
    site.serve(PATH, DATA)
    assert fetch(site, store).read_bytes() == DATA
    assert site.gets(PATH) == ["bytes=1000-", ""]


def test_a_remnant_that_is_whole_already_needs_no_byte(site: Site, store: Store) -> None:
    store.partial_of(SHA256).write_bytes(DATA)
    site.serve(PATH, DATA)
    assert fetch(site, store).read_bytes() == DATA


def test_wrong_bytes_are_refused_and_nothing_is_kept(site: Site, store: Store) -> None:
    site.serve(PATH, DATA[:-1] + b"!")
    with pytest.raises(HashMismatch) as caught:
        fetch(site, store)
    assert caught.value.exit_code == 5
    assert caught.value.because[-1] == f"from {site.address}{PATH}"
    assert files_of(store) == []


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_login_page_is_recognised(site: Site, store: Store, kind: str) -> None:
    site.serve(PATH, b"\n<!DOCTYPE html><html>please sign in</html>", kind)
    with pytest.raises(SourceError) as caught:
        fetch(site, store)
    assert caught.value.what == f"{site.address}{PATH} gives an HTML page, not cuda.run"
    assert files_of(store) == []


def test_a_missing_file_names_the_address(site: Site, store: Store) -> None:
    with pytest.raises(SourceError) as caught:
        fetch(site, store)
    assert caught.value.what == (
        f"cannot fetch cuda.run: {site.address}{PATH} answers HTTP 404 Not Found"
    )


def test_a_server_in_trouble_is_asked_again(site: Site, store: Store) -> None:
    def trouble_once(handler: BaseHTTPRequestHandler) -> None:
        site.serve(PATH, DATA)
        send(handler, data=b"later", status=503)

    site.answers[PATH] = trouble_once
    assert fetch(site, store).read_bytes() == DATA


def test_a_host_out_of_reach_is_named(store: Store) -> None:
    url = "http://127.0.0.1:9/file.run"
    with pytest.raises(SourceError) as caught:
        fetch_url(url, SHA256, "file.run", store)
    assert caught.value.what == f"cannot fetch file.run from {url}"
    assert "Connection refused" in caught.value.because[0]


def test_every_address_that_was_asked_is_named_with_what_to_do(site: Site, store: Store) -> None:
    gone = tuple(f"{site.address}/gone-{number}" for number in (1, 2))
    with pytest.raises(SourceError) as caught:
        fetch_first(gone, "0" * 64, "cuda.run", store)
    assert caught.value.what == "no address gives cuda.run"
    assert all(url in "\n".join(caught.value.because) for url in gone)
    assert "--mirror" in caught.value.hint


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_the_users_certificates_are_honoured(
    tls_site: Site,
    certificate: Path,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    tls_site.serve(PATH, DATA)
    with pytest.raises(SourceError) as caught:
        fetch(tls_site, store)
    assert caught.value.what == (
        f"cannot fetch cuda.run: the certificate of {tls_site.address}{PATH} is not accepted"
    )
    monkeypatch.setenv(variable, str(certificate))
    assert fetch(tls_site, store).read_bytes() == DATA


def test_a_full_disk_says_where_and_what_to_do(site: Site, tmp_path: Path) -> None:
    site.serve(PATH, DATA)
    with pytest.raises(DiskFull) as caught:
        download.download(site.address + PATH, "cuda.run", Path("/dev/full"), Heard())
    assert caught.value.because[0].startswith("cuda.run into /dev: ")
    assert "No space left" in caught.value.because[0]
    assert "XDG_CACHE_HOME" in caught.value.hint
