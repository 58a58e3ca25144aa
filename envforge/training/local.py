"""A training as a child of this process, in a process group of its own."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from envforge.errors import RunFailed
from envforge.recipes.dataset import Said
from envforge.training.errand import Errand
from envforge.training.executor import RUN_VARIABLE, Ending
from envforge.training.job import Job
from envforge.training.kernel import killed_for_memory, oom_kills

_POLL_S = 0.1
_KILL_S = 5.0
_CHUNK = 1 << 16
_LONGEST = 1 << 20
_PIPE = 1 << 20
"""The most that a pipe holds (/proc/sys/fs/pipe-max-size): what the leader wrote before its end."""
_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


def split_lines(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Split off the whole lines; a progress bar's carriage return ends a line too.

    One at the very end is kept with the rest: it may be half of CR LF.
    """
    held = b"\r" if buffer.endswith(b"\r") else b""
    *lines, rest = _END_OF_LINE.split(buffer[: len(buffer) - len(held)])
    return lines, rest + held


class LocalProcess:
    """One started training.

    The leader is left a zombie until the context is left: as long as it is one, its process
    group's number cannot be given to anybody else, so the group can be killed safely.
    """

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._kills_before = oom_kills()

    def lines(self) -> Iterator[bytes]:
        """Yield the output a line at a time, until the leader has ended and the pipe is drained."""
        rest = b""
        for chunk in self._chunks():
            lines, rest = split_lines(rest + chunk)
            yield from lines
            if len(rest) > _LONGEST:
                yield rest
                rest = b""
        if rest:
            yield rest.rstrip(b"\r")

    def wait(self) -> Ending:
        """Block until the leader has ended."""
        status = os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)
        code = status.si_status if status else 0
        if status and status.si_code != os.CLD_EXITED:
            code += 128
        return Ending(code, killed_for_memory(code, self._kills_before))

    def signal(self, number: int) -> None:
        """Send a signal to the leader alone: its workers must live for it to checkpoint."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._popen.pid, number)

    def kill(self) -> None:
        """End the whole group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def pids(self) -> tuple[int, ...]:
        """List the leader and everything it has started."""
        try:
            leader = psutil.Process(self._popen.pid)
            return (leader.pid, *(each.pid for each in leader.children(recursive=True)))
        except psutil.Error:
            return ()

    def _chunks(self) -> Iterator[bytes]:
        """Yield what comes through the pipe; a child of the leader may hold it open for ever."""
        pipe, left = self._popen.stdout, _PIPE
        while pipe is not None and left > 0:
            ended = self._has_ended()
            readable, _, _ = select.select([pipe], [], [], 0 if ended else _POLL_S)
            chunk = os.read(pipe.fileno(), _CHUNK) if readable else b""
            if readable and not chunk:  # closed by a training that may live on
                self.wait()
                return
            if ended and not readable:
                return
            left -= len(chunk) if ended else 0
            yield chunk

    def _has_ended(self) -> bool:
        flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return os.waitid(os.P_PID, self._popen.pid, flags) is not None


class LocalExecutor:
    """Trains on this machine, in an interpreter that is already there."""

    @contextmanager
    def start(self, job: Job) -> Iterator[LocalProcess]:
        """Start ``job``; RunFailed where its command cannot be started."""
        try:
            popen = subprocess.Popen(
                job.argv,
                cwd=job.run_dir,
                env=_environment(job),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise RunFailed(f"cannot start {job.argv[0]}", because=(str(error),)) from error
        process = LocalProcess(popen)
        try:
            yield process
        finally:
            process.kill()
            popen.wait()
            if popen.stdout:
                popen.stdout.close()

    def place(self, job: Job) -> str:
        """Where it is: nothing lies between the training and this machine."""
        return str(job.run_dir)

    def call(self, job: Job, program: Path, arguments: tuple[str, ...]) -> tuple[int, str]:
        """Run ``program``; RunFailed where the interpreter cannot be started."""
        try:
            answer = subprocess.run(
                [job.python, "-W", "ignore", program, *arguments],
                cwd=job.run_dir,
                env=_environment(job, CUDA_VISIBLE_DEVICES=""),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise RunFailed(f"cannot start {job.python}", because=(str(error),)) from error
        code = answer.returncode if answer.returncode >= 0 else 128 - answer.returncode
        return code, answer.stdout.decode("utf-8", errors="replace")

    def carry_out(self, errand: Errand) -> Said:
        """Run an errand; RunFailed where its program cannot be started."""
        try:
            answer = subprocess.run(
                errand.argv,
                cwd=errand.workdir,
                env={**os.environ, **errand.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
        except OSError as error:
            raise RunFailed(f"cannot start {errand.argv[0]}", because=(str(error),)) from error
        code = answer.returncode if answer.returncode >= 0 else 128 - answer.returncode
        return Said(code, tuple(answer.stdout.decode("utf-8", errors="replace").splitlines()))

    def clear(self, run_id: str, wait_s: float) -> tuple[str, ...]:
        """Stop the processes that carry this run's id in their environment."""
        left = [process for process in psutil.process_iter() if _belongs_to(process, run_id)]
        leaders = [process for process in left if _is_leader(process)] or left
        for process in leaders:
            with contextlib.suppress(psutil.Error):
                process.terminate()
        _, stubborn = psutil.wait_procs(left, timeout=wait_s if left else 0)
        for process in stubborn:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(stubborn, timeout=_KILL_S)
        return tuple(f"process {process.pid}" for process in leaders)


def _environment(job: Job, **more: str) -> dict[str, str]:
    return {**os.environ, **job.environment, **more, RUN_VARIABLE: job.run_id}


def _belongs_to(process: psutil.Process, run_id: str) -> bool:
    try:
        return process.environ().get(RUN_VARIABLE) == run_id
    except (psutil.Error, OSError):
        return False


def _is_leader(process: psutil.Process) -> bool:
    with contextlib.suppress(OSError):
        return os.getpgid(process.pid) == process.pid
    return False
