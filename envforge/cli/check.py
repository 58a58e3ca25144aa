"""``envforge check``."""

from __future__ import annotations

from typing import Any

import click

from envforge.cli.options import json_option, request_options, to_request


@click.command("check")
@request_options
@click.option("--all", "every", is_flag=True, help="Every release of each route.")
@click.option("--pip-args", is_flag=True, help="Only what pip needs for the best wheel.")
@json_option
def command(*, every: bool, pip_args: bool, as_json: bool, **flags: Any) -> None:
    """Tell what a card is, every route to a PyTorch that runs on it, and why not the rest.

    Without --gpu it judges the cards of this machine, driver or no driver.
    """
    from envforge.capability.load import load  # noqa: PLC0415 -- --help must not load the database
    from envforge.check import check  # noqa: PLC0415
    from envforge.report.check import check_json, check_text, pip_line  # noqa: PLC0415
    from envforge.resolver import all_routes, routes  # noqa: PLC0415

    database = load()
    list_routes = all_routes if every else routes
    report = check(database, flags["gpu"], to_request(flags), list_routes)
    if pip_args:
        click.echo(pip_line(report, database))
    elif as_json:
        from envforge.documents import to_json  # noqa: PLC0415

        click.echo(to_json(check_json(report, database)), nl=False)
    else:
        click.echo(check_text(report, database))
