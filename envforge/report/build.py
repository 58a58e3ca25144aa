"""The plan and the outcome of ``envforge build``, as text and as JSON."""

from __future__ import annotations

import shlex
from typing import Any

import click

from envforge.build import Outcome, Prepared
from envforge.capability.lookup import Card
from envforge.documents import to_json
from envforge.image.plan import Plan
from envforge.image.render import arch_list, context_json
from envforge.report import sentences
from envforge.sources.fetch import WheelInput


def plan_text(prepared: Prepared) -> str:
    """What was decided, in a few lines."""
    plan = prepared.plan
    resolution = plan.resolution
    lines = [click.style(sentences.summary(resolution), bold=True)]
    lines.append(f"  base      {plan.base} ({_python(plan)})")
    if plan.source is not None:
        lines.append(f"  profile   {plan.source.profile.name}")
        lines += [f"            without {text}" for text in plan.source.profile.gives_up]
        lines.append(f"  cuDNN     {_cudnn(plan.source.cudnn)}")
        if plan.source.torchvision:
            lines.append(f"  then      torchvision {plan.source.torchvision.version}")
        lines.append(f"  source    {plan.source.tree.name} ({plan.source.tree.identity[:16]})")
        lines.append(f"  CUDA      {resolution.cuda} from the {_origin(resolution.cuda_origin)}")
        lines.append(f"  arch list {arch_list(resolution.codes)}")
        names = ", ".join(patch.id for patch in prepared.context.patches)
        lines.append(f"  patches   {names or 'none needed'}")
    lines += [f"  ! {sentences.note_text(key)}" for key in resolution.notes]
    lines.append(f"  plan      {prepared.context.digest[:12]}")
    return "\n".join(lines)


def stand_in_text(card: Card) -> str:
    """What a newer card of this machine would be good for."""
    return (
        f"  ! {card.name} of this machine is newer: with --ptx it can execute this build"
        " (envforge verify --rehearse)"
    )


def _python(plan: Plan) -> str:
    if plan.source is not None and plan.source.python is not None:
        return f"Python {plan.source.python.source.release} from source"
    return f"Python {plan.python.version}"


def _cudnn(wheel: WheelInput | None) -> str:
    if wheel is None:
        return "none: convolutions and recurrent nets run on PyTorch's own CUDA kernels"
    return f"{wheel.version} from {wheel.name}"


def _origin(origin: str | None) -> str:
    return "distribution's own packages" if origin == "distribution" else "vendor's runfile"


def dry_run_text(prepared: Prepared) -> str:
    """Where the rendered context lies, and what it still lacks."""
    lines = [plan_text(prepared), f"the build context lies in {prepared.folder}"]
    lines += [f"  {name}" for name in sorted(prepared.context.files)]
    if prepared.context.inputs:
        lines.append("to be fetched by sha256:")
        lines += [f"  {path}" for path in sorted(prepared.context.inputs)]
    return "\n".join(lines)


def placed_text(prepared: Prepared, command: list[str]) -> str:
    """What builds a plan whose inputs are all in its folder."""
    folder = shlex.quote(str(prepared.folder.absolute()))
    return f"every input is in place; to build it:\n  cd {folder} && {shlex.join(command)}"


def dry_run_json(prepared: Prepared, command: list[str]) -> str:
    """The plan as a document; ``command`` builds it, none where envforge does."""
    document: dict[str, Any] = {
        "schema": "envforge.plan/1",
        "resolution": prepared.plan.resolution,
        "image": prepared.image,
        "base": prepared.plan.base,
        "context": {"folder": str(prepared.folder), **context_json(prepared.context)},
        "command": command or None,
    }
    return to_json(document)


def outcome_text(outcome: Outcome, lock_path: str) -> str:
    """What was built, and what was seen inside it."""
    lock = outcome.lock
    if not outcome.fresh:
        return f"{lock.image}: already built and verified ({lock_path})"
    lines = [f"{click.style(lock.image, bold=True)}  {lock.image_id[:19]}"]
    lines += [f"  {check.name:<13} {check.seen}" for check in lock.verified]
    lines += [f"  wheel         {name} sha256 {sha256}" for name, sha256 in lock.wheels.items()]
    lines.append(f"locked in {lock_path}")
    return "\n".join(lines)
