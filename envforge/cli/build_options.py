"""The flags of commands that build or run something: what is built, from where, by which engine."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import click

from envforge.cli.options import F

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
