"""Run the canary on a torch that is broken in one known way.

    python plant.py FAULT canary.py --run-dir DIR ...

Each fault is planted from outside, into torch or the operating system's calls; the canary runs
unmodified and knows of none of them. Works wherever the canary does: torch 0.4 on, Python 2.7 on.
"""
# ruff: noqa: B905, I002, PTH123, PTH202  (Python 2.7 knows none of what these ask for)

import os
import runpy
import sys

import torch
import torch.nn.functional as F  # noqa: N812


class ScaledGradient(torch.autograd.Function):
    """The identity, with a gradient that is one per cent too large."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 1.01


def dead_batch_norm():
    F.batch_norm = lambda tensor, *_args, **_options: tensor


def stale_running_statistics():
    real = F.batch_norm

    def planted(tensor, running_mean, running_var, *args, **options):
        kept = [None if each is None else each.clone() for each in (running_mean, running_var)]
        result = real(tensor, running_mean, running_var, *args, **options)
        for each, before in zip((running_mean, running_var), kept):
            if each is not None:
                each.data.copy_(before)
        return result

    F.batch_norm = planted


def wrong_gradient():
    real = F.conv_transpose2d
    F.conv_transpose2d = lambda *args, **options: ScaledGradient.apply(real(*args, **options))


def rounded_convolution():
    """Ten bits of mantissa in float32, as TF32 keeps."""
    real = F.conv2d

    def planted(tensor, *args, **options):
        if tensor.dtype == torch.float32:
            shifted = tensor.detach() * 8193.0  # Dekker's split: the high bits survive
            tensor = tensor - (tensor.detach() - (shifted - (shifted - tensor.detach())))
        return real(tensor, *args, **options)

    F.conv2d = planted


def swapped_channels():
    """Blue for red, as between OpenCV's order and everybody else's."""
    real = F.conv2d

    def planted(tensor, *args, **options):
        if tensor.shape[1] == 3:
            tensor = tensor[:, [2, 1, 0]]
        return real(tensor, *args, **options)

    F.conv2d = planted


def lost_optimizer_state():
    torch.optim.Optimizer.load_state_dict = lambda _self, _state: None


def forgotten_random_state():
    torch.set_rng_state = lambda _state: None


def frozen_generator():
    """The optimizer gets copies of the generator's parameters, which nothing ever reads."""
    real = torch.nn.Module.parameters

    def planted(self, *args, **options):
        for parameter in real(self, *args, **options):
            if type(self).__name__ == "Generator":
                yield parameter.detach().clone().requires_grad_()
            else:
                yield parameter

    torch.nn.Module.parameters = planted


def truncated_checkpoint():
    """Half of the file arrives, as on a full or failing disk; the rename succeeds."""
    real = os.rename

    def planted(source, target):
        if target.endswith(".pth"):
            with open(source, "r+b") as stream:
                stream.truncate(os.path.getsize(source) // 2)
        real(source, target)

    os.rename = planted


def nan_at_step_20():
    """The first optimizer to make its 20th step leaves a NaN behind."""
    real = torch.optim.Adam.step

    def planted(self, *args, **options):
        result = real(self, *args, **options)
        first = self.param_groups[0]["params"][0]
        if int(self.state[first]["step"]) == 20:
            first.data.view(-1)[0] = float("nan")
        return result

    torch.optim.Adam.step = planted


FAULTS = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        dead_batch_norm,
        stale_running_statistics,
        wrong_gradient,
        rounded_convolution,
        swapped_channels,
        lost_optimizer_state,
        forgotten_random_state,
        frozen_generator,
        truncated_checkpoint,
        nan_at_step_20,
    )
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.argv = sys.argv[2:]
    runpy.run_path(sys.argv[0], run_name="__main__")
