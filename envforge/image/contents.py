"""The binaries inside an image or a container, read through the engine; nothing in it is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from envforge.binaries.errors import BinaryError
from envforge.binaries.subject import Binary, Source, may_carry_code
from envforge.errors import RunFailed, UnknownName, UsageError
from envforge.events import Event, OnEvent
from envforge.image.engine import Container, Engine


def open_from_engine(engine: Engine, target: str, folder: Path, on_event: OnEvent) -> Source:
    """Open ``NAME``, ``image:NAME`` or ``container:NAME[:PATH]``; copies go through ``folder``.

    UnknownName where the engine has no such thing, UsageError where a bare name is both.
    """
    kind, _, name = target.partition(":")
    if kind == "container":
        name, _, under = name.partition(":")
        container = engine.attach(name)
        if container is None:
            raise UnknownName("container", name, hint="docker ps -a lists what the engine has")
        return _open_container(container, under, folder, on_event)
    if kind == "image":
        if engine.image(name) is None:
            raise UnknownName("image", name, hint="docker images lists what the engine has")
        return _open_image(engine, name, folder, on_event)
    return _open_either(engine, target, folder, on_event)


def _open_either(engine: Engine, name: str, folder: Path, on_event: OnEvent) -> Source:
    image, container = engine.image(name), engine.attach(name)
    if image is not None and container is not None and container.name == name:
        raise UsageError(
            f"{name!r} is an image and a container",
            hint=f"envforge inspect image:{name}   or   envforge inspect container:{name}",
        )
    if image is not None:
        return _open_image(engine, name, folder, on_event)
    if container is not None:
        return _open_container(container, "", folder, on_event)
    raise UnknownName(
        "image, container or file",
        name,
        hint="docker images and docker ps -a list what the engine has",
    )


def _open_image(engine: Engine, name: str, folder: Path, on_event: OnEvent) -> Source:
    copies = engine.export(name, may_carry_code, folder, on_event)
    return Source(name, _binaries(copies, on_event))


def _open_container(container: Container, under: str, folder: Path, on_event: OnEvent) -> Source:
    on_event(Event("step", f"reading the files of {container.name}"))
    copies = container.files(may_carry_code, folder, under=under)
    left_out = () if under else container.mounts()
    shown = f"container:{container.name}" + (f":{under}" if under else "")
    return Source(shown, _binaries(copies, on_event), left_out=left_out)


def _binaries(copies: Iterator[tuple[str, Path]], on_event: OnEvent) -> Iterator[Binary]:
    try:
        for inside, copy in copies:
            on_event(Event("log", inside))
            yield Binary(inside, copy)
            copy.unlink()
    except RunFailed as error:
        raise BinaryError(error.what, because=error.because, hint=error.hint) from error
