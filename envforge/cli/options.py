"""The one table of flags: the same word everywhere; a command takes what applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from envforge.errors import UsageError
from envforge.resolver.model import ROUTES, Request, RouteKind

F = TypeVar("F", bound=Callable[..., Any])


def complete_cards(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.capability.load import load  # noqa: PLC0415

    return [name for name in load().names if name.startswith(typed.lower())][:50]


def _complete_torch(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.capability.load import load  # noqa: PLC0415

    versions = [release.version for release in load().releases]
    return [version for version in versions if version.startswith(typed)]


def _complete_platform(_ctx: click.Context, _param: click.Parameter, typed: str) -> list[str]:
    from envforge.capability.load import load  # noqa: PLC0415

    names = [platform.name for platform in load().platforms]
    return [name for name in names if name.startswith(typed)]


_REQUEST = (
    click.option(
        "--gpu", metavar="CARD", help="Name, PCI id or sm_35.", shell_complete=complete_cards
    ),
    click.option("--cpu", is_flag=True, help="No card: short for --route cpu."),
    click.option(
        "--torch", metavar="SPEC", help="1.0.1 or '>=1.8,<2'.", shell_complete=_complete_torch
    ),
    click.option("--cuda", metavar="SPEC", help="CUDA toolkit."),
    click.option("--python", metavar="SPEC", help="Python."),
    click.option("--gcc", metavar="SPEC", help="Host compiler."),
    click.option(
        "--platform", metavar="NAME", help="Base system.", shell_complete=_complete_platform
    ),
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


def quiet_option(command: F) -> F:
    """Add ``--quiet``."""
    option = click.option("-q", "--quiet", is_flag=True, help="No progress.")
    return option(command)


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
