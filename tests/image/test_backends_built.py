"""What the backends write, really run: build.sh in a base system, the classic builder's Dockerfile."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from envforge.build import BuildRequest, prepare
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.image.backend import render_backend
from envforge.image.backend.classic import write_classic
from envforge.image.backend.shell import write_shell
from envforge.image.bootstrap import Base, ensure_base
from envforge.image.dialect import read_dockerfile
from envforge.image.engine import Build, Container, Engine, Launch, Mount
from envforge.image.engine.container import Answer
from envforge.image.render import write_context
from envforge.resolver import Request
from envforge.sources.store import Store, default_root

sys.path.insert(0, str(Path(__file__).parent))

from image_parts import wait_until

pytestmark = pytest.mark.engine

SMALL = """\
FROM {base} AS base

FROM base AS toolchain
RUN --mount=type=bind,source=inputs/a.txt,target=/tmp/a.txt \\
    mkdir /made \\
 && cat /tmp/a.txt >/made/a \\
 && echo once >>/count
ENV GREETING="hi \\$there"
RUN --mount=type=cache,id=kept,target=/cache \\
    echo more >>/cache/log \\
 && echo "$GREETING$MISSING" >/greeting

FROM toolchain AS torch
WORKDIR /work
RUN mkdir /half \\
 && pwd >/half/where \\
 && cd /root \\
 && {{ test -e go || {{ test -e wait && sleep 600; }}; }}

FROM base AS runtime
RUN --mount=type=bind,from=torch,source=/half,target=/other \\
    test -z "$GREETING" \\
 && cp /other/where /end
COPY --from=torch /made/ /opt/made/
COPY b.txt /opt/
USER envforge
WORKDIR /home/envforge
CMD ["/bin/true"]
"""
DATABASE = load()
SHELL = "for each in /made /half /tmp/a.txt /cache /other; do test ! -e $each || echo $each; done"


class Root(NamedTuple):
    """A base system with a folder in it that holds a script."""

    container: Container
    folder: Path

    def build(self, *arguments: str, **environment: str) -> Answer:
        argv = ["sh", f"{self.folder}/build.sh", *arguments]
        return self.container.exec(argv, user="0:0", env=environment)

    def say(self, command: str) -> str:
        return self.container.exec(["sh", "-c", command], user="0:0").stdout

    def kill(self, when: str) -> None:
        """Kill the script and its step with no chance to tidy, as a power cut would."""
        assert wait_until(lambda: self.say(f"{when} && echo yes") == "yes\n", within_s=1800)
        while working := self.working():
            for process in working:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def working(self) -> list[psutil.Process]:
        """Every process but what keeps the container; some may have ended since."""
        found = []
        for pid in self.container.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if "infinity" not in process.cmdline():
                    found.append(process)
        return found


def toolchain_plan(until: str = "toolchain"):
    request = Request(
        card=find_card(DATABASE, "gtx780"), torch="1.13.1", route="source", platform="debian-12"
    )
    return prepare(DATABASE, BuildRequest(request, until))


@pytest.fixture(scope="module")
def base(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The base image of Debian 12, bootstrapped where the engine has none."""
    platform = toolchain_plan().plan.platform
    log = tmp_path_factory.mktemp("base") / "log.txt"
    return ensure_base(engine, Base(platform), Store(default_root()), log=log).tag


@pytest.fixture
def started(engine: Engine, base: str, tmp_path: Path) -> Iterator[Root]:
    """A fresh root; what is written to its folder is there inside under the same name."""
    mount = Mount(tmp_path, str(tmp_path))
    launch = Launch(base, ["sleep", "infinity"], user="0:0", mounts=[mount])
    with engine.run(launch) as container:
        yield Root(container, tmp_path)


@pytest.fixture
def root(started: Root) -> Root:
    """A fresh root with the script of a small plan, whose third step fails without /root/go."""
    write_small(started.folder)
    return started


def write_small(folder: Path, text: str = SMALL) -> None:
    prepared = toolchain_plan()
    context = prepared.context._replace(
        files={"b.txt": b"b\n"},
        inputs={"inputs/a.txt": "87428fc522803d31065e7bce3cf03fe475096631e5e07bbd7a0fde60c4cf25c7"},
        stage="runtime",
    )
    stages = read_dockerfile(text.format(base=prepared.plan.base))
    files = write_shell(prepared.plan, context, stages)
    write_context(context._replace(files=files), folder)
    (folder / "inputs/a.txt").write_text("a\n")


def test_a_failed_step_is_told_and_taken_up_again_where_it_began(root):
    first = root.build()
    assert first.code == 7
    assert first.stderr.splitlines()[0].startswith("error: step 3/7 failed with exit 1: torch: ")
    assert first.stderr.splitlines()[1] == (
        "  try: the same command, once the reason above is gone: it goes on with this step"
    )
    assert "step 1/7: toolchain: mkdir /made && cat /tmp/a.txt >/made/a" in first.stdout
    assert root.say(SHELL) == "/made\n/half\n"
    root.say("touch /half/left /root/go")
    second = root.build(ENVFORGE_CACHE="/elsewhere")
    assert second.code == 0, second.stderr
    assert "step 2/7: done before: toolchain: " in second.stdout
    assert "  removing /half, which the interrupted step began" in second.stdout
    assert second.stdout.splitlines()[-2:] == [
        "start: /bin/true",
        f"finished: runtime; its variables: . {root.folder}/environment-runtime.sh",
    ]
    third = root.build()
    assert third.stdout.count("done before") == 7
    seen = root.say("cat /count /greeting /end /opt/made/a /opt/b.txt /var/cache/envforge/kept/log")
    assert seen == "once\nhi $there\n/work\na\nb\nmore\n"
    assert root.say("ls /half; id -un envforge") == "where\nenvforge\n"


def test_until_stops_behind_a_stage_and_leaves_its_variables(root):
    answer = root.build("--until", "toolchain", GREETING="of the caller")
    assert answer.code == 0, answer.stderr
    assert f"finished: toolchain; its variables: . {root.folder}/environment-" in answer.stdout
    assert root.say("test -e /half && echo there") == ""
    command = f". {root.folder}/environment-toolchain.sh; echo $GREETING"
    assert root.say(command) == "hi $there\n"
    assert root.build("--until", "wheel").code == 2
    assert root.build("--until").code == 2
    assert "usage: sh build.sh [--until toolchain|torch|runtime]" in root.build("--help").stdout


def test_killed_in_the_middle_of_a_step_it_goes_on_and_a_second_one_waits(root):
    root.say("touch /root/wait")
    thread = threading.Thread(target=root.build, daemon=True)
    thread.start()
    root.kill("test -e /half/where")
    thread.join(60)
    root.say("rm /root/wait; touch /root/go")
    answers: list[Answer] = []
    again = [threading.Thread(target=lambda: answers.append(root.build())) for _ in range(2)]
    for each in again:
        each.start()
    for each in again:
        each.join(120)
    assert [answer.code for answer in answers] == [0, 0]
    told = "".join(answer.stdout for answer in answers)
    assert told.count("removing /half, which the interrupted step began") == 1
    assert told.count("step 7/7: done before") == 1


def test_another_root_another_plan_and_another_input_are_refused(root):
    root.say("touch /root/go")
    assert root.build().code == 0
    write_small(root.folder, SMALL.replace("pwd >", "pwd -P >"))
    other = root.build()
    assert other.code == 8
    assert "error: step 3 was done in this root for another plan" in other.stderr
    assert "mmdebstrap --variant=minbase --include=ca-certificates" in other.stderr
    (root.folder / "inputs/a.txt").write_text("another\n")
    changed = root.build()
    assert changed.code == 5
    assert "inputs/a.txt: FAILED" in changed.stderr
    assert "error: what is built from is not whole" in changed.stderr
    script = root.folder / "build.sh"
    script.write_text(script.read_text().replace("suite=bookworm", "suite=bullseye"))
    wrong = root.build()
    assert wrong.code == 8
    assert "error: this root is bookworm, the plan is for debian-12 (bullseye)" in wrong.stderr


def test_a_file_of_the_users_own_is_never_replaced(root):
    root.say("echo mine >/tmp/a.txt")
    answer = root.build()
    assert answer.code == 7
    assert "error: /tmp/a.txt is in the way: a step needs that name" in answer.stderr
    assert root.say("cat /tmp/a.txt") == "mine\n"


HALF_INSTALLED = """\
apt-get update -qq && cd /tmp && apt-get download -qq gcc cpp-12 && dpkg --unpack gcc_*.deb
dpkg --unpack cpp-12_*.deb & unpacking=$!
until dpkg-query -W -f '${db:Status-Abbrev}' cpp-12 | grep -q ^i; do :; done
kill -9 $unpacking; wait; rm /tmp/*.deb; dpkg-query -W -f '${db:Status-Abbrev} ' gcc cpp-12
"""


def test_packages_that_an_interrupted_step_left_half_installed_are_mended(root):
    assert root.build().code == 7
    assert root.say(f"exec 2>/dev/null; {HALF_INSTALLED}").endswith("iHR iU  ")
    root.say("touch /root/go")
    answer = root.build()
    assert answer.code == 0, answer.stdout + answer.stderr
    assert "mending the packages that the interrupted step left half installed" in answer.stdout
    assert root.say("dpkg --audit; gcc -dumpversion") == "12\n"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_toolchain_is_installed_though_it_was_killed_and_its_nvcc_makes_the_plans_code(started):
    prepared = toolchain_plan()
    write_context(render_backend(prepared.plan, prepared.context, "shell"), started.folder)
    thread = threading.Thread(target=started.build, daemon=True)
    thread.start()
    # Half unpacked: the worst that can happen to dpkg.
    started.kill("test $(dpkg-query -W -f '${db:Status-Abbrev}\\n' | grep -c '^iU') -gt 20")
    thread.join(60)
    answer = started.build()
    assert answer.code == 0, answer.stdout[-2000:] + answer.stderr
    assert started.build().stdout.count("done before") == 1
    compiled = started.say(
        f". {started.folder}/environment-toolchain.sh && cd /tmp"
        " && echo '__global__ void k(float *x) { *x = 1; }' >k.cu"
        " && nvcc -gencode arch=compute_35,code=sm_35 -c k.cu -o k.o && cuobjdump --list-elf k.o"
    )
    assert re.findall(r"sm_\d+", compiled) == ["sm_35"], compiled


@pytest.mark.slow
def test_the_published_wheel_of_a_plan_is_installed_by_its_script(engine, tmp_path):
    command = [sys.executable, "-m", "envforge", "build", "--cpu", "--torch", "1.0.1"]
    placed = subprocess.run(
        [*command, "--backend", "shell", "-o", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert placed.returncode == 0, placed.stderr
    assert placed.stdout.endswith(f"cd {tmp_path} && sudo sh build.sh\n")
    request = Request(route="cpu", torch="1.0.1")
    prepared = prepare(DATABASE, BuildRequest(request))
    log = tmp_path / "log.txt"
    image = ensure_base(engine, Base(prepared.plan.platform), Store(default_root()), log=log).tag
    mount = Mount(tmp_path, str(tmp_path))
    launch = Launch(image, ["sleep", "infinity"], user="0:0", mounts=[mount])
    with engine.run(launch) as container:
        built = Root(container, tmp_path)
        answer = built.build()
        assert answer.code == 0, answer.stdout[-2000:] + answer.stderr
        program = "import torch; print(torch.ones(2).sum().item())"
        said = f". {tmp_path}/environment-runtime.sh && $ENVFORGE_PYTHON -c '{program}'"
        assert built.say(said) == "2.0\n"


CLASSIC = """\
FROM {base} AS base

FROM base AS made
RUN --mount=type=bind,source=inputs,target=/tmp/inputs \\
    --mount=type=bind,source=b.txt,target=/tmp/b.txt \\
    --mount=type=cache,id=envforge-test,target=/kept \\
    mkdir /out /site \\
 && cat /tmp/inputs/a.txt /tmp/b.txt >/out/both \\
 && cat /out/both >/kept/both
ENV SAID="a \\"b\\" \\$c" \\
    PATH=/site:$PATH
RUN echo "$SAID" >/site/said

FROM base AS runtime
RUN --mount=type=bind,from=made,source=/out,target=/out \\
    cat /out/both >/both
COPY --from=made /site/ /opt/site/
WORKDIR /opt
CMD ["cat", "/both", "/opt/site/said"]
"""
# Files alone: BuildKit leaves the empty folder behind that it has mounted on.
EVERYTHING = "cat /both /opt/site/said; find /both /opt /tmp /out /kept -type f 2>/dev/null | sort"


def test_the_classic_builder_makes_of_its_dockerfile_what_buildkit_makes_of_ours(
    base, engine, tmp_path
):
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/a.txt").write_text("a\n")
    (tmp_path / "b.txt").write_text("b\n")
    ours = CLASSIC.format(base=base)
    (tmp_path / "Dockerfile").write_text(ours)
    engine.build(Build(tmp_path, "envforge-test/ours"), log=tmp_path / "log.txt")
    (tmp_path / "Dockerfile").write_text(write_classic(read_dockerfile(ours)))
    built = subprocess.run(
        [engine.builder.path, "build", "--force-rm", "--tag", "envforge-test/classic", tmp_path],
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    assert "Step 1/" in built.stdout  # BuildKit counts otherwise
    seen = [everything_in(engine, f"envforge-test/{name}") for name in ("ours", "classic")]
    assert seen[0] == seen[1]
    assert seen[0][:3] == ["a", "b", 'a "b" $c']


def everything_in(engine: Engine, image: str) -> list[str]:
    try:
        with engine.run(Launch(image, ["sh", "-c", EVERYTHING], user="0:0")) as container:
            return list(container.logs())
    finally:
        engine.remove(image)
