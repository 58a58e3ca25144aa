"""Asked inside an environment, on a card at hand: does every kind of kernel compute there?

Each operator runs in double precision on the CPU for the truth, then twice on the card: the first
time holds what the driver does once (compile PTX, load code), the second the computing. One line of
JSON for each, the card first and a training last. Runs on Python from 2.7 and torch from 0.4; an
operator this torch does not have is said to be absent.

Each is computed in a process of its own, as many at a time as fit: the driver compiles on one core,
a minute and more for some operators, and after one that faults a process computes nothing any more.
"""

from __future__ import print_function

import json
import multiprocessing
import multiprocessing.pool
import os
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

OPERATORS = []
TOLERANCE = {"float": 1e-4, "half": 2e-2, "double": 1e-9}
"""Of the largest value of the truth: sums are made in another order on a card."""
STEPS = 40
CARD = "cuda"
TRAINING = "training"
COMMAND = [sys.executable, "-W", "ignore", os.path.abspath(__file__)]
"""Computes one thing, whose name and precision come behind it."""
ROOM = {"memory": 2 << 30, "card": 1 << 30}
"""Bytes a process is given, estimated: torch with CUDA's libraries, their code and context."""


def operator(kind, name=None):
    """Register a function of ``make``; ``kind`` is the library or part that computes it."""

    def register(function):
        OPERATORS.append((name or function.__name__, kind, function))
        return function

    return register


class Maker(object):
    """Inputs that are the same on every device, made on the CPU from one seed.

    ``precision``: what they are rounded to, so that the truth is computed from the card's numbers.
    """

    def __init__(self, device, dtype, precision):
        self.device, self.dtype, self.precision = device, dtype, precision
        self.generator = torch.Generator()
        self.generator.manual_seed(7)
        self.leaves = []

    def __call__(self, *shape, **options):
        values = torch.empty(shape, dtype=torch.float64).normal_(generator=self.generator)
        if options.get("positive"):
            values = values.abs() + 0.5  # quotients of tens would cost half precision its digits
        tensor = values.to(self.precision).to(self.dtype).to(self.device)
        if options.get("grad"):
            tensor.requires_grad_()
            self.leaves.append(tensor)
        return tensor

    def integers(self, high, *shape):
        """Whole numbers below ``high``."""
        values = torch.empty(shape, dtype=torch.float64).uniform_(generator=self.generator)
        return (values * high).floor().clamp(max=high - 1).long().to(self.device)

    def module(self, made):
        """Give a module's parameters values of our own, and move it."""
        with torch.no_grad():
            for parameter in made.parameters():
                values = torch.empty(parameter.shape, dtype=torch.float64)
                parameter.copy_(values.normal_(generator=self.generator) * 0.1)
        return made.to(self.dtype).to(self.device)


@operator("elementwise")
def arithmetic(make):
    a, b = make(64, 65, grad=True), make(64, 65, positive=True)
    return [a + b, a * b - a, a / b, (a * 2).clamp(-1, 1)]


@operator("elementwise")
def transcendental(make):
    a, b = make(64, 65, grad=True), make(64, 65, positive=True)
    return [a.exp(), a.tanh(), b.log(), b.sqrt(), a.erf(), b ** 1.7, a.sigmoid()]


@operator("elementwise")
def comparison(make):
    a, b = make(70, 33), make(70, 33)
    return [torch.where(a > b, a, b), (a < b).to(make.dtype), torch.max(a, b)]


@operator("reduction")
def sums(make):
    a = make(37, 129, grad=True)
    return [a.sum(), a.mean(0), a.var(1), a.norm(), a.prod(1), a.std()]


@operator("reduction")
def extremes(make):
    a = make(37, 129)
    return [a.max(1)[0], a.min(0)[0], a.argmax(1).to(make.dtype), a.median().reshape(1)]


@operator("scan")
def cumulative(make):
    a = make(12, 300, grad=True)
    return [a.cumsum(1), (a * 0.1 + 1).cumprod(0), make.integers(9, 400).cumsum(0).to(make.dtype)]


@operator("indexing")
def gathering(make):
    a, rows = make(50, 20, grad=True), make.integers(50, 30)
    return [a.index_select(0, rows), a[rows], a.gather(0, make.integers(50, 9, 20))]


@operator("indexing")
def scattering(make):
    a, values = make(50, 20), make(30, 20, grad=True)
    return [a.index_add(0, make.integers(50, 30), values),
            torch.zeros_like(a).scatter_add(0, make.integers(50, 30, 20), values)]


@operator("indexing")
def masking(make):
    a = make(40, 41)
    return [a.masked_fill(a > 0, 2.0), a[a > 0.5], (a > 0).nonzero().to(make.dtype)]


@operator("sorting")
def sorting(make):
    a = make(23, 517)
    return [a.sort(1)[0], a.topk(5, 1)[0], a.sort(0, descending=True)[0]]


@operator("sorting")
def unique(make):
    return [torch.unique(make.integers(60, 2000), sorted=True).to(make.dtype)]


@operator("embedding")
def embedding(make):
    return [F.embedding(make.integers(40, 6, 7), make(40, 16, grad=True))]


@operator("convolution")
def convolution(make):
    return [F.conv2d(make(2, 3, 33, 35, grad=True), make(8, 3, 3, 3, grad=True), padding=1, stride=2)]


@operator("convolution")
def convolution_dilated(make):
    x, w = make(2, 4, 30, 30, grad=True), make(6, 4, 3, 3, grad=True)
    return [F.conv2d(x, w, dilation=2)]


@operator("convolution")
def convolution_depthwise(make):
    x, w = make(2, 8, 30, 30, grad=True), make(8, 1, 3, 3, grad=True)
    return [F.conv2d(x, w, padding=1, groups=8)]


@operator("convolution")
def convolution_transposed(make):
    x, w = make(2, 6, 12, 12, grad=True), make(6, 4, 4, 4, grad=True)
    return [F.conv_transpose2d(x, w, stride=2, padding=1)]


@operator("convolution")
def convolution_3d(make):
    return [F.conv3d(make(1, 2, 9, 10, 11, grad=True), make(3, 2, 3, 3, 3, grad=True))]


@operator("pooling")
def pooling(make):
    x = make(2, 3, 32, 32, grad=True)
    return [F.max_pool2d(x, 3, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 5)]


@operator("normalization")
def normalization(make):
    x = make(4, 6, 10, 10, grad=True)
    return [F.batch_norm(x, None, None, training=True), F.layer_norm(x, (10, 10)),
            F.instance_norm(x)]


@operator("activation")
def activation(make):
    x = make(6, 50, grad=True)
    return [F.relu(x), F.leaky_relu(x, 0.2), F.softmax(x, 1), F.log_softmax(x, 1), F.softplus(x)]


@operator("loss")
def losses(make):
    x = make(20, 10, grad=True)
    return [F.cross_entropy(x, make.integers(10, 20)), F.smooth_l1_loss(x, make(20, 10)),
            F.binary_cross_entropy_with_logits(x, torch.sigmoid(make(20, 10)))]


@operator("sampling")
def interpolation(make):
    x = make(2, 3, 15, 17, grad=True)
    return [F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
            F.interpolate(x, scale_factor=2, mode="nearest")]


@operator("sampling")
def grid_sampling(make):
    x = make(2, 3, 15, 17, grad=True)
    return [F.grid_sample(x, make(2, 8, 8, 2).tanh(), align_corners=True)]


@operator("recurrent")
def lstm(make):
    return [make.module(nn.LSTM(12, 20, 2))(make(7, 3, 12, grad=True))[0]]


@operator("recurrent")
def gru(make):
    return [make.module(nn.GRU(12, 20))(make(7, 3, 12, grad=True))[0]]


@operator("cublas")
def matrix_products(make):
    a, b = make(65, 130, grad=True), make(130, 70, grad=True)
    return [a.mm(b), make(5, 12, 9).bmm(make(5, 9, 14)), a.mv(make(130)),
            F.linear(a, make(33, 130), make(33))]


@operator("cusolver")
def solvers(make):
    a = make(24, 24)
    positive = a.mm(a.t()) + 24 * torch.eye(24, dtype=make.dtype, device=make.device)
    cholesky = getattr(getattr(torch, "linalg", None), "cholesky", torch.cholesky)
    return [positive.inverse(), cholesky(positive), torch.svd(positive)[1]]


@operator("cufft")
def fourier(make):
    a = make(6, 64)
    return [torch.view_as_real(torch.fft.fft(a)), torch.fft.irfft(torch.fft.rfft(a))]


@operator("cusparse")
def sparse(make):
    places = torch.stack([make.integers(20, 60), make.integers(30, 60)])
    matrix = torch.sparse_coo_tensor(places, make(60), (20, 30))
    return [torch.sparse.mm(matrix, make(30, 8))]


@operator("random")
def random(make):
    torch.manual_seed(3)
    a = torch.empty(200000, dtype=make.dtype, device=make.device)
    near = [a.normal_().mean(), a.std() - 1, a.uniform_().mean() - 0.5, a.bernoulli_(0.25).mean()]
    # Other generators give other numbers; that these are in place is what can be compared.
    limits = (0.02, 0.02, 0.01, 0.26)
    return [torch.tensor([float(abs(float(x)) < limit) for x, limit in zip(near, limits)])]


def compute(function, device, dtype, precision):
    """Return results and gradients of one operator, on the CPU and in double precision."""
    make = Maker(device, dtype, precision)
    results = function(make)
    if make.leaves:
        total = sum(r.double().sin().sum() for r in results if r.requires_grad)
        results = results + list(torch.autograd.grad(total, make.leaves, allow_unused=True))
    if device == "cuda":
        torch.cuda.synchronize()
    return [r.detach().double().cpu() for r in results if r is not None]


def error_of(found, truth):
    """Return the largest deviation, as a part of the truth's largest value."""
    worst = 0.0
    for one, other in zip(found, truth):
        if one.shape != other.shape:
            return float("inf")
        if other.numel():
            scale = max(float(other.abs().max()), 1e-6)
            deviation = float((one - other).abs().max()) / scale
            worst = deviation if not deviation <= worst else worst  # NaN counts as the worst
    return worst


def timed(function, precision):
    """Return seconds and results of the card."""
    began = time.time()
    results = compute(function, CARD, precision, precision)
    return time.time() - began, results


def judge(name, kind, function, precision):
    """Run one operator on both sides; never raises."""
    row = {"operator": name, "part": kind, "precision": precision}
    dtype = getattr(torch, precision)
    try:
        truth = compute(function, "cpu", torch.float64, dtype)
    except (AttributeError, TypeError) as error:  # no such function, or no such argument yet
        return dict(row, outcome="absent", said=str(error).split("\n")[0])
    except Exception as error:  # a torch that fails on the CPU is no better on a card
        return dict(row, outcome="failed", said=str(error).split("\n")[0])
    try:
        first, _ = timed(function, dtype)
        again, found = timed(function, dtype)
    except Exception as error:  # whatever a card says is what is to be known
        return dict(row, outcome="failed", said=str(error).split("\n")[0])
    error = error_of(found, truth)
    outcome = "right" if error <= TOLERANCE[precision] else "wrong"
    return dict(row, outcome=outcome, error=error, first_s=first, again_s=again)


def train(device):
    """Train a small net; return its losses and what the later steps took on average."""
    make = Maker(device, torch.float32, torch.float32)
    net = make.module(nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    images = make(8, 1, 16, 16)
    losses, began = [], None
    for step in range(STEPS):
        if step == STEPS // 2:
            began = time.time()
        optimizer.zero_grad()
        loss = ((net(images) - images.abs()) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, (time.time() - began) / (STEPS - STEPS // 2)


def forbid_tf32():
    """Let cards since Ampere compute single precision as such; cuDNN's default keeps 10 bits of it.

    https://pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-devices
    """
    products = getattr(getattr(torch.backends, "cuda", None), "matmul", None)
    for library in (torch.backends.cudnn, products):
        if hasattr(library, "allow_tf32"):
            library.allow_tf32 = False


def say(**row):
    """Print one line of JSON, at once."""
    print(json.dumps(row, sort_keys=True))
    sys.stdout.flush()


def jobs():
    """Return what is to be computed, as name and precision."""
    single = [(name, "float") for name, _, _ in OPERATORS]
    others = [(name, precision) for precision in ("double", "half")
              for name in ("arithmetic", "matrix_products", "convolution")]
    return [(TRAINING, "float")] + single + others


def row_of(name, precision):
    """Compute one of the jobs here."""
    if name == TRAINING:
        (losses, step_s), (truth, _) = train(CARD), train("cpu")
        return dict(training=losses, on_cpu=truth, step_s=step_s)
    _, kind, function = next(row for row in OPERATORS if row[0] == name)
    return judge(name, kind, function, precision)


def row_of_process(job):
    """Compute a job in a process of its own; where that dies, say so of its operator."""
    name, precision = job
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    process = subprocess.Popen(COMMAND + [name, precision], stdout=subprocess.PIPE, env=environment)
    said = process.communicate()[0].decode("utf-8", "replace").splitlines()
    answers = [line for line in said if line.startswith("{")]  # libraries write there, too
    if process.returncode == 0 and answers:
        return json.loads(answers[-1])
    end = "its process ended with {}".format(process.returncode)
    if name == TRAINING:
        sys.stdout.write("training: {}\n".format(end))
        return None
    part = next(kind for known, kind, _ in OPERATORS if known == name)
    return dict(operator=name, part=part, precision=precision, outcome="failed", said=end)


def count_processes(card_memory):
    """Return how many fit on the card and beside it at a time."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fitting = min(memory // ROOM["memory"], card_memory // ROOM["card"] - 1)
    return int(max(1, min(multiprocessing.cpu_count(), fitting)))


def rows(processes):
    """Yield the row of every job as it comes, the training's last."""
    training = None
    pool = multiprocessing.pool.ThreadPool(processes)
    for row in pool.imap_unordered(row_of_process, jobs()):
        if row and "operator" in row:
            yield row
        else:
            training = row
    pool.close()
    if training:
        yield training


def main():
    """Say the card, every operator, the training; end with 1 where there is no card."""
    if not torch.cuda.is_available():
        say(error="torch {} sees no card".format(torch.__version__))
        return 1
    forbid_tf32()
    if sys.argv[1:]:
        say(**row_of(*sys.argv[1:]))
        return 0
    began = time.time()
    torch.zeros(1, device="cuda").add_(1).item()
    ready_s = time.time() - began
    codes = torch.cuda.get_arch_list() if hasattr(torch.cuda, "get_arch_list") else []
    processes = count_processes(torch.cuda.get_device_properties(0).total_memory)
    say(card=torch.cuda.get_device_name(0), capability=list(torch.cuda.get_device_capability(0)),
        torch=str(torch.__version__), cuda=torch.version.cuda, codes=codes,
        ready_s=ready_s, processes=processes)
    for row in rows(processes):
        say(**row)
    return 0


if __name__ == "__main__":
    sys.exit(main())
