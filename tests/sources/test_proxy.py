"""The proxy of an archive: what it records it can replay, byte for byte and request for request."""

from __future__ import annotations

import functools
import hashlib
import http.client
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from sources_site import Site, send, send_and_break

from envforge.errors import EngineUnavailable
from envforge.sources.mirror import Answer
from envforge.sources.proxy import Exchange, Upstream, serving
from envforge.sources.store import Store

DEB = bytes(range(256)) * 4000
PATH = "pool/main/g/gcc-11/g++-11_11.3.0-12_amd64.deb"
SPELLED = "/debian/pool/main/g/gcc-11/g%2B%2B-11_11.3.0-12_amd64.deb"
MODIFIED = "Sat, 31 Aug 2024 11:08:00 GMT"
ROW = Answer(sha256=hashlib.sha256(DEB).hexdigest(), size_bytes=len(DEB), modified=MODIFIED)


def held(store: Store) -> Store:
    with store.workspace() as folder:
        (folder / "deb").write_bytes(DEB)
        store.put_verified(folder / "deb", ROW.sha256, "deb")
    return store


@pytest.fixture
def replay(store: Store) -> Iterator[str]:
    with serving(Exchange(held(store), {PATH: ROW}), "127.0.0.1") as address:
        yield address


class Recorder:
    """A proxy that records a site, and what it wrote down."""

    def __init__(self, store: Store, site: Site) -> None:
        self.rows: dict[str, Answer] = {}
        self.archive = f"{site.address}/debian"
        upstream = Upstream(self.archive, self.rows.__setitem__)
        self.exchange = Exchange(store, {}, upstream)

    def get(self, proxy: str, path: str = PATH, **headers: str) -> requests.Response:
        return asked(proxy, f"{self.archive}/{path}", **headers)


def asked(proxy: str, url: str, **headers: str) -> requests.Response:
    with requests.Session() as opened:
        opened.trust_env = False
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return opened.get(url, headers=named, proxies={"http": proxy}, timeout=20)


def test_what_is_recorded_is_replayed_without_the_archive(site: Site, store: Store) -> None:
    recorder = Recorder(store, site)
    site.serve(SPELLED, DEB)
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        assert asked(proxy, site.address + SPELLED).content == DEB
        assert asked(proxy, site.address + SPELLED).content == DEB
    assert [path for path, _ in site.asked] == [SPELLED], "the second came from the store"
    assert recorder.rows == {PATH: Answer(sha256=ROW.sha256, size_bytes=len(DEB))}
    site.answers.clear()
    with serving(Exchange(store, recorder.rows), "127.0.0.1") as proxy:
        assert asked(proxy, site.address + SPELLED).content == DEB
        assert asked(proxy, f"http://nowhere.invalid{SPELLED}").content == DEB, "as a proxy"
        assert asked("", f"{proxy}/{PATH}").content == DEB, "as an archive"
        assert asked("", f"{proxy}{SPELLED}").content == DEB, "with the archive's own folder"


def test_a_row_is_written_before_the_last_byte_has_left(site: Site, store: Store) -> None:
    """So a step of a build that ended well has everything it was given in the mirror."""
    recorder = Recorder(store, site)
    site.serve(SPELLED, DEB)
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        url = urlsplit(proxy)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
        connection.request("GET", f"{site.address}{SPELLED}")
        answer = connection.getresponse()
        first = answer.read(len(DEB) - 1)
        answer.read()
        assert PATH in recorder.rows
        assert len(first) == len(DEB) - 1
        connection.close()


def test_an_archive_that_breaks_off_is_asked_for_the_rest(site: Site, store: Store) -> None:
    def break_once(handler: http.server.BaseHTTPRequestHandler) -> None:
        site.serve(SPELLED, DEB)
        send_and_break(handler, data=DEB, upto=300_000)

    recorder = Recorder(store, site)
    site.answers[SPELLED] = break_once
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        assert asked(proxy, site.address + SPELLED).content == DEB
    assert site.gets(SPELLED)[1].startswith("bytes=")


def test_an_archive_that_never_gives_the_rest_leaves_no_row_and_no_file(
    site: Site, store: Store
) -> None:
    recorder = Recorder(store, site)
    site.answers[SPELLED] = functools.partial(send_and_break, data=DEB, upto=300_000)

    def break_for_good(handler: http.server.BaseHTTPRequestHandler) -> None:
        site.answers[SPELLED] = functools.partial(send, data=b"gone", status=404)
        send_and_break(handler, data=DEB, upto=300_000)

    site.answers[SPELLED] = break_for_good
    with (
        serving(recorder.exchange, "127.0.0.1") as proxy,
        pytest.raises(requests.RequestException),
    ):
        asked(proxy, site.address + SPELLED)
    assert recorder.rows == {}
    assert not list((store.root / "sha256").rglob("*")) if store.root.exists() else True
    assert recorder.exchange.refused == {
        PATH: f"{site.address}{SPELLED} answers HTTP 404",
    }


def test_an_html_page_in_place_of_a_file_is_refused_and_not_recorded(
    site: Site, store: Store
) -> None:
    recorder = Recorder(store, site)
    site.serve(SPELLED, b"<html>please log in</html>", kind="text/html; charset=utf-8")
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        answer = asked(proxy, site.address + SPELLED)
    assert answer.status_code == 502
    assert answer.text == f"{site.address}{SPELLED} gives an HTML page, not the file\n"
    assert recorder.rows == {}


def test_what_the_archive_refuses_is_passed_on_with_its_status(site: Site, store: Store) -> None:
    recorder = Recorder(store, site)
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        answer = recorder.get(proxy, "dists/bookworm/InRelease")
    assert answer.status_code == 404
    assert recorder.exchange.refused == {
        "dists/bookworm/InRelease": f"{recorder.archive}/dists/bookworm/InRelease answers HTTP 404"
    }


def test_it_is_no_proxy_for_anything_but_the_archive(site: Site, store: Store) -> None:
    recorder = Recorder(store, site)
    site.serve("/secrets/pool/key", b"key")
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        answer = asked(proxy, f"{site.address}/secrets/pool/key")
    assert (answer.status_code, answer.text) == (
        403,
        "only the distribution's archive is answered for\n",
    )
    assert site.asked == []


def test_https_cannot_be_recorded_and_the_reason_says_what_to_do(site: Site, store: Store) -> None:
    recorder = Recorder(store, site)
    with serving(recorder.exchange, "127.0.0.1") as proxy:
        url = urlsplit(proxy)
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
        connection.request("CONNECT", "archive.example:443")
        answer = connection.getresponse()
        assert answer.status == 405
        assert answer.read().decode().startswith("an https address cannot be recorded")
        connection.close()


def test_a_file_asked_for_by_many_at_once_is_fetched_once(site: Site, store: Store) -> None:
    recorder = Recorder(store, site)
    begun = threading.Event()

    def slowly(handler: http.server.BaseHTTPRequestHandler) -> None:
        begun.wait(0.3)
        send(handler, data=DEB)

    site.answers[SPELLED] = slowly
    with serving(recorder.exchange, "127.0.0.1") as proxy, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: asked(proxy, site.address + SPELLED), range(8)))
    assert [answer.content == DEB for answer in answers] == [True] * 8
    assert len(site.asked) == 1


def test_a_file_another_plan_has_is_not_fetched_again(site: Site, store: Store) -> None:
    rows: dict[str, Answer] = {}
    upstream = Upstream(f"{site.address}/debian", rows.__setitem__, {PATH: ROW})
    with serving(Exchange(held(store), {}, upstream), "127.0.0.1") as proxy:
        assert asked(proxy, site.address + SPELLED).content == DEB
    assert site.asked == []
    assert rows == {PATH: ROW}


def test_several_requests_take_one_connection(replay: str) -> None:
    url = urlsplit(replay)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    for method, status, body in (
        ("GET", 200, DEB),
        ("HEAD", 200, b""),
        ("GET", 200, DEB),
    ):
        connection.request(method, f"/{PATH}")
        opened = connection.sock
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
        assert answer.headers["Content-Length"] == str(len(DEB))
        assert connection.sock is opened, "kept alive"
    connection.request("GET", "/pool/none.deb")
    missing = connection.getresponse()
    assert (missing.status, missing.read()) == (
        404,
        b"the mirror does not hold it, and no network is asked\n",
    )
    connection.close()


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("bytes=0-99", 206, 0, 100),
        ("bytes=1000-", 206, 1000, len(DEB)),
        ("bytes=-10", 206, len(DEB) - 10, len(DEB)),
        (f"bytes=5-{len(DEB) + 500}", 206, 5, len(DEB)),
        ("bytes=0-", 200, 0, len(DEB)),
        ("lines=1-2", 200, 0, len(DEB)),
    ],
)
def test_a_range_is_answered_with_exactly_those_bytes(
    replay: str, wanted: str, status: int, start: int, end: int
) -> None:
    answer = asked("", f"{replay}/{PATH}", Range=wanted)
    assert (answer.status_code, answer.content) == (status, DEB[start:end])
    if status == 206:
        assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DEB)}"


def test_a_range_behind_the_end_is_not_satisfiable(replay: str) -> None:
    answer = asked("", f"{replay}/{PATH}", Range=f"bytes={len(DEB)}-")
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(DEB)}"


def test_a_range_of_another_file_gets_the_whole_one(replay: str) -> None:
    older = "Fri, 30 Aug 2024 11:08:00 GMT"
    assert asked("", f"{replay}/{PATH}", Range="bytes=9-", If_Range=older).content == DEB
    same = asked("", f"{replay}/{PATH}", Range="bytes=9-", If_Range=MODIFIED)
    assert same.content == DEB[9:]


@pytest.mark.parametrize(
    ("since", "status"),
    [
        (MODIFIED, 304),
        ("Sun, 01 Sep 2024 00:00:00 GMT", 304),
        ("Fri, 30 Aug 2024 00:00:00 GMT", 200),
    ],
)
def test_what_has_not_changed_is_not_sent_again(replay: str, since: str, status: int) -> None:
    answer = asked("", f"{replay}/{PATH}", If_Modified_Since=since)
    assert answer.status_code == status
    assert answer.content == (DEB if status == 200 else b"")


def test_a_file_truncated_in_the_mirror_is_never_handed_out(store: Store) -> None:
    exchange = Exchange(held(store), {PATH: ROW})
    path = store.path_of(ROW.sha256)
    path.chmod(0o644)
    path.write_bytes(DEB[:-1])
    with serving(exchange, "127.0.0.1") as address:
        answer = asked("", f"{address}/{PATH}")
    assert answer.status_code == 404
    assert PATH in exchange.refused


def test_a_mirror_that_lacks_a_file_may_ask_the_archive_and_keeps_nothing(
    site: Site, store: Store
) -> None:
    site.serve(SPELLED, DEB)
    exchange = Exchange(store, {}, Upstream(f"{site.address}/debian"))
    with serving(exchange, "127.0.0.1") as proxy:
        assert asked(proxy, site.address + SPELLED).content == DEB
    assert not list(store.root.rglob("*"))


def test_an_address_of_another_machine_is_said_to_be_none_of_this(store: Store) -> None:
    with (
        pytest.raises(EngineUnavailable) as caught,
        serving(Exchange(store, {}), "192.0.2.77"),
    ):
        pass
    assert caught.value.what == "cannot listen on 192.0.2.77:0"


def test_the_file_asked_for_stays_where_it_is(store: Store, tmp_path: Path) -> None:
    with serving(Exchange(held(store), {PATH: ROW}), "127.0.0.1") as address:
        answer = asked("", f"{address}/pool/../../{PATH}")
        outside = asked("", f"{address}/%2e%2e/%2e%2e/etc/passwd")
    assert outside.status_code == 404
    assert answer.status_code in (200, 404)
