"""One container: watched, read, stopped, and always removed."""

from __future__ import annotations

import codecs
import io
import os
import posixpath
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import docker
import docker.errors

from envforge.errors import RunFailed
from envforge.image.engine.faults import closed_responses, converted, stopped_answering

_MAX_LINKS = 40
_ENDED = ("exited", "dead", "stopped")
"""The last is podman's, before it has tidied up."""
_SETTLE_S = 10.0
_POLL_S = 0.1


class Exit(NamedTuple):
    """How a container ended."""

    code: int
    oom_killed: bool
    """The kernel killed a process of it for memory; the code may be 0 all the same."""


class Answer(NamedTuple):
    """What a command inside a container gave."""

    code: int
    stdout: str
    stderr: str


class Container:
    """A started container. Use it as a context manager: it is removed, whatever happens."""

    def __init__(
        self, client: docker.DockerClient, container_id: str, name: str, *, pid_column: str
    ) -> None:
        self.id = container_id
        self.name = name
        self._pid_column = pid_column
        self._client = client
        self._api: Any = client.api  # docker's stubs leave the low-level API untyped

    def __enter__(self) -> Container:  # noqa: PYI034 -- typing.Self is newer than Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.remove()
        except KeyboardInterrupt:
            self.remove()  # a second Ctrl-C must not leave it behind
            raise
        except Exception:
            if error is None:
                raise

    def logs(self) -> Iterator[str]:
        """Yield the lines of both streams from the first, until the container ends.

        A carriage return ends a line too (progress bars). Raises EngineUnavailable where the
        stream ends while the container does not: the client is silent about a killed engine.
        """
        text = _LineSplitter()
        with converted(f"read the output of {self.name}"):
            with closed_responses(self._api):
                for chunk in self._followed():
                    yield from text.feed(chunk)
            self._expect_end()
            yield from text.rest() or self._unfinished_line()

    def _followed(self) -> Iterator[bytes]:
        """Yield the output as it comes, the rest of it where following does not end by itself.

        podman may follow a container for ever that ended as soon as it was started:
        https://github.com/containers/podman/issues/11461
        """
        stream, given = self._api.logs(self.id, stream=True, follow=True), 0
        read, closed = threading.Event(), threading.Event()
        threading.Thread(
            target=self._close_after_end, args=(stream, read, closed), daemon=True
        ).start()
        try:
            for chunk in stream:
                given += len(chunk)
                yield chunk
        finally:
            read.set()
        if closed.is_set():
            yield self._api.logs(self.id, follow=False)[given:]

    def _close_after_end(self, stream: Any, read: threading.Event, closed: threading.Event) -> None:
        """Close a followed log that is not read to its end a while after the container ended."""
        try:
            self._api.wait(self.id, timeout=None)
        except Exception:  # noqa: BLE001 -- an engine that went away ends the log, too
            return
        if not read.wait(_SETTLE_S):
            closed.set()
            stream.close()

    def _expect_end(self) -> None:
        """Wait the moment between the end of the output and the end of the container."""
        deadline = time.monotonic() + _SETTLE_S
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise stopped_answering(f"read the output of {self.name}")
            time.sleep(_POLL_S)

    def _unfinished_line(self) -> list[str]:
        """Return what the container wrote after its last line end.

        Docker 20.10 leaves it out of a followed log, and gives it when asked for the last line.
        """
        last: bytes = self._api.logs(self.id, follow=False, tail=1)
        return [] if last.endswith(b"\n") else _LineSplitter.lines(last)

    def poll(self) -> Exit | None:
        """Say how the container ended; None while it runs. Raises EngineUnavailable."""
        with converted(f"look at {self.name}"):
            state = self._api.inspect_container(self.id)["State"]
        if state["Status"] not in _ENDED:
            return None
        return Exit(int(state["ExitCode"]), bool(state.get("OOMKilled")))

    def wait(self) -> Exit:
        """Block until the container ends. Raises EngineUnavailable where the engine goes away."""
        with converted(f"wait for {self.name}"):
            code = int(self._api.wait(self.id, timeout=None)["StatusCode"])
            state = self._api.inspect_container(self.id)["State"]
        return Exit(code, bool(state.get("OOMKilled")))

    def stop(self, timeout_s: int = 10) -> None:
        """Ask the container to end (its stop signal, TERM), then kill it after ``timeout_s``."""
        with converted(f"stop {self.name}"):
            self._api.stop(self.id, timeout=timeout_s)

    def signal(self, name: str) -> None:
        """Send a signal such as ``SIGINT``; nothing happens where the container has ended."""
        with converted(f"signal {self.name}"):
            try:
                self._api.kill(self.id, name)
            except docker.errors.APIError as error:
                # podman 4 calls it its own fault (500) that there is nothing to signal any more.
                if not error.is_client_error() and self.poll() is None:
                    raise

    def pids(self) -> tuple[int, ...]:
        """List its processes as the engine's machine numbers them; nothing once it has ended."""
        try:
            with converted(f"look at {self.name}"):
                answer = self._top()
        except RunFailed:
            return ()
        # podman writes "?" for one that ended while it looked.
        return tuple(int(row[0]) for row in answer["Processes"] or () if row[0].isdigit())

    def _top(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._api.top(self.id, ps_args=self._pid_column)
        except ValueError:  # podman answers with nothing at all for one that has ended
            return {"Processes": ()}
        return found

    def remove(self) -> None:
        """Kill and remove the container and its anonymous volumes; silent where it is gone."""
        with converted(f"remove {self.name}"):
            remove_container(self._client, self.id)

    def exec(
        self,
        argv: Sequence[str],
        *,
        user: str = "",
        env: Mapping[str, str] | None = None,
        workdir: str | None = None,
    ) -> Answer:
        """Run a command inside and wait for it. Raises RunFailed where it cannot be started."""
        with converted(f"run {argv[0]} in {self.name}"), closed_responses(self._api):
            created = self._api.exec_create(
                self.id, list(argv), user=user, environment=dict(env or {}), workdir=workdir
            )
            stdout, stderr = self._api.exec_start(created["Id"], demux=True)
            code = self._api.exec_inspect(created["Id"])["ExitCode"]
        if code is None:
            raise RunFailed(f"{self.name} ended while {argv[0]} ran in it")
        return Answer(int(code), _decode(stdout), _decode(stderr))

    def read_file(self, path: str, dest: Path) -> Path:
        """Copy one file out of the container to exactly ``dest``, following symbolic links.

        Raises RunFailed where there is no such file; ``dest`` appears whole or not at all.
        """
        with (
            converted(f"read {path} from {self.name}"),
            closed_responses(self._api),
        ):
            chunks, found = self._follow(path)
            return _store_only_member(chunks, found, dest)

    def files(
        self, wanted: Callable[[str], bool], folder: Path, *, under: str = ""
    ) -> Iterator[tuple[str, Path]]:
        """Copy files out of the container as it is: yields path inside and copy, one by one.

        Nothing is executed in it, and it need not run. Without ``under`` it is the container's own
        file system, without what is mounted into it (:meth:`mounts`); ``under`` may be a mount or
        a file. ``wanted`` is asked with each regular file's path (``/usr/lib/…``); the caller may
        remove a copy before it takes the next. Raises RunFailed, EngineUnavailable.
        """
        with converted(f"read the files of {self.name}"), closed_responses(self._api):
            if under:
                chunks, found = self._follow(under.rstrip("/") or "/")
                parent = posixpath.dirname(found)
            else:  # never both: podman 5 locks the container as long as one is open
                chunks, parent = self._api.export(self.id), "/"
            for name, copy in copy_members(
                chunks, lambda name: wanted(posixpath.join(parent, name)), folder
            ):
                yield posixpath.join(parent, name), copy

    def mounts(self) -> tuple[str, ...]:
        """Name the places where volumes and directories of the host are mounted."""
        with converted(f"look at {self.name}"):
            rows = self._api.inspect_container(self.id)["Mounts"]
        return tuple(sorted(row["Destination"] for row in rows))

    def _follow(self, path: str) -> tuple[Any, str]:
        """Open the archive of a path behind symbolic links; return it and where they led."""
        for _ in range(_MAX_LINKS):
            chunks, facts = self._open(path)
            target = posixpath.join(posixpath.dirname(path), facts.get("linkTarget") or path)
            if target == path:  # podman follows links itself and names the place of every file
                return chunks, path
            chunks.close()
            path = target
        raise RunFailed(f"too many symbolic links at {path} in {self.name}")

    def _open(self, path: str) -> tuple[Any, dict[str, Any]]:
        try:
            chunks, facts = self._api.get_archive(self.id, path)
        except docker.errors.NotFound as error:
            raise RunFailed(f"there is no {path} in {self.name}") from error
        return chunks, facts


def remove_container(client: docker.DockerClient, ref: str) -> None:
    """Kill and remove; silent where it is gone or another call is removing it."""
    api: Any = client.api
    try:
        api.remove_container(ref, v=True, force=True)
    except docker.errors.APIError as error:
        if error.status_code not in (404, 409):
            raise


class _LineSplitter:
    """Bytes in any pieces -> whole lines of text."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._open = ""

    def feed(self, chunk: bytes) -> Iterator[str]:
        *lines, self._open = (self._open + self._decoder.decode(chunk)).split("\n")
        yield from lines

    def rest(self) -> list[str]:
        """Return what came after the last line end, as no line or one."""
        last = self._open + self._decoder.decode(b"", final=True)
        self._open = ""
        return last.split("\n")[:1] if last else []

    @classmethod
    def lines(cls, data: bytes) -> list[str]:
        """Split bytes that are all there."""
        text = cls()
        return [*text.feed(data), *text.rest()]


class _ChunkReader(io.RawIOBase):
    """An iterator of bytes as the file object tarfile reads from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def copy_members(
    chunks: Iterator[bytes], wanted: Callable[[str], bool], folder: Path
) -> Iterator[tuple[str, Path]]:
    """Copy the wanted regular files of an archive; names inside it choose no path outside."""
    with (
        io.BufferedReader(_ChunkReader(chunks)) as raw,
        tarfile.open(fileobj=raw, mode="r|") as archive,
    ):
        for number, member in enumerate(archive):
            if not (member.isfile() and wanted(member.name)):
                continue
            source = archive.extractfile(member)
            if source is None:
                continue
            _expect_room(member, folder)
            copy = folder / f"{number}"
            with copy.open("wb") as target, source:
                shutil.copyfileobj(source, target, 1 << 20)
            yield member.name, copy


def _expect_room(member: tarfile.TarInfo, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if member.size > free:
        raise RunFailed(
            f"no room to copy {member.name}",
            because=(f"it has {member.size} bytes, {free} are free",),
            hint="set TMPDIR to a larger disk",
        )


def _store_only_member(chunks: Iterator[bytes], path: str, dest: Path) -> Path:
    """Copy the archive's one regular file to ``dest``; names inside the archive decide nothing."""
    with (
        io.BufferedReader(_ChunkReader(chunks)) as raw,
        tarfile.open(fileobj=raw, mode="r|") as archive,
    ):
        member = archive.next()
        source = archive.extractfile(member) if member is not None and member.isfile() else None
        if source is None:
            raise RunFailed(f"{path} in the container is not a file")
        dest.parent.mkdir(parents=True, exist_ok=True)
        handle, staging = tempfile.mkstemp(dir=dest.parent, prefix=f".{dest.name}.")
        try:
            with os.fdopen(handle, "wb") as target, source:
                while piece := source.read(1 << 20):
                    target.write(piece)
            Path(staging).chmod(0o644)
            return Path(staging).replace(dest)
        except BaseException:
            Path(staging).unlink(missing_ok=True)
            raise


def _decode(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace")
