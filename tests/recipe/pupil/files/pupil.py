"""An upstream of the tests' own, for Python 2.7 and torch 0.4 or newer. Its habits are seen ones:

it exits 0 when it ends in NaN and saves the NaN weights as its newest checkpoint; it writes
checkpoints in place, so that a kill leaves half of one; it goes on from what ``last_checkpoint``
names, with the learning rate that lies in there, whatever its command line says.

pupil.py RUN_DIR STEPS BATCH RATE NAN_ABOVE HOG_MIB DELAY DEVICE
"""
from __future__ import print_function

import hashlib
import json
import os
import sys
import time

import torch

RUN_DIR, STEPS, BATCH = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
RATE, NAN_ABOVE, HOG_MIB, DELAY = [float(text) for text in sys.argv[4:8]]
DEVICE = torch.device("cuda" if sys.argv[8] == "cuda" else "cpu")
POINTER = os.path.join(RUN_DIR, "last_checkpoint")
EVERY, HOG_FROM, NAN_FROM = 10, 15, 30


def say(line):
    print("2026-11-22 09:01:46,303 pupil INFO: " + line)
    sys.stdout.flush()


def save(step, model, optimizer, schedule):
    name = "model_%07d.pth" % step
    say("Saving checkpoint to " + name)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                "scheduler": schedule.state_dict(), "iteration": step},
               os.path.join(RUN_DIR, name))
    with open(POINTER, "w") as stream:
        stream.write(os.path.join(RUN_DIR, name))


def load(model, optimizer, schedule):
    if not os.path.exists(POINTER):
        return 0
    with open(POINTER) as stream:
        path = stream.read().strip()
    state = torch.load(path, map_location="cpu")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["scheduler"])
    say("Resumed from %s at %d" % (os.path.basename(path), state["iteration"]))
    return state["iteration"]


def advance(step, model, optimizer, schedule):
    """The batch may shrink on the way; the examples, and so the weights, are the same."""
    torch.manual_seed(step)
    inputs = torch.randn(4, 64).to(DEVICE)
    hog = int(HOG_MIB * 2**18) if step >= HOG_FROM else 0
    kept = [torch.ones(hog, device=DEVICE) for _ in range(BATCH)]
    loss = ((model(inputs) - inputs[:, :8]) ** 2).mean()
    rate = optimizer.param_groups[0]["lr"]
    if step >= NAN_FROM and rate > NAN_ABOVE:
        loss = loss * float("nan")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    del kept
    return loss.item(), rate


def digest(model):
    values = [value for _, tensor in sorted(model.state_dict().items())
              for value in tensor.cpu().double().view(-1).tolist()]
    return hashlib.sha256(json.dumps(values).encode("ascii")).hexdigest()


def held_mib():
    return int(torch.cuda.max_memory_allocated() // 2**20) if DEVICE.type == "cuda" else 0


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Linear(64, 8).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    total, step = 0.0, load(model, optimizer, schedule)
    first = step
    while step < STEPS:
        step += 1
        time.sleep(DELAY)
        loss, rate = advance(step, model, optimizer, schedule)
        total += loss
        say("eta: 0:00:05  iter: %d  loss: %.4f (%.4f)  time: %.4f (%.4f)  data: 0.0056 (0.0126)  "
            "lr: %.6f  max mem: %d" % (step, loss, total / (step - first), DELAY, DELAY, rate,
                                       held_mib()))
        if step % EVERY == 0:
            save(step, model, optimizer, schedule)
    say("Total training time: 0:00:01 (0.01 s / it)")
    with open(os.path.join(RUN_DIR, "result.json"), "w") as stream:
        json.dump({"done": True, "weights": digest(model)}, stream)


if __name__ == "__main__":
    main()
