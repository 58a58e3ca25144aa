#!/usr/bin/env python
"""Train a small pix2pix and tell whether this PyTorch can be trusted.

Whoever has just built an old PyTorch for an old card knows that it imports, not that it is right.
This program finds out in about a minute. It needs torch and nothing else, and runs unchanged from
torch 0.4 on Python 2.7 to today's, on a CPU or a GPU: so a stack that fails can be compared, check
by check, with one that passes.

What a pass proves, on the device it ran on:
  * convolution, transposed convolution, batch norm, the activations and the losses give the
    answers that plain loops in this file give, with the channels in their order;
  * autograd is right: each operator and each parameter of both networks against finite
    differences in float64, and float32 against float64 at the size of the training;
  * Adam follows its formula, and a checkpoint brings back all of its state;
  * a run that is saved and loaded goes on bit for bit as one that was not (on the CPU);
  * a conditional GAN (U-Net generator, PatchGAN discriminator, GAN + L1 loss) learns: every
    parameter moves, and pairs it has never seen come out better than by guessing the mean;
  * a GPU computes what the CPU computes.

What it does not prove: speed, memory limits, operators it does not use (attention, recurrence,
pooling), half precision and TF32 (which it turns off), several GPUs, DataLoader workers, compiled
extensions, or that a month of training stays sound.

A check passes when its measured number is at most its bound; a number that is no number fails.
The checks of the arithmetic come first, and when one fails nothing is trained: training on wrong
arithmetic proves nothing. A run directory that holds a checkpoint is resumed; one that is already
finished is verified again, because the torch behind the same name may be another build today. A
damaged newest checkpoint stops the run, and never makes it start over or fall back in silence: a
disk that lost bytes once is the owner's decision.

Exit: 0 passed, 1 a check failed, 3 a loss or weight became NaN or infinite, 4 the newest
checkpoint is unusable, 75 stopped by SIGTERM or SIGINT and resumable. Out of memory, a full disk
and the like end with Python's traceback and its exit code 1, and leave no canary.json.
"""
from __future__ import absolute_import, division, print_function

import argparse
import copy
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import signal
import struct
import sys
import time
import zlib

import torch
import torch.nn.functional as F
from torch import nn

EXIT_PASSED, EXIT_FAILED, EXIT_NON_FINITE, EXIT_BAD_CHECKPOINT, EXIT_STOPPED = 0, 1, 3, 4, 75

TRAINING_PAIRS, HELD_OUT_PAIRS = 32, 8
WIDTH = 16                # channels of the outermost layer; pix2pix has 64
LEARNING_RATE = 0.001     # five times pix2pix's: a few hundred steps instead of many thousand
BETAS, EPSILON = (0.5, 0.999), 1e-8
L1_WEIGHT = 20.0          # pix2pix has 100, which leaves the GAN term nothing to do in a short run
LEAK = 0.2
DROPOUT = 0.2             # pix2pix's only noise, and here the reason to save torch's random state

# Bounds. Behind each: the worst of the healthy stacks (torch 1.0 to 2.15 on CPUs, 2.11 on an H200)
# and the mildest fault seen: most were planted, TF32 is what the H200 does when it is left on.
KNOWN_ANSWER_BOUND = 1e-5   # 7e-7; inputs rounded to ten bits 9e-4, channels swapped 6
GRADIENT_BOUND = 1e-3       # 6e-8; a gradient one per cent too large 1e-2
FLOAT32_BOUND = 1e-3        # 2e-6 (2e-5 for pictures of 128); TF32 8e-3
ADAM_BOUND = 1e-5           # 4e-7; a weight decay of 1e-4 2e-4, a rate one per cent too large 2e-2
FALLS_BOUND = 0.4           # 0.12 (0.17 for 200 steps on pictures of 32); a frozen generator 1.08
BASELINE_BOUND = 0.8        # 0.43 (0.72); 2.7
GPU_FORWARD_BOUND = 1e-4    # 5e-6; TF32 3e-3, which the small known answers do not show
GPU_GRADIENT_BOUND = 1e-3   # 2e-6; TF32 8e-3
GPU_RESUME_BOUND = 1e-4     # 0; without the optimizer's state 4e-3

# sha256 of the first two pairs, cut to 16 digits: the training data is the same everywhere
DATA_DIGESTS = "37a81b59f1909066", "56a727dfae743b8f"


class NonFinite(Exception):
    """A loss or a weight is NaN or infinite: nothing after this is worth saving."""


class UnusableCheckpoint(Exception):
    """A checkpoint is damaged, or belongs to a run with other settings."""


# --- The data: facades drawn by integer arithmetic ------------------------------------------------


class Dice(object):
    """Park and Miller's generator: integers only, so every Python draws the same numbers."""

    def __init__(self, seed):
        self.state = seed % 2147483646 + 1
        for _ in range(8):  # small seeds begin alike
            self.below(2)

    def below(self, limit):
        self.state = self.state * 48271 % 2147483647
        return self.state % limit

    def uniform(self):
        """A number in [-1, 1); exact in float32's 24 bits, so every stack starts from one point."""
        return self.below(1 << 24) / float(1 << 23) - 1.0


def fill(image, left, top, right, bottom, colour):
    for row in image[top:bottom]:
        row[3 * left:3 * right] = bytearray(colour) * (right - left)


def draw_wall(plan, photo, left, top, right, bottom, unit):
    fill(plan, left, top, right, bottom, (0, 80, 240))
    for y in range(top, bottom):  # bricks: a joint after every fourth row
        joint = y % 4 == 3
        fill(photo, left, y, right, y + 1, (188, 176, 160) if joint else (170, 84, 60))
    fill(photo, left, top, right, top + unit // 2, (84, 44, 36))  # the roof's shadow


def draw_opening(plan, photo, left, top, right, bottom, is_door):
    fill(plan, left, top, right, bottom, (240, 80, 0) if is_door else (0, 240, 160))
    fill(photo, left, top, right, bottom, (232, 228, 208))  # the frame
    fill(photo, left + 1, top + 1, right - 1, bottom - (0 if is_door else 1),
         (72, 104, 56) if is_door else (36, 52, 92))


def draw_pair(dice, size):
    """A plan (label colours) and the photo it stands for: rows of bytes, R G B R G B ..."""
    unit = size // 16
    plan = [bytearray((16, 16, 16)) * size for _ in range(size)]
    photo = [bytearray((120 + 80 * y // size, 170 + 50 * y // size, 230)) * size
             for y in range(size)]
    left, right = unit * (1 + dice.below(3)), unit * (13 + dice.below(3))
    top = unit * (3 + dice.below(4))
    fill(plan, left - unit, top - unit, right + unit, top, (240, 0, 80))
    fill(photo, left - unit, top - unit, right + unit, top, (92, 92, 104))
    draw_wall(plan, photo, left, top, right, size, unit)
    for floor in range(top + unit, size - 5 * unit, 4 * unit):
        for x in range(left + unit, right - 3 * unit, 4 * unit):
            if dice.below(4):  # three in four places have a window
                draw_opening(plan, photo, x, floor, x + 2 * unit, floor + 2 * unit, False)
    door = left + unit * (1 + dice.below(6))
    draw_opening(plan, photo, door, size - 4 * unit, door + 2 * unit, size, True)
    return plan, photo


def to_tensor(images):
    """Images of bytes as a batch in [-1, 1], channels first."""
    flat = [value for image in images for row in image for value in row]
    size = len(images[0])
    batch = torch.tensor(flat, dtype=torch.float32).view(len(images), size, size, 3)
    return batch.permute(0, 3, 1, 2).contiguous() / 127.5 - 1.0


def draw_pairs(seed, count, size):
    dice = Dice(seed)
    return [draw_pair(dice, size) for _ in range(count)]


class Pairs(object):
    """The training pairs in an order that depends on the seed alone.

    So the number of pairs seen is the whole data position, also when a run that did not fit into
    memory goes on with smaller batches.
    """

    def __init__(self, seed, size, device):
        pairs = draw_pairs(seed, TRAINING_PAIRS + HELD_OUT_PAIRS, size)
        plans = to_tensor([plan for plan, _ in pairs]).to(device)
        photos = to_tensor([photo for _, photo in pairs]).to(device)
        self.seed = seed
        self.plans, self.photos = plans[:TRAINING_PAIRS], photos[:TRAINING_PAIRS]
        self.held_out = plans[TRAINING_PAIRS:], photos[TRAINING_PAIRS:]

    def batch(self, seen, batch_size):
        chosen = [self._index(seen + i) for i in range(batch_size)]
        return self.plans[chosen], self.photos[chosen]

    def _index(self, position):
        epoch, place = divmod(position, TRAINING_PAIRS)
        dice = Dice(self.seed + 7919 * (epoch + 1))
        order = list(range(TRAINING_PAIRS))
        for last in range(TRAINING_PAIRS - 1, 0, -1):
            other = dice.below(last + 1)
            order[last], order[other] = order[other], order[last]
        return order[place]


# --- The networks ---------------------------------------------------------------------------------


def down(inside, outside, norm=True):
    """Half the size. A bias before batch norm would be subtracted again: it has no gradient."""
    layers = [nn.Conv2d(inside, outside, 4, stride=2, padding=1, bias=not norm)]
    return nn.Sequential(*(layers + ([nn.BatchNorm2d(outside)] if norm else [])
                           + [nn.LeakyReLU(LEAK)]))


def up(inside, outside):
    return nn.Sequential(
        nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outside), nn.LeakyReLU(LEAK))


class Generator(nn.Module):
    """A U-Net: what is drawn small comes from the middle, what is drawn sharp over the skips."""

    def __init__(self, width):
        super(Generator, self).__init__()
        self.down1 = down(3, width, norm=False)
        self.down2 = down(width, 2 * width)
        self.down3 = down(2 * width, 4 * width)
        self.down4 = down(4 * width, 4 * width)
        self.up4 = up(4 * width, 4 * width)
        self.dropout = nn.Dropout(DROPOUT)
        self.up3 = up(8 * width, 2 * width)
        self.up2 = up(4 * width, width)
        self.up1 = nn.ConvTranspose2d(2 * width, 3, 4, stride=2, padding=1)

    def forward(self, plan):
        one = self.down1(plan)
        two = self.down2(one)
        three = self.down3(two)
        inner = self.dropout(self.up4(self.down4(three)))
        inner = self.up3(torch.cat([inner, three], 1))
        inner = self.up2(torch.cat([inner, two], 1))
        return torch.tanh(self.up1(torch.cat([inner, one], 1)))


class Discriminator(nn.Module):
    """A PatchGAN: one logit per patch says whether this photo belongs to this plan."""

    def __init__(self, width):
        super(Discriminator, self).__init__()
        self.down1 = down(6, width, norm=False)
        self.down2 = down(width, 2 * width)
        self.judge = nn.Conv2d(2 * width, 1, 4, padding=1)

    def forward(self, plan, photo):
        return self.judge(self.down2(self.down1(torch.cat([plan, photo], 1))))


def initialise(network, seed):
    """Start from our own dice: torch's initialisers and generators changed over the years."""
    dice = Dice(seed)
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            scale = math.sqrt(3.0 / module.weight[0].numel())
            values = [scale * dice.uniform() for _ in range(module.weight.numel())]
            module.weight.data.copy_(torch.tensor(values).view(module.weight.shape))
            if module.bias is not None:
                module.bias.data.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(1.0)  # torch before 1.2 drew it
            module.bias.data.zero_()
    return network


def build_networks(seed, width, device):
    generator = initialise(Generator(width), seed + 1).to(device)
    return generator, initialise(Discriminator(width), seed + 2).to(device)


def truth(logits, is_real):
    """Cross-entropy of the discriminator's logits against one answer for every patch."""
    target = torch.ones_like(logits) if is_real else torch.zeros_like(logits)
    return F.binary_cross_entropy_with_logits(logits, target)


def discriminator_loss(discriminator, plan, photo, fake):
    real, made_up = discriminator(plan, photo), discriminator(plan, fake.detach())
    return 0.5 * (truth(real, True) + truth(made_up, False))


def generator_losses(discriminator, plan, photo, fake):
    return truth(discriminator(plan, fake), True), F.l1_loss(fake, photo)


def adam(network):
    return torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)


# --- Training -------------------------------------------------------------------------------------


class Training(object):
    """Networks, optimizers and position of one run: all that a checkpoint has to bring back."""

    def __init__(self, seed, batch_size, image_size, device, width=WIDTH):
        self.settings = {"seed": seed, "image_size": image_size, "width": width}
        self.device, self.batch_size = device, batch_size
        self.step, self.seen, self.losses = 0, 0, []
        self.pairs = Pairs(seed, image_size, device)
        self.generator, self.discriminator = build_networks(seed, width, device)
        self.optimizer_g, self.optimizer_d = adam(self.generator), adam(self.discriminator)
        torch.manual_seed(seed)  # dropout's
        self.first_l1 = held_out_l1(self)

    def advance(self):
        """One step of pix2pix: first the discriminator learns, then the generator."""
        plan, photo = self.pairs.batch(self.seen, self.batch_size)
        fake = self.generator(plan)
        loss_d = discriminator_loss(self.discriminator, plan, photo, fake)
        self._learn(self.optimizer_d, "loss_d", loss_d)
        loss_gan, loss_l1 = generator_losses(self.discriminator, plan, photo, fake)
        loss_g = loss_gan + L1_WEIGHT * loss_l1
        self._learn(self.optimizer_g, "loss_g", loss_g)
        self.step, self.seen = self.step + 1, self.seen + self.batch_size
        self.losses.append([self.step, loss_g.item(), loss_d.item(), loss_l1.item()])

    def _learn(self, optimizer, name, loss):
        # Looked at before the weights are touched: weights that never saw a NaN can be kept.
        if not is_finite(loss.item()):
            raise NonFinite("%s is %s at step %d" % (name, loss.item(), self.step + 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def networks(self):
        return [("generator", self.generator), ("discriminator", self.discriminator)]

    def state(self):
        """What a checkpoint holds; plain containers, so that any torch.load accepts them."""
        state = {"settings": self.settings, "step": self.step, "seen": self.seen,
                 "losses": self.losses, "first_l1": self.first_l1,
                 "cpu_random_state": torch.get_rng_state(),
                 "optimizer_g": self.optimizer_g.state_dict(),
                 "optimizer_d": self.optimizer_d.state_dict()}
        if self.device.type == "cuda":
            state["cuda_random_state"] = torch.cuda.get_rng_state()
        for name, network in self.networks():
            state[name] = network.state_dict()
        return state

    def restore(self, state):
        for name in ("step", "seen", "losses", "first_l1"):
            setattr(self, name, state[name])
        for name, network in self.networks():
            network.load_state_dict(state[name])
        self.optimizer_g.load_state_dict(state["optimizer_g"])
        self.optimizer_d.load_state_dict(state["optimizer_d"])
        torch.set_rng_state(state["cpu_random_state"])
        if self.device.type == "cuda" and "cuda_random_state" in state:
            torch.cuda.set_rng_state(state["cuda_random_state"])


def is_finite(number):
    return number - number == 0


def weights(training):
    """(name, tensor) of everything a network carries, running statistics too."""
    return [(name + "." + key, tensor) for name, network in training.networks()
            for key, tensor in sorted(network.state_dict().items())]


def weights_digest(training):
    """Equal for equal bits, whatever torch wrote the checkpoint."""
    digest = hashlib.sha256()
    for name, tensor in weights(training):
        values = tensor.cpu().double().contiguous().view(-1).tolist()
        digest.update(name.encode("ascii") + struct.pack("<%dd" % len(values), *values))
    return digest.hexdigest()


def generate(training):
    """The photos of the held-out plans, with running statistics and without dropout."""
    training.generator.eval()
    with torch.no_grad():
        photos = training.generator(training.pairs.held_out[0])
    training.generator.train()
    return photos


def l1_per_channel(photos, expected):
    difference = (photos - expected).abs()
    return [difference[:, channel].mean().item() for channel in range(3)]


def held_out_l1(training):
    return l1_per_channel(generate(training), training.pairs.held_out[1])


# --- Checkpoints ----------------------------------------------------------------------------------
#
# A checkpoint is what torch.save writes plus a trailer with its size and sha256, so one rename puts
# both in place. torch.load reads such a file too: whoever wants the weights needs no canary.


def trailer(payload):
    return ("\ncanary-checkpoint size=%020d sha256=%s\n"
            % (len(payload), hashlib.sha256(payload).hexdigest())).encode("ascii")


def unseal(content):
    """The payload of a checkpoint's bytes, or UnusableCheckpoint in words."""
    length = len(trailer(b""))
    payload, found = content[:-length], content[-length:]
    if not found.startswith(trailer(b"")[:24]):
        raise UnusableCheckpoint("cut short: its %d bytes end without a trailer" % len(content))
    if found != trailer(payload):
        raise UnusableCheckpoint("damaged: its bytes do not match the sha256 in its trailer")
    return payload


def write_atomically(path, content):
    """A reader, or a machine that loses power, finds the old file or the new one, never a half."""
    with open(path + ".tmp", "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(path + ".tmp", path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)  # else the rename itself may be lost
    finally:
        os.close(folder)


def save_checkpoint(path, training):
    """Write, and read back: a file that lost bytes is better known now than after a crash."""
    for name, tensor in weights(training):
        if not is_finite(tensor.double().sum().item()):
            raise NonFinite("%s is not finite after step %d" % (name, training.step))
    stream = io.BytesIO()
    torch.save(training.state(), stream)
    write_atomically(path, stream.getvalue() + trailer(stream.getvalue()))
    read_payload(path)


def read_payload(path):
    with open(path, "rb") as stream:
        return unseal(stream.read())


def load_checkpoint(path):
    return torch.load(io.BytesIO(read_payload(path)), map_location="cpu")


def step_of(path):
    return int(os.path.basename(path)[len("step-"):-len(".pth")])


class Checkpoints(object):
    """The checkpoints of one run directory: the newest two are kept."""

    def __init__(self, run_dir):
        self.run_dir, self.folder = run_dir, os.path.join(run_dir, "checkpoints")
        self.newest = None  # the step of the last one saved or loaded
        make_folder(self.folder)

    def paths(self):
        """Oldest first."""
        names = [name for name in os.listdir(self.folder) if re.match(r"step-\d+\.pth$", name)]
        return sorted((os.path.join(self.folder, name) for name in names), key=step_of)

    def save(self, training):
        if training.step == self.newest:
            return
        path = os.path.join(self.folder, "step-%06d.pth" % training.step)
        save_checkpoint(path, training)
        self.newest = training.step
        say("checkpoint: %s" % os.path.relpath(path, self.run_dir))
        for old in self.paths()[:-2]:
            os.remove(old)

    def load_newest(self, settings):
        """The newest checkpoint's state, None where there is none."""
        paths = self.paths()
        if not paths:
            return None
        name = os.path.relpath(paths[-1], self.run_dir)
        try:
            state = load_checkpoint(paths[-1])
        except UnusableCheckpoint as error:
            raise UnusableCheckpoint("%s is %s; %s" % (name, error, self._advice(paths)))
        except Exception as error:  # intact, but another torch's: that raises nearly anything
            raise UnusableCheckpoint("torch %s cannot read %s: %s"
                                     % (torch.__version__, name, in_words(error)))
        wrong = ["%s %s" % (key, state["settings"][key]) for key in sorted(settings)
                 if state["settings"][key] != settings[key]]
        if wrong:
            raise UnusableCheckpoint("%s belongs to a run with %s" % (name, ", ".join(wrong)))
        self.newest = state["step"]
        say("resumed: %s at step %d" % (name, state["step"]))
        return state

    def _advice(self, paths):
        for path in reversed(paths[:-1]):
            try:
                read_payload(path)
            except UnusableCheckpoint:
                continue
            return ("%s is intact: remove the damaged file to resume from there"
                    % os.path.relpath(path, self.run_dir))
        return "remove the damaged file to start again"


def make_folder(path):
    if not os.path.isdir(path):
        os.makedirs(path)


def in_words(error):
    """An exception in one line: CUDA's go on for a page, and their first line says it."""
    if isinstance(error, UnusableCheckpoint):
        return "the checkpoint just written is %s" % error
    return ("%s: %s" % (type(error).__name__, error)).strip().split("\n")[0]


# --- The report -----------------------------------------------------------------------------------


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()  # the supervisor reads along, and a pipe is buffered


class Report(object):
    """The checks as they are made. `measured` and `bound` are numbers, `words` what they mean."""

    def __init__(self):
        self.checks = []

    def judge(self, name, measured, bound, words):
        """Passes at most at the bound; NaN compares false and so fails."""
        self._add(name, "ok" if measured <= bound else "failed", measured, bound,
                  "%s (at most %.3g)" % (words, bound))

    def fail(self, name, words):
        self._add(name, "failed", None, None, words)

    def skip(self, name, words):
        self._add(name, "skipped", None, None, words)

    def attempt(self, name, check, *arguments):
        """Judge what `check` measures. An exception is an answer too: `no kernel image` is one."""
        try:
            measured, bound, words = check(*arguments)
        except Exception as error:
            self.fail(name, in_words(error))
        else:
            self.judge(name, measured, bound, words)
        return self.checks[-1]["outcome"] == "ok"

    def _add(self, name, outcome, measured, bound, words):
        if measured is not None and not is_finite(measured):
            measured = None  # JSON has no NaN
        self.checks.append({"name": name, "outcome": outcome, "measured": measured,
                            "bound": bound, "words": words})
        say("check: %s %s  %s" % (name, outcome, words))

    def failed(self):
        return [check["name"] for check in self.checks if check["outcome"] == "failed"]


# --- Known answers --------------------------------------------------------------------------------


def drawn(seed, shape, dtype, device):
    """A tensor from our dice: the same numbers on every stack, and no two channels alike."""
    count = 1
    for extent in shape:
        count *= extent
    dice = Dice(seed)
    values = [dice.uniform() for _ in range(count)]
    return torch.tensor(values, dtype=dtype).view(shape).to(device)


def flat(values):
    """The numbers of a tensor or of nested lists, in reading order."""
    if torch.is_tensor(values):
        return values.detach().cpu().double().contiguous().view(-1).tolist()
    if isinstance(values, list):
        return [number for value in values for number in flat(value)]
    return [values]


def worst(pairs):
    """The (number, name) with the largest number; NaN, which compares with nothing, is largest."""
    return max(pairs, key=lambda pair: (pair[0] != pair[0], pair[0]))


def largest_difference(got, expected):
    """As a fraction of the expected number where that is above one; NaN where there is a NaN."""
    got, expected = flat(got), flat(expected)
    if len(got) != len(expected):
        raise ValueError("%d numbers instead of %d" % (len(got), len(expected)))
    return worst([(abs(one - other) / max(1.0, abs(other)), "")
                  for one, other in zip(got, expected)])[0]


def known_answer(device, answers):
    """`answers(draw)` gives pairs of what torch says and what the loops say."""
    differences = []
    for dtype in (torch.float32, torch.float64):
        def draw(seed, *shape):
            return drawn(seed, shape, dtype, device)
        differences += [(largest_difference(got, expected), "") for got, expected in answers(draw)]
    difference = worst(differences)[0]
    return difference, KNOWN_ANSWER_BOUND, "largest difference %.2g from plain loops" % difference


def grid(*extents):
    """Every index of a nested loop, the last one fastest."""
    if not extents:
        return [()]
    return [head + (last,) for head in grid(*extents[:-1]) for last in range(extents[-1])]


def loop_conv2d(x, weight, bias, stride, padding):
    x, weight, bias = x.tolist(), weight.tolist(), bias.tolist()
    height, width, kernel = len(x[0][0]), len(x[0][0][0]), len(weight[0][0])
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    result = []
    for image, channel, row, column in grid(len(x), len(weight), rows, columns):
        total = bias[channel]
        for inside, i, j in grid(len(x[0]), kernel, kernel):
            y_at, x_at = row * stride + i - padding, column * stride + j - padding
            if 0 <= y_at < height and 0 <= x_at < width:
                total += x[image][inside][y_at][x_at] * weight[channel][inside][i][j]
        result.append(total)
    return result


def loop_conv_transpose2d(x, weight, bias, stride, padding):
    """Each pixel stamps the kernel into the output: the other way round than torch does it."""
    x, weight, bias = x.tolist(), weight.tolist(), bias.tolist()
    height, width, kernel = len(x[0][0]), len(x[0][0][0]), len(weight[0][0])
    rows = (height - 1) * stride - 2 * padding + kernel
    columns = (width - 1) * stride - 2 * padding + kernel
    result = [[[[start] * columns for _ in range(rows)] for start in bias] for _ in x]
    for image, inside, row, column in grid(len(x), len(weight), height, width):
        for channel, i, j in grid(len(bias), kernel, kernel):
            y_at, x_at = row * stride + i - padding, column * stride + j - padding
            if 0 <= y_at < rows and 0 <= x_at < columns:
                result[image][channel][y_at][x_at] += (
                    x[image][inside][row][column] * weight[inside][channel][i][j])
    return result


def answers_conv2d(draw):
    x, weight, bias = draw(1, 2, 3, 7, 6), draw(2, 5, 3, 4, 4), draw(3, 5)
    for stride in (1, 2):
        yield (F.conv2d(x, weight, bias, stride=stride, padding=1),
               loop_conv2d(x, weight, bias, stride, 1))


def answers_conv_transpose2d(draw):
    x, weight, bias = draw(4, 2, 3, 4, 3), draw(5, 3, 5, 4, 4), draw(6, 5)
    yield (F.conv_transpose2d(x, weight, bias, stride=2, padding=1),
           loop_conv_transpose2d(x, weight, bias, 2, 1))


def loop_moments(x):
    """Per channel: mean, variance over n, and the n."""
    channels = [flat(x[:, channel]) for channel in range(x.shape[1])]
    means = [sum(values) / len(values) for values in channels]
    variances = [sum((value - mean) ** 2 for value in values) / len(values)
                 for values, mean in zip(channels, means)]
    return means, variances, len(channels[0])


def loop_normalise(x, means, variances, scales, shifts):
    return [[[(value - means[channel]) / math.sqrt(variances[channel] + 1e-5) * scales[channel]
              + shifts[channel] for value in flat(x[image, channel])]
             for channel in range(x.shape[1])] for image in range(x.shape[0])]


def answers_batch_norm(draw):
    """Training uses the batch's own moments, evaluation the running ones, which training moves."""
    x, weight, bias = draw(7, 3, 4, 5, 5), draw(8, 4), draw(9, 4)
    running_mean, running_variance = draw(10, 4), draw(11, 4).abs() + 0.5
    means, variances, count = loop_moments(x)
    moved_mean = [0.9 * old + 0.1 * new for old, new in zip(flat(running_mean), means)]
    moved_variance = [0.9 * old + 0.1 * new * count / (count - 1.0)
                      for old, new in zip(flat(running_variance), variances)]
    scales, shifts = flat(weight), flat(bias)
    yield (F.batch_norm(x, running_mean, running_variance, weight, bias, True, 0.1, 1e-5),
           loop_normalise(x, means, variances, scales, shifts))
    yield running_mean, moved_mean
    yield running_variance, moved_variance
    yield (F.batch_norm(x, running_mean, running_variance, weight, bias, False, 0.1, 1e-5),
           loop_normalise(x, moved_mean, moved_variance, scales, shifts))


def answers_activations(draw):
    x = 3.0 * draw(12, 2, 3, 5, 5)
    yield F.leaky_relu(x, LEAK), [value if value > 0 else LEAK * value for value in flat(x)]
    yield F.relu(x), [max(value, 0.0) for value in flat(x)]
    yield torch.tanh(x), [math.tanh(value) for value in flat(x)]
    yield torch.cat([x, -x], 1)[1], flat(x[1]) + [-value for value in flat(x[1])]


def answers_losses(draw):
    x, y = 30.0 * draw(13, 2, 3, 5, 5), draw(14, 2, 3, 5, 5)
    values, count = flat(x), x.numel()
    yield F.l1_loss(x, y), sum(abs(a - b) for a, b in zip(values, flat(y))) / count
    # log(1 + exp(v)) as it is written for large v: an overflow here would be the stack's fault
    yield truth(x, False), sum(max(v, 0.0) + math.log1p(math.exp(-abs(v))) for v in values) / count
    yield truth(x, True), sum(max(-v, 0.0) + math.log1p(math.exp(-abs(v))) for v in values) / count


def check_data():
    """The dice and the drawing, against what they gave when this file was written."""
    unlike = sum(draw_digest(pair) != digest
                 for pair, digest in zip(draw_pairs(1, len(DATA_DIGESTS), 32), DATA_DIGESTS))
    return unlike, 0, "%d of %d drawn pairs unlike the recorded ones" % (unlike, len(DATA_DIGESTS))


def draw_digest(pair):
    content = b"".join(bytes(row) for image in pair for row in image)
    return hashlib.sha256(content).hexdigest()[:16]


# --- Gradients ------------------------------------------------------------------------------------


def gradients_of(loss, tensors):
    """Zeros where a tensor has no part in the loss: a number can be judged, None cannot."""
    gradients = torch.autograd.grad(loss, tensors, allow_unused=True)
    return [torch.zeros_like(tensor) if gradient is None else gradient.detach()
            for tensor, gradient in zip(tensors, gradients)]


def slope(objective, tensor, direction, step=1e-6):
    """The objective's slope along a direction of one tensor, by central difference."""
    with torch.no_grad():
        tensor.data.add_(direction * step)
        above = objective().item()
        tensor.data.sub_(direction * (2 * step))
        below = objective().item()
        tensor.data.add_(direction * step)
    return (above - below) / (2 * step)


def gradient_error(objective, tensor, gradient):
    """How far a gradient is from the slope, as a fraction of the slope.

    The direction is the gradient's own signs, so every entry adds to the sum and none cancels:
    two evaluations test a whole parameter. Where the gradient is zero the direction is up, and a
    gradient that is wrongly zero is found.
    """
    direction = (gradient >= 0).to(gradient.dtype) * 2 - 1
    claimed = (gradient * direction).sum().item()
    found = slope(objective, tensor, direction)
    return abs(found - claimed) / max(abs(found), abs(claimed), 1e-6)


def worst_gradient(errors):
    error, name = worst(errors)
    return error, GRADIENT_BOUND, "largest relative error %.2g, of %s" % (error, name)


def operators():
    """(name, operator, shapes of its inputs): all that the networks are made of, and relu."""
    image, channels = (2, 3, 6, 6), (3,)
    return [
        ("conv2d", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1),
         [image, (4, 3, 4, 4), (4,)]),
        ("conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
         [image, (3, 4, 4, 4), (4,)]),
        ("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0.1, 1e-5),
         [image, channels, channels]),
        ("leaky_relu", lambda x: F.leaky_relu(x, LEAK), [image]),
        ("relu", F.relu, [image]),
        ("tanh", torch.tanh, [image]),
        ("cat", lambda x, y: torch.cat([x, y], 1), [image, image]),
        ("l1_loss", F.l1_loss, [image, image]),
        ("cross-entropy", lambda x: truth(x, True) + 0.5 * truth(x, False), [image]),
    ]


class Probe(object):
    """One operator on small inputs; its output is mixed into one number, each part differently."""

    def __init__(self, operator, shapes, device, dtype):
        self.operator = operator
        self.inputs = [drawn(20 + i, shape, dtype, device).requires_grad_()
                       for i, shape in enumerate(shapes)]
        self.mix = drawn(30, tuple(operator(*self.inputs).shape), dtype, device)

    def objective(self):
        return (self.operator(*self.inputs) * self.mix).sum()

    def gradients(self):
        return gradients_of(self.objective(), self.inputs)


def operator_errors(device, name, operator, shapes):
    probe = Probe(operator, shapes, device, torch.float64)
    return [(gradient_error(probe.objective, tensor, gradient), "%s, input %d" % (name, i + 1))
            for i, (tensor, gradient) in enumerate(zip(probe.inputs, probe.gradients()))]


def check_operator_gradients(device):
    return worst_gradient([pair for name, operator, shapes in operators()
                           for pair in operator_errors(device, name, operator, shapes)])


def small_game(device, seed=5):
    """Both networks, narrow and in float64, on two pairs: small enough for finite differences."""
    generator, discriminator = build_networks(seed, 4, device)
    generator.dropout.p = 0.0  # a different function at every evaluation has no slope
    pairs = Pairs(seed, 32, device)
    plan, photo = pairs.batch(0, 2)
    return generator.double(), discriminator.double(), plan.double(), photo.double()


def check_generator_gradients(device):
    """Through the discriminator too: a wrong gradient of its inputs would mislead the generator."""
    generator, discriminator, plan, photo = small_game(device)

    def objective():
        return sum(generator_losses(discriminator, plan, photo, generator(plan)))
    return network_gradients(generator, objective)


def check_discriminator_gradients(device):
    generator, discriminator, plan, photo = small_game(device)
    fake = generator(plan).detach()

    def objective():
        return discriminator_loss(discriminator, plan, photo, fake)
    return network_gradients(discriminator, objective)


def network_gradients(network, objective):
    parameters = dict(network.named_parameters())
    return worst_gradient([(gradient_error(objective, parameters[name], gradient), name)
                           for name, gradient in named_gradients("", network, objective())])


class Sweep(object):
    """One forward and backward pass at the size of the training, to compare two computations.

    Without kinks: a unit within rounding of zero falls on one side in one computation and on the
    other in the next, and that is no fault of either (seen: 0.02 of a gradient for one such unit).
    """

    def __init__(self, options, device, dtype):
        networks = build_networks(options.seed, WIDTH, device)
        generator, discriminator = (smooth(network).to(dtype) for network in networks)
        pairs = Pairs(options.seed, options.image_size, device)
        plan, photo = (tensor.to(dtype) for tensor in pairs.batch(0, options.batch_size))
        self.photo = generator(plan)
        loss_g = sum(generator_losses(discriminator, plan, photo, self.photo))
        # Not the discriminator's own loss, whose two halves nearly cancel in the last bias.
        loss_d = truth(discriminator(plan, photo), True)
        self.gradients = (named_gradients("generator.", generator, loss_g)
                          + named_gradients("discriminator.", discriminator, loss_d))

    def forward_difference(self, other):
        return largest_difference(self.photo, other.photo)

    def gradient_difference(self, other):
        """(relative difference, name) of the gradient that differs most."""
        return worst([(relative_difference(mine, theirs), name) for (name, mine), (_, theirs)
                      in zip(self.gradients, other.gradients)])


def smooth(network):
    for module in network.modules():
        if isinstance(module, nn.LeakyReLU):
            module.negative_slope = 1.0
        elif isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def named_gradients(prefix, network, loss):
    named = list(network.named_parameters())
    gradients = gradients_of(loss, [parameter for _, parameter in named])
    return [(prefix + name, gradient) for (name, _), gradient in zip(named, gradients)]


def relative_difference(one, other):
    one, other = one.cpu().double(), other.cpu().double()
    return (one - other).norm().item() / max(other.norm().item(), 1e-12)


def check_float32(options, device):
    """The finite differences speak for float64; this carries their verdict over to float32."""
    exact, short = (Sweep(options, device, dtype) for dtype in (torch.float64, torch.float32))
    found = [short.gradient_difference(exact)]
    for name, operator, shapes in operators():
        exact, short = (Probe(operator, shapes, device, dtype).gradients()
                        for dtype in (torch.float64, torch.float32))
        found += [(relative_difference(mine, theirs), name) for mine, theirs in zip(short, exact)]
    difference, name = worst(found)
    return difference, FLOAT32_BOUND, ("gradients differ from float64's by %.2g, most at %s"
                                       % (difference, name))


def check_gpu_forward(options, device):
    on_cpu = Sweep(options, torch.device("cpu"), torch.float32)
    difference = Sweep(options, device, torch.float32).forward_difference(on_cpu)
    return difference, GPU_FORWARD_BOUND, "pictures in [-1, 1] differ by %.2g" % difference


def check_gpu_gradients(options, device):
    on_cpu = Sweep(options, torch.device("cpu"), torch.float32)
    difference, name = Sweep(options, device, torch.float32).gradient_difference(on_cpu)
    return difference, GPU_GRADIENT_BOUND, ("gradients differ by %.2g, most at %s"
                                            % (difference, name))


# --- The optimizer and the checkpoint -------------------------------------------------------------


def adam_by_hand(weight, gradients):
    """Kingma and Ba's Algorithm 1 for one weight."""
    mean, square = 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient ** 2
        unbiased = square / (1 - BETAS[1] ** step)
        weight -= LEARNING_RATE * mean / (1 - BETAS[0] ** step) / (math.sqrt(unbiased) + EPSILON)
    return weight


def check_adam(device):
    """Three steps, since the first one is the gradient's sign whatever the moments are."""
    start = drawn(40, (12,), torch.float64, device)
    # Not near zero: releases differ in where they add epsilon, here by 1e-6 of a step at most.
    steps = [(1.5 + drawn(41 + i, (12,), torch.float64, device)) * (-1) ** i for i in range(3)]
    parameter = nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([parameter], lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    for gradient in steps:
        parameter.grad = gradient.clone()
        optimizer.step()
    expected = [adam_by_hand(weight, gradients)
                for weight, gradients in zip(flat(start), zip(*map(flat, steps)))]
    difference = largest_difference(parameter, expected) / LEARNING_RATE
    return difference, ADAM_BOUND, "%.2g of a step away from the formula" % difference


def check_damage_is_found():
    """A checkpoint cut anywhere, or with one bit turned, must be recognised."""
    payload = bytes(bytearray(range(256)))
    whole = payload + trailer(payload)
    turned = bytearray(whole)
    turned[100] ^= 1
    damaged = [b"", whole[:100], whole[:-1], payload, whole[1:], bytes(turned)]
    unnoticed = 0 if unseal(whole) == payload else 1
    for content in damaged:
        try:
            unseal(content)
            unnoticed += 1
        except UnusableCheckpoint:
            pass
    return unnoticed, 0, "%d of %d damaged files unnoticed" % (unnoticed, len(damaged))


def optimizer_state(training):
    """In the parameters' order: the keys of state_dict() are addresses in old releases."""
    return [[optimizer.state[parameter] for group in optimizer.param_groups
             for parameter in group["params"]]
            for optimizer in (training.optimizer_g, training.optimizer_d)]


def unequal(one, other):
    """How many leaves of two nested states differ, to the bit."""
    if torch.is_tensor(one):
        return int(not torch.is_tensor(other) or flat(one) != flat(other))
    if isinstance(one, dict):
        if set(one) != set(other):
            return len(set(one) ^ set(other))
        return sum(unequal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return abs(len(one) - len(other)) + sum(map(unequal, one, other))
    return int(one != other)


class Rehearsal(object):
    """A small run that is saved on its way, and a twin that goes on from the saved file."""

    def __init__(self, path, device):
        self.path, self.device = path, device

    def check_readable(self):
        self.straight, self.twin = (Training(1, 2, 32, self.device, width=4) for _ in range(2))
        advance(self.twin, 1)  # another way first, so that whatever is not restored shows
        advance(self.straight, 3)
        save_checkpoint(self.path, self.straight)
        saved, read = self.straight.state(), load_checkpoint(self.path)
        differing = sum(unequal(saved[name], read[name]) for name in ("generator", "discriminator"))
        return differing, 0, "%d tensors differ when read back" % differing

    def check_optimizer(self):
        saved = copy.deepcopy(optimizer_state(self.straight))
        advance(self.straight, 3)  # before the twin touches torch's random state
        self.twin.restore(load_checkpoint(self.path))
        differing = unequal(saved, optimizer_state(self.twin))
        return differing, 0, "%d moments and step counts differ after loading" % differing

    def check_same_bits(self):
        advance(self.twin, 3)
        differing = unequal(weights(self.straight), weights(self.twin))
        return differing, 0, ("%d of %d tensors differ from the run that was not stopped"
                              % (differing, len(weights(self.twin))))

    def check_same_weights(self):
        """All at once, for a GPU: there a sum may be taken in another order each time."""
        self.check_readable()
        self.check_optimizer()
        advance(self.twin, 3)
        difference = worst([(largest_difference(mine, theirs), name) for (name, mine), (_, theirs)
                            in zip(weights(self.straight), weights(self.twin))])[0]
        return difference, GPU_RESUME_BOUND, ("weights differ by %.2g from the run that was not "
                                              "stopped" % difference)


def advance(training, steps):
    for _ in range(steps):
        training.advance()


def check_resume(report, path, device):
    """Always on the CPU, where nothing but equal bits will do; then on the GPU if there is one."""
    rehearsal = Rehearsal(path, torch.device("cpu"))
    usable = report.attempt("checkpoint-reads-back", rehearsal.check_readable)
    for name, check in (("optimizer-state-restored", rehearsal.check_optimizer),
                        ("resume-bit-exact", rehearsal.check_same_bits)):
        if usable:
            report.attempt(name, check)
        else:
            report.skip(name, "no checkpoint to resume from")
    if device.type == "cuda":
        report.attempt("resume-on-gpu", Rehearsal(path, device).check_same_weights)
    else:
        report.skip("resume-on-gpu", "no GPU")


# --- What the training shows ----------------------------------------------------------------------


def check_parameters_move(training):
    """Against the start, which the seed gives again.

    Each of Adam's steps moves a weight by about the rate; some wander back by the end, so less
    than a thousandth of a step in the whole run counts as standing still.
    """
    settings = training.settings
    start = build_networks(settings["seed"], settings["width"], training.device)
    moves = [((now - then).abs().max().item(), part + "." + name)
             for (part, network), before in zip(training.networks(), start)
             for (name, now), (_, then) in zip(network.named_parameters(),
                                               before.named_parameters())]
    still = [name for move, name in moves if not move >= LEARNING_RATE / 1000]
    return len(still), 0, ("%d of %d parameters stand still, the least moved %.2g (%s)"
                           % ((len(still), len(moves)) + min(moves)))


def per_channel(now, reference, bound, what):
    ratios = [mine / theirs for mine, theirs in zip(now, reference)]
    words = "red %.3f, green %.3f, blue %.3f of %s" % (tuple(ratios) + (what,))
    return worst(zip(ratios, "rgb"))[0], bound, words


def check_falls(training):
    now = held_out_l1(training)
    return per_channel(now, training.first_l1, FALLS_BOUND, "the held-out L1 at the start")


def check_beats_mean(training):
    """Who ignores the plan can do no better than the mean of the photos he knows."""
    photos = training.pairs.held_out[1]
    guess = training.pairs.photos.mean(0, True).expand_as(photos)
    return per_channel(held_out_l1(training), l1_per_channel(guess, photos), BASELINE_BOUND,
                       "the L1 of the mean photo")


def png(rows):
    """Rows of R G B bytes as a PNG file: a header, the deflated rows, an end."""
    def chunk(kind, content):
        check = zlib.crc32(kind + content) & 0xFFFFFFFF
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    raw = b"".join(b"\0" + bytes(bytearray(row)) for row in rows)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def write_sample(run_dir, training):
    """Held-out pairs, one a row: plan | photo | what the generator made of the plan."""
    folder = os.path.join(run_dir, "samples")
    make_folder(folder)
    plans, photos = training.pairs.held_out
    strip = torch.cat([plans, photos, generate(training)], 3).cpu().permute(0, 2, 3, 1)
    pixels = ((strip + 1) * 127.5).clamp(0, 255).round().contiguous()
    rows = pixels.view(-1, 3 * strip.shape[2]).tolist()
    content = png([[int(value) for value in row] for row in rows])
    write_atomically(os.path.join(folder, "step-%06d.png" % training.step), content)


# --- The run --------------------------------------------------------------------------------------


class StopRequest(object):
    """SIGTERM and SIGINT ask for a checkpoint; a second one gets the usual answer."""

    def __init__(self):
        self.made = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
            signal.siginterrupt(number, False)  # Python 2 would break off a write with EINTR

    def _ask(self, number, _frame):
        self.made = True
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description="Train a small pix2pix and judge this PyTorch.")
    parser.add_argument("--run-dir", required=True, help="checkpoints, samples and canary.json")
    parser.add_argument("--steps", type=int, default=300, help="below 100 too little is learned")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=64, help="a multiple of 16, from 32 on")
    parser.add_argument("--checkpoint-every", type=int, default=50)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--log-every", type=int, default=5)
    options = parser.parse_args(argv)
    if options.image_size < 32 or options.image_size % 16:
        parser.error("--image-size %d is no multiple of 16 from 32 on" % options.image_size)
    for name in ("steps", "batch_size", "checkpoint_every", "log_every"):
        if getattr(options, name) < 1:
            parser.error("--%s must be at least 1" % name.replace("_", "-"))
    return options


def choose_device(wanted):
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def describe(device):
    """(name, compute capability or None) of what computes."""
    if device.type != "cuda":
        return platform.machine() + " CPU", None
    if not torch.cuda.is_available():
        return "no GPU", None
    return torch.cuda.get_device_name(0), "%d.%d" % torch.cuda.get_device_capability(0)


def check_device(device):
    """The first kernel: where is_available() says yes and the card is too old, it ends here."""
    total = (torch.ones(1000, device=device) * 2).sum().item()
    return abs(total - 2000), 0, ("torch %s on %s, a sum of 2000 is off by %g"
                                  % (torch.__version__, describe(device)[0], abs(total - 2000)))


def compute_plainly():
    """Full float32, and the same sum each time: what a GPU may trade for speed, a check may not."""
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # read by cuBLAS and cuDNN themselves
    matmul = getattr(getattr(torch.backends, "cuda", None), "matmul", None)
    for switches in (torch.backends.cudnn, matmul):
        if hasattr(switches, "allow_tf32"):
            switches.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def arithmetic(options, device):
    """(name, check, its arguments): what can be known before anything is trained."""
    return [
        ("data", check_data, ()),
        ("known-answer-conv2d", known_answer, (device, answers_conv2d)),
        ("known-answer-conv-transpose2d", known_answer, (device, answers_conv_transpose2d)),
        ("known-answer-batch-norm", known_answer, (device, answers_batch_norm)),
        ("known-answer-activations", known_answer, (device, answers_activations)),
        ("known-answer-losses", known_answer, (device, answers_losses)),
        ("gradients-of-operators", check_operator_gradients, (device,)),
        ("gradients-of-generator", check_generator_gradients, (device,)),
        ("gradients-of-discriminator", check_discriminator_gradients, (device,)),
        ("gradients-in-float32", check_float32, (options, device)),
        ("gpu-forward-agrees-with-cpu", check_gpu_forward, (options, device)),
        ("gpu-gradients-agree-with-cpu", check_gpu_gradients, (options, device)),
        ("adam-steps", check_adam, (device,)),
        ("checkpoint-damage-is-found", check_damage_is_found, ()),
    ]


def check_before_training(report, options, device, stop):
    if not report.attempt("device", check_device, device):
        return  # nothing that follows could work, and CUDA repeats its error for ever
    for name, check, arguments in arithmetic(options, device):
        if stop.made:
            return
        if name.startswith("gpu-") and device.type != "cuda":
            report.skip(name, "no GPU")
        else:
            report.attempt(name, check, *arguments)
    folder = os.path.join(options.run_dir, "rehearsal")  # unseen by who watches checkpoints/
    make_folder(folder)
    check_resume(report, os.path.join(folder, "rehearsal.pth"), device)
    shutil.rmtree(folder)


def train(training, checkpoints, options, stop):
    """To the last step or the first request to stop; the last step is saved in any case."""
    started, logged = time.time(), training.step
    while training.step < options.steps and not stop.made:
        training.advance()
        if training.step % options.log_every == 0 or training.step == options.steps:
            seconds = (time.time() - started) / (training.step - logged)
            say_progress(training, options.steps, seconds)
            started, logged = time.time(), training.step
        if training.step % options.checkpoint_every == 0 and training.step < options.steps:
            checkpoints.save(training)
    checkpoints.save(training)


def say_progress(training, steps, seconds):
    step, loss_g, loss_d, loss_l1 = training.losses[-1]
    rate = training.optimizer_g.param_groups[0]["lr"]
    say("step: %d/%d  loss_g: %.4f  loss_d: %.4f  loss_l1: %.4f  time: %.3f  lr: %.6f"
        % (step, steps, loss_g, loss_d, loss_l1, seconds, rate))


def check_after_training(report, training):
    report.judge("losses-finite", 0, 0, "0 of %d losses are NaN or infinite"
                 % (3 * len(training.losses)))
    report.judge("checkpoint-usable", 0, 0, "0 checkpoints failed to read back")
    report.attempt("parameters-move", check_parameters_move, training)
    report.attempt("held-out-l1-falls", check_falls, training)
    report.attempt("held-out-l1-beats-mean", check_beats_mean, training)


def run(options, report, stop):
    """The exit code, and the training as far as it came."""
    device = choose_device(options.device)
    compute_plainly()
    checkpoints = Checkpoints(options.run_dir)
    try:
        saved = checkpoints.load_newest(settings_of(options))
    except UnusableCheckpoint as error:
        report.fail("checkpoint-usable", str(error))
        return EXIT_BAD_CHECKPOINT, None
    check_before_training(report, options, device, stop)
    if report.failed():
        return EXIT_FAILED, None
    training = Training(options.seed, options.batch_size, options.image_size, device)
    if saved:
        training.restore(saved)
    return follow(training, checkpoints, options, report, stop), training


def follow(training, checkpoints, options, report, stop):
    """Train and judge, with an exit code for each way it can end."""
    if training.step == 0:
        write_sample(options.run_dir, training)
    try:
        train(training, checkpoints, options, stop)
    except NonFinite as error:
        report.fail("losses-finite", str(error))
        return EXIT_NON_FINITE
    except UnusableCheckpoint as error:
        report.fail("checkpoint-usable", in_words(error))
        return EXIT_BAD_CHECKPOINT
    if training.step < options.steps:
        return EXIT_STOPPED
    write_sample(options.run_dir, training)
    check_after_training(report, training)
    return EXIT_FAILED if report.failed() else EXIT_PASSED


def settings_of(options):
    """What a checkpoint must agree about with the run that goes on from it."""
    return {"seed": options.seed, "image_size": options.image_size, "width": WIDTH}


def record(options, report, training, seconds):
    """canary.json: everything the run has to say, for programs."""
    device = choose_device(options.device)
    name, capability = describe(device)
    return {"schema": "envforge.canary/1", "torch": torch.__version__, "cuda": torch.version.cuda,
            "python": platform.python_version(), "device": device.type, "device_name": name,
            "capability": capability, "seed": options.seed, "batch_size": options.batch_size,
            "image_size": options.image_size,
            "steps": training.step if training else 0, "checks": report.checks,
            "losses": training.losses if training else [],
            "weights_sha256": weights_digest(training) if training else None,
            "passed": not report.failed(), "seconds": round(seconds, 1)}


def main(argv=None):
    started = time.time()
    options = parse_arguments(argv)
    report, stop = Report(), StopRequest()
    record_path = os.path.join(options.run_dir, "canary.json")
    if os.path.exists(record_path):
        os.remove(record_path)  # of an earlier run: what it said is about to be verified again
    exit_code, training = run(options, report, stop)
    if exit_code == EXIT_STOPPED:
        say("stopped: at step %d" % training.step)
        return exit_code
    content = record(options, report, training, time.time() - started)
    write_atomically(record_path, json.dumps(content, allow_nan=False).encode("ascii"))
    failed = report.failed()
    say("canary: failed (%s)" % ", ".join(failed) if failed else "canary: passed")
    return exit_code


def leave(exit_code):
    """Leave at once, so that the exit code is the verdict's.

    Some torches abort or hang while the interpreter takes them down (seen: 1.7 of Debian 11, at
    every exit after a backward pass), and that would look like a crash of the run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    leave(main())
