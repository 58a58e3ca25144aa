from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import shutil
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from envforge.events import Event
from envforge.sources.fetch import WheelInput
from envforge.sources.store import Store

Answer = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A real HTTP server on 127.0.0.1: what it answers, and what it was asked."""

    def __init__(self, server: ThreadingHTTPServer, scheme: str) -> None:
        self.address = f"{scheme}://127.0.0.1:{server.server_port}"
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str]] = []

    def serve(self, path: str, data: bytes, kind: str = "application/octet-stream") -> str:
        self.answers[path] = functools.partial(send, data=data, kind=kind)
        return self.address + path

    def gets(self, path: str) -> list[str]:
        """The Range headers of the requests for ``path``."""
        return [wanted for asked, wanted in self.asked if asked == path]


def send(
    handler: BaseHTTPRequestHandler,
    *,
    data: bytes,
    kind: str = "application/octet-stream",
    status: int = 200,
) -> None:
    """Answer as a static file server does, Range included."""
    start = 0
    wanted = handler.headers.get("Range", "")
    if wanted and status == 200:
        start = int(wanted.removeprefix("bytes=").rstrip("-"))
        if start >= len(data):
            handler.send_response(416)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        status = 206
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data) - start))
    if status == 206:
        handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    handler.end_headers()
    handler.wfile.write(data[start:])


def send_and_break(handler: BaseHTTPRequestHandler, *, data: bytes, upto: int) -> None:
    """Promise everything, send a part, drop the connection."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/octet-stream")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[:upto])
    handler.close_connection = True


@contextlib.contextmanager
def open_site(certificate: Path | None = None) -> Iterator[Site]:
    site: Site

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 20

        def do_GET(self) -> None:
            site.asked.append((self.path, self.headers.get("Range", "")))
            answer = site.answers.get(self.path)
            if answer is None:
                send(self, data=b"no such page", status=404)
            else:
                answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # A client that refuses the certificate, or leaves early, is no fault of the server.
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        site = Site(server, "https" if certificate else "http")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as opened:
        yield opened


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificate and key of a company's proxy: valid for 127.0.0.1, known to nobody."""
    folder = tmp_path_factory.mktemp("certificate")
    key, chain = folder / "key.pem", folder / "certificate.pem"
    openssl = shutil.which("openssl")
    assert openssl, "these tests need the openssl command (ca-certificates brings it)"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=proxy",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(chain)],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + chain.read_bytes())
    return both


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    with open_site(certificate) as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


class Heard:
    """An ``on_event`` that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> set[str]:
        return {event.kind for event in self.events}


@pytest.fixture
def heard() -> Heard:
    return Heard()


def files_of(store: Store) -> list[str]:
    """Every file in the store but its locks: what a failure may have left."""
    return [
        str(path.relative_to(store.root))
        for path in sorted(store.root.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    ]


def make_wheel(name: str, padding: bytes = b"") -> bytes:
    """A real wheel with nothing in it but ``padding``."""
    distribution, version, *_ = name.split("-")
    info = f"{distribution}-{version}.dist-info"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path, text in {
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\n",
            f"{info}/RECORD": "",
        }.items():
            archive.writestr(zipfile.ZipInfo(path), text)
        archive.writestr(zipfile.ZipInfo(f"{distribution}/padding"), padding)
    return out.getvalue()


def wheel_input(name: str, data: bytes) -> WheelInput:
    distribution, version, interpreter, abi, _ = name.removesuffix(".whl").split("-")
    digest = hashlib.sha256(data).hexdigest()
    return WheelInput(distribution, version, name, digest, len(data), f"{interpreter}-{abi}")


def publish(site: Site, name: str, data: bytes) -> None:
    """Put a wheel on the site's package index."""
    distribution = name.split("-", maxsplit=1)[0]
    page = f'<!DOCTYPE html><html><body><a href="/files/{name}">{name}</a></body></html>'
    site.serve(f"/simple/{distribution}/", page.encode(), "text/html")
    site.serve(f"/files/{name}", data)
