"""Captured machines: text files whose names are the right answers (tests/captures/README.md)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOSTS = Path(__file__).parent.parent / "captures/hosts"


class Expected(NamedTuple):
    """What the name of a capture promises."""

    story: str
    driver: str
    cards: tuple[str, ...]
    findings: tuple[str, ...]
    made: str


class Capture(NamedTuple):
    """One machine, taken apart; :meth:`build` puts its files into a folder."""

    files: dict[str, str]
    links: dict[str, str]
    nodes: list[str]
    environ: dict[str, str]
    commands: dict[str, tuple[str, int]]
    nvml: str | None

    def build(self, folder: Path) -> Path:
        """Write the files under ``folder / "root"``; nvidia-smi answers from what was captured."""
        root = folder / "root"
        root.mkdir()
        for name, text in self.files.items():
            _parent(root, name).write_bytes(text.replace("\\0", "\0").encode())
        for name, target in self.links.items():
            _parent(root, name).symlink_to(target)
        for name in self.nodes:
            if not _parent(root, name).is_dir():
                _parent(root, name).touch()
        if self.commands:
            script = _parent(root, "usr/bin/nvidia-smi")
            script.write_text(_script(self.commands))
            script.chmod(0o755)
        return root

    def nvml_argv(self, folder: Path) -> tuple[str, ...]:
        """A child that says what NVML's said; one that fails where NVML was not captured."""
        said = folder / "nvml.jsonl"
        said.write_text(self.nvml or '{"fault": "NVML Shared Library Not Found"}\n')
        return ("/bin/cat", str(said))


def _parent(root: Path, name: str) -> Path:
    path = root / name.lstrip("/")
    (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
    return path


def _script(commands: dict[str, tuple[str, int]]) -> str:
    cases = "".join(
        f"{shlex.quote(arguments)}) printf %s {shlex.quote(output)}; exit {code};;\n"
        for arguments, (output, code) in commands.items()
    )
    return f'#!/bin/sh\ncase "$*" in\n{cases}*) echo "not captured: $*"; exit 99;;\nesac\n'


def expected(path: Path) -> Expected:
    """Take a file name apart: ``story__driver__cards__findings__made.txt``."""
    story, driver, cards, findings, made = path.stem.split("__")
    return Expected(
        story,
        driver.removeprefix("driver-"),
        tuple(cards.split("+")) if cards != "no-card" else (),
        tuple(findings.split("+")) if findings != "quiet" else (),
        made,
    )


def read_capture(path: Path) -> Capture:
    """Read one file of ``tests/captures/hosts``."""
    capture = Capture({}, {}, [], {}, {}, None)
    command = ""
    for head, body in _sections(path.read_text(encoding="utf-8")):
        kind, _, rest = head.partition(" ")
        if kind == "env":
            name, _, value = rest.partition("=")
            capture.environ[name] = value
        elif kind in ("node", "dir"):
            capture.nodes.append(rest + "/" * (kind == "dir"))
        elif kind == "$":
            command = rest.removeprefix("nvidia-smi ")
            capture.commands[command] = (body, 0)
        elif kind == "exit":
            capture.commands[command] = (capture.commands[command][0], int(rest))
        elif kind == "nvml":
            capture = capture._replace(nvml=body)
        elif rest.startswith("-> "):
            capture.links[kind] = rest.removeprefix("-> ")
        else:
            capture.files[kind] = body
    return capture


def _sections(text: str) -> Iterator[tuple[str, str]]:
    head, body = "", ""
    for line in text.splitlines(keepends=True):
        if line.startswith("== "):
            yield from [(head, body)] if head else []
            head, body = line[3:].strip(), ""
        else:
            body += line
    yield from [(head, body)] if head else []
