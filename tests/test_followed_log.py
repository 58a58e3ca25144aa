"""A log that its engine follows for ever, as podman does now and then: it cannot be staged with one."""

from __future__ import annotations

import json
import socketserver
import struct
import threading
from http.server import BaseHTTPRequestHandler

import docker
import pytest

from envforge.image.engine import container as module
from envforge.image.engine.container import Container

LINES = [b"first\n", b"second\n", b"third\n"]


def frame(line: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(line)) + line


class EndlessEngine(BaseHTTPRequestHandler):
    """Has one container, which has ended; follows its log to the second line, and no further."""

    protocol_version = "HTTP/1.1"
    released = threading.Event()

    def do_GET(self):
        if "follow=1" in self.path:
            self.follow()
        elif "/logs" in self.path:
            wanted = LINES[-1:] if "tail=1" in self.path else LINES
            self.answer(b"".join(map(frame, wanted)))
        else:
            state = {"Status": "exited", "ExitCode": 0}
            self.answer(json.dumps({"State": state, "Config": {"Tty": False}}).encode())

    def do_POST(self):
        self.answer(b'{"StatusCode": 0}')

    def follow(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in map(frame, LINES[:2]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.released.wait(60)
        self.close_connection = True

    def answer(self, body: bytes):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "a local socket"

    def log_message(self, *words):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def client(tmp_path):
    with Server(str(tmp_path / "engine.sock"), EndlessEngine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        client = docker.DockerClient(f"unix://{tmp_path}/engine.sock", version="1.40")
        yield client
        EndlessEngine.released.set()
        client.close()
        server.shutdown()


def test_a_log_that_is_followed_for_ever_ends_with_its_container_and_whole(client, monkeypatch):
    monkeypatch.setattr(module, "_SETTLE_S", 0.2)
    container = Container(client, "ended", "ended", pid_column="pid")
    assert list(container.logs()) == ["first", "second", "third"]
