"""A Python with a real torch, and the canary run by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exported import python_of

from envforge.capability.load import load
from envforge.image.bootstrap import Base, ensure_base
from envforge.image.engine import Build, Engine
from envforge.image.lock import load_lock
from envforge.sources.store import Store, default_root

if TYPE_CHECKING:
    from collections.abc import Iterator

collect_ignore = ["miniature"]  # upstream's own files, some of which are called test_*.py
HERE = Path(__file__).parent
CANARY = HERE.parents[1] / "recipes" / "canary" / "files" / "canary.py"
TORCH = "torch==2.13.0"
QUICK = ("--steps", "200", "--image-size", "32", "--device", "cpu")


@pytest.fixture(scope="session")
def torch_python() -> str:
    """An interpreter with torch: the one the environment names, or one made once and kept."""
    named = os.environ.get("ENVFORGE_TEST_TORCH_PYTHON")
    return named or str(_kept_environment())


def _kept_environment() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "envforge-tests" / f"{TORCH}-py{sys.version_info[0]}.{sys.version_info[1]}"
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", TORCH], check=True)
        complete.touch()
    return python


@dataclass(frozen=True, kw_only=True)
class Place:
    """Flags of ``envforge run``, and what its environment needs."""

    flags: tuple[str, ...]
    environment: dict[str, str]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """``local`` with today's torch or an old one, or a container: ``local-1.0.1``, ``docker-1.0.1``."""
    if request.param == "local":
        python = request.getfixturevalue("torch_python")
        return Place(
            flags=("--on", "local", "--interpreter", python, "--cpu"),
            environment={"PYTHONPATH": str(request.getfixturevalue("pillow"))},
        )
    found = request.getfixturevalue(request.param.replace("-", "_").replace(".", "_"))
    where = (
        ("--image",) if request.param.startswith("docker") else ("--on", "local", "--interpreter")
    )
    return Place(flags=(*where, found, "--cpu"), environment={})


@pytest.fixture(scope="session")
def pillow(torch_python: str) -> Path:
    """A folder with Pillow for that interpreter, made once and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tag = subprocess.run(
        [torch_python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    folder = cache / "envforge-tests" / f"pillow-py{tag}"
    if not (folder / "PIL").exists():
        pip = [torch_python, "-m", "pip", "install", "--quiet", "--target", folder, "pillow"]
        subprocess.run(pip, check=True)
    return folder


@pytest.fixture(scope="session")
def docker_1_0_1(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image that ``envforge build`` makes of torch 1.0.1; built already, it costs nothing."""
    folder = tmp_path_factory.mktemp("torch-1.0.1")
    command = [sys.executable, "-m", "envforge", "build", "--gpu", "gtx780", "--torch", "1.0.1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return load_lock(folder / "envforge.lock").image


@pytest.fixture(scope="session")
def docker_1_13_1(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Debian 12's own torch 1.13.1, for the CPU."""
    tag, folder = "envforge-test/torch-1.13.1", tmp_path_factory.mktemp("torch-1.13.1")
    if engine.image_id(tag) is None:
        platform = next(each for each in load().platforms if each.name == "debian-12")
        base = ensure_base(engine, Base(platform), Store(default_root()), log=folder / "log.txt")
        (folder / "Dockerfile").write_text(
            f"FROM {base.tag}\nRUN apt-get update && apt-get install -y --no-install-recommends"
            " python3-torch python3-pil && rm -rf /var/lib/apt/lists/*\n"
        )
        engine.build(Build(folder, tag), log=folder / "log.txt")
    return tag


@pytest.fixture(scope="session")
def local_1_0_1(
    engine: Engine, docker_1_0_1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Torch 1.0.1 on Python 2.7, as a Python of this machine."""
    with python_of(engine, docker_1_0_1, tmp_path_factory.mktemp("local-1.0.1")) as python:
        yield python


@pytest.fixture(scope="session")
def local_1_13_1(
    engine: Engine, docker_1_13_1: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Debian 12's own torch 1.13.1, as a Python of this machine."""
    with python_of(engine, docker_1_13_1, tmp_path_factory.mktemp("local-1.13.1")) as python:
        yield python


@dataclass(frozen=True, kw_only=True)
class Outcome:
    exit_code: int
    lines: list[str]
    run_dir: Path

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.run_dir / "canary.json").read_text())

    @property
    def failed(self) -> list[str]:
        return [each["name"] for each in self.record["checks"] if each["outcome"] == "failed"]

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.run_dir / "checkpoints").iterdir())


@dataclass(frozen=True, kw_only=True)
class Canary:
    """Starts the canary as its users do, as a process of its own."""

    python: str

    def start(self, run_dir: Path, *arguments: str, fault: str | None = None) -> subprocess.Popen:
        plant = [str(HERE / "plant.py"), fault] if fault else []
        # Old releases and a torch without NumPy warn on every import; that is not under test.
        command = [self.python, "-W", "ignore", *plant, str(CANARY), "--run-dir", str(run_dir)]
        return subprocess.Popen(
            [*command, *QUICK, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Pictures this small gain nothing from threads, and on a busy machine they would wait
            # for each other: seen, ten times as long.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def finish(self, process: subprocess.Popen, run_dir: Path) -> Outcome:
        output, _ = process.communicate(timeout=600)
        return Outcome(exit_code=process.returncode, lines=output.splitlines(), run_dir=run_dir)

    def run(self, run_dir: Path, *arguments: str, fault: str | None = None) -> Outcome:
        return self.finish(self.start(run_dir, *arguments, fault=fault), run_dir)

    def interrupt(self, run_dir: Path, number: int, line: str) -> Outcome:
        """Send a signal as soon as the run has printed a line that begins so."""
        process = self.start(run_dir)
        for printed in _lines(process):
            if printed.startswith(line):
                process.send_signal(number)
                break
        return self.finish(process, run_dir)


def _lines(process: subprocess.Popen) -> Iterator[str]:
    assert process.stdout is not None
    return iter(process.stdout.readline, "")


@pytest.fixture(scope="session")
def canary(torch_python: str) -> Canary:
    return Canary(python=torch_python)


@pytest.fixture(scope="session")
def healthy(canary: Canary, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """One run that nothing disturbed; the others are measured against it."""
    return canary.run(tmp_path_factory.mktemp("healthy"))
