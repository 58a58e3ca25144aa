"""``envforge mirror``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envforge.cli.build_options import plan_options
from envforge.cli.options import json_option, progress_options, request_options

_DIRECTORY = click.argument(
    "directory", type=click.Path(path_type=Path, file_okay=False), metavar="DIR"
)
_PLAN = click.option(
    "--plan",
    "plans",
    multiple=True,
    metavar="PLAN",
    help="First digits of a plan's digest, or a recipe's name.",
)


@click.group("mirror")
def command() -> None:
    """Keep every input of a build or a recipe in a directory, for years and without a network."""


@command.command("create")
@_DIRECTORY
@click.option("--recipe", metavar="NAME", help="What a recipe is trained with, not a plan.")
@request_options
@plan_options
@json_option
@progress_options
def create_command(
    *,
    directory: Path,
    recipe: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **flags: Any,
) -> int:
    """Bring every input of a plan (or of --recipe NAME) into DIR; again: what is missing there.

    The plan is built once while the archive is recorded. What was begun is gone on with.
    """
    from envforge.documents import to_json  # noqa: PLC0415 -- --help must be quick
    from envforge.report.mirror import created_text  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415

    with progress(quiet=quiet, verbose=verbose) as on_event:
        if recipe is not None:
            from envforge.mirror.recipe import create_recipe  # noqa: PLC0415

            created = create_recipe(directory, recipe, on_event)
        else:
            from envforge.capability.load import load  # noqa: PLC0415
            from envforge.cli.build import wanted_build  # noqa: PLC0415
            from envforge.mirror import create_plan, prepare  # noqa: PLC0415

            database = load()
            wanted = wanted_build(database, flags)
            created = create_plan(directory, prepare(database, wanted), wanted, on_event)
    answer = to_json(created.manifest) if as_json else created_text(created, str(directory))
    click.echo(answer, nl=not as_json)
    return 0


@command.command("verify")
@_DIRECTORY
@json_option
@progress_options
def verify_command(*, directory: Path, as_json: bool, quiet: bool, verbose: bool) -> int:
    """Hash every file of DIR again; exit 5 where one is missing or damaged."""
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.errors import SourceError  # noqa: PLC0415
    from envforge.report.mirror import verdict_json, verdict_text  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415
    from envforge.sources.mirror import open_mirror, verify  # noqa: PLC0415

    with progress(quiet=quiet, verbose=verbose) as on_event:
        verdict = verify(open_mirror(directory), on_event)
    answer = to_json(verdict_json(verdict)) if as_json else verdict_text(verdict)
    click.echo(answer, nl=not as_json)
    return SourceError.exit_code if verdict.faults else 0


@command.command("serve")
@_DIRECTORY
@_PLAN
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: a free one]")
@json_option
def serve_command(
    *, directory: Path, plans: tuple[str, ...], host: str, port: int, as_json: bool
) -> int:
    """Answer apt from DIR and from nothing else, as an archive or as a proxy, until Ctrl-C."""
    import signal  # noqa: PLC0415

    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.mirror import replay  # noqa: PLC0415
    from envforge.report.mirror import serving_json, serving_text  # noqa: PLC0415
    from envforge.sources.mirror import open_mirror  # noqa: PLC0415

    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # no thread of the server takes them
    try:
        with replay(open_mirror(directory), plans, host, port) as (address, manifests):
            said = serving_json(address, manifests) if as_json else serving_text(address, manifests)
            click.echo(to_json(said) if as_json else said, nl=not as_json)
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


@command.command("prune")
@_DIRECTORY
@_PLAN
@click.option("--keep", "kept", multiple=True, metavar="PLAN", help="Remove all but these.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def prune_command(
    *,
    directory: Path,
    plans: tuple[str, ...],
    kept: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Remove plans and recipes from DIR, and every file that nothing in it needs any more."""
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.mirror import drop  # noqa: PLC0415
    from envforge.report.mirror import pruned_json, pruned_text  # noqa: PLC0415
    from envforge.sources.mirror import open_mirror  # noqa: PLC0415

    pruned = drop(open_mirror(directory), plans, kept, dry_run=dry_run)
    said = pruned_json(pruned, dry_run=dry_run) if as_json else pruned_text(pruned, dry_run=dry_run)
    click.echo(to_json(said) if as_json else said, nl=not as_json)
    return 0
