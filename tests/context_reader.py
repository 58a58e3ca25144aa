"""What a rendered context says, read and judged by a second hand.

Nothing of envforge is imported here: Dockerfiles are read with regular expressions, and what they
must say comes from ``context_expectations``. :func:`faults` is the whole of it.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise

from context_expectations import (
    CASES,
    PLATFORMS,
    RELEASES,
    REQUIREMENTS,
    SOURCES,
    TOOLKITS,
    WHEEL_ROWS,
    addresses_of,
    built_python,
    compare,
    compiler_of,
    cudnn_of,
    edits_of,
    glibc_of,
    imports_of,
    is_built,
    pip_of,
    platform_tags,
    profile_of,
    python_of,
    switches_of,
    takes,
    tools_of,
    torchvision_of,
)
from dockerfile_reader import apt, environment, instructions, last, runs, stages

FORBIDDEN = {
    "asks for privileges": r"--privileged|security[.=]insecure|--network=host",
    "pipes a download into a shell": r"(curl|wget)[^\n]*\|\s*(ba|da|z)?sh\b",
    "names an address": r"\b(https?|ftp|git|ssh|rsync)://|\bdeb(-src)? \[?\S*[:=]",
    "changes where packages come from": r"sources\.list|--index-url|--trusted-host|apt-key",
    "installs over the distribution's own": r"--break-system-packages|--allow-unsupported",
}
TOOLCHAIN = r"(gcc|g\+\+|clang|gfortran|cpp)-?\d|nvidia|cuda|libcu|libpython|python"


def general_faults(files: dict[str, str], platform: str) -> list[str]:
    text = "\n".join(f"{word} {rest}" for word, rest in instructions(files["Dockerfile"]))
    found = [why for why, pattern in FORBIDDEN.items() if re.search(pattern, text)]
    steps = stages(files["Dockerfile"])
    tag = rf"envforge/base:{re.escape(platform)}-[0-9a-f]{{12}}"
    known: set[str] = {"scratch"}
    for name, stage in steps.items():
        if not (stage["parent"] in known or re.fullmatch(tag, stage["parent"])):
            found.append(f"stage {name} comes from {stage['parent']}")
        known.add(name)
    if not re.fullmatch(tag, steps["base"]["parent"]):
        found.append("the base is not the platform's")
    if list(steps)[-1] != "runtime" or steps["runtime"]["parent"] != "base":
        found.append("the last stage is not a runtime on the base")
    if last(steps["runtime"], "USER") in {None, "root", "0", "0:0", "root:root"}:
        found.append("runs as root")
    for run in (run for stage in steps.values() for run in runs(stage)):
        found += run_faults(run)
    return found


def run_faults(run: str) -> list[str]:
    pips = re.findall(r"pip install ([^&;|]*)", run)
    found = [
        f"pip may fetch: {pip.strip()}"
        for pip in pips
        if not {"--no-index", "--no-deps"} <= set(pip.split())
    ]
    if "apt-get install" in run and "--no-install-recommends" not in run:
        found.append(f"apt takes what is only recommended: {run}")
    return found


def expect(found: list[str], what: str, got: object, wanted: object) -> None:
    if got != wanted:
        found.append(f"{what}: {got!r} instead of {wanted!r}")


def source_faults(case: dict, files: dict[str, str]) -> list[str]:
    expected = case["expect"]
    platform, release = PLATFORMS[expected["platform"]], RELEASES[case["ask"]["torch"]]
    profile = profile_of(case)
    steps = stages(files["Dockerfile"])
    found = general_faults(files, platform["name"])
    parents = {name: steps[name]["parent"] for name in ("toolchain", "torch", "wheel")}
    expect(
        found, "stages", parents, {"toolchain": "base", "torch": "toolchain", "wheel": "scratch"}
    )
    found += package_faults(case, steps, profile)
    found += environment_faults(case, steps, profile)
    if is_built(case):
        found += built_python_faults(case, steps)
    found += input_faults(case, files, steps, profile, release)
    expect(found, "edits", json.loads(files["edits.json"]), edits_of(case, profile))
    expect(found, "addresses", json.loads(files["fetched.json"]), addresses_of(case, profile))
    return found + cache_faults(steps, expected)


def package_faults(case: dict, steps: dict, profile: dict) -> list[str]:
    expected, platform = case["expect"], PLATFORMS[case["expect"]["platform"]]
    python = python_of(platform, expected["python"])
    named = {
        *compiler_of(platform, expected["gcc"])["packages"],
        *python["packages"],
        *python["devel_packages"],
        *(platform["cuda"]["packages"] if expected["cuda_origin"] == "distribution" else ()),
    }
    asked, found = apt(steps["toolchain"]), []
    expect(found, "packages left out", named - asked, set())
    extra = {name for name in asked - named if re.match(TOOLCHAIN, name)}
    expect(found, "compilers, CUDA or Python that no row names", extra, set())
    expect(
        found,
        "packages of the profile",
        set(profile.get("packages", ())) - apt(steps["torch"]),
        set(),
    )
    return found


def environment_faults(case: dict, steps: dict, profile: dict) -> list[str]:
    expected, platform, found = case["expect"], PLATFORMS[case["expect"]["platform"]], []
    compiler = compiler_of(platform, expected["gcc"])
    python = python_of(platform, expected["python"])
    home = "/usr/lib/nvidia-cuda-toolkit"
    wanted = {
        "CC": compiler["cc"],
        "CXX": compiler["cxx"],
        "CUDAHOSTCXX": compiler["cxx"],
        "NVCC_PREPEND_FLAGS": f"-ccbin {compiler['cxx']}",
        "CUDA_HOME": home if expected["cuda_origin"] == "distribution" else "/usr/local/cuda",
        "TORCH_CUDA_ARCH_LIST": case["capability"] + ("+PTX" if case["ask"].get("ptx") else ""),
        "ENVFORGE_PYTHON": python["executable"],
        "PYTORCH_BUILD_VERSION": case["ask"]["torch"],
        "PYTORCH_BUILD_NUMBER": "1",
        **switches_of(case, profile),
    }
    got = environment(steps["toolchain"], steps["torch"])
    for name, value in wanted.items():
        expect(found, name, got.get(name), value)
    others = {name for name in got if re.match(r"(USE|NO|BUILD)_", name)} - set(wanted)
    expect(found, "switches that the profile has not", others, set())
    return found


def input_faults(case: dict, files: dict, steps: dict, profile: dict, release: dict) -> list[str]:
    """Every input is one that the data name; what is left of them at the end is the tree."""
    found: list[str] = []
    got = dict(json.loads(files["inputs.json"]))
    torch = " ".join(runs(steps["torch"]))
    found += runfile_faults(case, got, runs(steps["toolchain"]))
    found += wheel_input_faults(case, files, got, torch)
    found += torchvision_faults(case, got, torch)
    if is_built(case):
        python = built_python(case["expect"]["python"])
        name = python["url"].rsplit("/", 1)[1]
        expect(found, "Python", got.pop(f"inputs/{name}", None), python["sha256"])
        if f"source=inputs/{name}," not in " ".join(runs(steps["python"])):
            found.append("Python is never unpacked")
    found += [f"{path} is never unpacked" for path in got if f"source={path}," not in torch]
    found += tree_faults(case, got, profile, release)
    if case["expect"]["tree"] == "git":
        found += git_faults(release, torch)
    if not re.search(r"edit\.py /src \S*edits\.json", torch):
        found.append("the edits are never made")
    return found


def built_python_faults(case: dict, steps: dict) -> list[str]:
    """It is built by itself, with the plan's compiler, and both images get all of it."""
    found: list[str] = []
    python, platform = built_python(case["expect"]["python"]), PLATFORMS[case["expect"]["platform"]]
    compiler = compiler_of(platform, case["expect"]["gcc"])
    stage = steps["python"]
    expect(found, "Python's own stage", stage["parent"], "base")
    packages = {"make", *compiler["packages"], *python["devel_packages"]}
    expect(found, "packages Python is built with", apt(stage), packages)
    command = " ".join(runs(stage))
    wanted = {"--prefix=/opt/python", *python["options"]}
    wanted |= {f"CC={compiler['cc']}", f"CXX={compiler['cxx']}"}
    given = re.search(r"\./configure ([^&;|]*)", command)
    expect(found, "configure", set(given[1].split()) if given else None, wanted)
    asked = re.search(rf"{python['executable']} -c 'import ([^']*)'", command)
    expect(found, "modules", asked[1].split(", ") if asked else None, python["modules"])
    copied = ("COPY", "--from=python /opt/python/ /opt/python/")
    without = [name for name in ("toolchain", "runtime") if copied not in steps[name]["body"]]
    return found + [f"stage {name} has no Python" for name in without]


def runfile_faults(case: dict, got: dict, commands: list[str]) -> list[str]:
    if case["expect"]["cuda_origin"] != "runfile":
        return []
    found: list[str] = []
    runfile = TOOLKITS[case["expect"]["cuda"]]["runfile"]
    name = runfile["url"].rsplit("/", 1)[1]
    expect(found, "runfile", got.pop(f"inputs/{name}", None), runfile["sha256"])
    command = next((run for run in commands if name in run), "")
    if not ("--silent" in command and "--toolkit" in command and "--driver" not in command):
        found.append("the runfile installs more, or less, than the toolkit")
    return found


def wheel_input_faults(case: dict, files: dict, got: dict, torch: str) -> list[str]:
    """The wheels a source build takes in: cuDNN, build tools as of their time, what torch imports."""
    cudnn = [cudnn_of(case["expect"])] if "cudnn" in case["expect"] else []
    found = ["cuDNN is never unpacked" for file in cudnn if f"{file['name']},target=" not in torch]
    tools, imports = tools_of(case), imports_of(case)
    for name, rows in (("tools.txt", tools), ("imports.txt", imports)):
        lines = {
            f"{p['project']}=={p['version']} --hash=sha256:{p['file']['sha256']}" for p in rows
        }
        expect(found, name, set(files.get(name, "").splitlines()), lines)
        pip = rf"pip install [^&;|]*--require-hashes [^&;|]*-r \S*{name}"
        if rows and not re.search(pip, torch):
            found.append(f"{name} is never installed by its hashes")
    wheels = {path.rsplit("/", 1)[1]: got.pop(path) for path in sorted(got) if path[-4:] == ".whl"}
    platform = PLATFORMS[case["expect"]["platform"]]
    pinned = [p["file"] for p in (*tools, *imports)]
    others = [*cudnn, *filter(None, [pip_of(platform)])]
    expect(found, "wheels", wheels, {f["name"]: f["sha256"] for f in (*pinned, *others)})
    return found + installer_faults(platform, torch, wheels)


def newer_pip_faults(name: str, commands: str) -> list[str]:
    """It is unpacked, and nothing is installed by another."""
    mount = rf"source=inputs/wheels/{re.escape(name)},target=(\S+)"
    unpacked = re.search(rf"{mount} python3 -I -m zipfile -e \1 (\S+)", commands)
    programs = set(re.findall(r"python3 (?:-I )?(-m pip|\S+) install --no", commands))
    if unpacked and programs == {f"{unpacked[2]}/pip"}:
        return []
    return ["the newer pip is not what installs"]


def installer_faults(platform: dict, commands: str, wheels: dict[str, str]) -> list[str]:
    """Every wheel starts on the platform's glibc, and is of a tag that whatever installs it knows."""
    found = []
    for name in wheels:
        tags = platform_tags(name)
        if all(compare(glibc_of(tag), platform["glibc"]) > 0 for tag in tags):
            found.append(f"{name} needs a newer glibc")
        if name.startswith("pip-"):
            found += newer_pip_faults(name, commands)
        elif "-m pip install" in commands and not any(takes(platform["pip"], tag) for tag in tags):
            found.append(f"the platform's own pip refuses {name}")
    return found


def torchvision_faults(case: dict, got: dict, torch: str) -> list[str]:
    """Torchvision's archive is there, by its hash and for its release, wherever the data have it."""
    row = torchvision_of(case)
    if row is None:
        return []
    found: list[str] = []
    path = f"inputs/torchvision-{row['version']}.tar.gz"
    expect(found, "torchvision", got.pop(path, None), row["sha256"])
    if f"source={path}," not in torch or f"BUILD_VERSION={row['version']} " not in torch:
        found.append("torchvision is never built")
    return found


def tree_faults(case: dict, got: dict, profile: dict, release: dict) -> list[str]:
    found: list[str] = []
    if case["expect"]["tree"] == "archive":
        name = profile["archive"]["path"].rsplit("/", 1)[1]
        expect(found, "source archive", got, {f"inputs/{name}": profile["archive"]["sha256"]})
    elif case["expect"]["tree"] == "local":
        hashes = [bool(re.fullmatch(r"[0-9a-f]{64}", value)) for value in got.values()]
        expect(found, "one tree by its hash", hashes, [True])
    else:
        commit = release.get("commit") or release["wheel_commit"]
        expect(found, "tree", got, {"inputs/source.tar": f"git:{commit}"})
    return found


def git_faults(release: dict, torch: str) -> list[str]:
    found = []
    commit = release.get("commit") or release["wheel_commit"]
    if not re.search(rf'test "\$\(git \S+ /src rev-parse HEAD\)" = {commit}\b', torch):
        found.append("HEAD of the tree is not checked")
    listed = re.search(r"git -C /src submodule status --recursive >(\S+) &&", torch)
    if not (listed and f"! grep '^[-+U]' {listed[1]}" in torch):
        found.append("the submodules are not checked")
    return found


def cache_faults(steps: dict, expected: dict) -> list[str]:
    wanted = rf"\bgcc-{re.escape(expected['gcc'])}-cuda-{re.escape(expected['cuda'])}\b"
    mounts = [
        m
        for stage in steps.values()
        for run in runs(stage)
        for m in re.findall(r"--mount=(\S+)", run)
    ]
    caches = [mount for mount in mounts if "type=cache" in mount]
    found = [
        f"a cache is shared between compilers: {mount}"
        for mount in caches
        if not re.search(rf"\bid=\S*{wanted}", mount)
    ]
    return found or ([] if caches else ["no cache mount"])


def wheel_faults(case: dict, files: dict[str, str]) -> list[str]:
    expected, torch = case["expect"], case["ask"]["torch"]
    python = python_of(PLATFORMS[expected["platform"]], expected["python"])
    steps = stages(files["Dockerfile"])
    found = general_faults(files, expected["platform"])
    row = next(w for w in WHEEL_ROWS if w["torch"] == torch and "variant" not in w)
    wanted = {"torch": (torch, next(f for f in row["files"] if f["tag"] == python["wheel_tag"]))}
    pinned = next(r for r in REQUIREMENTS if (r["torch"], r["tag"]) == (torch, python["wheel_tag"]))
    wanted |= {p["project"]: (p["version"], p["file"]) for p in pinned["packages"]}
    lines = {f"{name}=={v} --hash=sha256:{file['sha256']}" for name, (v, file) in wanted.items()}
    expect(found, "requirements", set(files["requirements.txt"].splitlines()), lines)
    platform = PLATFORMS[expected["platform"]]
    taken = [*(file for _, file in wanted.values()), *filter(None, [pip_of(platform)])]
    inputs = {f"inputs/wheels/{file['name']}": file["sha256"] for file in taken}
    expect(found, "inputs", json.loads(files["inputs.json"]), inputs)
    own = {file["name"]: file["sha256"] for file in taken if not file["name"].startswith("torch-")}
    found += installer_faults(platform, " ".join(runs(steps["wheels"])), own)
    expect(found, "packages", apt(steps["runtime"]), set(python["packages"]))
    command = next(run for run in runs(steps["wheels"]) if "pip install" in run)
    found += pip_faults(command, python, [file["name"] for _, file in wanted.values()])
    copied = f"--from=wheels /site/ {python['site_packages']}/"
    expect(found, "where the wheels go", last(steps["runtime"], "COPY"), copied)
    expect(
        found,
        "ENVFORGE_PYTHON",
        environment(steps["runtime"]).get("ENVFORGE_PYTHON"),
        python["executable"],
    )
    return found


def pip_faults(command: str, python: dict, names: list[str]) -> list[str]:
    found: list[str] = []
    words = command.split()
    options = {}
    for option, value in pairwise(words):
        options.setdefault(option, []).append(value)
    interpreter, abi = python["wheel_tag"].split("-")
    expect(found, "--python-version", options.get("--python-version"), [python["version"]])
    expect(found, "--implementation", options.get("--implementation"), [interpreter[:2]])
    expect(found, "--abi", options.get("--abi"), [abi])
    tags = {t for n in names for t in n[: -len(".whl")].rsplit("-", 1)[1].split(".")} - {"any"}
    expect(found, "--platform", set(options.get("--platform", ())), tags)
    needed_words = ("--require-hashes", "--no-index", "--no-deps")
    return found + [f"pip is not told {option}" for option in needed_words if option not in words]


def faults(name: str, files: dict[str, str]) -> list[str]:
    case = CASES[name]
    return source_faults(case, files) if name in SOURCES else wheel_faults(case, files)
