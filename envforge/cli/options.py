"""The one table of flags: the same word everywhere; a command takes what applies.

Those that decide how something is built or run stand in :mod:`envforge.cli.build_options`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from envforge.errors import UsageError
from envforge.resolver.model import ROUTES, Request, RouteKind

if TYPE_CHECKING:
    from envforge.capability.database import Database

F = TypeVar("F", bound=Callable[..., Any])


def complete_cards(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.capability.load import load  # noqa: PLC0415

    return [name for name in load().names if name.startswith(typed.lower())][:50]


_KNOWN: dict[str, Callable[[Database], Iterable[str]]] = {
    "torch": lambda database: (row.version for row in database.releases),
    "cuda": lambda database: (row.version for row in database.toolkits),
    "python": lambda database: (
        python for row in database.releases for python in row.source_build.pythons
    ),
    "gcc": lambda database: (row.version for each in database.platforms for row in each.compilers),
    "platform": lambda database: (row.name for row in database.platforms),
}


def _complete(_ctx: click.Context, param: click.Parameter, typed: str) -> list[str]:
    from envforge.capability.load import load  # noqa: PLC0415

    known = dict.fromkeys(_KNOWN[str(param.name)](load()))
    return [word for word in known if word.startswith(typed)]


_REQUEST = (
    click.option(
        "--gpu", metavar="CARD", help="Name, PCI id or sm_35.", shell_complete=complete_cards
    ),
    click.option("--cpu", is_flag=True, help="No card: short for --route cpu."),
    click.option("--torch", metavar="SPEC", help="1.0.1 or '>=1.8,<2'.", shell_complete=_complete),
    click.option("--cuda", metavar="SPEC", help="CUDA toolkit.", shell_complete=_complete),
    click.option("--python", metavar="SPEC", help="Python.", shell_complete=_complete),
    click.option("--gcc", metavar="SPEC", help="Host compiler.", shell_complete=_complete),
    click.option("--platform", metavar="NAME", help="Base system.", shell_complete=_complete),
    click.option("--route", type=click.Choice(ROUTES), help="Only this route."),
    click.option("--ptx", is_flag=True, help="Add PTX to a source build."),
)


def request_options(command: F) -> F:
    """Add the flags that make a :class:`Request`."""
    for option in reversed(_REQUEST):
        command = option(command)
    return command


def json_option(command: F) -> F:
    """Add ``--json``: the answer on stdout, diagnostics on stderr."""
    return click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")(command)


def progress_options(command: F) -> F:
    """Add ``--quiet`` and ``-v``: how much of the work is shown, on stderr."""

    @functools.wraps(command)
    def within(*args: Any, **flags: Any) -> Any:
        if flags["quiet"] and flags["verbose"]:
            raise UsageError("--quiet and --verbose contradict each other")
        return command(*args, **flags)

    quiet = click.option("-q", "--quiet", is_flag=True, help="No progress.")
    verbose = click.option(
        "-v", "--verbose", is_flag=True, help="Show every line of what is at work, too."
    )
    return cast("F", quiet(verbose(within)))


def to_request(flags: dict[str, Any]) -> Request:
    """Turn the flags of :func:`request_options` into a request without its card.

    UsageError where ``--cpu`` meets another route or a card.
    """
    route: RouteKind | None = flags["route"]
    if flags["cpu"]:
        if route not in (None, "cpu"):
            raise UsageError(f"--cpu and --route {route} contradict each other")
        route = "cpu"
    if route == "cpu" and flags["gpu"]:
        raise UsageError("--cpu computes on no card: leave out --gpu")
    return Request(
        torch=flags["torch"],
        cuda=flags["cuda"],
        gcc=flags["gcc"],
        python=flags["python"],
        platform=flags["platform"],
        route=route,
        ptx=flags["ptx"],
    )
