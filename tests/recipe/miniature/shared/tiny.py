"""A Pix2Pix of a few weights: what the three miniatures of upstream have in common.

Its lines are the real projects' own, with other numbers in them (`said.json`). It has upstream's
habits: nothing but the weights is saved, every start counts its iterations from 0 again, a model is
saved before the epoch's end is said, the schedule follows --epoch_count alone.
"""

from __future__ import print_function

import json
import os
import re
import time

import torch
from PIL import Image
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
with open(os.path.join(HERE, "said.json")) as stream:
    LINES = json.load(stream)
SIDE = 8


def said(kind, *numbers):
    """One of upstream's own lines, with these numbers in the place of those that stand there."""
    left = list(numbers)

    def replace(found):
        whole, _, digits = found.group().partition(".")
        text = "%.*f" % (len(digits), left.pop(0))
        return text.zfill(len(whole)) if len(whole) > 1 and whole[0] == "0" else text

    return NUMBER.sub(replace, LINES[kind])


def say(kind, *numbers):
    print(said(kind, *numbers))


def load_pairs(dataroot, phase):
    folder = os.path.join(dataroot, phase)
    return [(os.path.join(folder, name), halves(os.path.join(folder, name)))
            for name in sorted(os.listdir(folder))]


def halves(path):
    picture = Image.open(path).convert("RGB").resize((2 * SIDE, SIDE))
    values = torch.tensor(list(bytearray(picture.tobytes())), dtype=torch.float32)
    both = values.view(SIDE, 2 * SIDE, 3).permute(2, 0, 1).contiguous() / 127.5 - 1
    return both[:, :, :SIDE].unsqueeze(0), both[:, :, SIDE:].unsqueeze(0)


class Networks(object):
    """The two networks, their optimizers, and upstream's way to save only the former."""

    def __init__(self, ngf, ndf, rate, training):
        torch.manual_seed(1)
        self.nets = {"G": nn.Conv2d(3, 3, 3, padding=1), "D": nn.Conv2d(6, 1, 3, padding=1)}
        self.widths = (ngf, ndf)
        if training:
            self.optimizers = {name: torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.999))
                               for name, net in self.nets.items()}

    def step(self, a, b):
        """One step; the four losses, as tensors."""
        fake = torch.tanh(self.nets["G"](a))
        criterion = nn.BCEWithLogitsLoss()
        verdicts = [self.nets["D"](torch.cat([a, each], 1)) for each in (fake.detach(), b)]
        d_fake = criterion(verdicts[0], torch.zeros_like(verdicts[0]))
        d_real = criterion(verdicts[1], torch.ones_like(verdicts[1]))
        self._descend("D", (d_fake + d_real) * 0.5)
        verdict = self.nets["D"](torch.cat([a, fake], 1))
        g_gan = criterion(verdict, torch.ones_like(verdict))
        g_l1 = nn.functional.l1_loss(fake, b) * 100
        self._descend("G", g_gan + g_l1)
        return g_gan, g_l1, d_real, d_fake

    def _descend(self, name, loss):
        self.optimizers[name].zero_grad()
        loss.backward()
        self.optimizers[name].step()

    def save(self, folder, label):
        for name, net in self.nets.items():
            torch.save(net.state_dict(), os.path.join(folder, "%s_net_%s.pth" % (label, name)))

    def load(self, folder, label, names):
        for name in names:
            path = os.path.join(folder, "%s_net_%s.pth" % (label, name))
            print("loading the model from %s" % path)
            self.nets[name].load_state_dict(torch.load(path))


class Length(object):
    """What upstream calls otherwise at each commit."""

    def __init__(self, start, epochs, decay, batch):
        self.start, self.last, self.batch = start, epochs + decay, batch
        self.epochs, self.decay = epochs, decay

    def rate(self, base, epoch):
        """After so many epochs: full, then linearly to nothing."""
        return base * (1 - max(0, epoch - self.epochs) / float(self.decay + 1))


def train(opt, model, length, losses_of):
    """`losses_of`: the era's way from a tensor to a number."""
    folder = os.path.join(opt.checkpoints_dir, opt.name)
    pairs, total = load_pairs(opt.dataroot, opt.phase), 0
    say("items", len(pairs))
    for epoch in range(length.start, length.last + 1):
        begun = time.time()
        for index, (_, (a, b)) in enumerate(pairs, 1):
            total += length.batch
            losses = model.step(*((b, a) if model.reverse else (a, b)))
            if total % opt.print_freq == 0:
                numbers = losses_of(losses)
                say("progress", *progress_numbers(epoch, index * length.batch, numbers))
        if epoch % opt.save_epoch_freq == 0:
            say("saving", epoch, total)
            model.save(folder, "latest")
            model.save(folder, str(epoch))
        say("end", epoch, length.last, time.time() - begun)
        for optimizer in model.optimizers.values():
            optimizer.param_groups[0]["lr"] = length.rate(opt.lr, epoch + 1)


def progress_numbers(epoch, iteration, losses):
    """As many as the era's line has: the rank before, the seconds of loading between."""
    before = [0] if LINES["progress"].startswith("[Rank") else []
    times = [0.001, 0.001] if "data:" in LINES["progress"] else [0.001]
    return before + [epoch, iteration] + times + list(losses)


def write_page(folder, names):
    if not os.path.isdir(folder):
        os.makedirs(folder)
    with open(os.path.join(folder, "index.html"), "w") as page:
        page.write("<html>%s</html>\n" % "".join("<img src='images/%s'>" % name for name in names))


def test(opt, model, label, most, say_picture):
    """`results/NAME/PHASE_LABEL/index.html` and a picture for each pair."""
    folder = os.path.join(opt.results_dir, opt.name, "%s_%s" % (opt.phase, label))
    names = []
    for index, (path, (a, b)) in enumerate(load_pairs(opt.dataroot, opt.phase)[:most]):
        say_picture(index, path)
        fake = torch.tanh(model.nets["G"](b if model.reverse else a)).detach()
        names.append(os.path.splitext(os.path.basename(path))[0] + "_fake_B.png")
        save_picture(fake, os.path.join(folder, "images"), names[-1])
    write_page(folder, names)


def save_picture(tensor, folder, name):
    if not os.path.isdir(folder):
        os.makedirs(folder)
    values = ((tensor[0].permute(1, 2, 0).contiguous() + 1) * 127.5).round().view(-1).tolist()
    picture = Image.frombytes("RGB", (SIDE, SIDE), bytes(bytearray(int(v) for v in values)))
    picture.save(os.path.join(folder, name))


def parse(parser):
    """Make the experiment's folder and write the options into it, as upstream does."""
    opt = parser.parse_args()
    folder = os.path.join(opt.checkpoints_dir, opt.name)
    if not os.path.isdir(folder):
        os.makedirs(folder)
    with open(os.path.join(folder, "opt.txt"), "w") as written:
        written.write("".join("%s: %s\n" % pair for pair in sorted(vars(opt).items())))
    return opt
