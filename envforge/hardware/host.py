"""What the machine itself is: driver, kernel, C library, distribution. File reads only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from os.path import join
from typing import Literal, NamedTuple

from envforge.errors import UsageError
from envforge.hardware.files import link_name, text_of, there_is

DriverLayer = Literal["ENVFORGE_DRIVER", "sysfs", "proc", "nvml", "nvidia-smi"]

_VERSION = re.compile(r"\d+(?:\.\d+)+")
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/nvidia/lib64",
)


class Host(NamedTuple):
    """Facts of this machine; None where they cannot be read."""

    driver: str | None
    """NVIDIA's driver, ``470.256.02``; None where its kernel module is not loaded."""
    kernel: str
    glibc: str | None
    distribution: str | None
    """``debian-12``: as the platforms of the database are called."""
    driver_detected_by: DriverLayer | None = None
    driver_flavour: Literal["open", "proprietary"] | None = None
    """Which of the two kernel modules is loaded; the open one serves Turing and newer only."""
    driver_library: str | None = None
    """The driver's user-space half (libcuda), which must be of the same version."""
    container: str | None = None
    """``docker``, ``podman``, ``apptainer`` … where this runs inside one."""
    container_toolkit: str | None = None
    """NVIDIA's, by the version of libnvidia-container."""
    wsl: bool = False
    """Windows Subsystem for Linux: the driver is the Windows one, numbered as on Windows."""
    machine: str | None = None
    """``x86_64``, ``aarch64``: wheels are built for one of them."""


def read_host(root: str = "/", environ: Mapping[str, str] = os.environ) -> Host:
    """Read the facts of this machine; ``ENVFORGE_DRIVER`` overrides the driver.

    UsageError where that is no version.
    """
    driver, layer = _driver(root, environ)
    cuda = _libraries(root, "libcuda")
    kernel = text_of(join(root, "proc/sys/kernel/osrelease")) or os.uname().release
    return Host(
        driver=driver,
        kernel=kernel,
        glibc=_glibc(),
        distribution=_distribution(root),
        driver_detected_by=layer,
        driver_flavour=_flavour(root),
        driver_library=driver if driver in cuda else next(iter(cuda), None),
        container=_container(root, environ),
        container_toolkit=next(iter(_libraries(root, "libnvidia-container")), None),
        machine=os.uname().machine,
        wsl=there_is(join(root, "dev/dxg")) and "microsoft" in kernel.lower(),
    )


def _driver(root: str, environ: Mapping[str, str]) -> tuple[str, DriverLayer] | tuple[None, None]:
    """``/sys/module`` exists for every loaded module; ``/proc`` is what old drivers have."""
    if named := environ.get("ENVFORGE_DRIVER"):
        return _named_driver(named), "ENVFORGE_DRIVER"
    if match := _VERSION.search(text_of(join(root, "sys/module/nvidia/version"))):
        return match[0], "sysfs"
    if match := _VERSION.search(text_of(join(root, "proc/driver/nvidia/version"))):
        return match[0], "proc"
    return None, None


def _named_driver(text: str) -> str:
    if not re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}", text):
        raise UsageError(
            f"ENVFORGE_DRIVER: {text!r} is not a driver version",
            hint="write it as nvidia-smi does: ENVFORGE_DRIVER=470.256.02",
        )
    return text


def _flavour(root: str) -> Literal["open", "proprietary"] | None:
    """``NVIDIA UNIX Open Kernel Module for x86_64  580.159.04``; the other has no *Open*."""
    line = text_of(join(root, "proc/driver/nvidia/version")).partition("\n")[0]
    if "Kernel Module" not in line:
        return None
    return "open" if "Open Kernel Module" in line else "proprietary"


def _libraries(root: str, name: str) -> list[str]:
    """Versions of an installed library, by the files that its soname links end at."""
    links = [join(root, folder, f"{name}.so.1") for folder in _LIBRARY_FOLDERS]
    ends = [os.path.realpath(link) for link in links if link_name(link)]
    found = [_VERSION.search(end.rpartition(".so.")[2]) for end in ends]
    return [match[0] for match in found if match]


def _container(root: str, environ: Mapping[str, str]) -> str | None:
    """The marks that engines leave: there is no one way to ask the kernel."""
    if environ.get("APPTAINER_CONTAINER") or environ.get("SINGULARITY_CONTAINER"):
        return "apptainer"
    if there_is(join(root, "run/.containerenv")):
        return "podman"
    if there_is(join(root, ".dockerenv")):
        return "docker"
    if "KUBERNETES_SERVICE_HOST" in environ:
        return "kubernetes"
    return environ.get("container") or None


def _glibc() -> str | None:
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    return text.removeprefix("glibc ") or None


def _distribution(root: str) -> str | None:
    lines = (line.partition("=") for line in text_of(join(root, "etc/os-release")).splitlines())
    fields = {name: value.strip("\"'") for name, _, value in lines}
    name, version = fields.get("ID"), fields.get("VERSION_ID")
    return f"{name}-{version}" if name and version else None
