"""``envforge inspect``."""

from __future__ import annotations

import click

from envforge.cli.options import complete_cards, json_option, quiet_option


@click.command("inspect")
@click.argument("target")
@click.option("--gpu", metavar="CARD", help="Judge this card only.", shell_complete=complete_cards)
@json_option
@quiet_option
def command(*, target: str, gpu: str | None, as_json: bool, quiet: bool) -> None:
    """Say which cards TARGET really runs on, by the machine code inside it.

    TARGET is a library, a wheel, a directory, a Python interpreter (its packages) or an image.
    Nothing of it is imported or run.
    """
    from envforge.capability.load import load  # noqa: PLC0415 -- --help must not load the database
    from envforge.capability.lookup import find_card  # noqa: PLC0415
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.inspect import inspect  # noqa: PLC0415
    from envforge.report.inspect import inspection_json, inspection_text  # noqa: PLC0415
    from envforge.report.progress import progress  # noqa: PLC0415
    from envforge.values import ComputeCapability  # noqa: PLC0415

    database = load()
    cards = [ComputeCapability.parse(text) for text in database.architectures]
    if gpu:
        cards = [find_card(database, gpu).compute_capability]
    with progress(quiet=quiet) as on_event:
        inspection = inspect(target, cards, on_event)
    if as_json:
        click.echo(to_json(inspection_json(inspection)), nl=False)
    else:
        click.echo(inspection_text(inspection))
