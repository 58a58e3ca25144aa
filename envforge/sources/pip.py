"""One wheel through the user's own pip: every line pip says is read, its reason is kept."""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import Version

from envforge.errors import DiskFull, EnvforgeError, SourceError
from envforge.events import Event, OnEvent
from envforge.sources.child import lines_of, spawn
from envforge.sources.store import mismatch

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)\Z")
_RAW_PROGRESS_SINCE = Version("24.1")
_GOT = re.compile(r"\bGot\s+([0-9a-f]{64})\b")
_NO_ROOM = os.strerror(errno.ENOSPC)
_CERTIFICATE = re.compile(
    r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|certificate verify|TLS CA certificate"
)
_CONNECTION = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError"
    r"|Connection(Reset|Refused)?Error|ProtocolError|Max retries exceeded|connection broken"
    r"|Incomplete(Read|Download)|not enough bytes were received|HTTP error 5\d\d|5\d\d Server Error"
)
_NOISE = re.compile(r"\[notice\]|Looking in |WARNING: Location ")
_KEPT_LINES = 12


class Pip(NamedTuple):
    """A pip that runs: the words that start it, and its version."""

    argv: tuple[str, ...]
    version: Version


def find_pip() -> Pip:
    """Find a pip: this interpreter's, else one on PATH. SourceError where there is none."""
    tried = _candidates()
    for argv in tried:
        version = _version_of(argv)
        if version is not None:
            return Pip(argv, version)
    raise SourceError(
        "no pip to fetch wheels with",
        because=tuple(f"tried: {' '.join(argv)}" for argv in tried) or ("nothing on PATH",),
        hint=f"{sys.executable} -m ensurepip --upgrade   (or: sudo apt-get install python3-pip)",
    )


@functools.cache
def _version_of(argv: tuple[str, ...]) -> Version | None:
    try:
        answer = subprocess.run(
            [*argv, "--version"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(r"pip (\d[\w.]*)", answer.stdout)
    return Version(match[1]) if answer.returncode == 0 and match else None


def _candidates() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    if importlib.util.find_spec("pip") is not None:
        found.append((sys.executable, "-m", "pip"))
    for name in ("pip3", "pip"):
        path = shutil.which(name)
        if path:
            found.append((path,))
    python = shutil.which("python3")
    if python:
        found.append((python, "-m", "pip"))
    return found


def download_wheel(
    name: str, sha256: str, size_bytes: int, directory: Path, on_event: OnEvent
) -> Path:
    """Download the wheel called ``name`` into ``directory``.

    Raises HashMismatch, or SourceError with pip's own reason, or DiskFull.
    """
    pip = find_pip()
    argv = [*pip.argv, *_arguments(name, sha256, directory, pip.version)]
    on_event(Event("step", f"fetching {name}", 0, size_bytes))
    said: list[str] = []
    try:
        with spawn(argv, env=_environment()) as process:
            for line in lines_of(process):
                _read_line(line, name, said, on_event)
    except OSError as error:
        raise SourceError(f"cannot start pip to fetch {name}", because=(str(error),)) from error
    path = directory / name
    if process.returncode != 0 or not path.is_file():
        full = [line for line in said if _NO_ROOM in line]
        if full:
            raise DiskFull.here(*full)
        raise _explain(name, sha256, said)
    on_event(Event("done", f"fetched {name}", size_bytes, size_bytes))
    return path


def _arguments(name: str, sha256: str, directory: Path, version: Version) -> list[str]:
    distribution, release, platform_arguments = _target(name)
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{distribution}=={release} --hash=sha256:{sha256}\n", encoding="utf-8")
    progress = "raw" if version >= _RAW_PROGRESS_SINCE else "off"
    return [
        "download", "--no-deps", "--require-hashes", "--only-binary=:all:",
        # The store keeps the file; a second copy in pip's cache would double every 600 MB wheel.
        "--no-cache-dir", "--no-input", "--disable-pip-version-check",
        # The plan chose the interpreter; "--python-version 3" would be refused as 3.0.0.
        "--ignore-requires-python",
        f"--progress-bar={progress}",
        *platform_arguments,
        "--dest", str(directory), "--requirement", str(requirements),
    ]  # fmt: skip


def _target(name: str) -> tuple[str, str, list[str]]:
    """Read the wheel's name: distribution, version, and the interpreter pip must pretend to be."""
    try:
        distribution, version, _, tags = parse_wheel_filename(name)
    except InvalidWheelFilename as error:
        raise SourceError(f"{name!r} is not the name of a wheel", because=(str(error),)) from error
    first = min(tags, key=str)
    arguments = [
        f"--python-version={re.sub('[^0-9]', '', first.interpreter)}",
        f"--implementation={re.sub('[0-9]', '', first.interpreter)}",
        f"--abi={first.abi}",
        *(f"--platform={platform}" for platform in sorted({tag.platform for tag in tags})),
    ]
    return distribution, str(version), arguments


def _environment() -> dict[str, str]:
    """Return the user's own environment, less what would stop or hide a plain download."""
    quiet = {"PIP_QUIET", "PIP_VERBOSE", "PIP_REQUIRE_VIRTUALENV", "PIP_DEST", "PIP_REPORT"}
    kept = {key: value for key, value in os.environ.items() if key not in quiet}
    return {**kept, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def _read_line(line: str, name: str, said: list[str], on_event: OnEvent) -> None:
    match = _PROGRESS.match(line)
    if match:
        on_event(Event("bytes", name, int(match[1]), int(match[2])))
    elif line.strip() and not _NOISE.search(line):
        said.append(line.strip())
        on_event(Event("log", line))


def _explain(name: str, sha256: str, said: list[str]) -> EnvforgeError:
    """Turn what pip said into the one reason that matters."""
    text = "\n".join(said)
    lines = tuple(dict.fromkeys(said[-_KEPT_LINES:]))
    got = _GOT.search(text)
    if "DO NOT MATCH THE HASHES" in text and got:
        return mismatch(name, sha256, got[1], "fetched from your package index by pip")
    if _CERTIFICATE.search(text):
        # pip retries, finds no page and says "No matching distribution found": not the reason.
        return SourceError(
            f"cannot fetch {name}: the package index's certificate is not accepted",
            because=lines,
            hint="behind a company proxy give its CA bundle: export PIP_CERT=/path/to/bundle.crt",
        )
    if _CONNECTION.search(text):
        return SourceError(
            f"cannot fetch {name}: the package index is out of reach",
            because=lines,
            hint="check the network and `pip config list` (index-url, proxy); then run it again",
        )
    return SourceError(
        f"cannot fetch {name}: the package index does not have it",
        because=(*lines, f"asked for the file with sha256 {sha256}"),
        hint="look at `pip config list`: the index must carry old releases; "
        "PIP_INDEX_URL, PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS name another one",
    )
