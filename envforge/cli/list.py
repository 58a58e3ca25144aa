"""``envforge list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from envforge.cli.options import json_option

if TYPE_CHECKING:
    from envforge.capability.database import Database
    from envforge.report.listing import Row


def _gpus(database: Database) -> list[Row]:
    from envforge.capability.names import marketing_names  # noqa: PLC0415

    return [
        {
            "pci_id": f"10de:{device.id}",
            "chip": device.chip,
            "compute_capability": device.compute_capability,
            "name": " / ".join(marketing_names(device.name)),
        }
        for device in database.devices.values()
    ]


def _torch(database: Database) -> list[Row]:
    return [
        {
            "torch": release.version,
            "released": release.released or "",
            "cuda": release.source_build.cuda,
            "compute_capability": release.source_build.compute_capability,
            "pythons": " ".join(release.source_build.pythons),
        }
        for release in database.releases
    ]


def _cuda(database: Database) -> list[Row]:
    return [
        {
            "cuda": toolkit.version,
            "gcc": toolkit.gcc,
            "driver": toolkit.driver_min or "",
            "runfile": "by sha256" if toolkit.runfile else "",
        }
        for toolkit in database.toolkits
    ]


def _platforms(database: Database) -> list[Row]:
    return [
        {
            "platform": platform.name,
            "suite": platform.suite,
            "glibc": platform.glibc,
            "pythons": " ".join(python.version for python in platform.pythons),
            "gcc": " ".join(compiler.version for compiler in platform.compilers),
            "cuda": platform.cuda.version if platform.cuda else "",
            "built": "yes" if platform.built else "not built yet",
        }
        for platform in database.platforms
    ]


def _recipes(_database: Database) -> list[Row]:
    from envforge.recipes import load_recipe, recipe_names  # noqa: PLC0415

    return [
        {"recipe": name, "summary": load_recipe(name).recipe.summary} for name in recipe_names()
    ]


_KINDS: dict[str, Callable[[Database], list[Row]]] = {
    "gpus": _gpus,
    "torch": _torch,
    "cuda": _cuda,
    "platforms": _platforms,
    "recipes": _recipes,
}


@click.command("list")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("filters", nargs=-1)
@json_option
def command(*, kind: str, filters: tuple[str, ...], as_json: bool) -> None:
    """List what is known; FILTERS are words that a row must contain, upper or lower case."""
    from envforge.capability.load import load  # noqa: PLC0415 -- --help must not load the database
    from envforge.report.listing import rows_json, rows_text  # noqa: PLC0415

    rows = [row for row in _KINDS[kind](load()) if _contains(row, filters)]
    if as_json:
        from envforge.documents import to_json  # noqa: PLC0415

        click.echo(to_json(rows_json(kind, rows)), nl=False)
    else:
        click.echo(rows_text(rows))


def _contains(row: Row, words: tuple[str, ...]) -> bool:
    text = " ".join(row.values()).lower()
    return all(word.lower() in text for word in words)
