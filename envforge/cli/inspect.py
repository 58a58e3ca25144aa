"""``envforge inspect``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from envforge.cli.build_options import engine_option
from envforge.cli.options import complete_cards, json_option, progress_options
from envforge.errors import UsageError

if TYPE_CHECKING:
    from envforge.events import OnEvent
    from envforge.values import ComputeCapability

_EXITS = (
    "Exits with 0 when it could tell (whatever the verdict, also where A and B differ or no kernel"
    " matches), 2 for a wrong call, 3 where TARGET is unknown or unreadable, 6 where an image or a"
    " container was named and no engine answers."
)


@click.command("inspect", epilog=_EXITS)
@click.argument("target", required=False, type=click.Path())
@click.option("--gpu", metavar="CARD", help="Judge this card only.", shell_complete=complete_cards)
@click.option(
    "--kernels",
    metavar="PATTERN",
    help="List the kernels whose name matches a regular expression, and for which"
    " architectures each exists.",
)
@click.option(
    "--diff",
    nargs=2,
    metavar="A B",
    help="Tell what code each of two targets has that the other lacks.",
    type=click.Path(),
)
@engine_option
@json_option
@progress_options
def command(  # noqa: PLR0913 -- one parameter a flag
    *,
    target: str | None,
    gpu: str | None,
    kernels: str | None,
    diff: tuple[str, str] | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say which cards TARGET really runs on, by the machine code inside it.

    TARGET is a library, a wheel, a directory (a package, a virtual or conda environment), a
    Python interpreter (its packages), - (standard input), an image or a container. A name that is
    both is told apart as image:NAME and container:NAME; container:NAME:PATH looks into PATH,
    which may be a volume. Nothing of TARGET is imported or run.
    """
    if (target is None) == (diff is None) or (kernels is not None and diff is not None):
        raise UsageError(
            "inspect takes one TARGET, or --diff with two",
            hint="envforge inspect TARGET [--kernels PATTERN]   or   envforge inspect --diff A B",
        )
    from envforge.report.progress import progress  # noqa: PLC0415 -- --help must be quick

    with progress(quiet=quiet, verbose=verbose) as on_event:
        if diff is not None:
            document, text = _diff(diff, gpu, on_event)
        elif kernels is not None:
            document, text = _kernels(str(target), kernels, gpu, on_event)
        else:
            document, text = _inspection(str(target), gpu, on_event)
    _print(document, text, as_json=as_json)


_Answer = tuple[Callable[[], dict[str, Any]], Callable[[], str]]
"""The document and the text, neither made before it is known which one is asked for."""


def _inspection(target: str, gpu: str | None, on_event: OnEvent) -> _Answer:
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.capability.ptx import driver_for_ptx  # noqa: PLC0415
    from envforge.inspect import inspect  # noqa: PLC0415
    from envforge.report.inspect import inspection_json, inspection_text  # noqa: PLC0415

    found = inspect(target, _cards(gpu), on_event)
    driver_for = partial(driver_for_ptx, load())
    return partial(inspection_json, found, driver_for), partial(inspection_text, found, driver_for)


def _kernels(target: str, pattern: str, gpu: str | None, on_event: OnEvent) -> _Answer:
    from envforge.inspect import find_kernels  # noqa: PLC0415
    from envforge.report.kernels import kernels_json, kernels_text  # noqa: PLC0415

    card = _cards(gpu)[0] if gpu else None
    found = find_kernels(target, pattern, on_event)
    return partial(kernels_json, found, card), partial(kernels_text, found, card)


def _diff(targets: tuple[str, str], gpu: str | None, on_event: OnEvent) -> _Answer:
    from envforge.inspect import compare  # noqa: PLC0415
    from envforge.report.difference import difference_json, difference_text  # noqa: PLC0415

    found = compare(*targets, _cards(gpu), on_event)
    return partial(difference_json, found), partial(difference_text, found)


def _print(
    document: Callable[[], dict[str, Any]], text: Callable[[], str], *, as_json: bool
) -> None:
    from envforge.documents import to_json  # noqa: PLC0415

    if as_json:
        click.echo(to_json(document()), nl=False)
    else:
        click.echo(text())


def _cards(gpu: str | None) -> list[ComputeCapability]:
    """Return the card that is asked about, or every compute capability there is."""
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.capability.lookup import find_card  # noqa: PLC0415
    from envforge.values import ComputeCapability  # noqa: PLC0415

    database = load()
    if gpu:
        return [find_card(database, gpu).compute_capability]
    return [ComputeCapability.parse(text) for text in database.architectures]
