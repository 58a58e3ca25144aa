"""Time what the supervisor costs a training, and how soon a killed one makes its next step.

    python benchmarks/supervisor.py --interpreter PYTHON_WITH_TORCH [--rounds 5] [--steps 500]

The same training runs alone and watched in turn, so that load on the machine hits both; the figure
is the ratio of the medians of its own mean step time. It says a line for every step, which is more
than any real upstream does. Then it is killed: the seconds from its death to the next step's line
are split into what loading takes (torch's import and the checkpoint, measured alone) and the rest.
Nothing here is asserted: figures belong in docs/verification/.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import click
import psutil

from envforge.events import Event
from envforge.run import RunRequest, run

RECIPE = """\
schema: envforge.recipe/1
name: steps
summary: Steps of one size.
torch: ">=0.4,<2.16"
files: files
command: ["{python}", "{recipe}/steps.py", "{run_dir}", "{steps}", "{size}"]
parameters:
  steps: { kind: integer, default: 500, minimum: 1, help: steps }
  size: { kind: integer, default: 512, minimum: 1, help: rows of the matrices }
log:
  progress: '^step: (?P<step>\\d+)/(?P<total>\\d+)  (?P<losses>.*)'
  loss: '(?P<name>\\w+): (?P<value>\\S+)'
checkpoints: model_*.pth
checkpoint: { parts: ["model_{number}.pth"], unit: step, size_mib: 1, every: steps, keep: 2 }
success: { line: '^mean: ' }
ladder: { retries: { crash: 2 } }
shm_size_mib: 64
"""

TRAINING = """\
import glob, os, sys, time
started = time.time()
import torch
run_dir, steps, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
device = "cuda" if torch.cuda.is_available() else "cpu"
done, paths = 0, sorted(glob.glob(run_dir + "/model_*.pth"))
if paths:
    done = torch.load(paths[-1])["step"]
a = torch.rand(size, size, device=device)
b = torch.eye(size, device=device)
for _ in range(5):
    (a @ b).sum().item()
print("loaded: %.3f" % (time.time() - started))
first, begun = done, time.time()
while done < steps:
    done += 1
    a = a @ b
    print("step: %d/%d  loss: %.4f" % (done, steps, a[0, 0].item()))
    sys.stdout.flush()
    if done % 50 == 0:
        torch.save({"step": done}, run_dir + "/model_%07d.pth" % done)
print("mean: %.9f" % ((time.time() - begun) / max(1, steps - first)))
sys.stdout.flush()
"""


def said(log: str, word: str) -> float:
    """The number behind the last ``word:`` of a log."""
    return float(log.rpartition(f"{word}: ")[2].split()[0])


def alone(python: str, folder: Path, steps: int, size: int) -> str:
    """The output of a training that nobody watches."""
    script = folder / "steps" / "files" / "steps.py"
    with tempfile.TemporaryDirectory() as run_dir:
        command = [python, str(script), run_dir, str(steps), str(size)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Killer:
    """An ``on_event`` that kills the training at a step, once, and times the next step after."""

    def __init__(self, step: int) -> None:
        self.step, self.killed_at, self.back_s = step, 0.0, 0.0

    def __call__(self, event: Event) -> None:
        """Kill, or take the time."""
        if event.kind != "metric":
            return
        if not self.killed_at and event.done >= self.step:
            self.killed_at = time.perf_counter()
            for child in psutil.Process().children(recursive=True):
                if "steps.py" in " ".join(child.cmdline()):
                    os.kill(child.pid, signal.SIGKILL)
        elif self.killed_at and not self.back_s and event.done < self.step:
            self.back_s = time.perf_counter() - self.killed_at


def watched(
    python: str, folder: Path, settings: dict[str, str], killer: Killer | None = None
) -> str:
    """The log of a training that envforge watches."""
    with tempfile.TemporaryDirectory() as base:
        run_dir = Path(base) / "run"
        request = RunRequest(
            str(folder / "steps"), on="local", interpreter=python, run_dir=run_dir,
            settings=settings,
        )  # fmt: skip
        run(request, killer or (lambda _event: None))
        return (run_dir / "log.txt").read_text()


@click.command()
@click.option("--interpreter", "python", required=True, help="A Python that has a torch.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--steps", default=500, show_default=True)
@click.option("--size", default=512, show_default=True, help="Rows of the matrices.")
def main(python: str, rounds: int, steps: int, size: int) -> None:
    """Print both figures."""
    settings = {"steps": str(steps), "size": str(size)}
    times: dict[str, list[float]] = {"alone": [], "watched": []}
    backs: list[float] = []
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        (folder / "steps" / "files").mkdir(parents=True)
        (folder / "steps" / "recipe.yaml").write_text(RECIPE)
        (folder / "steps" / "files" / "steps.py").write_text(TRAINING)
        for _ in range(rounds):
            times["alone"].append(said(alone(python, folder, steps, size), "mean"))
            times["watched"].append(said(watched(python, folder, settings), "mean"))
        for _ in range(min(rounds, 3)):
            killer = Killer(step=75)
            log = watched(python, folder, settings, killer)
            backs.append(killer.back_s)
        loading = said(log, "loaded")
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, each in times.items():
        low, high = min(each) * 1e3, max(each) * 1e3
        print(f"step {name:<8} {medians[name] * 1e3:8.3f} ms  ({low:.3f} to {high:.3f})")
    print(f"overhead      {medians['watched'] / medians['alone'] - 1:+8.2%}")
    back = statistics.median(backs)
    print(f"killed, to the next step {back:6.2f} s, of which loading {loading:.2f} s")


if __name__ == "__main__":
    main()
