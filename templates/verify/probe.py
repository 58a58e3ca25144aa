"""Asked inside an image: is this the torch that was promised, and does it train?

Runs on every Python from 2.7 and every torch from 0.4; prints one line of JSON. It uses the CPU
only: no card is needed where an image is built.
"""

from __future__ import print_function

import json
import os
import platform
import sys

import torch
from torch import nn

STEPS = 30


def libraries():
    """Return the shared libraries beside torch, with their sizes in bytes."""
    folder = os.path.join(os.path.dirname(torch.__file__), "lib")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names if ".so" in name]
    return [[path, os.path.getsize(path)] for path in paths]


def train():
    """Train a small convolutional net for some steps; return its losses."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    images = torch.randn(8, 1, 16, 16)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = ((net(images) - images.abs()) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def main():
    """Print the answers."""
    answer = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": str(torch.__version__),
        "cuda": getattr(torch.version, "cuda", None),
        "libraries": libraries(),
        "losses": train(),
    }
    print(json.dumps(answer, sort_keys=True))


if __name__ == "__main__":
    main()
