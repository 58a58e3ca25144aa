"""What a mirror holds, what is wrong with it, what was removed: as text and as JSON."""

from __future__ import annotations

from shlex import quote
from typing import Any

import click

from envforge.mirror import Created
from envforge.sources.mirror import Manifest, Pruned, Verdict

_SHOWN = 20


def created_text(created: Created, root: str) -> str:
    """What the mirror holds now, and how it is used."""
    manifest = created.manifest
    known = "" if created.fresh else "held already: "
    lines = [f"{known}{click.style(manifest.title, bold=True)}", *_contents(manifest)]
    lines += [f"  not held: {text}" for text in manifest.left_out]
    lines.append(f"  {manifest.kind:<8} {manifest.name[:12]}" if manifest.kind == "plan" else "")
    command = "build" if manifest.kind == "plan" else f"run {manifest.name}"
    lines.append(f"without a network: envforge {command} --offline --mirror {quote(root)} …")
    return "\n".join(line for line in lines if line)


def _contents(manifest: Manifest) -> list[str]:
    rows = list(manifest.files())
    total = sum({sha256: size for _, sha256, size in rows}.values())
    lines = [f"  files    {len(rows)}, {size_text(total)}"]
    if manifest.trees:
        lines.append(f"  commits  {len(manifest.trees)}")
    if manifest.archive is not None:
        lines.append(f"  archive  {len(manifest.archive.files)} of {manifest.archive.address}")
    return lines


def verdict_text(verdict: Verdict) -> str:
    """All is whole, or every file that is not."""
    held = f"{verdict.manifests} manifests, {verdict.files} files, {size_text(verdict.size_bytes)}"
    if not verdict.faults:
        return f"whole: {held}"
    lines = [f"{click.style('not whole', fg='red', bold=True)}: {held}"]
    lines += [
        f"  {fault.manifest}: {': '.join(filter(None, (fault.file, fault.what)))}"
        for fault in verdict.faults[:_SHOWN]
    ]
    if len(verdict.faults) > _SHOWN:
        lines.append(f"  and {len(verdict.faults) - _SHOWN} more (--json has all)")
    lines.append("hint: envforge mirror create   with the same plan fetches what is missing")
    return "\n".join(lines)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """The document of schema ``envforge.mirror-verify/1``."""
    faults = [fault._asdict() for fault in verdict.faults]
    return {"schema": "envforge.mirror-verify/1", **verdict._asdict(), "faults": faults}


def pruned_text(pruned: Pruned, *, dry_run: bool) -> str:
    """How much went, or would go."""
    verb = "would remove" if dry_run else "removed"
    lines = [f"{verb} {name}" for name in pruned.manifests]
    lines.append(
        f"{verb} {pruned.files} files, {size_text(pruned.size_bytes)}; {pruned.kept_files} stay"
    )
    return "\n".join(lines)


def pruned_json(pruned: Pruned, *, dry_run: bool) -> dict[str, Any]:
    """The document of schema ``envforge.mirror-prune/1``."""
    return {"schema": "envforge.mirror-prune/1", "dry_run": dry_run, **pruned._asdict()}


def serving_text(address: str, manifests: tuple[Manifest, ...]) -> str:
    """Where it answers, and what another machine writes down."""
    lines = [f"{click.style(address, bold=True)} answers until Ctrl-C:"]
    lines += [f"  {each.title} ({each.name[:12]})" for each in manifests]
    lines.append(f"as an archive: envforge build --archive {address}, or deb {address} SUITE main")
    lines.append(f"as a proxy:    http_proxy={address}")
    return "\n".join(lines)


def serving_json(address: str, manifests: tuple[Manifest, ...]) -> dict[str, Any]:
    """The document of schema ``envforge.mirror-serve/1``."""
    names = [each.name for each in manifests]
    return {"schema": "envforge.mirror-serve/1", "address": address, "manifests": names}


def size_text(size_bytes: int) -> str:
    """``1.2 GB``, as disks are sold."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} bytes"
