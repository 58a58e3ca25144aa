"""``envforge run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envforge.cli.build_options import engine_option, mirror_options
from envforge.cli.options import json_option, progress_options
from envforge.errors import EnvforgeError, UsageError

if TYPE_CHECKING:
    from envforge.run import RunRequest
    from envforge.run.staged import Staged


def _complete_recipes(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.recipes import recipe_names  # noqa: PLC0415

    return [name for name in recipe_names() if name.startswith(typed)]


def _complete_settings(ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.recipes import load_recipe  # noqa: PLC0415

    try:
        names = load_recipe(ctx.params.get("recipe") or "").recipe.parameters
    except EnvforgeError:
        return []
    return [f"{name}=" for name in names if name.startswith(typed)]


_FOLDER = click.Path(path_type=Path)
_FLAGS = (
    click.option(
        "--on", type=click.Choice(["docker", "local"]), help="Who runs it.  [default: docker]"
    ),
    click.option("--run-dir", type=_FOLDER, help="Where it lies; a run in it goes on."),
    click.option(
        "--interpreter", metavar="PATH", help="The Python that has the torch (--on local)."
    ),
    click.option("--torch", metavar="VERSION", help="Make a Python with this torch (--on local)."),
    click.option("--image", metavar="TAG", help="The image to train in; without it the lock's."),
    click.option("--lock", type=_FOLDER, help="[default: envforge.lock]"),
    click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        help="Change a setting; also variant, preset, dataset.",
        shell_complete=_complete_settings,
    ),
    click.option("--gpu", "device", flag_value="gpu", help="On the card, or not at all."),
    click.option("--cpu", "device", flag_value="cpu", help="On the CPU, though there is a card."),
    click.option("--data", type=_FOLDER, help="The examples to train on."),
    click.option("--demo", is_flag=True, help="On a few generated examples, for a minute."),
    click.option("--from", "taken", type=_FOLDER, help="The run whose files this one takes."),
    click.option(
        "--asset", "assets", metavar="NAME=FILE", multiple=True, help="A file you bring yourself."
    ),
    click.option("--vram", metavar="SIZE", help="As on a card of so much memory: 4GiB."),
    click.option("--memory", metavar="SIZE", help="The container's limit of memory."),
    click.option(
        "--upstream", type=_FOLDER, help="Upstream's repository or a copy, on this machine."
    ),
    click.option(
        "--recipes", "shelves", type=_FOLDER, multiple=True, help="A folder of more recipes."
    ),
    click.option("--dry-run", is_flag=True, help="Only say what would be trained, and how."),
)


def _run_options(command: Callable[..., int]) -> Callable[..., int]:
    for option in reversed(_FLAGS):
        command = option(command)
    return command


@click.command("run")
@click.argument("recipe", shell_complete=_complete_recipes)
@_run_options
@mirror_options
@engine_option
@json_option
@progress_options
def command(*, as_json: bool, quiet: bool, verbose: bool, dry_run: bool, **flags: Any) -> int:
    """Train RECIPE and get there: in the image that envforge build made, or --on local.

    RECIPE is a name, or a folder written with a slash. Ctrl-C once stops after a checkpoint,
    twice at once; the same command with --run-dir goes on.
    """
    from envforge.documents import to_json  # noqa: PLC0415 -- --help must not load the database
    from envforge.report.staging import preview_text  # noqa: PLC0415
    from envforge.run import preview  # noqa: PLC0415

    request = _request(flags)
    if not dry_run:
        return _train(request, as_json=as_json, quiet=quiet, verbose=verbose)
    found = preview(request)
    click.echo(to_json(found) if as_json else preview_text(found), nl=not as_json)
    return 0


def _train(request: RunRequest, *, as_json: bool, quiet: bool, verbose: bool) -> int:
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.events import Event  # noqa: PLC0415
    from envforge.report.errors import error_text  # noqa: PLC0415
    from envforge.report.run import outcome_text, run_progress  # noqa: PLC0415
    from envforge.report.run_page import try_write_page  # noqa: PLC0415
    from envforge.report.staging import staged_text  # noqa: PLC0415
    from envforge.run import require_success, run  # noqa: PLC0415

    def say(staged: Staged) -> None:
        text = "" if quiet or staged.checkout is None else staged_text(staged)
        click.echo(text, err=True, nl=bool(text))

    with run_progress(quiet=quiet, verbose=verbose) as on_event:
        record = run(request, on_event, on_staged=say)
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


def _request(flags: dict[str, Any]) -> RunRequest:
    """Turn the flags into a request; UsageError for one that contradicts another."""
    from envforge.recipes.memory import parse_memory_mib  # noqa: PLC0415
    from envforge.run import RunRequest  # noqa: PLC0415

    if flags["demo"] and flags["data"]:
        raise UsageError("--demo makes its own examples: leave out --data")
    vram, memory = flags.pop("vram"), flags.pop("memory")
    flags["vram_mib"] = parse_memory_mib(vram) if vram else None
    flags["memory_mib"] = parse_memory_mib(memory) if memory else None
    flags["device"] = flags["device"] or "auto"
    flags["settings"] = _pairs(flags["settings"], "--set", "KEY=VALUE")
    brought = _pairs(flags["assets"], "--asset", "NAME=FILE")
    flags["assets"] = {name: Path(path) for name, path in brought.items()}
    return RunRequest(**flags)


def _pairs(given: tuple[str, ...], flag: str, form: str) -> dict[str, str]:
    for each in given:
        if "=" not in each:
            raise UsageError(f"{flag} {each!r} is not of the form {form}")
    return dict(each.split("=", 1) for each in given)
