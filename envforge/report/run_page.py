"""``report.html``: a run on one page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envforge import assets, documents
from envforge.errors import DocumentError
from envforge.image.lock import LOCK_NAME, Lock, find_lock
from envforge.report import run_plots as plots
from envforge.report.duration import duration_text
from envforge.report.run import seconds_of, speed_text
from envforge.report.run_samples import find_samples
from envforge.report.run_verdict import advice, numbers_text, verdict_text
from envforge.run.staged import Staged, read_staged
from envforge.training.bottleneck import find_bottleneck
from envforge.training.record import SERIES, Attempt, RunRecord
from envforge.training.series import Point, read_series

PAGE = "report.html"
_TEMPLATE = "report/run.html"


def write_page(record: RunRecord) -> Path:
    """Write the page of a run into its directory, replacing an older one; return its path."""
    path = Path(record.run_dir) / PAGE
    documents.write_atomically(path, page(record).encode())
    return path


def try_write_page(record: RunRecord) -> str:
    """Write the page where that can be done; in words why not. A training is not lost over it."""
    try:
        write_page(record)
    except Exception as error:  # noqa: BLE001 -- days of work must not end with exit code 1
        return f"no {PAGE}: {type(error).__name__}: {error}"
    return ""


def page(record: RunRecord) -> str:
    """Make the page from what lies in the run's directory."""
    import jinja2  # noqa: PLC0415

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(assets.TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template(_TEMPLATE).render(**_content(record))
    return text


def _content(record: RunRecord) -> dict[str, Any]:
    points = list(read_series(Path(record.run_dir) / SERIES))
    losses, uses = plots.losses_of(points), plots.uses_of(points)
    found = find_bottleneck(points)
    staged = read_staged(Path(record.run_dir))
    return {
        "record": record,
        "facts": list(_facts(record, points)),
        "attempts": [_attempt(*each) for each in enumerate(record.attempts, 1)],
        "losses": plots.as_div(plots.losses_figure(record, losses)) if losses else "",
        "timeline": plots.as_div(plots.attempts_figure(record)) if record.attempts else "",
        "use": plots.as_div(plots.use_figure(uses)) if len(uses) > 1 else "",
        "verdict": verdict_text(found),
        "numbers": numbers_text(found),
        "advice": advice(found),
        "samples": list(find_samples(record)),
        "environment": list(_environment(record, staged)),
        "settings": sorted(record.settings.items()),
        "tables": list(_tables(record, staged)),
        "script": plots.script(),
    }


def _facts(record: RunRecord, points: list[Point]) -> Iterator[tuple[str, str]]:
    """What one wants to know first."""
    last = record.last if record.attempts else None
    if last is not None and last.last_iteration is not None:
        total = f" of {last.total_iterations}" if last.total_iterations else ""
        yield "steps", f"{last.last_iteration}{total}"
    if last is not None and last.seconds_per_iteration:
        yield "speed", speed_text(last.seconds_per_iteration)
    yield "duration", duration_text(sum(map(seconds_of, record.attempts)))
    yield "attempts", str(len(record.attempts))
    held = [point.gpu_memory_mib for point in points if point.gpu_memory_mib is not None]
    said = [each.memory_mib for each in record.attempts if each.memory_mib is not None]
    if said or held:
        yield "peak card memory", f"{max(said or held):.0f} MiB"
    for name, loss in sorted(last.losses.items() if last else ())[:2]:
        yield name, "not a number" if loss.last is None else f"{loss.last:.4g}"


def _attempt(number: int, attempt: Attempt) -> dict[str, Any]:
    return {
        "number": number,
        "started": attempt.started.replace("T", " ").removesuffix("Z"),
        "lasted": duration_text(seconds_of(attempt)),
        "steps": _steps(attempt),
        "reason": attempt.reason or "running",
        "colour": plots.reason_colour(attempt),
        "because": attempt.because,
        "answer": list(_answer(attempt)),
    }


def _steps(attempt: Attempt) -> str:
    if attempt.last_iteration is None:
        return "none"
    return f"{attempt.first_iteration or 0} to {attempt.last_iteration}"


def _answer(attempt: Attempt) -> Iterator[str]:
    """How it differs from the attempt before."""
    if attempt.why:
        yield attempt.why
    if attempt.from_checkpoint:
        yield f"from {attempt.from_checkpoint}"
    for change in attempt.changes:
        yield f"{change.setting}: {change.before} to {change.after}"
    if attempt.rates:
        yield f"learning rate in the checkpoint: {', '.join(f'{rate:g}' for rate in attempt.rates)}"
    for fact in attempt.quarantined:
        yield f"set aside {fact}"
    for name in attempt.forgets:
        yield f"upstream begins its {name} anew"


def _environment(record: RunRecord, staged: Staged | None) -> Iterator[tuple[str, str]]:
    yield "torch", record.torch or "unknown"
    if staged is not None and staged.card is not None:
        card = staged.card
        yield "card", f"{card.name}, {card.memory_mib} MiB, compute capability {card.capability}"
    if staged is not None and staged.inputs.vram_mib:
        yield "of its memory", f"{staged.inputs.vram_mib} MiB used (--vram)"
    yield "computed on", record.device
    yield "run by", record.on
    yield "interpreter", record.python
    if record.image:
        yield "image", record.image
        yield "image id", record.image_id or ""
    lock = _lock_of(record)
    if lock is not None:
        yield "plan", lock.plan
        yield "route", f"{lock.resolution.route}, CUDA {lock.resolution.cuda or 'none'}"
        yield "machine code", ", ".join(lock.codes)
        yield "patches of PyTorch", ", ".join(lock.patches) or "none"
    yield from _sources(staged)
    yield "run", record.id
    yield "directory", record.run_dir


def _sources(staged: Staged | None) -> Iterator[tuple[str, str]]:
    """Whose code was trained on what."""
    if staged is None:
        return
    if staged.variant:
        yield "variant", staged.variant
    if staged.checkout is not None:
        origin = "" if staged.checkout.verified else ", of a copy without a history"
        yield "upstream", f"{staged.checkout.upstream} at {staged.checkout.commit}{origin}"
    if staged.examples is not None:
        items = "" if staged.examples.items is None else f", {staged.examples.items} items"
        yield "examples", f"{staged.examples.name}, {staged.examples.origin}{items}"
    for asset in staged.assets:
        yield asset.name, f"sha256 {asset.sha256}"


def _lock_of(record: RunRecord) -> Lock | None:
    """The lock of the image it ran in, where that still lies in the current directory."""
    try:
        lock = find_lock(Path(LOCK_NAME)) if record.image_id else None
    except DocumentError:
        return None
    return lock if lock is not None and lock.image_id == record.image_id else None


def _tables(
    record: RunRecord, staged: Staged | None
) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Tables that only some runs have."""
    if staged is not None and staged.differences:
        rows = [[each.setting, each.upstream, each.ours, each.why] for each in staged.differences]
        yield "What is not as upstream has it", ["setting", "upstream", "here", "why"], rows
    if staged is not None and staged.checkout is not None and staged.checkout.patches:
        patches = [each.split(": ", 2) for each in staged.checkout.patches]
        yield "Patches", ["patch", "file", "state"], patches
    if record.checks:
        rows = [[each.name, each.outcome, each.words] for each in record.checks]
        yield "Checks", ["check", "outcome", "words"], rows
