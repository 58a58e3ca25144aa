"""``envforge build``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envforge.cli.build_options import engine_option, mirror_options, plan_options
from envforge.cli.options import json_option, progress_options, request_options, to_request
from envforge.errors import UsageError

if TYPE_CHECKING:
    from envforge.build import BuildRequest
    from envforge.capability.database import Database
    from envforge.events import OnEvent


@click.command("build")
@request_options
@click.option("--dry-run", is_flag=True, help="Decide and render only: no network, no engine.")
@click.option(
    "-o",
    "--output",
    "context",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the context goes.",
)
@plan_options
@click.option(
    "--wheel",
    "wheels",
    type=click.Path(path_type=Path, file_okay=False),
    help="Put the built wheel there.",
)
@click.option(
    "--backend",
    type=click.Choice(["docker", "classic", "shell", "apptainer"]),
    default="docker",
    show_default=True,
    help="Who builds: the engine, its builder without BuildKit, a script, Apptainer.",
)
@click.option(
    "--matrix",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Several builds in one go, from a file.",
)
@click.option(
    "--install-engine",
    is_flag=True,
    help="Install and start the engine and mmdebstrap first (apt).",
)
@mirror_options
@engine_option
@json_option
@progress_options
def command(*, matrix: Path | None, **flags: Any) -> int:
    """Build the PyTorch that runs on a card: an image, verified from the inside, and a lock."""
    _end_on_sigterm()
    return _build(flags) if matrix is None else _build_all(matrix, flags)


def _build(flags: dict[str, Any]) -> int:
    from envforge.build import build, prepare  # noqa: PLC0415
    from envforge.build.backend import PLACED, command_for, for_backend, place  # noqa: PLC0415
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.image.render import write_context  # noqa: PLC0415
    from envforge.report.build import (  # noqa: PLC0415
        dry_run_json,
        dry_run_text,
        outcome_text,
        placed_text,
        plan_text,
        stand_in_text,
    )
    from envforge.report.progress import progress  # noqa: PLC0415
    from envforge.verify import find_stand_in  # noqa: PLC0415

    database, as_json, quiet = load(), flags["as_json"], flags["quiet"]
    wanted = wanted_build(database, flags)
    backend = flags["backend"]
    prepared = for_backend(prepare(database, wanted), wanted, backend)
    command = command_for(prepared, wanted, backend)
    if flags["dry_run"]:
        write_context(prepared.context, prepared.folder)
        text = dry_run_json(prepared, command) if as_json else dry_run_text(prepared)
        click.echo(text, nl=not as_json)
        return 0
    with progress(quiet=quiet, verbose=flags["verbose"]) as on_event:
        if not quiet:
            click.echo(plan_text(prepared), err=True)
            stand_in = find_stand_in(database, prepared.plan.resolution)
            if stand_in is not None:
                click.echo(stand_in_text(stand_in), err=True)
        if backend in PLACED:
            place(prepared, wanted, on_event)
            text = dry_run_json(prepared, command) if as_json else placed_text(prepared, command)
            click.echo(text, nl=not as_json)
            return 0
        if flags["install_engine"]:
            _install(on_event)
        outcome = build(prepared, wanted, on_event)
    click.echo(
        to_json(outcome.lock) if as_json else outcome_text(outcome, str(wanted.lock)),
        nl=not as_json,
    )
    return 0


def _build_all(matrix: Path, flags: dict[str, Any]) -> int:
    """Build a matrix; end as its first failed build would have."""
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.matrix import build_matrix  # noqa: PLC0415
    from envforge.report.matrix import matrix_json, matrix_text  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415

    given = _given(*_DECIDED_BY_A_LOCK, "context", "lock", "source", "backend")
    if given:
        raise UsageError(
            f"--matrix and --{given[0]} contradict each other",
            hint="what one build needs stands in the file, under its name",
        )
    with progress(quiet=flags["quiet"], verbose=flags["verbose"]) as on_event:
        if flags["install_engine"] and not flags["dry_run"]:
            _install(on_event)
        dry_run = flags["dry_run"]
        rows = list(
            build_matrix(load(), matrix, _common(flags), dry_run=dry_run, on_event=on_event)
        )
    click.echo(
        to_json(matrix_json(rows)) if flags["as_json"] else matrix_text(rows),
        nl=not flags["as_json"],
    )
    return next((row.error.exit_code for row in rows if row.error), 0)


def _install(on_event: OnEvent) -> None:
    from envforge.image.install import install_engine  # noqa: PLC0415

    install_engine(on_event)


def _common(flags: dict[str, Any]) -> BuildRequest:
    """What is wanted, but for the request itself; a flag is called as the field it fills."""
    from envforge.build import BuildRequest  # noqa: PLC0415

    named = {name: flags[name] for name in BuildRequest._fields[1:] if name in flags}
    return BuildRequest(None, **named)


def wanted_build(database: Database, flags: dict[str, Any]) -> BuildRequest:
    """Turn the flags of a command into what it is to build; errors as :func:`to_request`."""
    from envforge.check import sole_card  # noqa: PLC0415

    wanted = _common(flags)
    if wanted.locked and not _given(*_DECIDED_BY_A_LOCK):
        return wanted
    request = to_request(flags)
    if request.route != "cpu":
        request = request._replace(card=sole_card(database, flags["gpu"]))
    return wanted._replace(request=request)


_DECIDED_BY_A_LOCK = (
    *("gpu", "cpu", "torch", "cuda", "python", "gcc", "platform", "route", "ptx"),
    *("until", "profile", "cudnn", "torchvision"),
)


def _given(*names: str) -> list[str]:
    """Which of these flags the user wrote."""
    source = click.get_current_context().get_parameter_source
    return [name for name in names if source(name) is not click.core.ParameterSource.DEFAULT]


def _end_on_sigterm() -> None:
    """End a build as Ctrl-C does where a scheduler or a closed terminal ends envforge."""
    import signal  # noqa: PLC0415

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
