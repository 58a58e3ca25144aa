"""The command line: flags -> request, one call down, EnvforgeError -> exit code. No logic."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from envforge.errors import DiskFull, EnvforgeError, Interrupted, UsageError

if TYPE_CHECKING:
    from pathlib import Path

_CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
"""What a file system says of a place where nothing may be read or written; never a bug of ours."""

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
        return _say_usage(error, as_json="--json" in arguments)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 -- the last line of defence
        return _fail(_converted(error, arguments), as_json="--json" in arguments)
    return code if isinstance(code, int) else 0


def _color() -> bool | None:
    """Read NO_COLOR and FORCE_COLOR (https://no-color.org); None: as the terminal is."""
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def _say_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Give whoever reads JSON the document of every other error, too."""
    if as_json:
        context = getattr(error, "ctx", None)  # of a usage error, where a command was found
        hint = f"{context.command_path} --help" if context else ""
        _echo_json(UsageError(error.format_message(), hint=hint))
    return error.exit_code


def _converted(error: BaseException, arguments: list[str]) -> EnvforgeError:
    if isinstance(error, EnvforgeError):
        return error
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return Interrupted(
            "stopped before its end", hint="the same command goes on with what is finished"
        )
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        # bytes that are no UTF-8, which come from names only, where one must be sent or written
        return UsageError("a name is no UTF-8", because=(ascii(error.object)[:200],))
    told = _told_by_system(error, arguments) if isinstance(error, OSError) else None
    return told or _bug(error)


def _told_by_system(error: OSError, arguments: list[str]) -> EnvforgeError | None:
    if error.errno == errno.ENAMETOOLONG:
        # any path of any option: no door could convert it without asking at each of its uses
        return UsageError("a name is longer than file systems take", because=(str(error)[:200],))
    if DiskFull.is_told_by(error):
        return DiskFull.here(str(error), *_full_places(arguments))
    if error.errno in _CLOSED and error.filename:
        return UsageError(
            f"{error.filename} cannot be used",
            because=(str(error.strerror),),
            hint="other places: the options of the command, XDG_CACHE_HOME, XDG_STATE_HOME, TMPDIR",
        )
    return None


def _full_places(arguments: list[str]) -> tuple[str, ...]:
    """Name the full disks: a write that failed knows no path."""
    import tempfile  # noqa: PLC0415 -- only on failure
    from pathlib import Path  # noqa: PLC0415

    from platformdirs import user_cache_path  # noqa: PLC0415

    from envforge.hardware.room import find_full  # noqa: PLC0415

    given = [Path(word) for word in arguments if word and not word.startswith("-")]
    places = [user_cache_path("envforge"), Path(tempfile.gettempdir()), Path(), *given]
    return tuple(f"{room.place}: {room.free_bytes >> 20} MiB free" for room in find_full(places))


def _fail(error: EnvforgeError, *, as_json: bool) -> int:
    from envforge.report.errors import error_text  # noqa: PLC0415 -- only on failure

    if as_json:
        _echo_json(error)
    click.echo(error_text(error), err=True, color=_color())
    return error.exit_code


def _echo_json(error: EnvforgeError) -> None:
    from envforge.documents import to_json  # noqa: PLC0415 -- only on failure
    from envforge.report.errors import error_json  # noqa: PLC0415

    click.echo(to_json(error_json(error)), nl=False)


def _bug(error: BaseException) -> EnvforgeError:
    """Keep the traceback in a file: a user is not the reader of it."""
    import traceback  # noqa: PLC0415

    what = f"this is a bug in envforge: {type(error).__name__}: {error}"
    text = "".join(traceback.format_exception(error))
    try:
        return EnvforgeError(what, hint=f"please report it with the file {_kept(text)}")
    except OSError:  # no place for a file
        return EnvforgeError(what, because=(text,), hint="please report it with these lines")


def _kept(text: str) -> Path:
    from datetime import datetime, timezone  # noqa: PLC0415

    from platformdirs import user_log_path  # noqa: PLC0415

    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    log = user_log_path("envforge", ensure_exists=True) / f"bug-{now}.txt"
    log.write_text(text, encoding="utf-8")
    return log
