"""The docker executor on a real engine, with a training written in shell."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from envforge.image.engine import Build, Launch
from envforge.recipes.ladder import Ladder
from envforge.training import (
    Journal,
    Plan,
    RunRecord,
    StopRequests,
    Surroundings,
    SystemClock,
    open_folder,
    persevere,
    supervise,
)
from envforge.training.docker import DockerExecutor, DockerProcess
from envforge.training.executor import Ending

sys.path.insert(0, str(Path(__file__).parents[1] / "image"))

from image_parts import make_context, private_engine

pytestmark = pytest.mark.engine

SCRIPT = """\
mkdir -p checkpoints
step=0
save() {
  echo $step > checkpoints/step-$step.txt
  echo "checkpoint: checkpoints/step-$step.txt"
}
[ "$2" = deaf ] && trap '' TERM || trap 'save; echo "stopped: at step $step"; exit 75' TERM
echo "uid $(id -u) in $(pwd) as $USER at $HOME"
echo x 2>&- > /recipe/x && echo "the recipe can be written"
echo "routes: $(tail -n +2 /proc/net/route)"
df -k /dev/shm
while [ $step -lt $1 ]; do
  step=$((step + 1))
  sleep 0.05
  echo "step: $step/$1  loss: 1.5  time: 0.050"
done
echo '{"passed": true}' > toy.json
echo "toy: passed"
"""


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return make_context(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def tiny(engine, context, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "tiny.txt"
    return engine.build(Build(context, "envforge-test/tiny-trainer"), log=log)


@pytest.fixture
def own_engine():
    """A second engine, to be killed. Not below pytest's folder: a socket's path is short."""
    with (
        tempfile.TemporaryDirectory(prefix="envforge-", ignore_cleanup_errors=True) as folder,
        private_engine(Path(folder)) as engine,
    ):
        yield engine


@pytest.fixture
def shell_job(toy_job, tmp_path):
    """Make a job of the training in shell."""

    def make(steps=5, habit="good", **changes):
        files = tmp_path / "files"
        files.mkdir(exist_ok=True)
        (files / "toy.sh").write_text(SCRIPT)
        argv = ("sh", "/recipe/toy.sh", str(steps), habit)
        return toy_job(argv=argv, files=files, **changes)

    return make


def train(job, executor, *, at=0, action=None):
    """Run one attempt; when the training has come to step ``at``, do something once."""
    stops, done = StopRequests(), []

    def on_event(event):
        if action and event.kind == "metric" and event.done >= at and not done:
            done.append(True)
            action(stops)

    with open_folder(job.run_dir) as folder:
        record = RunRecord(
            id=job.run_id, recipe="toy", reference="toy", run_dir=str(job.run_dir), on="docker"
        )
        clock = SystemClock()
        journal = Journal(folder, folder.record or record, job.checkpoints, clock)
        journal.begin(())
        return supervise(job, executor, journal, Surroundings(clock, stops, on_event))


def left_of(engine, job):
    return [each.name for each in engine.leftovers() if job.run_id[:12] in each.name]


def test_a_container_trains_as_the_user_without_network_and_is_removed(engine, tiny, shell_job):
    job = shell_job(shm_size_mib=96)
    record = train(job, DockerExecutor(engine=engine, image=tiny))
    assert (record.state, record.last.exit_code, record.last.last_iteration) == ("SUCCEEDED", 0, 5)
    log = (job.run_dir / "log.txt").read_text()
    assert f"uid {os.getuid()} in /run-dir as envforge at /tmp" in log
    assert "the recipe can be written" not in log
    assert "98304" in log  # 96 MiB of /dev/shm in KiB
    assert "routes: \n" in log
    assert (job.run_dir / "toy.json").stat().st_uid == os.getuid()
    assert left_of(engine, job) == []


def test_asked_once_the_container_checkpoints_and_is_removed(engine, tiny, shell_job):
    job = shell_job(steps=1000, stop_wait_s=20)
    executor = DockerExecutor(engine=engine, image=tiny)
    record = train(job, executor, at=3, action=lambda stops: stops.add(signal.SIGINT))
    last = record.last
    assert (record.state, last.exit_code, last.stopped_by) == ("CANCELLED", 75, "SIGINT")
    assert (job.run_dir / last.checkpoint).exists()
    assert left_of(engine, job) == []


def test_asked_twice_a_deaf_container_is_killed_and_removed(engine, tiny, shell_job):
    def ask_twice(stops):
        stops.add(signal.SIGINT)
        stops.add(signal.SIGINT)

    job = shell_job(steps=1000, habit="deaf", stop_wait_s=600)
    record = train(job, DockerExecutor(engine=engine, image=tiny), at=3, action=ask_twice)
    assert (record.state, record.last.exit_code) == ("CANCELLED", 137)
    assert left_of(engine, job) == []


def test_the_container_of_a_dead_supervisor_is_stopped_and_may_checkpoint(engine, tiny, shell_job):
    job = shell_job(steps=1000)
    executor = DockerExecutor(engine=engine, image=tiny)
    started = executor.start(job)
    process = started.__enter__()
    lines = process.lines()
    while b"step: 2/" not in next(lines):
        pass
    assert executor.clear(job.run_id, wait_s=10) == (f"container envforge-run-{job.run_id[:12]}",)
    assert list(job.run_dir.glob("checkpoints/step-*.txt"))
    assert executor.clear(job.run_id, wait_s=10) == ()
    assert left_of(engine, job) == []


def test_the_kernels_kill_for_memory_is_told_from_a_persons(engine, tiny):
    hog = Launch(tiny, ["sh", "-c", "head -c 500M /dev/zero | tail"], memory_mib=32)
    with engine.run(hog) as container:
        ending = DockerProcess(container).wait()
    assert ending.out_of_memory
    with engine.run(Launch(tiny, ["sleep", "60"])) as container:
        process = DockerProcess(container)
        process.kill()
        assert process.wait() == Ending(137, out_of_memory=False)
        process.signal(signal.SIGTERM)  # too late, and no error


def test_a_killed_engine_is_noticed_and_on_record(own_engine, context, shell_job, tmp_path):
    with own_engine.start() as engine:
        image = engine.build(Build(context, "tiny"), log=tmp_path / "build.txt")
        executor = DockerExecutor(engine=engine, image=image)
        job = shell_job(steps=1000)
        record = train(job, executor, at=3, action=lambda _stops: own_engine.kill())
    assert (record.state, record.last.reason) == ("FAILED", "engine-lost")
    assert record.last.exit_code is None
    assert "stopped answering" in record.last.because[0]
    assert record.last.last_iteration >= 3


def test_a_restarted_engine_is_waited_for_and_the_run_comes_home(
    own_engine, context, shell_job, tmp_path, events
):
    """SIGKILL of the engine takes its containers along; it comes back a moment later."""
    with own_engine.start() as engine:
        image = engine.build(Build(context, "tiny"), log=tmp_path / "build.txt")
        ladder = Ladder(retries={"engine-lost": 2}, verify="existence")
        job = shell_job(steps=60, ladder=ladder)
        back, killed = [], []

        def restart():
            own_engine.kill()
            back.append(own_engine.start())

        def on_event(event):
            events.append(event)
            if event.kind == "metric" and event.done >= 3 and not killed:
                killed.append(threading.Thread(target=restart))
                killed[0].start()

        with open_folder(job.run_dir) as folder:
            record = RunRecord(
                id=job.run_id, recipe="toy", reference="toy", run_dir=str(job.run_dir), on="docker"
            )
            clock = SystemClock()
            journal = Journal(folder, record, job.checkpoints, clock)
            plan = Plan(lambda *_: job, DockerExecutor(engine=engine, image=image), ladder)
            record = persevere(plan, {}, (), journal, Surroundings(clock, StopRequests(), on_event))
        killed[0].join()
        for each in back:
            assert left_of(each, job) == []
            each.close()
    assert (record.state, [each.reason for each in record.attempts]) == (
        "SUCCEEDED", ["engine-lost", "finished"]
    )  # fmt: skip
    told = [event.text for event in events if event.kind == "warning"]
    assert "waiting for the container engine" in told


def test_the_containers_processes_are_known_by_this_machines_numbers(engine, tiny):
    with engine.run(Launch(tiny, ["sleep", "60"])) as container:
        pids = DockerProcess(container).pids()
        assert any("sleep" in " ".join(psutil.Process(pid).cmdline()) for pid in pids)
        container.signal("SIGKILL")
        container.wait()
        assert DockerProcess(container).pids() == ()
