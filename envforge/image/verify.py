"""Is the image what the plan promises? Asked inside it, before any lock is written."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from envforge import assets
from envforge.binaries.library import Library, list_code, read_library
from envforge.binaries.subject import read_wheel
from envforge.binaries.verdict import find_lacks, verdict
from envforge.errors import RunFailed, VerificationFailed
from envforge.events import Event, OnEvent
from envforge.image.engine import OF_A_BUILD, Answer, Container, Engine, Image, Launch, Mount
from envforge.image.lock import CheckLock
from envforge.image.plan import Plan
from envforge.image.render import arch_list
from envforge.values import ComputeCapability, DeviceCode

_INSIDE = "/envforge-verify"
_CUDA_LIBRARY = re.compile(r"lib(caffe2_gpu|torch_cuda\w*|torch)\.so[\d.]*\Z")
"""Where torch's own kernels lie: libcaffe2_gpu to 1.2, libtorch to 1.4, libtorch_cuda* since."""
_USER = "1000:1000"
_FROM_THE_HOST = "libcuda.so.1"
"""The driver's own library: the container toolkit brings it where there is a card."""
_ATTEMPTS = 3
_BUILD_TOOLS = ("nvcc", "cmake", "ninja", "make", "git", "ccache", "pip3")


class _Subject(NamedTuple):
    plan: Plan
    image: Image | None
    container: Container
    host: Any
    """testinfra's view of the container: files, users, packages."""
    probe: dict[str, Any]
    """What templates/verify/probe.py says inside a runtime image; empty before that stage."""


Check = Callable[[_Subject], str]
"""Returns what was seen; VerificationFailed when it is not what the plan says."""


class Verified(NamedTuple):
    """An image that passed every check of its plan."""

    checks: tuple[CheckLock, ...]
    packages: tuple[str, ...]
    """Of the distribution, as ``name:architecture=version``, sorted."""


def verify(engine: Engine, image: str, plan: Plan, on_event: OnEvent) -> Verified:
    """Run every check the plan calls for inside ``image``; VerificationFailed at the first fault.

    The container has no network and is removed, whatever happens; should envforge be killed, by
    the next build of the plan.
    """
    checks = _checks(plan)
    launch = Launch(
        image,
        ["sleep", "infinity"],
        user=_USER,
        network="none",
        mounts=[Mount(assets.TEMPLATES / "verify", _INSIDE)],
        labels=OF_A_BUILD,
        workdir="/tmp",  # noqa: S108 -- inside the container
    )
    with engine.run(launch) as container:
        subject = _Subject(plan, engine.image(image), container, _testinfra(container), {})
        if plan.until == "runtime":
            subject = subject._replace(probe=_probe(subject))
        seen = tuple(_checked(name, check, subject, on_event) for name, check in checks.items())
        return Verified(seen, _installed(subject))


def _installed(subject: _Subject) -> tuple[str, ...]:
    row = r"${db:Status-Abbrev}${Package}:${Architecture}=${Version}\n"
    lines = _ask(subject, "dpkg-query", "--show", "--showformat", row).stdout.splitlines()
    return tuple(sorted(line[3:] for line in lines if line.startswith("ii")))


def _checks(plan: Plan) -> dict[str, Check]:
    if plan.until == "toolchain":
        return _TOOLCHAIN
    if plan.until == "torch":
        return {**_TOOLCHAIN, **_TORCH}
    return _RUNTIME if plan.source is None else {**_RUNTIME, **_BUILT}


def _testinfra(container: Container) -> Any:
    # It brings pytest along: only where something is verified.
    from envforge.image.inside import host_in  # noqa: PLC0415

    return host_in(container)


def _checked(name: str, check: Check, subject: _Subject, on_event: OnEvent) -> CheckLock:
    on_event(Event("step", f"verify {name}"))
    seen = check(subject)
    on_event(Event("done", f"{name}: {seen}"))
    return CheckLock(name=name, seen=seen)


def _failed(what: str, *because: str) -> VerificationFailed:
    return VerificationFailed(
        what, because=because, hint="the image is kept for a look; no lock was written"
    )


def _do(subject: _Subject, *argv: str) -> Answer:
    answer = subject.container.exec(argv)
    if answer.code != 0:
        tail = (answer.stderr or answer.stdout).strip().splitlines()[-15:]
        raise _failed(f"{argv[0]} ended with {answer.code} inside the image", *tail)
    return answer


def _ask(subject: _Subject, *argv: str) -> Answer:
    """Run a command that always says something, again where its words were lost on the way.

    Busy engines drop what a short command says, with exit 0: https://github.com/moby/moby/issues/27289
    """
    for _ in range(_ATTEMPTS):
        answer = _do(subject, *argv)
        if answer.stdout or answer.stderr:
            return answer
    raise _failed(f"{argv[0]} said nothing inside the image", f"asked {_ATTEMPTS} times")


def _unprivileged(subject: _Subject) -> str:
    """The image's own user is envforge, not root."""
    runs_as = subject.image.user if subject.image else ""
    if runs_as != "envforge":
        raise _failed("the image does not run as the user envforge", f"it runs as {runs_as!r}")
    uid = subject.host.user("envforge").uid
    if uid == 0:
        raise _failed("the user envforge of the image is root")
    return f"envforge ({uid})"


def _interpreter(subject: _Subject) -> str:
    """The plan's Python is there and is that version."""
    python = subject.plan.python
    if not subject.host.file(python.executable).exists:
        raise _failed(f"there is no {python.executable} in the image")
    answer = _ask(subject, python.executable, "--version")
    found = (answer.stdout + answer.stderr).split()[-1]  # Python 2 says it on stderr
    if not found.startswith(f"{python.version}."):
        raise _failed(f"Python {python.version} was planned, the image has {found}")
    return f"{python.executable} {found}"


def _probe(subject: _Subject) -> dict[str, Any]:
    answer = _ask(subject, subject.plan.python.executable, f"{_INSIDE}/probe.py")
    document: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return document


def _release(subject: _Subject) -> str:
    """Torch imports and says it is the planned release."""
    found = str(subject.probe["torch"])
    if re.split(r"[+a]|\.post", found)[0] != subject.plan.resolution.torch:
        raise _failed(f"torch {subject.plan.resolution.torch} was planned, {found} imports")
    return f"torch {found}, CUDA {subject.probe['cuda']}"


def _trains(subject: _Subject) -> str:
    """A small net learns on the CPU."""
    losses = [float(loss) for loss in subject.probe["losses"]]
    first, last = losses[0], losses[-1]
    # a healthy torch reaches a fifth within these steps; NaN compares false and fails
    if not last < 0.5 * first:
        raise _failed("a small net does not learn", f"its loss went from {first} to {last}")
    return f"loss {first:.4f} -> {last:.4f} in {len(losses)} steps"


def _machine_code(subject: _Subject) -> str:
    """Torch's own kernels in the image run on the card as the plan says."""
    resolution = subject.plan.resolution
    if resolution.compute_capability is None:
        return "not asked: this plan computes on the CPU"
    card = ComputeCapability.parse(resolution.compute_capability)
    libraries = list(_cuda_libraries(subject))
    if not libraries:
        raise _failed("no library of the image carries torch's CUDA kernels")
    found = verdict(libraries, card)
    if found.own != resolution.support:
        raise _failed(
            f"torch's own kernels: {resolution.support} was planned for {card}, found {found.own}",
            *[f"{role.path}: {role.runs} of {role.fatbins} fatbins" for role in found.roles],
        )
    judged = [role for role in found.roles if role.role == "torch"]
    counts = ", ".join(f"{Path(r.path).name} {r.runs}/{r.fatbins}" for r in judged)
    return f"{found.own} on {card}: {counts} fatbins of torch's own kernels"


def _every_code(subject: _Subject) -> str:
    """Every library that was compiled carries all the plan asks for."""
    return _refuse_lacks(list(_cuda_libraries(subject)), subject.plan)


def _refuse_lacks(libraries: list[Library], plan: Plan) -> str:
    wanted = plan.resolution.codes
    lacks = find_lacks(libraries, map(DeviceCode.parse, wanted))
    if lacks or not libraries:
        raise _failed(
            f"not every library carries {' '.join(wanted)}",
            *[
                f"{lack.path} ({lack.role}): lacks {' '.join(map(str, lack.codes))}"
                for lack in lacks
            ],
            *([] if libraries else ["no library carries any machine code for a card"]),
        )
    return f"{' '.join(wanted)} in all of {', '.join(Path(each.path).name for each in libraries)}"


def _wheel(subject: _Subject) -> str:
    """One wheel was built, for the plan's release and Python, and carries the plan's code."""
    names = _ask(subject, "ls", "/wheels").stdout.split()
    wanted = (
        f"torch-{subject.plan.resolution.torch}-{subject.plan.python.wheel_tag}-linux_x86_64.whl"
    )
    if [name for name in names if name.startswith("torch-")] != [wanted]:
        raise _failed(f"{wanted} was to be built", f"there is {' '.join(names) or 'nothing'}")
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        found = read_wheel(_copy(subject, f"/wheels/{wanted}", folder))
    libraries = [each for each in found.libraries if _CUDA_LIBRARY.search(each.path)]
    return _refuse_lacks(libraries, subject.plan)


def _torchvision(subject: _Subject) -> str:
    """The torchvision that was built computes, and carries the plan's code."""
    assert subject.plan.source is not None  # noqa: S101 -- only such plans are asked this
    planned = subject.plan.source.torchvision
    if planned is None:
        return "not built"
    python = subject.plan.python.executable
    answer = json.loads(_ask(subject, python, f"{_INSIDE}/torchvision_probe.py").stdout)
    if answer["torchvision"] != planned.version:
        raise _failed(f"torchvision {planned.version} was planned", str(answer["torchvision"]))
    if answer["kept"] != [0, 2]:
        raise _failed("torchvision's own operator computes wrongly", f"nms kept {answer['kept']}")
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        library = read_library(_copy(subject, answer["library"], folder), name=answer["library"])
    return f"torchvision {planned.version}: {_refuse_lacks([library], subject.plan)}"


def _links(subject: _Subject) -> str:
    """Every library finds what it is linked with, but for the driver's own."""
    paths = [path for path, _size in subject.probe["libraries"]]
    lines = _ask(subject, "ldd", *paths).stdout.splitlines() if paths else []
    missing = {line.split()[0] for line in lines if "not found" in line} - {_FROM_THE_HOST}
    if missing:
        raise _failed("libraries of the image are linked with what is not in it", *sorted(missing))
    return f"{len(paths)} libraries find what they are linked with"


def _no_build_tools(subject: _Subject) -> str:
    """No compiler and no build tool is left in the runtime image."""
    assert subject.plan.source is not None  # noqa: S101 -- only such plans are asked this
    compiler = subject.plan.source.compiler
    tools = (compiler.cc, compiler.cxx, *_BUILD_TOOLS)
    left = [tool for tool in tools if subject.host.exists(tool)]
    if left:
        raise _failed("build tools are left in the runtime image", *left)
    return f"none of {', '.join(tools)}"


def _size(subject: _Subject) -> str:
    """How large the image is: said, not judged."""
    size = subject.image.size_bytes if subject.image else 0
    return f"{size / 1e6:.0f} MB"


def _copy(subject: _Subject, path: str, folder: str) -> Path:
    try:
        return subject.container.read_file(path, Path(folder) / Path(path).name)
    except RunFailed as error:
        raise _failed(f"cannot read {path} out of the image", error.what) from error


def _cuda_libraries(subject: _Subject) -> Iterator[Library]:
    for path, _size in subject.probe["libraries"]:
        if _CUDA_LIBRARY.search(path):
            with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
                library = read_library(_copy(subject, path, folder), name=path)
            if library.parts:
                yield library


def _nvcc(subject: _Subject) -> str:
    """The plan's toolkit is the one that answers."""
    cuda = str(subject.plan.resolution.cuda)
    series = ".".join(cuda.split(".")[:2])
    found = re.search(r"release ([\d.]+), V([\d.]+)", _ask(subject, "nvcc", "--version").stdout)
    if found is None or found[1] != series:
        raise _failed(f"nvcc of CUDA {series} was planned", f"found {found and found[0]}")
    return f"nvcc {found[2]}"


def _host_compiler(subject: _Subject) -> str:
    """The plan's gcc is installed and CC, CXX and CUDAHOSTCXX name it."""
    assert subject.plan.source is not None  # noqa: S101 -- a toolchain plan has one
    compiler = subject.plan.source.compiler
    if not subject.host.package(compiler.packages[0]).is_installed:
        raise _failed(f"the package {compiler.packages[0]} is not in the image")
    names = _ask(subject, "printenv", "CC", "CXX", "CUDAHOSTCXX").stdout.split()
    if names != [compiler.cc, compiler.cxx, compiler.cxx]:
        raise _failed("CC, CXX and CUDAHOSTCXX do not name the plan's compiler", *names)
    found = _ask(subject, compiler.cc, "-dumpfullversion").stdout.strip()
    if found.split(".")[0] != compiler.version.split(".")[0]:
        raise _failed(f"gcc {compiler.version} was planned, {compiler.cc} is {found}")
    return f"{compiler.cc} {found}"


def _compiles(subject: _Subject) -> str:
    """Nvcc makes exactly the code of the plan's TORCH_CUDA_ARCH_LIST."""
    codes = subject.plan.resolution.codes
    listed = _ask(subject, "printenv", "TORCH_CUDA_ARCH_LIST").stdout.strip()
    if listed != arch_list(codes):
        raise _failed(f"TORCH_CUDA_ARCH_LIST is {listed}, planned {arch_list(codes)}")
    target = "/tmp/kernel.o"  # noqa: S108 -- inside the container
    _do(subject, "nvcc", "-c", f"{_INSIDE}/kernel.cu", "-o", target, *map(_gencode, codes))
    with tempfile.TemporaryDirectory(prefix="envforge-") as folder:
        found = sorted(list_code(_copy(subject, target, folder)).counts)
    if found != sorted(codes):
        raise _failed(f"nvcc was asked for {' '.join(codes)}, the object carries {' '.join(found)}")
    return f"object carries {' '.join(found)}"


def _gencode(code: str) -> str:
    """``sm_35`` -> ``-gencode=arch=compute_35,code=sm_35``."""
    number = code.partition("_")[2]
    return f"-gencode=arch=compute_{number},code={code}"


_RUNTIME: dict[str, Check] = {
    "user": _unprivileged,
    "python": _interpreter,
    "torch": _release,
    "machine-code": _machine_code,
    "training": _trains,
}
_BUILT: dict[str, Check] = {
    "every-code": _every_code,
    "torchvision": _torchvision,
    "links": _links,
    "no-build-tools": _no_build_tools,
    "size": _size,
}
_TORCH: dict[str, Check] = {"wheel": _wheel}
_TOOLCHAIN: dict[str, Check] = {
    "python": _interpreter,
    "nvcc": _nvcc,
    "host-compiler": _host_compiler,
    "kernel": _compiles,
}
