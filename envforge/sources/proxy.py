"""An HTTP proxy for one archive: answers are recorded once, and replayed without a network.

apt asks it as a proxy (``GET http://host/debian/dists/…``) or as an archive (``GET /dists/…``).
What it hands out from a mirror is hashed first; that the archive is who it says is for apt to
check, by its signatures. Only what lies below its address is ever asked of the network.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urlsplit

import requests
import urllib3.exceptions

from envforge.errors import EngineUnavailable
from envforge.sources.download import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, reason_of, session
from envforge.sources.mirror import Answer
from envforge.sources.store import Store, hash_file

_CHUNK = 1 << 16
_IDLE_S = 120.0
_TRIES = 3
_INSIDE = re.compile(r"/((?:dists|pool)/.+)\Z")
"""What every archive of Debian's kind has below its address."""
_RANGE = re.compile(r"bytes=(\d*)-(\d*)\Z")
_TEXT = "text/plain; charset=utf-8"

Keep = Callable[[str, Answer], None]
"""Told of every path that was answered: its file is in the store by then."""


class Upstream(NamedTuple):
    """The archive on the network, for what is not in the mirror."""

    address: str
    keep: Keep | None = None
    """None: what comes is passed on and not kept."""
    known: Mapping[str, Answer] = {}
    """Files of an earlier recording, by paths whose content never changes."""


class Exchange:
    """What a proxy may answer. Safe for several connections: a path is fetched by one of them."""

    def __init__(
        self, store: Store, rows: Mapping[str, Answer], upstream: Upstream | None = None
    ) -> None:
        self.store = store
        self.upstream = upstream
        self.refused: dict[str, str] = {}
        """Path or address -> why it was not answered."""
        self.callers: set[str] = set()
        """Addresses of who asked."""
        self.host = ""
        """Where it listens; what asks on this machine comes from the same address."""
        self._rows = dict(rows)
        self._lock = threading.Lock()
        self._paths: dict[str, threading.Lock] = {}

    def path_of(self, target: str) -> str | None:
        """Return the path below the archive's address, decoded; None: it is not the archive's."""
        address = self.upstream.address if self.upstream else ""
        if address and target.startswith(f"{address}/"):
            return unquote(target[len(address) + 1 :])
        url = urlsplit(target)
        if self.upstream is not None and url.netloc:
            return None
        found = _INSIDE.search(url.path)
        return unquote(found[1] if found else url.path.lstrip("/"))

    @contextlib.contextmanager
    def alone(self, path: str) -> Iterator[None]:
        """Let one connection at a time work on a path: the next finds what the first fetched."""
        with self._lock:
            lock = self._paths.setdefault(path, threading.Lock())
        with lock:
            yield

    def find(self, path: str) -> tuple[Path, Answer] | None:
        """Return the file for a path, hashed again; None where it is not held or is damaged."""
        known = self.upstream.known if self.upstream else {}
        row = self._rows.get(path) or known.get(path)
        if row is None:
            return None
        file = self.store.path_of(row.sha256)
        if not file.is_file() or hash_file(file) != row.sha256:
            self.refuse(path, "the mirror's file is missing or damaged")
            return None
        self.add(path, row)
        return file, row

    def add(self, path: str, row: Answer) -> None:
        """Take a path as answered; whoever records is told of each once."""
        if self._rows.get(path) == row:
            return
        self._rows[path] = row
        if self.upstream is not None and self.upstream.keep is not None:
            self.upstream.keep(path, row)

    def was_reached_by_others(self) -> bool:
        """Tell whether anybody asked but this machine itself."""
        return bool(self.callers - {self.host})

    def refuse(self, what: str, reason: str) -> None:
        """Remember what could not be answered."""
        with self._lock:
            self.refused[what] = reason


@contextlib.contextmanager
def serving(exchange: Exchange, host: str, port: int = 0) -> Iterator[str]:
    """Answer on ``host`` for as long as the block runs; gives the proxy's address.

    EngineUnavailable where this machine has no such address: the engine runs elsewhere.
    """
    exchange.host = host
    handler = type("Handler", (_Handler,), {"exchange": exchange})
    try:
        server = ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise EngineUnavailable(
            f"cannot listen on {host}:{port}",
            because=(str(error), "what is built reaches the mirror at that address"),
            hint="use an engine of this machine, and a port that is free",
        ) from error
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class _Refused(Exception):
    """Nothing can be answered: the status, and the reason in words."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class _Handler(BaseHTTPRequestHandler):
    """One connection, which may ask many times."""

    exchange: Exchange
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_CONNECT(self) -> None:
        reason = (
            "an https address cannot be recorded: name the archive by http, its signatures hold"
        )
        self._refuse(self.path, _Refused(HTTPStatus.METHOD_NOT_ALLOWED, reason))

    def log_message(self, *_: Any) -> None:
        """Say nothing on the terminal."""

    def _answer(self) -> None:
        exchange, path = self.exchange, self.exchange.path_of(self.path)
        exchange.callers.add(self.client_address[0])
        try:
            if path is None:
                reason = "only the distribution's archive is answered for"
                raise _Refused(HTTPStatus.FORBIDDEN, reason)
            with exchange.alone(path):
                found = exchange.find(path)
                if found is None:
                    found = self._fetch(path)
            if found is not None:
                self._send(*found)
        except _Refused as refused:
            self._refuse(path or self.path, refused)
        except OSError as error:  # whoever asked has gone, the archive too, or the disk is full
            exchange.refuse(path or self.path, str(error))
            self.close_connection = True

    def _refuse(self, what: str, refused: _Refused) -> None:
        self.exchange.refuse(what, refused.reason)
        body = f"{refused.reason}\n".encode()
        self.send_response(refused.status, refused.status.phrase)
        self._headers({"Content-Type": _TEXT, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()

    def _send(self, file: Path, row: Answer) -> None:
        """Answer with a file: all of it, a part, or that it has not changed."""
        tags = {"ETag": f'"{row.sha256}"', "Last-Modified": row.modified}
        if self._is_unchanged(row):
            self.send_response(HTTPStatus.NOT_MODIFIED)
            self._headers(tags)
            return
        start, end = self._part(row)
        if start >= end and row.size_bytes:
            self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            self._headers({"Content-Range": f"bytes */{row.size_bytes}", "Content-Length": "0"})
            return
        whole = (start, end) == (0, row.size_bytes)
        self.send_response(HTTPStatus.OK if whole else HTTPStatus.PARTIAL_CONTENT)
        part = "" if whole else f"bytes {start}-{end - 1}/{row.size_bytes}"
        self._headers(
            {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(end - start),
                "Content-Range": part,
                "Accept-Ranges": "bytes",
                **tags,
            }
        )
        if self.command != "HEAD":
            with file.open("rb") as stream:
                stream.seek(start)
                self._copy(stream, end - start)

    def _is_unchanged(self, row: Answer) -> bool:
        named = self.headers.get("If-None-Match")
        if named is not None:
            return row.sha256 in named
        since, modified = _time(self.headers.get("If-Modified-Since")), _time(row.modified)
        return since is not None and modified is not None and modified <= since

    def _part(self, row: Answer) -> tuple[int, int]:
        """Read the Range of the request: first byte and the one after the last."""
        wanted = _RANGE.match(self.headers.get("Range", ""))
        if wanted is None or not any(wanted.groups()):
            return 0, row.size_bytes
        condition = self.headers.get("If-Range", "")
        if condition and condition not in (f'"{row.sha256}"', row.modified):
            return 0, row.size_bytes
        first, last = wanted.groups()
        if not first:
            return max(0, row.size_bytes - int(last)), row.size_bytes
        return int(first), min(int(last) + 1, row.size_bytes) if last else row.size_bytes

    def _copy(self, stream: BinaryIO, size: int) -> None:
        while size and (chunk := stream.read(min(size, _CHUNK))):
            self.wfile.write(chunk)
            size -= len(chunk)

    def _fetch(self, path: str) -> tuple[Path, Answer] | None:
        """Ask the network; None where the answer has been sent on the way already."""
        upstream = self.exchange.upstream
        if upstream is None:
            reason = "the mirror does not hold it, and no network is asked"
            raise _Refused(HTTPStatus.NOT_FOUND, reason)
        with session() as opened:
            download = _Download(opened, self._url(upstream, path))
            if upstream.keep is None:
                self._pass_on(download)
                return None
            return self._record(download, path)

    def _url(self, upstream: Upstream, path: str) -> str:
        """Build the archive's own address, spelled as it was asked for."""
        if self.path.startswith(f"{upstream.address}/"):
            return self.path
        return f"{upstream.address}/{quoted(path)}"

    def _record(self, download: _Download, path: str) -> tuple[Path, Answer] | None:
        """Keep what comes, passing it on as it comes: apt waits half a minute, not for a gigabyte.

        The last piece is passed on when the file is kept: what apt has, the mirror has.
        """
        store, live = self.exchange.store, self.command == "GET" and not self.headers.get("Range")
        with store.workspace() as folder, (folder / "file").open("wb") as kept:
            digest, held_back = hashlib.sha256(), b""
            if live:
                self._begin(download)
            for chunk in download.chunks():
                kept.write(chunk)
                digest.update(chunk)
                if live:
                    self.wfile.write(held_back)
                    held_back = chunk
            kept.close()
            size = (folder / "file").stat().st_size
            row = Answer(sha256=digest.hexdigest(), size_bytes=size, modified=download.modified)
            place = store.put_verified(folder / "file", row.sha256, path)
        self.exchange.add(path, row)
        if not live:
            return place, row
        self.wfile.write(held_back)
        return None

    def _pass_on(self, download: _Download) -> None:
        self._begin(download)
        if self.command != "HEAD":
            for chunk in download.chunks():
                self.wfile.write(chunk)

    def _begin(self, download: _Download) -> None:
        self.send_response(HTTPStatus.OK)
        self._headers(
            {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(download.size),
                "Last-Modified": download.modified,
            }
        )


def quoted(path: str) -> str:
    """Spell a path as an address does."""
    return quote(path)


def _time(text: str | None) -> float | None:
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


class _Download:
    """One file of the archive on the network, gone on with where a connection broke.

    Raises _Refused with the archive's status, or where what answers is a page and not the file.
    """

    def __init__(self, opened: requests.Session, url: str) -> None:
        self._opened, self._url = opened, url
        self._response = self._ask(0)
        self.modified = self._response.headers.get("Last-Modified", "")
        length = self._response.headers.get("Content-Length", "")
        if not length.isdigit():
            self._response.close()
            raise _Refused(HTTPStatus.BAD_GATEWAY, f"{url} does not say how long it is")
        self.size = int(length)

    def _ask(self, start: int) -> requests.Response:
        headers = {"Range": f"bytes={start}-"} if start else {}
        limits = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            response = self._opened.get(self._url, headers=headers, stream=True, timeout=limits)
        except requests.RequestException as error:
            raise _Refused(HTTPStatus.BAD_GATEWAY, f"{self._url}: {reason_of(error)}") from error
        expected = HTTPStatus.PARTIAL_CONTENT if start else HTTPStatus.OK
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if response.status_code != expected:
            response.close()
            status = HTTPStatus.BAD_GATEWAY if response.ok else HTTPStatus(response.status_code)
            raise _Refused(status, f"{self._url} answers HTTP {response.status_code}")
        if kind == "text/html" and not self._url.endswith((".html", ".htm")):
            response.close()
            raise _Refused(HTTPStatus.BAD_GATEWAY, f"{self._url} gives an HTML page, not the file")
        return response

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; ConnectionResetError where they do not come, after a few tries."""
        done = tries = 0
        while True:
            try:
                with self._response as response:
                    # As it is: a server may call a .gz file's own bytes an encoding of them.
                    for chunk in response.raw.stream(_CHUNK, decode_content=False):
                        done += len(chunk)
                        yield chunk
            except urllib3.exceptions.HTTPError:
                pass  # asked again for the rest
            if done >= self.size:
                break
            tries += 1
            if tries > _TRIES:
                raise ConnectionResetError(f"{self._url}: {done} of {self.size} bytes came")
            try:
                self._response = self._ask(done)
            except _Refused as refused:  # an answer has begun: it can only be cut off
                raise ConnectionResetError(refused.reason) from refused
