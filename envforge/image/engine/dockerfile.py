"""What a builder needs in a Dockerfile and a plan does not: added on the way to it, never rendered.

A plan's Dockerfile is the same on every engine and every machine; these lines are about one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from envforge.sources.store import hash_file

CA_BUNDLE = "ca-bundle"
"""Name of the secret."""
_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
"""Where Debian's and Ubuntu's programs, apt among them, look for certificates."""
_INSTRUCTION = re.compile(
    r"^[ \t]*([A-Za-z]+)[ \t](?:[^\n]*\\\n(?:[ \t]*#[^\n]*\n)*)*[^\n]*\n?", re.MULTILINE
)
"""One instruction with the lines that continue it, comments between them included."""
_MOUNT = re.compile(r"--mount=(\S+)")
_FLAG = re.compile(r"--\S+\s+")
_DIGEST = "ENVFORGE_INPUTS"


def with_ca_bundle(text: str) -> str:
    """Let every RUN see the secret ``ca-bundle`` where programs look for certificates.

    A mount, so no layer has it; the file of the image is untouched below it.
    """
    mount = f"RUN --mount=type=secret,id={CA_BUNDLE},target={_CA_FILE},mode=0444 "
    return _each_run(text, lambda run: re.sub(r"\A\s*RUN\s+", mount, run, flags=re.IGNORECASE))


def with_input_digests(text: str, context: Path) -> str:
    """Put before every RUN that mounts something an ARG with the digest of what it mounts.

    buildah's cache knows a RUN by its words alone (seen with 1.28: the old layer is taken though a
    mounted file has changed); BuildKit looks at the files itself. What a stage holds is known by
    all that its build reads.
    """
    sources = dict(_digests(text, context))
    whole = hashlib.sha256("\n".join([text, *sources.values()]).encode()).hexdigest()

    def add_digest(run: str) -> str:
        digest = _mounted_digest(run, sources, whole)
        return f"ARG {_DIGEST}={digest}\n{run}" if digest else run

    return _each_run(text, add_digest)


def _each_run(text: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to every RUN with its continued lines; comments are no part of any."""

    def only_run(match: re.Match[str]) -> str:
        return change(match[0]) if match[1].upper() == "RUN" else match[0]

    return _INSTRUCTION.sub(only_run, text)


def _mounted_digest(run: str, sources: Mapping[str, str], whole: str) -> str:
    """Return the digest of what a RUN mounts from the context or a stage; "" for neither."""
    binds = list(_binds(run))
    if any("from" in bind for bind in binds):
        return whole
    found = [sources[bind["source"]] for bind in binds if bind.get("source") in sources]
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else ""


def _binds(run: str) -> Iterator[dict[str, str]]:
    for options in _MOUNT.findall(run):
        parts = [part.partition("=") for part in options.split(",")]
        fields = {name: value for name, _, value in parts}
        if fields.get("type", "bind") == "bind":
            yield {"source": fields.get("source", fields.get("src", ".")), **fields}


def _digests(text: str, context: Path) -> Iterator[tuple[str, str]]:
    """Yield every path of the context that the Dockerfile reads, with the digest of its files."""
    for match in _INSTRUCTION.finditer(text):
        for source in _sources(match[1].upper(), match[0]):
            yield source, _digest(context / source)


def _sources(word: str, instruction: str) -> list[str]:
    if word == "RUN":
        return [bind["source"] for bind in _binds(instruction) if "from" not in bind]
    if word not in ("COPY", "ADD") or "--from=" in instruction:
        return []
    words = _FLAG.sub("", instruction.replace("\\\n", " ")).split()
    return words[1:-1]


def _digest(path: Path) -> str:
    """Digest a file, or the names, modes and bytes of all files in a folder."""
    if path.is_file():
        return hash_file(path)
    state = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        content = hash_file(each) if each.is_file() else ""
        state.update(f"{each.relative_to(path)}\0{each.lstat().st_mode:o}\0{content}\n".encode())
    return state.hexdigest()
