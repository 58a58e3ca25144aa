"""``envforge verify``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envforge.cli.build_options import engine_option
from envforge.cli.options import json_option, progress_options
from envforge.errors import UsageError, VerificationFailed

if TYPE_CHECKING:
    from envforge.events import OnEvent
    from envforge.image.verify import Verified
    from envforge.verify import Rehearsal


@click.command("verify")
@click.option("--lock", "path", type=click.Path(path_type=Path), default=Path("envforge.lock"))
@click.option(
    "--rehearse", is_flag=True, help="Let a card of this machine execute it, newer than its own."
)
@click.option(
    "--interpreter",
    metavar="PATH",
    help="Rehearse with this Python and its torch, without a lock or an engine.",
)
@engine_option
@json_option
@progress_options
def command(  # noqa: PLR0913 -- one parameter a flag
    *,
    path: Path,
    rehearse: bool,
    interpreter: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Ask the image of a lock again, or rehearse it on a newer card."""
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.report import verify as report  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415

    if interpreter is not None and not rehearse:
        raise UsageError("--interpreter is for --rehearse", hint="add --rehearse")
    with progress(quiet=quiet, verbose=verbose) as on_event:
        if rehearse:
            rehearsal = _rehearse(path, interpreter, on_event)
        else:
            seen = _verify(path, on_event)
    if not rehearse:
        click.echo(to_json(report.verified_json(seen)) if as_json else report.verified_text(seen))
        return 0
    click.echo(to_json(rehearsal) if as_json else report.rehearsal_text(rehearsal))
    return VerificationFailed.exit_code if rehearsal.wrong or not rehearsal.trained else 0


def _verify(path: Path, on_event: OnEvent) -> Verified:
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.image.engine import connect  # noqa: PLC0415
    from envforge.image.lock import load_lock  # noqa: PLC0415
    from envforge.verify import verify_lock  # noqa: PLC0415

    lock = load_lock(path)
    with connect() as engine:
        return verify_lock(load(), lock, engine, on_event)


def _rehearse(path: Path, interpreter: str | None, on_event: OnEvent) -> Rehearsal:
    from envforge.image.engine import connect  # noqa: PLC0415
    from envforge.image.lock import load_lock  # noqa: PLC0415
    from envforge.verify import rehearse_image, rehearse_local  # noqa: PLC0415

    if interpreter is not None:
        return rehearse_local(interpreter, (), os.environ, on_event)
    lock = load_lock(path)
    with connect() as engine:
        return rehearse_image(engine, lock, on_event)
