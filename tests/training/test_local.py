from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.errors import RunFailed
from envforge.training.executor import RUN_VARIABLE, Ending
from envforge.training.local import LocalExecutor, split_lines

EXECUTOR = LocalExecutor()


def script(make, text):
    return make(argv=(sys.executable, "-c", text))


def leave(job):
    """Start a job as an envforge did that is no more; return the process id."""
    command = ["sh", "-c", 'setsid "$@" > "$0" 2>&1 & echo $!', job.run_dir / "out.txt", *job.argv]
    environment = {**os.environ, RUN_VARIABLE: job.run_id}
    answer = subprocess.run(command, env=environment, capture_output=True, check=True)
    wait_for(lambda: list(job.run_dir.glob(job.checkpoints)))
    return int(answer.stdout)


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_both_streams_come_as_lines_in_their_order(toy_job):
    job = script(
        toy_job, "import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr)"
    )
    with EXECUTOR.start(job) as process:
        assert list(process.lines()) == [b"one", b"two"]
        assert process.wait() == Ending(0)
        assert process.wait() == Ending(0)  # as often as one asks


def test_a_last_line_without_an_end_is_a_line(toy_job):
    with EXECUTOR.start(script(toy_job, "print('half', end='')")) as process:
        assert list(process.lines()) == [b"half"]


def test_a_signal_is_counted_as_shells_count(toy_job):
    job = script(toy_job, "import os; os.kill(os.getpid(), 9)")
    with EXECUTOR.start(job) as process:
        assert process.wait() == Ending(137)


def test_the_output_ends_with_the_leader_though_a_child_holds_the_pipe(toy_job):
    started = time.monotonic()
    with EXECUTOR.start(toy_job("leaves-child")) as process:
        assert b"toy: passed" in list(process.lines())
        assert process.wait() == Ending(0)
    assert time.monotonic() - started < 20


def test_leaving_the_context_ends_the_whole_group(toy_job, tmp_path):
    text = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with EXECUTOR.start(script(toy_job, text)) as process:
        child = int(next(iter(process.lines())))
        assert is_alive(child)
    wait_for(lambda: not is_alive(child))


def test_a_training_that_closes_its_output_and_works_on_is_waited_for(toy_job):
    text = "import os, time; os.close(1); os.close(2); time.sleep(0.5); os._exit(7)"
    with EXECUTOR.start(script(toy_job, text)) as process:
        assert list(process.lines()) == []
        assert process.wait() == Ending(7)


def test_a_signal_reaches_the_leader_and_not_its_workers(toy_job):
    text = (
        "import os, signal, subprocess, sys, time\n"
        "worker = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "def stop(*_):\n"
        "    print('worker is', worker.poll(), flush=True); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "os.write(1, b'ready\\n')\n"  # print may still hold its buffer when the signal comes
        "time.sleep(60)\n"
    )
    with EXECUTOR.start(script(toy_job, text)) as process:
        lines = process.lines()
        assert next(lines) == b"ready"
        process.signal(signal.SIGTERM)
        assert list(lines) == [b"worker is None"]
        assert process.wait() == Ending(75)
        process.signal(signal.SIGTERM)  # too late, and no error
        process.kill()


def test_a_command_that_does_not_exist_is_said(toy_job):
    with (
        pytest.raises(RunFailed, match="cannot start /no/such/python"),
        EXECUTOR.start(toy_job(argv=("/no/such/python",))),
    ):
        pass


def test_what_a_dead_supervisor_left_is_stopped_and_may_checkpoint(toy_job):
    job = toy_job(steps=100_000, delay=0.01)
    orphan = leave(job)
    assert EXECUTOR.clear(job.run_id, wait_s=10) == (f"process {orphan}",)
    assert not is_alive(orphan)
    assert "stopped: at step" in (job.run_dir / "out.txt").read_text()
    assert EXECUTOR.clear(job.run_id, wait_s=10) == ()


def test_what_is_deaf_to_a_request_is_killed(toy_job):
    job = toy_job("deaf", steps=100_000, delay=0.01)
    orphan = leave(job)
    EXECUTOR.clear(job.run_id, wait_s=0.2)
    assert not is_alive(orphan)


@given(st.lists(st.binary(max_size=20)))
def test_lines_are_the_same_however_the_bytes_arrive(chunks):
    whole, whole_rest = split_lines(b"".join(chunks))
    lines, rest = [], b""
    for chunk in chunks:
        more, rest = split_lines(rest + chunk)
        lines += more
    assert (lines, rest) == (whole, whole_rest)


def test_a_progress_bar_ends_lines_too():
    assert split_lines(b"10%\r20%\r\ndone\nre") == ([b"10%", b"20%", b"done"], b"re")
    assert split_lines(b"10%\r") == ([], b"10%\r")


def test_a_long_line_costs_no_more_than_its_length():
    started = time.monotonic()
    assert split_lines(b"x" * 2_000_000) == ([], b"x" * 2_000_000)
    assert time.monotonic() - started < 1
