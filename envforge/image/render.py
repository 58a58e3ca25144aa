"""Plan -> build context: the same plan, the same bytes. Pure."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import msgspec

from envforge import assets, documents
from envforge.capability.models import PlatformPython
from envforge.capability.pythons import PREFIX
from envforge.image.plan import Plan, SourceParts
from envforge.patching.series import Patch, edits_json, load_series, select
from envforge.sources.fetch import WheelInput

_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:@+~-]*\Z|/[A-Za-z0-9_./+-]*\Z")
_FOR_PEOPLE = "plan.json"
"""Its sources and words may be improved without making another plan of it."""
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
_TOOLS = (
    "ca-certificates",
    "ccache",
    "cmake",
    "git",
    "libopenblas-dev",
    "make",
    "ninja-build",
)
_WHEEL_TOOLS = ("python3-pip", "python3-wheel", "xz-utils")
"""What unpacks the sources, makes the wheel and unpacks that."""
_TORCHVISION_LIBRARIES = ("libjpeg-dev", "libpng-dev")
_TORCHVISION_IMPORTS = ("python3-pil", "python3-requests")
_RUNFILE_TOOLS = ("libxml2", "perl")
"""What the installers themselves call (10.1 and later link libxml2, older ones run perl)."""


class BuildContext(NamedTuple):
    """The files of a ``docker build``, and the inputs that are put below ``inputs/``."""

    files: dict[str, bytes]
    inputs: dict[str, str]
    """Path in the context -> sha256."""
    digest: str
    """sha256 over what is built from: files, hashes of the inputs, stage. The plan's identity."""
    stage: str
    patches: tuple[Patch, ...] = ()


class _Quoted(str):
    """Text that a quoting filter has made safe for its place."""

    __slots__ = ()


def render(plan: Plan) -> BuildContext:
    """Render the context of ``plan``; ValueError where a value fits no quoting of its place."""
    if plan.resolution.route == "source":
        files, inputs, patches = _source_files(plan)
    else:
        files, inputs, patches = _wheel_files(plan)
    files["inputs.json"] = documents.to_json(inputs).encode()
    digest = _digest(files, plan.until)
    files[_FOR_PEOPLE] = documents.to_json(plan.resolution).encode()
    return BuildContext(files, inputs, digest, plan.until, patches)


def _digest(files: dict[str, bytes], stage: str) -> str:
    state = hashlib.sha256(stage.encode())
    for name in sorted(files):
        state.update(f"\0{name}\0{len(files[name])}\0".encode())
        state.update(files[name])
    return state.hexdigest()


Files = tuple[dict[str, bytes], dict[str, str], tuple[Patch, ...]]


def _wheel_files(plan: Plan) -> Files:
    dockerfile = _template(
        "wheel/Dockerfile.j2",
        **_common(plan),
        platform_tags=_platform_tags(plan.wheels),
        packages=sorted(plan.python.packages),
    )
    files = {"Dockerfile": dockerfile, "requirements.txt": _pinned(plan.wheels)}
    return files, _wheel_inputs(plan), ()


def _wheel_inputs(plan: Plan) -> dict[str, str]:
    return {f"inputs/wheels/{wheel.name}": wheel.sha256 for wheel in plan.every_wheel}


def _pinned(wheels: tuple[WheelInput, ...]) -> bytes:
    """Write a requirements file that names each wheel with its hash."""
    return "".join(
        f"{wheel.distribution}=={wheel.version} --hash=sha256:{wheel.sha256}\n"
        for wheel in sorted(wheels)
    ).encode()


def _platform_tags(wheels: tuple[WheelInput, ...]) -> list[str]:
    """Every platform tag of the wheels: pip takes exactly those it is given."""
    tags = {
        tag
        for wheel in wheels
        for tag in wheel.name.removesuffix(".whl").split("-")[-1].split(".")
        if tag != "any"
    }
    return sorted(tags)


def _source_files(plan: Plan) -> Files:
    resolution, source = plan.resolution, plan.source
    assert source is not None  # noqa: S101 -- make_plan sets it for this route
    patches = _patches(plan, source)
    inputs = {f"inputs/{source.tree.name}": source.tree.identity}
    if source.python:
        inputs[f"inputs/{source.python.source.name}"] = source.python.source.sha256
    if source.runfile:
        inputs[f"inputs/{source.runfile.name}"] = source.runfile.sha256
    if source.torchvision:
        inputs[f"inputs/{source.torchvision.name}"] = source.torchvision.sha256
    inputs.update(_wheel_inputs(plan))
    dockerfile = _template(
        "source/Dockerfile.j2",
        **_common(plan),
        **_toolchain(plan, source),
        **_own_python(source),
        **_build(source),
        cuda=resolution.cuda,
        cuda_origin=resolution.cuda_origin,
        arch_list=arch_list(resolution.codes),
        cache=f"envforge-gcc-{resolution.gcc}-cuda-{resolution.cuda}",
        pip=_pip(plan, source),
        runtime_packages=_runtime_packages(plan.python, source),
    )
    files = {
        "Dockerfile": dockerfile,
        "edit.py": (Path(assets.__file__).parent / "patching" / "edit.py").read_bytes(),
        "edits.json": edits_json(patches),
        "tools.txt": _pinned(source.tools),
        "imports.txt": _pinned(source.imports),
        "runtime_files.py": (assets.TEMPLATES / "source" / "runtime_files.py").read_bytes(),
    }
    return files, inputs, patches


_PIP = "/opt/pip"
"""Where a pip is unpacked that takes the place of the platform's own."""
_INSTALL = (
    *("install", "--no-cache-dir", "--no-compile", "--no-deps", "--no-index"),
    *("--only-binary", ":all:"),
)


def _pip_program(plan: Plan) -> list[str]:
    """What ``python3`` is given to be pip: a folder with a ``__main__.py`` is a program, too."""
    return [f"{_PIP}/pip"] if plan.pip else ["-m", "pip"]


def _pip(plan: Plan, source: SourceParts) -> list[str]:
    """The words that unpack wheels; pip of one Python is told what another takes."""
    # Isolated: what is unpacked for another Python must not be what this one imports.
    words = ["python3", "-I", *_pip_program(plan), *_INSTALL]
    if "python3" in plan.python.packages:
        return words
    interpreter, abi = plan.python.wheel_tag.split("-")
    foreign = ["--implementation", interpreter[:2], "--python-version", plan.python.version]
    tags = ["linux_x86_64", *_platform_tags((*source.tools, *source.imports))]
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return [*words, *foreign, "--abi", abi, *platforms]


def _runtime_packages(python: PlatformPython, source: SourceParts) -> list[str]:
    packages = {*python.packages, *(() if source.imports else python.torch_packages)}
    return sorted({*packages, *(_TORCHVISION_IMPORTS if source.torchvision else ())})


def _patches(plan: Plan, source: SourceParts) -> tuple[Patch, ...]:
    """Everything that is changed in the tree: the common series, then the profile's own."""
    series = load_series()
    if source.profile.patches:
        series += load_series(assets.PATCHES / "pytorch" / source.profile.patches)
    resolution = plan.resolution
    return select(
        series,
        torch=resolution.torch,
        cuda=resolution.cuda,
        gcc=resolution.gcc,
        python=resolution.python,
        capability=resolution.compute_capability,
        platform=resolution.platform,
        switches=source.switches,
        cudnn=source.cudnn.version if source.cudnn else None,
    )


def _toolchain(plan: Plan, source: SourceParts) -> dict[str, Any]:
    runfile = source.runfile
    return {
        "gcc": source.compiler.version,
        "cc": source.compiler.cc,
        "cxx": source.compiler.cxx,
        "packages": _packages(plan, source),
        "runfile": f"inputs/{runfile.name}" if runfile else None,
        "cuda_home": "/usr/local/cuda" if runfile else "/usr/lib/nvidia-cuda-toolkit",
    }


def _own_python(source: SourceParts) -> dict[str, Any]:
    """Describe how the Python is built that the distribution has not."""
    if source.python is None:
        return {"python_tree": None, "site": "/site"}
    python = source.python
    return {
        "python_tree": f"inputs/{python.source.name}",
        "python_prefix": PREFIX,
        "python_packages": sorted({"make", *source.compiler.packages, *python.packages}),
        "configure": [
            *("./configure", f"--prefix={PREFIX}", *python.configure),
            *(f"CC={source.compiler.cc}", f"CXX={source.compiler.cxx}"),
        ],
        "import_modules": f"import {', '.join(python.modules)}",
        "site": f"/site:{PREFIX}",
    }


def _build(source: SourceParts) -> dict[str, Any]:
    profile = source.profile
    return {
        "profile": profile.name,
        "profile_packages": _profile_packages(source),
        "torchvision": source.torchvision.version if source.torchvision else None,
        "torchvision_tree": f"inputs/{source.torchvision.name}" if source.torchvision else None,
        "switches": sorted(source.switches.items()),
        "tools": bool(source.tools),
        "imports": bool(source.imports),
        "cudnn": f"inputs/wheels/{source.cudnn.name}" if source.cudnn else None,
        "prepare": profile.prepare,
        # ninja's name for "whatever is made of this file"
        "probe": [f"/src/{file}^" for file in profile.probe],
        "source": f"inputs/{source.tree.name}",
        "strip": source.tree.strip,
        "commit": source.tree.commit,
    }


def _profile_packages(source: SourceParts) -> list[str]:
    images = (*_TORCHVISION_LIBRARIES, *_TORCHVISION_IMPORTS) if source.torchvision else ()
    return sorted({*_WHEEL_TOOLS, *source.profile.packages, *images})


def _packages(plan: Plan, source: SourceParts) -> list[str]:
    """Everything apt brings into the toolchain stage, sorted."""
    packages = {
        *_TOOLS,
        *source.compiler.packages,
        *plan.python.packages,
        *plan.python.devel_packages,
    }
    if source.runfile is not None:
        packages.update(_RUNFILE_TOOLS)
    elif plan.platform.cuda is not None:
        packages.update(plan.platform.cuda.packages)
    return sorted(packages)


def arch_list(codes: tuple[str, ...]) -> str:
    """``("sm_35", "compute_35")`` -> ``3.5+PTX``: the value of TORCH_CUDA_ARCH_LIST."""
    numbers = [code.removeprefix("sm_") for code in codes if code.startswith("sm_")]
    ptx = {code.removeprefix("compute_") for code in codes if code.startswith("compute_")}
    return ";".join(
        f"{number[:-1]}.{number[-1]}{'+PTX' if number in ptx else ''}" for number in numbers
    )


def _common(plan: Plan) -> dict[str, Any]:
    interpreter, abi = plan.python.wheel_tag.split("-")
    return {
        "implementation": interpreter[:2],
        "abi": abi,
        "site_packages": plan.python.site_packages,
        "base": plan.base,
        "torch": plan.resolution.torch,
        "platform": plan.platform.name,
        "python": plan.python.version,
        "executable": plan.python.executable,
        "pip_wheel": f"inputs/wheels/{plan.pip.name}" if plan.pip else None,
        "pip_folder": _PIP,
        "pip_program": _pip_program(plan),
    }


def _template(name: str, **values: Any) -> bytes:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 -- not HTML: _refuse_unquoted takes that place
        finalize=_refuse_unquoted,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(word=_word, sh=_shell, argv=_argv, env=_environment, json=_json)
    return environment.get_template(name).render(values).encode()


def _refuse_unquoted(value: Any) -> str:
    """Let nothing into a template but what a filter has quoted."""
    if not isinstance(value, _Quoted):
        raise ValueError(f"a template writes {value!r} without a quoting filter")  # noqa: TRY004
    return value


def _word(value: object) -> _Quoted:
    """Pass a plain word (a tag, a path, a version), refuse everything else."""
    if not _WORD.match(str(value)):
        raise ValueError(f"not a plain word: {value!r}")
    return _Quoted(value)


def _shell(value: object) -> _Quoted:
    """Quote one argument of a shell command."""
    return _Quoted(shlex.quote(_clean(value)))


def _argv(words: Sequence[object]) -> _Quoted:
    """Quote the words of one shell command."""
    return _Quoted(" ".join(_shell(word) for word in words))


def _environment(value: object) -> _Quoted:
    """Quote the value of an ENV instruction."""
    escaped = re.sub(r'(["\\$])', r"\\\1", _clean(value))
    return _Quoted(f'"{escaped}"')


def _json(value: object) -> _Quoted:
    """Quote one element of an exec-form instruction."""
    return _Quoted(json.dumps(_clean(value)))


def _clean(value: object) -> str:
    text = str(value)
    if _FORBIDDEN.search(text):
        raise ValueError(f"control characters in {text!r}")
    return text


def write_context(context: BuildContext, folder: Path) -> None:
    """Write the files of ``context``; inputs are put in place by the build."""
    for name, data in context.files.items():
        documents.write_atomically(folder / name, data)
    (folder / "inputs" / "wheels").mkdir(parents=True, exist_ok=True)


def file_hashes(context: BuildContext) -> dict[str, str]:
    """Name each rendered file that the digest covers, with its sha256."""
    return {
        name: hashlib.sha256(data).hexdigest()
        for name, data in sorted(context.files.items())
        if name != _FOR_PEOPLE
    }


def context_json(context: BuildContext) -> dict[str, Any]:
    """Describe a rendered context to a program."""
    return {
        "digest": context.digest,
        "stage": context.stage,
        "files": sorted(context.files),
        "inputs": context.inputs,
        "patches": [msgspec.to_builtins(patch.id) for patch in context.patches],
    }
