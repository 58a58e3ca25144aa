"""``envforge explain``."""

from __future__ import annotations

from typing import Any

import click

from envforge.cli.options import json_option, request_options, to_request


@click.command("explain")
@request_options
@json_option
def command(*, as_json: bool, **flags: Any) -> None:
    """Say why a card gets this PyTorch, or none: the rules, their sources, and what could give way.

    Exit 4 where nothing fits.
    """
    from envforge.capability.load import load  # noqa: PLC0415 -- --help must not load the database
    from envforge.check import sole_card  # noqa: PLC0415
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.report.explain import (  # noqa: PLC0415
        Explanation,
        explanation_json,
        explanation_text,
    )
    from envforge.resolver import rejections, resolve  # noqa: PLC0415

    database = load()
    request = to_request(flags)
    if request.route != "cpu":
        request = request._replace(card=sole_card(database, flags["gpu"]))
    resolution = resolve(database, request)
    explanation = Explanation(request, resolution, rejections(database, request))
    if as_json:
        click.echo(to_json(explanation_json(explanation)), nl=False)
    else:
        click.echo(explanation_text(explanation))
