"""Where the time of a training goes, in words: the verdict, its numbers, what to change."""

from __future__ import annotations

from collections.abc import Callable

from envforge.training.bottleneck import Bottleneck

_VERDICTS = {
    "gpu": "GPU-bound: the card is what it waits for, as it should be",
    "disk": "IO-bound: the processors wait for disks while the card waits for them",
    "cpu": "CPU-bound: every core is busy",
    "crowded": "other programs take the processors",
    "one-core": "CPU-bound on one core: the training's main process is busy, the others wait",
    "unclear": "nothing is busy all the time: it waits for something that was not measured",
    "unknown": "too few samples to say",
}

_ADVICE = {
    "gpu": (
        "a larger batch is faster only while the card has memory left",
        "half precision halves the work on cards that have it (compute capability 7.0 and newer)",
    ),
    "disk": (
        "let the data lie on a faster disk, or in memory: it is read again in every epoch",
        "decode once: store the images in the size the training wants",
    ),
    "cpu": (
        "decode once: store the images in the size the training wants",
        "fewer loader workers than cores leave one for the main process",
    ),
    "crowded": ("end what else runs on this machine, or train where nothing does",),
    "one-core": (
        "more loader workers, if the main process decodes the images itself",
        "a larger batch: each step costs the main process the same time whatever its size",
    ),
    "unclear": ("look at a step with py-spy: envforge runs stop, then py-spy record",),
    "unknown": (),
}


def verdict_text(found: Bottleneck) -> str:
    """One line: what it waits for."""
    return _VERDICTS[found.kind]


def advice(found: Bottleneck) -> tuple[str, ...]:
    """What to change, the most likely first."""
    return _ADVICE[found.kind]


def numbers_text(found: Bottleneck) -> tuple[str, ...]:
    """The medians behind it, as far as they were measured."""
    cores = f" of {found.cores}" if found.cores else ""
    known: tuple[tuple[float | None, Callable[[float], str]], ...] = (
        (found.gpu, lambda value: f"card busy {value:.0%} of the time"),
        (found.gpu_memory_mib, lambda value: f"{value:.0f} MiB held on the card"),
        (found.cpu, lambda value: f"{value:.1f}{cores} cores busy with it"),
        (found.waiting, lambda value: f"{value:.0%} of the cores' time waiting for disks"),
        (found.read_mib_s, lambda value: f"{value:.1f} MiB/s read from disks"),
        (found.memory_mib, lambda value: f"{value:.0f} MiB held in the machine's memory"),
    )
    return tuple(text(value) for value, text in known if value is not None)


def profile_text(found: Bottleneck) -> str:
    """The answer of ``envforge runs profile``."""
    lines = [verdict_text(found)]
    lines += [f"  {text}" for text in numbers_text(found)]
    lines += [f"  -> {text}" for text in advice(found)]
    lines.append(f"  medians of {found.samples} samples while steps were made")
    return "\n".join(lines)
