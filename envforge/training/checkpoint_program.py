"""Look into checkpoints, and scale rates and schedule in them. Runs where the training runs.

Started by the recipe's own interpreter, which has the torch that wrote them: Python 2.7 and torch
0.4 or newer. It imports nothing of envforge, and says one line of JSON a file::

    checkpoint_program.py verify FILE...         {"file": ..., "fault": "", "rates": [0.1]}
    checkpoint_program.py scale '[[FACTOR, DONE, STRETCH], ...]' FILE...

``fault`` is empty for a file that loads and in which every number is finite. ``scale`` multiplies
the rates in every optimizer's and schedule's state, wherever in the file it lies, and puts the
milestones of a schedule that come after DONE steps STRETCH times as far away, for each in turn; the
file is replaced as a whole or not at all, and its answer is that of ``verify``.
"""

from __future__ import print_function

import json
import os
import shutil
import signal
import sys

# Asked to end it says nothing and ends of the signal: a Ctrl-C goes to it, too.
signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch  # noqa: E402 -- takes seconds

# In an optimizer's parameter groups and in a schedule's state
# (https://pytorch.org/docs/stable/optim.html); OneCycleLR keeps its own beside them.
RATES = ("lr", "initial_lr", "max_lr", "min_lr", "base_lr")
SCHEDULED = ("base_lrs", "_last_lr", "base_lr", "max_lrs", "min_lrs", "eta_min")


def load(path):
    """Load on the CPU. Since torch 2.6 classes are refused unless they are asked for; these files
    were written by the training that will load them all the same."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except TypeError:  # before torch 1.13 there was no such choice
        return torch.load(path, map_location="cpu")


def children(value):
    """(name, part) of every container torch.save is given."""
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if hasattr(value, "state_dict") and callable(value.state_dict):  # a whole module was saved
        return list(value.state_dict().items())
    return []


def first_bad_number(root):
    """Where the first number that is not finite lies, as ``model.conv.weight``; None where all are.

    A list of losses may be long; a tensor is asked at once.
    """
    waiting, seen = [("", root)], set()
    while waiting:
        path, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            if is_floating(value) and not is_finite(value):
                return path
        elif isinstance(value, float):
            if value - value != 0:
                return path
        else:
            waiting.extend(
                ("%s.%s" % (path, name) if path else str(name), part)
                for name, part in children(value)
            )
    return None


def is_floating(tensor):
    return tensor.dtype in (torch.float16, torch.float32, torch.float64) or (
        tensor.dtype == getattr(torch, "bfloat16", None)
    )


def is_finite(tensor):
    """A number that is not finite is the only one that does not leave 0 when it is taken from
    itself; a maximum would pass over a NaN in old releases. Half precision has no arithmetic on
    the CPU there."""
    wide = tensor.detach()
    if wide.dtype not in (torch.float32, torch.float64):
        wide = wide.float()
    return not bool(((wide - wide) != 0).any())


def state_parts(root):
    """Every dict that is an optimizer's or a schedule's state."""
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, torch.Tensor):
            continue
        seen.add(id(value))
        if isinstance(value, dict) and ("param_groups" in value or "base_lrs" in value):
            yield value
        waiting.extend(part for _, part in children(value))


def scaled(value, factor):
    if isinstance(value, (list, tuple)):
        parts = [scaled(each, factor) for each in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, torch.Tensor):
        return value * factor
    return value * factor if isinstance(value, float) else value


def scale_rates(root, factor):
    for state in state_parts(root):
        for group in state.get("param_groups", ()):
            for name in RATES:
                if name in group:
                    group[name] = scaled(group[name], factor)
        for name in SCHEDULED:
            if name in state:
                state[name] = scaled(state[name], factor)


def later(milestone, done, stretch):
    return milestone if milestone <= done else int(round(done + (milestone - done) * stretch))


def stretch_schedules(root, done, stretch):
    """MultiStepLR keeps its milestones in its state, and so brings the old ones back: as a list,
    or as a Counter of them."""
    for state in state_parts(root):
        milestones = state.get("milestones")
        if isinstance(milestones, dict):
            moved = [(later(each, done, stretch), count) for each, count in milestones.items()]
            milestones.clear()
            milestones.update(dict(moved))
        elif isinstance(milestones, (list, tuple)):
            state["milestones"] = type(milestones)([later(each, done, stretch)
                                                    for each in milestones])


def rates_of(root):
    """The rates its optimizers would go on with."""
    return sorted(
        {
            float(group["lr"])
            for state in state_parts(root)
            for group in state.get("param_groups", ())
            if "lr" in group
        }
    )


def write_atomically(path, value):
    """A kill at any moment leaves the old file or the new one."""
    staging = path + ".envforge"
    torch.save(value, staging)
    shutil.copymode(path, staging)
    with open(staging, "rb+") as stream:
        os.fsync(stream.fileno())
    os.rename(staging, path)


def look(path, scalings):
    """The answer about one file."""
    if not os.path.getsize(path):
        return {"file": path, "fault": "is empty", "rates": []}
    root = load(path)
    bad = first_bad_number(root)
    if bad is not None:
        return {"file": path, "fault": "%s is not finite" % bad, "rates": rates_of(root)}
    if scalings and rates_of(root):
        for factor, done, stretch in scalings:
            scale_rates(root, factor)
            if stretch != 1:
                stretch_schedules(root, done, stretch)
        write_atomically(path, root)
    return {"file": path, "fault": "", "rates": rates_of(root)}


def answer(path, scalings):
    try:
        return look(path, scalings)
    except Exception as error:  # a damaged file raises nearly anything
        words = ("%s: %s" % (type(error).__name__, error)).strip().split("\n")[0]
        return {"file": path, "fault": "does not load: " + words[:200], "rates": []}


def main(arguments):
    scalings = json.loads(arguments[1]) if arguments[0] == "scale" else []
    for path in arguments[2 if scalings else 1:]:
        print("checkpoint: " + json.dumps(answer(path, scalings)))
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
