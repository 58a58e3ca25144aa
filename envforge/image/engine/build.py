"""One build with any client: followed line by line, ended with all it began, its failure told."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import msgspec

from envforge.errors import BuildFailed, EngineUnavailable
from envforge.events import OnEvent
from envforge.image.engine.causes import failure
from envforge.image.engine.dockerfile import CA_BUNDLE, with_ca_bundle
from envforge.image.engine.progress import Progress
from envforge.sources.child import lines_of, spawn

_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


def label_json(value: Any) -> str:
    r"""Write JSON for a label: on one line, its ``$`` as ``\u0024``, which reads the same.

    podman 5 ends a label at the first line's end, and takes ``$`` for a variable:
    https://github.com/containers/podman/issues/29095
    """
    return msgspec.json.encode(value, order="sorted").decode().replace("$", "\\u0024")


class Build(NamedTuple):
    """What is built: a context folder, and what ``docker build`` takes beside it."""

    context: Path
    tag: str
    dockerfile: str = "Dockerfile"
    target: str | None = None
    build_args: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    """Words without line end or ``$``; whatever else is written by :func:`label_json`."""
    secrets: Mapping[str, Path] = {}
    """Files for ``RUN --mount=type=secret,id=NAME``: no layer keeps them."""
    ca_bundle: Path | None = None
    """Certificates that every RUN trusts, for as long as it runs: no layer keeps them."""


class Builder(Protocol):
    """A client that builds: how it is called, and how what it says is read."""

    @property
    def path(self) -> str:
        """The program."""

    @property
    def start_hint(self) -> str:
        """What starts the engine again."""

    def argv(self, build: Build, dockerfile: Path, id_file: Path) -> list[str]:
        """Return the command that builds ``dockerfile`` and writes the image's id."""

    def environment(self) -> dict[str, str]:
        """Return what the command finds in its environment."""

    def adapt(self, dockerfile: str, context: Path) -> str:
        """Add what this builder needs and a plan does not."""

    def progress(self, build: Build, on_event: OnEvent) -> Progress:
        """Return a reader of what the command says."""

    def end_steps(self, pid: int) -> None:
        """End what the command started and would leave behind, before it is ended itself."""

    def is_gone(self, progress: Progress) -> bool:
        """Tell a failed build from an engine that died under it, even if it is up again by now."""


def run_build(builder: Builder, build: Build, log: Path, on_event: OnEvent) -> str:
    """Run one build to its end and return the image's id; everything said goes to ``log``.

    Raises BuildFailed with the failing step, the end of its output and the log file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = builder.progress(build, on_event)
    with tempfile.TemporaryDirectory(prefix="envforge-build-") as scratch:
        id_file = Path(scratch) / "image-id"
        argv = builder.argv(build, _dockerfile(builder, build, Path(scratch)), id_file)
        with log.open("a", encoding="utf-8", buffering=1) as record:
            code = _follow(builder, argv, progress, record)
        if code != 0 or not id_file.is_file():
            gone = builder.is_gone(progress)
            raise _engine_gone(builder, progress, log) if gone else _failure(progress, code, log)
        return id_file.read_text(encoding="ascii").strip()


def _dockerfile(builder: Builder, build: Build, scratch: Path) -> Path:
    """Return the context's own Dockerfile where nothing has to be added, else a copy with it."""
    own = build.context / build.dockerfile
    text = own.read_text(encoding="utf-8")
    adapted = with_ca_bundle(text) if build.ca_bundle else text
    adapted = builder.adapt(adapted, build.context)
    if adapted == text:
        return own
    copy = scratch / "Dockerfile"
    copy.write_text(adapted, encoding="utf-8")
    return copy


def _follow(builder: Builder, argv: list[str], progress: Progress, record: IO[str]) -> int:
    record.write(f"$ {' '.join(argv)}\n")
    with contextlib.ExitStack() as stack:
        try:
            process = stack.enter_context(spawn(argv, env=builder.environment()))
        except OSError as error:
            raise EngineUnavailable(f"cannot start {argv[0]}", because=(str(error),)) from error
        try:
            for line in lines_of(process):
                record.write(line + "\n")
                progress.read(line)
        except BaseException:
            builder.end_steps(process.pid)
            raise
    return process.returncode


def arguments(build: Build, dockerfile: Path, id_file: Path) -> list[str]:
    """Return the words that ``docker build`` and ``podman build`` share, the context last."""
    secrets = {**build.secrets, **({CA_BUNDLE: build.ca_bundle} if build.ca_bundle else {})}
    argv = [f"--iidfile={id_file}", f"--tag={build.tag}", f"--file={dockerfile}"]
    if build.target is not None:
        argv += [f"--target={build.target}"]
    argv += [f"--build-arg={key}={value}" for key, value in sorted(build.build_args.items())]
    argv += [f"--build-arg={name}" for name in _proxies_set() if name not in build.build_args]
    argv += [f"--label={key}={value}" for key, value in sorted(build.labels.items())]
    argv += [f"--secret=id={key},src={path}" for key, path in sorted(secrets.items())]
    return [*argv, str(build.context)]


def _proxies_set() -> list[str]:
    """Return the proxy variables set here: engines predefine them, no layer keeps their value."""
    names = [name for plain in _PROXIES for name in (plain, plain.upper())]
    return [name for name in names if os.environ.get(name)]


def _engine_gone(builder: Builder, progress: Progress, log: Path) -> BuildFailed:
    step = progress.failed or progress.current
    return BuildFailed(
        f"the container engine stopped answering{f' in {step}' if step else ''}",
        because=progress.tail_of(step),
        hint=f"start the engine again ({builder.start_hint}) and repeat; the whole log: {log}",
    )


def _failure(progress: Progress, code: int, log: Path) -> BuildFailed:
    step = progress.failed or progress.current
    cause, because = progress.cause_of(step)
    where = f"in {step}" if step else f"(exit {code})"
    return failure(cause, where, because, str(log))
