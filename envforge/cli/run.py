"""``envforge run``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envforge.cli.options import json_option, quiet_option
from envforge.errors import EnvforgeError, UsageError


def _complete_recipes(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.recipes import recipe_names  # noqa: PLC0415

    return [name for name in recipe_names() if name.startswith(typed)]


@click.command("run")
@click.argument("recipe", shell_complete=_complete_recipes)
@click.option(
    "--on", type=click.Choice(["docker", "local"]), help="Who runs it.  [default: docker]"
)
@click.option(
    "--run-dir", type=click.Path(path_type=Path), help="Where it lies; a run in it goes on."
)
@click.option("--interpreter", metavar="PATH", help="The Python that has the torch (--on local).")
@click.option("--image", metavar="TAG", help="The image to train in; without it the lock's.")
@click.option("--lock", type=click.Path(path_type=Path), help="[default: envforge.lock]")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="Change a setting.")
@click.option("--gpu", "device", flag_value="gpu", help="On the card, or not at all.")
@click.option("--cpu", "device", flag_value="cpu", help="On the CPU, though there is a card.")
@json_option
@quiet_option
@click.option("-v", "--verbose", is_flag=True, help="Show the training's own lines too.")
def command(
    *,
    recipe: str,
    settings: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
    **flags: Any,
) -> int:
    """Train RECIPE and get there: in the image that envforge build made, or --on local.

    RECIPE is a name, or a folder written with a slash. Ctrl-C once stops after a checkpoint,
    twice at once; the same command with --run-dir goes on.
    """
    from envforge.documents import to_json  # noqa: PLC0415 -- --help must not load the database
    from envforge.events import Event  # noqa: PLC0415
    from envforge.report.errors import error_text  # noqa: PLC0415
    from envforge.report.run import outcome_text, run_progress  # noqa: PLC0415
    from envforge.report.run_page import try_write_page  # noqa: PLC0415
    from envforge.run import RunRequest, require_success, run  # noqa: PLC0415

    flags["device"] = flags["device"] or "auto"
    request = RunRequest(recipe, settings=_pairs(settings), **flags)
    with run_progress(quiet=quiet, verbose=verbose) as on_event:
        record = run(request, on_event)
        if fault := try_write_page(record):
            on_event(Event("warning", fault))
    if as_json:  # the record is the whole answer, of a failure too
        click.echo(to_json(record), nl=False)
    try:
        require_success(record)
    except EnvforgeError as error:
        if not as_json:
            raise
        click.echo(error_text(error), err=True)
        return error.exit_code
    if not as_json and not quiet:
        click.echo(outcome_text(record))
    return 0


def _pairs(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = dict(setting.split("=", 1) for setting in settings if "=" in setting)
    for setting in settings:
        if "=" not in setting:
            raise UsageError(f"--set {setting!r} is not of the form KEY=VALUE")
    return pairs
