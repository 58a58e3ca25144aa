"""The one table of flags: the same word everywhere; a command takes what applies."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
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


_PLAN = (
    click.option(
        "--until",
        type=click.Choice(["toolchain", "torch", "runtime"]),
        default="runtime",
        show_default=True,
        help="Stop after that stage.",
    ),
    click.option(
        "--locked",
        is_flag=True,
        help="Build what the lock says or fail; with no other wish, the lock decides.",
    ),
    click.option(
        "--lock",
        type=click.Path(path_type=Path, dir_okay=False),
        default=Path("envforge.lock"),
        show_default=True,
    ),
    click.option("--archive", metavar="URL", help="Address of the distribution's archive."),
    click.option("--profile", metavar="NAME", help="Feature profile of a build from source."),
    click.option(
        "--source",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        help="A source tree you have, instead of the release's own.",
    ),
    click.option("--cudnn", metavar="SPEC", help="Build with cuDNN, from its published wheel."),
    click.option(
        "--torchvision/--no-torchvision",
        default=True,
        help="Build the torchvision of the release, too.  [default: where its sources are known]",
    ),
    click.option(
        "--jobs",
        type=click.IntRange(min=1),
        envvar="MAX_JOBS",
        help="Compilers at once.  [default: what cores and memory allow]",
    ),
)


def plan_options(command: F) -> F:
    """Add the flags that decide, with those of the request, what is built."""
    for option in reversed(_PLAN):
        command = option(command)
    return command


def _short_for(variables: Mapping[str, str]) -> Callable[[F], F]:
    """Let flags, by their names, be short for variables that doors deep below read.

    They are set while the command runs: a parse that fails sets nothing.
    """

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def within(*args: Any, **flags: Any) -> Any:
            given = {variable: flags.pop(name) for name, variable in variables.items()}
            stated = {name: "1" if value is True else str(value) for name, value in given.items()
                      if value}  # fmt: skip
            with _variables(stated):
                return command(*args, **flags)

        return cast("F", within)

    return decorate


@contextlib.contextmanager
def _variables(stated: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in stated}
    os.environ.update(stated)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def mirror_options(command: F) -> F:
    """Add ``--mirror`` and ``--offline``; ``sources.store.default_store`` reads their variables."""
    mirror = click.option(
        "--mirror",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        envvar="ENVFORGE_MIRROR",
        metavar="DIR",
        help="Take what that mirror has before asking the network.",
    )
    offline = click.option(
        "--offline",
        is_flag=True,
        envvar="ENVFORGE_OFFLINE",
        help="Ask no network: what neither store nor mirror has is an error.",
    )
    short = _short_for({"mirror": "ENVFORGE_MIRROR", "offline": "ENVFORGE_OFFLINE"})
    return mirror(offline(short(command)))


def engine_option(command: F) -> F:
    """Add ``--engine``; ``image.engine.connect`` reads its variable."""
    return click.option(
        "--engine",
        type=click.Choice(["docker", "podman"]),
        envvar="ENVFORGE_ENGINE",
        help="Who builds and runs containers.  [default: docker]",
    )(_short_for({"engine": "ENVFORGE_ENGINE"})(command))


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
