"""The only door to container engines: images built and read, containers run and always removed.

Builds go through a client (docker with BuildKit: :mod:`builder`; :mod:`podman_builder`), everything
else through the engine's API. Every container carries the label ``envforge=1``.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, get_args

import docker
import docker.errors
from docker.types import DeviceRequest
from docker.types import Mount as DockerMount

from envforge.errors import EngineUnavailable, RunFailed, UsageError
from envforge.events import Event, OnEvent, ignore
from envforge.image.engine import podman
from envforge.image.engine.build import Build, Builder, label_json, run_build
from envforge.image.engine.builder import find_builder
from envforge.image.engine.container import (
    Answer,
    Container,
    Exit,
    remove_container,
)
from envforge.image.engine.endpoint import Endpoint, find_endpoint, no_engine, open_client
from envforge.image.engine.faults import converted, said_by
from envforge.image.engine.launch import LABEL, OF_A_BUILD, Launch, Mount
from envforge.image.engine.podman_builder import find_podman

__all__ = [
    "KINDS",
    "OF_A_BUILD",
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
    "chosen_kind",
    "connect",
    "label_json",
]

EngineKind = Literal["docker", "podman"]
KINDS: tuple[EngineKind, ...] = get_args(EngineKind)
KIND_VARIABLE = "ENVFORGE_ENGINE"


class Image(NamedTuple):
    """An image the engine has."""

    id: str
    labels: Mapping[str, str]
    size_bytes: int
    user: str
    """Who its containers run as unless told otherwise; empty: root."""


class Capacity(NamedTuple):
    """What the machine of the engine has, which may be another one than this."""

    cores: int
    memory_mib: int


class Leftover(NamedTuple):
    """A container of ours that still exists."""

    id: str
    name: str
    status: str


def connect(*, host: str | None = None, kind: str | None = None) -> Engine:
    """Open an engine: docker, or what ``kind``, else ENVFORGE_ENGINE says.

    Where it listens: ``host``, else docker: DOCKER_HOST or the current docker context; podman:
    CONTAINER_HOST or the user's socket, else a service of podman's for as long as this is open.
    Raises EngineUnavailable saying what was found, what to type, and what to do without.
    """
    chosen = chosen_kind(kind)
    with contextlib.ExitStack() as stack:
        if chosen == "podman":
            endpoint = stack.enter_context(podman.podman_endpoint(host))
            client = open_client(endpoint, podman.no_podman)
        else:
            endpoint = find_endpoint(host)
            client = open_client(endpoint, no_engine)
        stack.callback(client.close)
        with converted("ask its version"):
            version = client.version()
        engine = Engine(endpoint, client, version)
        if chosen == "podman" and engine.kind != "podman":
            raise EngineUnavailable(
                f"what answers at {endpoint.host} is not podman",
                because=(f"it says it is version {engine.version} of another engine",),
                hint="check CONTAINER_HOST, or leave out --engine podman",
            )
        engine.closes = stack.pop_all()
    return engine


def chosen_kind(stated: str | None = None) -> str:
    """Return ``stated``, else ENVFORGE_ENGINE, else docker. Raises UsageError for another word."""
    kind = stated or os.environ.get(KIND_VARIABLE) or KINDS[0]
    if kind not in KINDS:
        raise UsageError(
            f"{kind!r} is no engine: {' or '.join(KINDS)}", hint=f"--engine, {KIND_VARIABLE}"
        )
    return kind


class Engine:
    """An engine that answers. Close it, or use it as a context manager."""

    def __init__(
        self, endpoint: Endpoint, client: docker.DockerClient, version: dict[str, Any]
    ) -> None:
        self.endpoint = endpoint
        self.version = str(version["Version"])
        self.kind: EngineKind = "podman" if podman.is_podman(version) else "docker"
        """Who answers, whatever was asked for: a DOCKER_HOST may be podman's socket."""
        self.closes = contextlib.ExitStack()
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
        self.closes.close()

    @property
    def builder(self) -> Builder:
        """The client that builds. Raises EngineUnavailable where none can."""
        if self._builder is None and self.kind == "podman":
            self._builder = find_podman(self.endpoint, self._client)
        elif self._builder is None:
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
        """Build an image and return its id; everything said is appended to ``log``.

        Raises BuildFailed (failing step, end of its output, log file), EngineUnavailable where
        no client here can build.
        """
        return run_build(self.builder, build, log, on_event)

    def image(self, ref: str) -> Image | None:
        """Look an image up by tag or id. Raises EngineUnavailable."""
        with converted(f"look for the image {ref}"):
            try:
                found = self._client.images.get(ref)
            except docker.errors.NotFound:
                return None
        user = str(found.attrs["Config"].get("User") or "")
        return Image(str(found.id), found.labels, int(found.attrs["Size"]), user)

    def image_id(self, ref: str) -> str | None:
        """Return an image's id, or None where the engine does not have it."""
        found = self.image(ref)
        return None if found is None else found.id

    def remove(self, ref: str) -> None:
        """Remove an image or a tag of it; silent where it is gone, RunFailed where it is in use."""
        with converted(f"remove the image {ref}"), contextlib.suppress(docker.errors.NotFound):
            self._client.images.remove(ref)

    def discard(self, ref: str) -> None:
        """Remove a tag that only a build knows, with what a killed build left running of it.

        Such a container would hold the image. Raises RunFailed where another one does.
        """
        filters = {"label": [f"{key}={value}" for key, value in OF_A_BUILD.items()]}
        with converted(f"remove what is left of {ref}"):
            api: Any = self._client.api
            for row in api.containers(all=True, filters={**filters, "ancestor": ref}):
                remove_container(self._client, row["Id"])
        self.remove(ref)

    def run(self, launch: Launch) -> Container:
        """Start a container.

        Raises RunFailed where it cannot be started (nothing is left), EngineUnavailable where a
        GPU is asked for and the engine cannot give one, or does not answer.
        """
        name = launch.name or f"envforge-{secrets.token_hex(6)}"
        created = False
        try:
            with converted(f"start {launch.argv[0]} in {launch.image}"):
                container_id = self._create(launch, name)
                created = True
                _start(self._client, container_id, launch)
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
        return self._container(container_id, name)

    def _create(self, launch: Launch, name: str) -> str:
        if self.kind == "docker":
            arguments = _arguments(launch)
            argv = list(launch.argv)
            created = self._client.containers.create(launch.image, argv, name=name, **arguments)
            return str(created.id)
        rootless = podman.is_rootless(self._client.info())
        try:
            return podman.create(self._client, launch, name, rootless=rootless)
        except docker.errors.APIError as error:
            raise podman.explain_refusal(said_by(error)) or error from error

    def _container(self, container_id: str, name: str) -> Container:
        column = podman.PID_COLUMN if self.kind == "podman" else "-eo pid"
        return Container(self._client, container_id, name, pid_column=column)

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
            created = self._client.containers.create(
                image, ["true"], labels={**LABEL, **OF_A_BUILD}
            )
        with self._container(str(created.id), image) as container:
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
        return self._container(str(found.id), str(found.name))


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


def _start(client: docker.DockerClient, container_id: str, launch: Launch) -> None:
    api: Any = client.api
    try:
        api.start(container_id)
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
        raise podman.explain_refusal(said) or RunFailed(
            f"{launch.argv[0]} cannot be started in {launch.image}", because=(said,)
        ) from error
