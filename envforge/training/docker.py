"""A training in a container of the image that was built for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from envforge.image.engine import Container, Engine, Launch, Mount
from envforge.recipes.dataset import Said
from envforge.training.errand import Errand
from envforge.training.executor import RUN_VARIABLE, Ending
from envforge.training.job import Job
from envforge.training.kernel import killed_for_memory, oom_kills

RUN_DIR = "/run-dir"
RECIPE = "/recipe"
_PROGRAM = "/envforge-program.py"
_LABEL = "envforge.run"

_ENVIRONMENT = MappingProxyType(
    {
        # The user's uid has no entry in the image's passwd, and torch asks for both.
        "HOME": "/tmp",  # noqa: S108 -- the container's own, gone with it
        "USER": "envforge",
    }
)


class DockerProcess:
    """One training in its container."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._kills_before = oom_kills()

    def lines(self) -> Iterator[bytes]:
        """Yield both streams' lines; EngineUnavailable where the engine falls silent."""
        for line in self._container.logs():
            yield line.encode()

    def wait(self) -> Ending:
        """Block until the container has ended; EngineUnavailable where the engine goes away."""
        ended = self._container.wait()
        memory = ended.oom_killed or killed_for_memory(ended.code, self._kills_before)
        return Ending(ended.code, memory)

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process, which hands it to the training."""
        self._container.signal(signal.Signals(number).name)

    def kill(self) -> None:
        """End the container at once."""
        self._container.signal("SIGKILL")

    def pids(self) -> tuple[int, ...]:
        """List the container's processes; the engine numbers them as this machine does."""
        return self._container.pids()


@dataclass(frozen=True, kw_only=True)
class DockerExecutor:
    """Trains in a container: the user's own uid, no network, nothing but two mounts."""

    engine: Engine
    image: str
    gpus: bool = False

    @contextmanager
    def start(self, job: Job) -> Iterator[DockerProcess]:
        """Start ``job``; RunFailed where the engine refuses, EngineUnavailable where it is gone."""
        launch = Launch(
            self.image,
            job.argv,
            name=_name(job.run_id),
            user=f"{os.getuid()}:{os.getgid()}",
            mounts=_mounts(job),
            env=self._environment(job),
            shm_size_mib=job.shm_size_mib,
            memory_mib=job.memory_mib,
            init=True,
            gpus=self.gpus,
            network="none",
            labels={_LABEL: job.run_id},
            workdir=RUN_DIR,
        )
        with self.engine.run(launch) as container:
            yield DockerProcess(container)

    def place(self, job: Job) -> str:  # noqa: ARG002 -- every run's is mounted there
        """Where the run directory is mounted."""
        return RUN_DIR

    def call(self, job: Job, program: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
        """Run ``program`` in a container of its own: no card, no network, no limit of memory."""
        launch = Launch(
            self.image,
            (job.python, "-W", "ignore", _PROGRAM, *arguments),
            user=f"{os.getuid()}:{os.getgid()}",
            mounts=[Mount(program, _PROGRAM), *_mounts(job)],
            env={**_ENVIRONMENT, **job.environment},
            network="none",
            labels={_LABEL: job.run_id},
            workdir=RUN_DIR,
        )
        with self.engine.run(launch) as container:
            text = "\n".join(container.logs())
            return container.wait().code, text

    def carry_out(self, errand: Errand) -> Said:
        """Run an errand in a container of its own; what it may not write to it cannot."""
        launch = Launch(
            self.image,
            errand.argv,
            user=f"{os.getuid()}:{os.getgid()}",
            mounts=[Mount(*mounted) for mounted in errand.mounts],
            env={**_ENVIRONMENT, **errand.environment},
            gpus=self.gpus and errand.cards,
            network="none",
            workdir=errand.workdir,
        )
        with self.engine.run(launch) as container:
            lines = tuple(container.logs())
            return Said(container.wait().code, lines)

    def clear(self, run_id: str, wait_s: float) -> tuple[str, ...]:
        """Stop and remove the container a dead supervisor left."""
        container = self.engine.attach(_name(run_id))
        if container is None:
            return ()
        container.stop(int(wait_s))
        container.remove()
        return (f"container {container.name}",)

    def _environment(self, job: Job) -> Mapping[str, str]:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES") if self.gpus else None
        cards = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
        return {**_ENVIRONMENT, **cards, **job.environment, RUN_VARIABLE: job.run_id}


def _mounts(job: Job) -> list[Mount]:
    own = [Mount(job.files, RECIPE), Mount(job.run_dir, RUN_DIR, read_only=False)]
    return own + [Mount(*mounted) for mounted in job.mounts]


def _name(run_id: str) -> str:
    return f"envforge-run-{run_id[:12]}"
