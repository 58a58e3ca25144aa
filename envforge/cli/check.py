"""``envforge check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from envforge.cli.options import json_option, request_options, to_request
from envforge.errors import UsageError

if TYPE_CHECKING:
    from envforge.check import CheckReport


@click.command("check")
@request_options
@click.option("--all", "every", is_flag=True, help="Every release of each route.")
@click.option("--pip-args", is_flag=True, help="Only what pip needs for the best wheel.")
@click.option(
    "--installed",
    metavar="[PYTHON|VENV|IMAGE]",
    is_flag=False,
    flag_value="",
    help="Judge the PyTorch that is already there, by the machine code inside it.",
)
@click.option("-v", "--verbose", is_flag=True, help="Show the source of each route and rule, too.")
@json_option
def command(
    *,
    every: bool,
    pip_args: bool,
    installed: str | None,
    verbose: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Tell what a card is, every route to a PyTorch that runs on it, and why not the rest.

    Without --gpu it judges the cards of this machine, driver or no driver.
    """
    from envforge.capability.load import load  # noqa: PLC0415 -- --help must not load the database
    from envforge.check import check  # noqa: PLC0415
    from envforge.report.check import check_json, check_text, pip_line  # noqa: PLC0415
    from envforge.resolver import all_routes, routes  # noqa: PLC0415

    if pip_args and (as_json or installed is not None):
        other = "--json" if as_json else "--installed"
        raise UsageError(
            f"--pip-args and {other} contradict each other",
            hint="--pip-args is one line and nothing else; --json names the command of each route",
        )
    database = load()
    list_routes = all_routes if every else routes
    report = check(database, flags["gpu"], to_request(flags), list_routes)
    if pip_args:
        click.echo(pip_line(report, database))
    elif as_json:
        from envforge.documents import to_json  # noqa: PLC0415

        there = {} if installed is None else {"installed": _installed(installed, report)[1]}
        click.echo(to_json({**check_json(report, database), **there}), nl=False)
    else:
        click.echo(check_text(report, database, sources=verbose))
        if installed is not None:
            click.echo(f"\n{_installed(installed, report)[0]}")


def _installed(target: str, report: CheckReport) -> tuple[str, dict[str, Any]]:
    """Judge what is installed for the cards of the report: as text, and as a document."""
    import shutil  # noqa: PLC0415

    from envforge.inspect import inspect_installed  # noqa: PLC0415
    from envforge.report.inspect import installed_json, installed_text  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415

    cards = sorted({checked.card.compute_capability for checked in report.cards})
    python = target or shutil.which("python3") or "python3"
    with progress(quiet=True) as on_event:
        found = inspect_installed(python, cards, on_event)
    return installed_text(found), installed_json(found)
