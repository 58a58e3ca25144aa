"""The only door to Docker: images built and read, containers run and always removed.

Builds go through a docker client with BuildKit (:mod:`builder`), everything else through the
engine's API. Every container carries the label ``envforge=1``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import docker
import docker.errors
from docker.models.containers import Container as DockerContainer
from docker.types import DeviceRequest
from docker.types import Mount as DockerMount

from envforge.errors import EngineUnavailable, RunFailed
from envforge.events import Event, OnEvent, ignore
from envforge.image.engine.builder import Build, Builder, find_builder, run_build
from envforge.image.engine.container import (
    Answer,
    Container,
    Exit,
    remove_container,
)
from envforge.image.engine.endpoint import Endpoint, find_endpoint, open_client
from envforge.image.engine.faults import converted, said_by

__all__ = [
    "Answer",
    "Build",
    "Capacity",
    "Container",
    "Engine",
    "Exit",
    "Image",
    "Launch",
    "Leftover",
    "Mount",
    "connect",
]

LABEL = {"envforge": "1"}
SHM_SIZE_MIB = 1024
"""Docker's own 64 MB end a DataLoader's workers with "Bus error"."""


class Image(NamedTuple):
    """An image the engine has."""

    id: str
    labels: Mapping[str, str]
    size_bytes: int
    user: str
    """Who its containers run as unless told otherwise; empty: root."""


class Mount(NamedTuple):
    """A directory or file of the host inside a container."""

    source: Path
    target: str
    read_only: bool = True


class Launch(NamedTuple):
    """What to start: a command in an image. Never privileged."""

    image: str
    argv: Sequence[str]
    name: str | None = None
    user: str | None = None
    """``uid:gid``; None: the caller's own."""
    mounts: Sequence[Mount] = ()
    env: Mapping[str, str] = {}
    shm_size_mib: int = SHM_SIZE_MIB
    memory_mib: int | None = None
    init: bool = True
    gpus: bool = False
    network: str | None = None
    labels: Mapping[str, str] = {}
    workdir: str | None = None


class Capacity(NamedTuple):
    """What the machine of the engine has, which may be another one than this."""

    cores: int
    memory_mib: int


class Leftover(NamedTuple):
    """A container of ours that still exists."""

    id: str
    name: str
    status: str


def connect(*, host: str | None = None) -> Engine:
    """Open the engine that ``host``, DOCKER_HOST or the current docker context names.

    Raises EngineUnavailable saying what was found, what to type, and what to do without.
    """
    endpoint = find_endpoint(host)
    client = open_client(endpoint)
    try:
        with converted("ask its version"):
            version = str(client.version()["Version"])
    except EngineUnavailable:
        client.close()
        raise
    return Engine(endpoint, client, version)


class Engine:
    """An engine that answers. Close it, or use it as a context manager."""

    def __init__(self, endpoint: Endpoint, client: docker.DockerClient, version: str) -> None:
        self.endpoint = endpoint
        self.version = version
        self._client = client
        self._builder: Builder | None = None

    def __enter__(self) -> Engine:  # noqa: PYI034 -- typing.Self is newer than Python 3.10
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; containers are not touched."""
        self._client.close()

    @property
    def builder(self) -> Builder:
        """The docker client that builds. Raises EngineUnavailable where none can."""
        if self._builder is None:
            self._builder = find_builder(self.endpoint)
        return self._builder

    def capacity(self) -> Capacity:
        """Ask what builds may use. Raises EngineUnavailable."""
        with converted("ask what its machine has"):
            found = self._client.info()
        return Capacity(int(found["NCPU"]), int(found["MemTotal"]) >> 20)

    def gateway(self) -> str:
        """Return the address at which containers of the default network reach the engine's host.

        Raises EngineUnavailable where the engine has no such network (``--bridge=none``).
        """
        with converted("look at its default network"):
            try:
                found = self._client.networks.get("bridge").attrs["IPAM"]["Config"]
            except docker.errors.NotFound:
                found = []
        for row in found or ():
            network = ipaddress.ip_network(row["Subnet"], strict=False)
            if network.version == 4:  # noqa: PLR2004 -- a second row may be of IPv6
                # 20.10 leaves the field out where nobody chose it: it is the first address then.
                return str(row.get("Gateway") or network[1])
        raise EngineUnavailable(
            "the engine has no network through which containers reach this machine",
            because=("its network `bridge` has no IPv4 addresses",),
            hint="start dockerd without --bridge=none",
        )

    def build(self, build: Build, *, log: Path, on_event: OnEvent = ignore) -> str:
        """Build an image with BuildKit and return its id; everything said is appended to ``log``.

        Raises BuildFailed (failing step, end of its output, log file), EngineUnavailable where
        no docker client here can build.
        """
        return run_build(self.builder, self.endpoint, build, log, on_event)

    def image(self, ref: str) -> Image | None:
        """Look an image up by tag or id. Raises EngineUnavailable."""
        with converted(f"look for the image {ref}"):
            try:
                found = self._client.images.get(ref)
            except docker.errors.ImageNotFound:
                return None
        user = str(found.attrs["Config"].get("User") or "")
        return Image(str(found.id), found.labels, int(found.attrs["Size"]), user)

    def image_id(self, ref: str) -> str | None:
        """Return an image's id, or None where the engine does not have it."""
        found = self.image(ref)
        return None if found is None else found.id

    def tag(self, ref: str, tag: str) -> None:
        """Give an image one more name. Raises RunFailed where it is not there."""
        with converted(f"tag {ref} as {tag}"):
            self._client.images.get(ref).tag(tag)

    def remove(self, ref: str) -> None:
        """Remove an image or a tag of it; silent where it is gone, RunFailed where it is in use."""
        with converted(f"remove the image {ref}"), contextlib.suppress(docker.errors.ImageNotFound):
            self._client.images.remove(ref)

    def run(self, launch: Launch) -> Container:
        """Start a container.

        Raises RunFailed where it cannot be started (nothing is left), EngineUnavailable where a
        GPU is asked for and the engine cannot give one, or does not answer.
        """
        name = launch.name or f"envforge-{secrets.token_hex(6)}"
        created = False
        try:
            with converted(f"start {launch.argv[0]} in {launch.image}"):
                container = self._client.containers.create(
                    launch.image, list(launch.argv), name=name, **_arguments(launch)
                )
                created = True
                _start(container, launch)
        except RunFailed:
            # A failed start leaves a created container; a refused creation (the name is taken)
            # must not remove somebody else's.
            if created:
                self._remove_quietly(name)
            raise
        except BaseException:
            # Ctrl-C may fall between the engine's work and its answer: the name is known here.
            self._remove_quietly(name)
            raise
        return Container(self._client, str(container.id), name)

    def _remove_quietly(self, name: str) -> None:
        with contextlib.suppress(RunFailed, EngineUnavailable), converted(f"remove {name}"):
            remove_container(self._client, name)

    def export(
        self, image: str, wanted: Callable[[str], bool], folder: Path, on_event: OnEvent = ignore
    ) -> Iterator[tuple[str, Path]]:
        """Copy files out of an image that is not run: yields path inside and copy, one by one.

        As :meth:`Container.files`. Raises RunFailed, EngineUnavailable.
        """
        with converted(f"read the files of {image}"):
            created = self._client.containers.create(image, ["true"], labels=LABEL)
        with Container(self._client, str(created.id), image) as container:
            on_event(Event("step", f"reading the files of {image}"))
            yield from container.files(wanted, folder)

    def leftovers(self) -> tuple[Leftover, ...]:
        """List every container of ours that still exists, running or not."""
        with converted("list containers"):
            api: Any = self._client.api
            rows = api.containers(all=True, filters={"label": "envforge=1"})
        return tuple(
            Leftover(row["Id"], row["Names"][0].lstrip("/") if row["Names"] else "", row["State"])
            for row in rows
        )

    def remove_leftover(self, leftover: Leftover) -> None:
        """Kill and remove a container of ours that an earlier process left."""
        with converted(f"remove {leftover.name}"):
            remove_container(self._client, leftover.id)

    def attach(self, ref: str) -> Container | None:
        """Return the existing container called ``ref``, to go on watching it; None if gone."""
        with converted(f"look for the container {ref}"):
            try:
                found = self._client.containers.get(ref)
            except docker.errors.NotFound:
                return None
        return Container(self._client, str(found.id), str(found.name))


def _arguments(launch: Launch) -> dict[str, Any]:
    memory = None if launch.memory_mib is None else f"{launch.memory_mib}m"
    every_gpu = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return {
        "user": launch.user or f"{os.getuid()}:{os.getgid()}",
        "mounts": [_mount(mount) for mount in launch.mounts],
        "environment": dict(launch.env),
        "shm_size": f"{launch.shm_size_mib}m",
        "mem_limit": memory,
        # Without it the limit is doubled by swap, and a leak crawls for an hour before it dies.
        "memswap_limit": memory,
        "init": launch.init,
        "network_mode": launch.network,
        "labels": {**launch.labels, **LABEL},
        "working_dir": launch.workdir,
        "device_requests": every_gpu if launch.gpus else None,
    }


def _mount(mount: Mount) -> DockerMount:
    return DockerMount(
        target=mount.target, source=str(mount.source), type="bind", read_only=mount.read_only
    )


def _start(container: DockerContainer, launch: Launch) -> None:
    try:
        container.start()
    except docker.errors.APIError as error:
        said = said_by(error)
        if "could not select device driver" in said or "nvidia-container" in said:
            raise EngineUnavailable(
                "the engine cannot give a container a GPU",
                because=(said,),
                hint="install the NVIDIA driver and nvidia-container-toolkit, then: "
                "sudo nvidia-ctk runtime configure --runtime=docker "
                "&& sudo systemctl restart docker",
            ) from error
        raise RunFailed(
            f"{launch.argv[0]} cannot be started in {launch.image}", because=(said,)
        ) from error
