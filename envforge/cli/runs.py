"""``envforge runs``."""

from __future__ import annotations

from pathlib import Path

import click

from envforge.cli.options import json_option, progress_options

_FOLDER = click.argument("folder", type=click.Path(path_type=Path), metavar="RUN_DIR")


@click.group("runs")
def command() -> None:
    """The runs there are: look at them, follow, stop, resume."""


@command.command("list")
@click.argument("root", type=click.Path(path_type=Path), default=Path("runs"))
@json_option
def list_command(*, root: Path, as_json: bool) -> int:
    """List the runs below ROOT, which is runs/ unless it is given."""
    from envforge.documents import to_json  # noqa: PLC0415 -- --help must be quick
    from envforge.report.progress import progress  # noqa: PLC0415
    from envforge.report.runs import runs_text  # noqa: PLC0415
    from envforge.training.runs import list_runs  # noqa: PLC0415

    with progress(quiet=False) as on_event:
        runs = list(list_runs(root, on_event))
    if as_json:
        rows = [{"folder": str(seen.folder), "held": seen.held, "run": seen.record}
                for seen in runs]  # fmt: skip
        click.echo(to_json({"schema": "envforge.runs/1", "runs": rows}), nl=False)
    else:
        click.echo(runs_text(runs))
    return 0


@command.command("follow")
@_FOLDER
@progress_options
def follow_command(*, folder: Path, quiet: bool, verbose: bool) -> int:
    """Show a run as it goes, until nobody is at work in it. Ctrl-C ends only the looking."""
    from envforge.report.run import outcome_text, run_progress  # noqa: PLC0415
    from envforge.run import require_success  # noqa: PLC0415
    from envforge.training.runs import follow  # noqa: PLC0415

    with run_progress(quiet=quiet, verbose=verbose) as on_event:
        record = follow(folder, on_event)
    require_success(record)
    click.echo(outcome_text(record))
    return 0


@command.command("stop")
@_FOLDER
@click.option("--now", is_flag=True, help="Without waiting for a checkpoint.")
@click.option("--wait", "wait_s", default=120.0, show_default=True, help="Seconds to wait for it.")
def stop_command(*, folder: Path, now: bool, wait_s: float) -> int:
    """Ask the envforge at work there to stop after a checkpoint, as Ctrl-C does."""
    from envforge.training.runs import stop  # noqa: PLC0415

    record = stop(folder, now=now, wait_s=wait_s)
    click.echo(f"{record.state.lower()} at step {record.last.last_iteration or 0}")
    return 0


@command.command("resume")
@_FOLDER
@progress_options
def resume_command(*, folder: Path, quiet: bool, verbose: bool) -> int:
    """Go on with a run where it was, as it was."""
    from envforge.cli.run import command as run_command  # noqa: PLC0415
    from envforge.training.runs import see  # noqa: PLC0415

    words = ["--run-dir", str(folder), *["--quiet"] * quiet, *["--verbose"] * verbose]
    words += ["--", see(folder).record.reference]
    code = run_command.main(words, standalone_mode=False)
    return int(code or 0)


@command.command("profile")
@_FOLDER
@json_option
def profile_command(*, folder: Path, as_json: bool) -> int:
    """Where the time of a run goes: GPU, processors or disks, and what to change."""
    from envforge.documents import to_json  # noqa: PLC0415
    from envforge.report.run_verdict import advice, profile_text  # noqa: PLC0415
    from envforge.training.bottleneck import find_bottleneck  # noqa: PLC0415
    from envforge.training.record import SERIES  # noqa: PLC0415
    from envforge.training.runs import see  # noqa: PLC0415
    from envforge.training.series import read_series  # noqa: PLC0415

    see(folder)
    found = find_bottleneck(read_series(folder / SERIES))
    if as_json:
        answer = {"schema": "envforge.profile/1", **found._asdict(), "advice": advice(found)}
        click.echo(to_json(answer), nl=False)
    else:
        click.echo(profile_text(found))
    return 0


@command.command("report")
@_FOLDER
def report_command(*, folder: Path) -> int:
    """Write report.html anew, from what lies in the run's directory."""
    import msgspec  # noqa: PLC0415

    from envforge.report.run_page import write_page  # noqa: PLC0415
    from envforge.training.runs import see  # noqa: PLC0415

    moved = msgspec.structs.replace(see(folder).record, run_dir=str(folder.resolve()))
    click.echo(str(write_page(moved)))
    return 0
