"""What every plan is written as for other builders: checked by their own readers and linters."""

from __future__ import annotations

import json
import re
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from dockerfile_reader import runs, stages
from msgspec.structs import replace
from plan_contexts import PLANS, prepared

from envforge.build import BuildRequest
from envforge.build.backend import command_for, for_backend
from envforge.cli.build import command as build_command
from envforge.image.backend import render_backend
from envforge.image.backend.apptainer import NAME, write_apptainer
from envforge.image.backend.classic import write_classic
from envforge.image.backend.shell import write_shell
from envforge.image.dialect import Run, read_dockerfile

GOLDEN = Path(__file__).parent / "golden/backends"
TOOLS = Path(sysconfig.get_path("scripts"))
GOLDEN_PLAN = "gtx780-1.0.1-wheel"
NAMES = [case["name"] for case in PLANS]
STEP = re.compile(r"^    step (\d+) ([0-9a-f]{12}) ", re.MULTILINE)


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory):
    """A case's plan and context, decided once a module."""
    scratch = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        yield cache(lambda name: prepared(next(c for c in PLANS if c["name"] == name), scratch))


def rendered(found, backend: str) -> dict[str, str]:
    context = render_backend(found.plan, found.context, backend)
    assert context.digest == found.context.digest
    assert context.inputs == found.context.inputs
    return {name: data.decode() for name, data in context.files.items()}


def flat(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


def linted(files: dict[str, str], folder: Path) -> str:
    """What shellcheck says of scripts; nothing where it has nothing to say."""
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [TOOLS / "shellcheck", "--format=gcc", "--shell=dash", *sorted(files)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_docker_backend_is_the_context_itself(plan_of):
    found = plan_of(GOLDEN_PLAN)
    assert render_backend(found.plan, found.context, "docker") is found.context


@pytest.mark.parametrize("backend", ["classic", "shell", "apptainer"])
def test_what_a_backend_is_written_as_is_the_golden_one(backend, plan_of, request):
    files = rendered(plan_of(GOLDEN_PLAN), backend)
    folder = GOLDEN / backend
    for copied in ("plan.json", "inputs.json", "requirements.txt"):  # golden elsewhere
        files.pop(copied)
    if request.config.getoption("--update-golden"):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    assert {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()} == files


# build.sh


@pytest.mark.slow
def test_every_build_script_passes_shellcheck(plan_of, tmp_path):
    scripts = {f"{name}.sh": rendered(plan_of(name), "shell")["build.sh"] for name in NAMES}
    assert linted(scripts, tmp_path) == ""


def test_no_build_script_has_a_step_left_out(plan_of):
    for name in NAMES:
        found = plan_of(name)
        text = rendered(found, "shell")["build.sh"]
        numbers = [int(number) for number, _ in STEP.findall(text)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert f"\nsteps={len(numbers)}\n" in text
        built = stages(found.context.files["Dockerfile"].decode())
        wanted = ["toolchain"] if found.context.stage == "toolchain" else set(built) - {"wheel"}
        for command in (run for stage in wanted for run in runs(built[stage])):
            plain = re.sub(r"--mount=\S+ ", "", flat(command.replace(" \\ ", " ")))
            assert plain in flat(text), name


@pytest.mark.parametrize("name", NAMES[::8])
def test_what_a_user_lints_of_a_script_backend_is_clean(name, plan_of, tmp_path):
    files = rendered(plan_of(name), "shell")
    scripts = sorted(file for file in files if file.endswith(".sh"))
    assert len(scripts) > 1
    for script in scripts:
        (tmp_path / script).write_text(files[script], encoding="utf-8")
    answer = subprocess.run([TOOLS / "shellcheck", *scripts], cwd=tmp_path, capture_output=True,
                            text=True, check=False)  # fmt: skip
    assert answer.stdout == ""


def test_the_stages_of_a_script_are_those_that_until_takes(plan_of):
    def stages_of(name):
        text = rendered(plan_of(name), "shell")["build.sh"]
        return re.search(r"^stages='?([^'\n]*)'?$", text, re.MULTILINE)[1]

    assert stages_of("k40-1.13.1-debian-12") == "toolchain torch runtime"
    assert stages_of("gtx780-1.13.1-debian-12-python-3.9") == "python toolchain torch runtime"
    assert stages_of("k40-1.13.1-toolchain") == "toolchain"
    assert stages_of(GOLDEN_PLAN) == "wheels runtime"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_a_script_takes_is_in_its_folder_and_hashed(name, plan_of):
    found = plan_of(name)
    files = rendered(found, "shell")
    hashed = dict(line.split()[::-1] for line in files["inputs.sha256"].splitlines())
    provided = re.findall(r'provide "\$context"/(\S+) ', files["build.sh"])
    known = {*files, *found.context.inputs}
    for path in provided:
        assert [each for each in known if each == path or each.startswith(f"{path}/")], path
    trees = {path for path, identity in found.context.inputs.items() if ":" in identity}
    for path, sha256 in hashed.items():
        assert found.context.inputs.get(path, sha256) == sha256
    if found.context.stage == "runtime":
        assert set(found.context.inputs) == set(hashed) & set(found.context.inputs) | trees
        unhashed = re.search(r"^unhashed=(\S*)$", files["build.sh"], re.MULTILINE)[1]
        assert set(unhashed.strip("'").split()) == trees


def test_another_input_is_another_step_and_every_step_before_it_stays(plan_of):
    found = plan_of("gtx760-1.0.1")
    stages_read = read_dockerfile(found.context.files["Dockerfile"].decode())
    path = next(path for path in found.context.inputs if path.endswith(".run"))
    other = found.context._replace(inputs={**found.context.inputs, path: "0" * 64})
    was, now = (
        STEP.findall(write_shell(found.plan, each, stages_read)["build.sh"].decode())
        for each in (found.context, other)
    )
    assert was[0] == now[0]
    assert [number for number, _ in was] == [number for number, _ in now]
    assert not {state for _, state in was[1:]} & {state for _, state in now[1:]}


def test_a_step_after_user_is_refused(plan_of):
    found = plan_of(GOLDEN_PLAN)
    text = found.context.files["Dockerfile"].decode() + "RUN true\n"
    for write in (write_shell, write_apptainer):
        with pytest.raises(ValueError, match=r"^stage runtime has a step after USER$"):
            write(found.plan, found.context, read_dockerfile(text))


# The classic builder


@pytest.mark.parametrize("name", NAMES)
def test_a_classic_dockerfile_mounts_nothing_and_runs_the_same(name, plan_of):
    found = plan_of(name)
    text = rendered(found, "classic")["Dockerfile"]
    assert "--mount" not in text
    before = read_dockerfile(found.context.files["Dockerfile"].decode())
    after = stages(text)
    for stage in before:
        commands = [flat(step.command) for step in stage.instructions if isinstance(step, Run)]
        found_there = [flat(run.replace(" \\ ", " ")) for run in runs(after[stage.name])]
        kept = [run for run in found_there if run in commands]
        assert kept == commands
        removed = {word for run in found_there if run not in commands for word in run.split()[2:]}
        mounts = [m for step in stage.instructions if isinstance(step, Run) for m in step.mounts]
        assert removed == {mount.target for mount in mounts}
        copied = [rest.split()[-1] for word, rest in after[stage.name]["body"] if word == "COPY"]
        assert {mount.target for mount in mounts if mount.kind == "bind"} <= set(copied)


def test_quoting_survives_the_way_through_the_classic_writer():
    line = 'FROM a/b AS base\nENV A="x \\"y\\" \\$z \\\\" \\\n    PATH="/opt/a b/bin:"$PATH\n'
    assert write_classic(read_dockerfile(line)) == line


# Apptainer


def definition(files: dict[str, str]) -> list[dict]:
    """The stages of a definition: header, and sections by their first line."""
    found = []
    for block in re.split(r"(?m)^(?=Bootstrap:)", files[NAME])[1:]:
        header, *sections = re.split(r"(?m)^%", block)
        bodies: dict[str, str] = {}
        for section in sections:
            name, _, body = section.partition("\n")
            assert name not in bodies
            bodies[name] = body
        fields = dict(line.split(": ", 1) for line in header.strip().splitlines())
        found.append({"header": fields, **bodies})
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_definition_copies_what_is_there_from_stages_that_were_before(name, plan_of):
    found = plan_of(name)
    files = rendered(found, "apptainer")
    known: set[str] = set()
    for stage in definition(files):
        header = stage["header"]
        assert header["OSVersion"] == found.plan.platform.suite
        assert header["MirrorURL"] == "{{ archive }}"
        pairs = [line.split() for line in stage.get("files", "").splitlines() if line.strip()]
        assert all(path in {*files, *found.context.inputs} for path, _ in pairs)
        linked = re.findall(r"ln -s /\.envforge/(?!from/)(\S+) ", stage["post"])
        copied = {target.removeprefix("/.envforge/") for _, target in pairs}
        assert all(any(f"{c}/".startswith(f"{path}/") for c in copied) for path in linked)
        assert {key.split()[2] for key in stage if key.startswith("files from ")} <= known
        known.add(header["Stage"])
    assert header["Stage"] == found.context.stage
    assert {"environment", "runscript", "labels"} <= set(stage)


@pytest.mark.slow
def test_every_post_section_passes_shellcheck(plan_of, tmp_path):
    scripts = {}
    for name in NAMES:
        for stage in definition(rendered(plan_of(name), "apptainer")):
            post = re.sub(r"\{\{ \w+ \}\}", "http://archive", stage["post"])
            scripts[f"{name}-{stage['header']['Stage']}.sh"] = f"#!/bin/sh\nset -ex\n{post}"
    assert linted(scripts, tmp_path) == ""


def test_a_step_that_fails_at_its_first_word_ends_a_post_section(plan_of, tmp_path):
    """``sh -e`` alone goes on behind ``false && true``."""
    found = plan_of(GOLDEN_PLAN)
    small = (
        "FROM {base} AS base\n\nFROM base AS runtime\nRUN false \\\n && true\nRUN echo went on\n"
    )
    read = read_dockerfile(small.format(base=found.plan.base))
    files = write_apptainer(found.plan, found.context, read)
    (stage,) = definition({NAME: files[NAME].decode()})
    lines = [line for line in stage["post"].splitlines() if "sources.list" not in line]
    script = "\n".join(lines)
    answer = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (1, "")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("RUN echo {{ archive }}", r"Apptainer would replace a part of"),
        ("RUN true \\\n %post", r"as a section"),
        ("RUN true \\\nBootstrap: docker", r"as a section"),
    ],
)
def test_what_apptainer_would_misread_is_refused(line, said, plan_of):
    found = plan_of(GOLDEN_PLAN)
    read = read_dockerfile(f"FROM {found.plan.base} AS base\n\nFROM base AS runtime\n{line}\n")
    with pytest.raises(ValueError, match=said):
        write_apptainer(found.plan, found.context, read)


def test_ubuntu_has_all_its_suites_in_a_definition(plan_of):
    first = definition(rendered(plan_of("gtx760-1.0.1"), "apptainer"))[0]
    components = " ".join(plan_of("gtx760-1.0.1").plan.platform.archive.components)
    for suite in ("bionic", "bionic-updates", "bionic-security"):
        assert f"'deb {{{{ archive }}}} {suite} {components}'" in first["post"]


def test_no_address_enters_any_backend(plan_of):
    for name in NAMES:
        for backend in ("classic", "shell", "apptainer"):
            files = rendered(plan_of(name), backend)
            files.pop("plan.json")  # names the sources of its facts
            text = "\n".join(files.values()).replace("http://ADDRESS", "")
            text = text.replace(files.get("edits.json", "\0"), "")
            assert not re.search(r"(https?|ftp)://(?!127\.)", json.dumps(text)), (name, backend)


def test_rendering_a_backend_changes_nothing_in_the_plan(plan_of):
    found = plan_of("k80-1.13.1-cudnn")
    before = (replace(found.plan.resolution), dict(found.context.files))
    for backend in ("classic", "shell", "apptainer"):
        assert rendered(found, backend) == rendered(found, backend)
    assert (found.plan.resolution, dict(found.context.files)) == before


# The command line


def test_the_command_to_type_has_the_archive_and_the_jobs_that_were_asked_for(plan_of):
    found = plan_of("k40-1.13.1-debian-12")
    wanted = BuildRequest(None, jobs=4, archive="http://archive.test/debian/")
    assert command_for(found, wanted, "docker") == []
    assert command_for(found, wanted, "classic") == []
    assert command_for(found, wanted, "shell") == ["sudo", "env", "MAX_JOBS=4", "sh", "build.sh"]
    assert command_for(found, wanted, "apptainer") == [
        *("sudo", "apptainer", "build", "--build-arg", "archive=http://archive.test/debian"),
        *("--build-arg", "MAX_JOBS=4"),
        f"1.13.1-11.8.0-sm_35-{found.context.digest[:12]}.sif",
        NAME,
    ]
    toolchain = plan_of("k40-1.13.1-toolchain")
    assert "MAX_JOBS=4" not in command_for(toolchain, wanted, "apptainer")


def test_every_backend_has_a_folder_of_its_own_where_none_is_stated(plan_of, tmp_path):
    found = plan_of(GOLDEN_PLAN)
    names = [
        for_backend(found, BuildRequest(None), backend).folder.name
        for backend in ("docker", "classic", "shell", "apptainer")
    ]
    digest = found.context.digest[:12]
    assert names == [digest, f"{digest}-classic", f"{digest}-shell", f"{digest}-apptainer"]
    stated = found._replace(folder=tmp_path)
    assert for_backend(stated, BuildRequest(None, context=tmp_path), "shell").folder == tmp_path


def test_a_dry_run_writes_the_files_of_the_backend_and_says_what_builds_them(tmp_path):
    asked = ["--cpu", "--torch", "1.0.1", "--dry-run", "--backend", "shell", "--json"]
    answer = CliRunner().invoke(build_command, [*asked, "-o", str(tmp_path)])
    assert answer.exit_code == 0, answer.output
    said = json.loads(answer.stdout)
    assert said["command"] == ["sudo", "sh", "build.sh"]
    assert set(said["context"]["files"]) == {p.name for p in tmp_path.iterdir() if p.is_file()}
    assert (tmp_path / "build.sh").read_text().startswith("#!/bin/sh\n# torch 1.0.1 from its ")
