"""``envforge build``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envforge.cli.options import json_option, quiet_option, request_options, to_request


@click.command("build")
@request_options
@click.option("--dry-run", is_flag=True, help="Decide and render only: no network, no engine.")
@click.option(
    "-o", "--output", "context", type=click.Path(path_type=Path), help="Where the context goes."
)
@click.option(
    "--until",
    type=click.Choice(["toolchain", "torch", "runtime"]),
    default="runtime",
    show_default=True,
    help="Stop after that stage.",
)
@click.option(
    "--locked",
    is_flag=True,
    help="Build what the lock says or fail; with no other wish, the lock decides.",
)
@click.option("--lock", type=click.Path(path_type=Path), default=Path("envforge.lock"))
@click.option("--archive", metavar="URL", help="Address of the distribution's archive.")
@click.option("--profile", metavar="NAME", help="Feature profile of a build from source.")
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A source tree you have, instead of the release's own.",
)
@click.option("--cudnn", metavar="SPEC", help="Build with cuDNN, from its published wheel.")
@click.option(
    "--torchvision/--no-torchvision",
    default=True,
    help="Build the torchvision of the release, too.  [default: where its sources are known]",
)
@click.option(
    "--wheel", "wheels", type=click.Path(path_type=Path), help="Put the built wheel there."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    envvar="MAX_JOBS",
    help="Compilers at once.  [default: what cores and memory allow]",
)
@click.option(
    "--install-engine", is_flag=True, help="Install and start Docker and mmdebstrap first (apt)."
)
@json_option
@quiet_option
def command(
    *, dry_run: bool, install_engine: bool, as_json: bool, quiet: bool, **flags: Any
) -> None:
    """Build the PyTorch that runs on a card: an image, verified from the inside, and a lock."""
    from envforge.build import BuildRequest, build, prepare  # noqa: PLC0415
    from envforge.capability.load import load  # noqa: PLC0415
    from envforge.check import sole_card  # noqa: PLC0415
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.image.install import install_engine as install  # noqa: PLC0415
    from envforge.image.render import write_context  # noqa: PLC0415
    from envforge.report.build import (  # noqa: PLC0415
        dry_run_json,
        dry_run_text,
        outcome_text,
        plan_text,
    )
    from envforge.report.progress import progress  # noqa: PLC0415

    _end_on_sigterm()
    database = load()
    # Every other flag is called as the field it fills.
    others = {name: flags[name] for name in BuildRequest._fields[1:]}
    wanted = BuildRequest(None, **others)
    if not (flags["locked"] and _nothing_is_wished()):
        request = to_request(flags)
        if request.route != "cpu":
            request = request._replace(card=sole_card(database, flags["gpu"]))
        wanted = wanted._replace(request=request)
    prepared = prepare(database, wanted)
    if dry_run:
        write_context(prepared.context, prepared.folder)
        click.echo(dry_run_json(prepared) if as_json else dry_run_text(prepared), nl=not as_json)
        return
    with progress(quiet=quiet) as on_event:
        if not quiet:
            click.echo(plan_text(prepared), err=True)
        if install_engine:
            install(on_event)
        outcome = build(prepared, wanted, on_event)
    click.echo(
        to_json(outcome.lock) if as_json else outcome_text(outcome, str(wanted.lock)),
        nl=not as_json,
    )


_DECIDED_BY_A_LOCK = (
    *("gpu", "cpu", "torch", "cuda", "python", "gcc", "platform", "route", "ptx"),
    *("until", "profile", "cudnn", "torchvision"),
)


def _nothing_is_wished() -> bool:
    """Whether no flag was given that a lock decides, too."""
    context = click.get_current_context()
    default = click.core.ParameterSource.DEFAULT
    return all(context.get_parameter_source(name) is default for name in _DECIDED_BY_A_LOCK)


def _end_on_sigterm() -> None:
    """End a build as Ctrl-C does where a scheduler or a closed terminal ends envforge."""
    import signal  # noqa: PLC0415

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)
