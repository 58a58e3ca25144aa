"""The command line: flags -> request, one call down, EnvforgeError -> exit code. No logic."""

from __future__ import annotations

import errno
import importlib
import os
import sys

import click

from envforge.errors import DiskFull, EnvforgeError, Interrupted, UsageError

_COMMANDS = {
    "check": "What is this card, what runs on it, and why not the rest?",
    "explain": "Why a card gets this PyTorch, or none: rules and sources.",
    "inspect": "Which cards can this binary, wheel, environment or image really run on?",
    "list": "The cards, releases, toolkits, platforms and recipes that are known.",
    "build": "Build the PyTorch that runs on it, as a verified image.",
    "verify": "Is the image still what the lock says; does it compute on the card at hand?",
    "run": "Train on it, and get there.",
    "mirror": "Keep every input of a build for years, and build without a network.",
    "runs": "The runs there are: look at them, follow, stop, resume.",
}


class _LazyGroup(click.Group):
    """Imports a command's module only when that command is called: ``check`` must feel instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"envforge.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="envforge")
def cli() -> None:
    """PyTorch builds and training for the NVIDIA cards the ecosystem left behind."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code. Nothing but this function turns errors into text."""
    arguments = sys.argv[1:] if argv is None else argv
    try:
        code = cli.main(arguments, prog_name="envforge", standalone_mode=False, color=_color())
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the last line of defence
        return _fail(_converted(error), as_json="--json" in arguments)
    return code if isinstance(code, int) else 0


def _color() -> bool | None:
    """Read NO_COLOR and FORCE_COLOR (https://no-color.org); None: as the terminal is."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def _converted(error: BaseException) -> EnvforgeError:
    if isinstance(error, EnvforgeError):
        return error
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Interrupted("interrupted")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        # any path of any option: no door could convert it without asking at each of its uses
        return UsageError("a name is longer than file systems take", because=(str(error)[:200],))
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskFull.here(str(error))
    return _bug(error)


def _fail(error: EnvforgeError, *, as_json: bool) -> int:
    from envforge.report.errors import error_json, error_text  # noqa: PLC0415 -- only on failure

    if as_json:
        from envforge.documents import to_json  # noqa: PLC0415

        click.echo(to_json(error_json(error)), nl=False)
    click.echo(error_text(error), err=True, color=_color())
    return error.exit_code


def _bug(error: BaseException) -> EnvforgeError:
    """Keep the traceback in a file: a user is not the reader of it."""
    import traceback  # noqa: PLC0415
    from datetime import datetime, timezone  # noqa: PLC0415

    from platformdirs import user_log_path  # noqa: PLC0415

    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = user_log_path("envforge", ensure_exists=True) / f"bug-{now}.txt"
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return EnvforgeError(
        f"this is a bug in envforge: {type(error).__name__}: {error}",
        hint=f"please report it with the file {log}",
    )
