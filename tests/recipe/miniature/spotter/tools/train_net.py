"""MaskTextSpotter of a few weights, with upstream's habits: it counts from 0, the last iteration is
max_iter - 1, a NaN ends with exit code 0, and everything is found below the working directory."""
import argparse
import json
import os
import re
import time

import torch
from maskrcnn_benchmark.config import merged
from maskrcnn_benchmark.data.datasets.icdar import Icdar
from maskrcnn_benchmark.modeling.rpn.anchor_generator import anchors
from maskrcnn_benchmark.utils.checkpoint import Checkpointer
from maskrcnn_benchmark.utils import model_zoo  # noqa: F401 -- what it imports must be there
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(os.path.dirname(HERE), "said.json")) as stream:
    LINES = json.load(stream)
FILES = {"saving", "loading", "optimizer", "scheduler"}


def say(kind, *values):
    """One of upstream's own lines, with a file or numbers of ours."""
    line = LINES[kind]
    if kind in FILES:
        line = re.sub(r"\S+\.pth$", lambda _: values[0], line)
    if kind == "progress":
        iteration, loss, average = values
        line = re.sub(r"iter: \d+", "iter: %d" % iteration, line)
        line = re.sub(r"  loss: \S+ \S+", "  loss: %.4f (%.4f)" % (loss, average), line)
    print(line)


def examples():
    with open("datasets/synthtext/train_list.txt") as listed:
        names = listed.read().split("\n")[:-1]
    counts, _ = Icdar("datasets/synthtext/train_gts", names).words()
    rows = []
    for name in names:
        picture = Image.open(os.path.join("datasets/synthtext/train_images", name))
        rows.append([value / 255.0 for value in picture.convert("RGB").resize((1, 1)).getpixel((0, 0))])
    return torch.tensor(rows), torch.tensor([[float(count)] for count in counts])


def train(cfg):
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=float(cfg["SOLVER.BASE_LR"]), momentum=0.9)
    steps = [int(step) for step in re.findall(r"\d+", cfg["SOLVER.STEPS"])]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, steps)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    checkpointer = Checkpointer(parts, cfg["OUTPUT_DIR"], say)
    start = checkpointer.load(cfg["MODEL.WEIGHT"]).get("iteration", 0)
    pictures, words = examples()
    last, period = int(cfg["SOLVER.MAX_ITER"]) - 1, int(cfg["SOLVER.CHECKPOINT_PERIOD"])
    losses = []
    say("start")
    for iteration in range(start, last + 1):
        loss = 100 * ((model(pictures) - words) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if iteration % 20 == 0 or iteration == last:
            say("progress", iteration, losses[-1], sum(losses) / len(losses))
        if iteration and (iteration % period == 0 or iteration == last):
            checkpointer.save("model_%07d" % iteration, iteration=iteration)
    say("done")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file")
    parser.add_argument("--skip-test", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    assert args.skip_test and anchors(16)[0].shape == (4,)
    cfg = merged(args.opts)
    if not os.path.isdir(cfg["OUTPUT_DIR"]):
        os.makedirs(cfg["OUTPUT_DIR"])
    train(cfg)
