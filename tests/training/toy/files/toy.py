"""A training without a framework: a chain of hashes for weights, and a habit for its end.

toy.py RUN_DIR STEPS DELAY HABIT DEVICE [RATE]
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RUN_DIR, STEPS, DELAY, HABIT = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
RATE = float(sys.argv[6]) if sys.argv[6:] else 0.0
FOLDER = RUN_DIR / "checkpoints"
EXPLODED = "exploded-"
"""Weights that load, and that no number comes out of when a training goes on from them."""
stopping = []


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(path, text):
    staging = path.with_suffix(".tmp")
    staging.write_text(text)
    staging.replace(path)


def save(step, weights):
    name = f"checkpoints/step-{step:06}.txt"
    write(RUN_DIR / name, f"{step} {weights}")
    say(f"checkpoint: {name}")


def load():
    paths = sorted(FOLDER.glob("*.txt"))
    if not paths:
        return 0, ""
    step, weights = paths[-1].read_text().split(" ")
    say(f"resumed: checkpoints/{paths[-1].name} at step {step}")
    return int(step), weights


def may_be_read_by_anybody():
    """Some kernels let only a process's parents look into it (Yama's ptrace_scope)."""
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)


def misbehave(step):
    """What the habit does in the middle of the training."""
    if HABIT == "quits":
        sys.exit(0)
    if HABIT == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if HABIT == "gpu-oom":
        say("RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 3.94 GiB total)")
        sys.exit(1)
    if HABIT == "hangs":
        may_be_read_by_anybody()
        time.sleep(600)
    if HABIT == "bad-checkpoint":
        sys.exit(4)
    if HABIT == "leaves-child":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    if HABIT == "bytes":
        sys.stdout.buffer.write(b"\xff\xfe\x00 10%\r20%\r\n" + b"x" * 300000 + b"\n")


def learn(weights, step):
    """One step; what has exploded stays so."""
    bad = weights.startswith(EXPLODED) or (HABIT == "explodes" and step >= 10)
    return bad * EXPLODED + hashlib.sha256((weights + str(step)).encode()).hexdigest()


def loss_of(weights, step):
    """The loss before the step is taken; of an explosion it is seen after a while."""
    steep = 13 if RATE > 0.05 else STEPS
    seen = {"nan": 10, "nan-at-once": 0, "explodes": 13, "steep": steep}.get(HABIT, STEPS)
    if step > seen or (weights.startswith(EXPLODED) and HABIT != "explodes"):
        return "nan"
    return "1000.0" if HABIT == "wild" else f"{1 / step:.4f}"


def main():
    FOLDER.mkdir(exist_ok=True)
    if HABIT == "deaf":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.append(1))
    step, weights = load()
    while step < STEPS:
        step += 1
        time.sleep(DELAY)
        loss = loss_of(weights, step)
        weights = learn(weights, step)
        say(f"step: {step}/{STEPS}  loss: {loss}  time: {DELAY:.3f}  lr: 0.000200")
        if loss == "nan":
            time.sleep(0.5)  # it would be chance what it still saves before it is killed
        if step == 10:
            misbehave(step)
        if step % 5 == 0 or stopping:
            save(step, weights)
        if stopping:
            say(f"stopped: at step {step}")
            return 75
    failed = HABIT == "fails"
    say("check: weights %s  they are what they are" % ("failed" if failed else "ok"))
    if HABIT != "no-result":
        passed = not failed and HABIT != "nan"
        write(RUN_DIR / "toy.json", json.dumps({"passed": passed, "weights": weights}))
    say("toy: failed (weights)" if failed else "toy: passed")
    return {"fails": 1, "odd-exit": 134, "nan": 0}.get(HABIT, 0)


if __name__ == "__main__":
    sys.exit(main())
