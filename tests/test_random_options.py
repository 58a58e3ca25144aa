"""Whatever is typed: an answer or a documented error, never a traceback.

``ENVFORGE_EXAMPLES=10000 pytest tests/test_random_options.py tests/test_random_documents.py`` asks
ten thousand times for every option and document; docs/verification says how that went. The commands
and their options are click's own, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envforge import assets, cli
from envforge.capability import load
from envforge.documents import to_json
from envforge.recipes import recipe_names
from envforge.sources.mirror import Manifest, Mirror
from envforge.training.record import RunRecord

EXAMPLES = int(os.environ.get("ENVFORGE_EXAMPLES", "5"))
ASKED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 9, 75, 130}
DATABASE = load.load()

Path_ = tuple[str, ...]
"""The words of a command: ``("mirror", "create")``."""


def _leaves(command: click.Command, path: Path_ = ()) -> Iterator[tuple[Path_, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        yield from _leaves(command.get_command(context, name), (*path, name))


COMMANDS = dict(_leaves(cli.cli))
PARAMETERS = {
    (path, parameter.name): parameter
    for path, command in COMMANDS.items()
    for parameter in command.params
}

CARDS = [*list(DATABASE.names)[::40], "10de:1187", "sm_35", "3.5", "gt730", "Tesla K40", "gtx760"]
VERSIONS = ["1.0.1", "2.15.0", ">=1.8,<2", "==2.*", "!=1.0", "~=1.4", "10.2", "3.6", "7", "9" * 30]
DRIVERS = ["470.256.02", "390.157", "580", "0", "99999.1", "-1", "470.x"]
VISIBLE = ["0", "0,1", "-1", "GPU-1", "MIG-x/y", "", "none", "0,0", "18446744073709551616"]
SIZES = ["4GiB", "2048MiB", "0", "-1GiB", "1e3GiB", "4 GiB", "8gb"]
FOLDERS = ["there", "missing/below", "card.so", "context", "..", "/proc/self/nothing"]
RUNS = ["runs/one", "runs/none", "runs", "there"]

WORDS: dict[str, list[str]] = {
    "archive": ["http://archive.example/debian", "file:///srv", "https://[::1", "http://"],
    "assets": ["weights=card.so", "R-50=missing", "=", "a=b=c"],
    "backend": ["docker", "classic", "shell", "apptainer"],
    "context": ["context", "context/below"],
    "cuda": VERSIONS,
    "cudnn": [*VERSIONS, "8.7", "<9"],
    "data": FOLDERS,
    "diff": ["card.so", "there", "image:a", "container:b:/c", "-"],
    "directory": ["mirror", "there", "missing"],
    "engine": ["docker", "podman"],
    "filters": [*CARDS, "GeForce", "debian"],
    "folder": RUNS,
    "gcc": VERSIONS,
    "gpu": CARDS,
    "host": ["127.0.0.1", "::1", "0.0.0.0", "256.1.1.1", "1.1"],
    "image": ["debian:12", "a@sha256:b", "envforge/torch:1.0.1"],
    "installed": ["python4", "/usr/bin/nothing", "debian:12", "./venv", "there"],
    "interpreter": ["python4", "there/python", "./card.so"],
    "jobs": ["1", "4", "0", "-1", "1e3"],
    "kernels": ["gemm", "^.*$", "(a+)+$", "(?P<x>", "[[:alpha:]]"],
    "kept": ["0" * 12, "canary", "p"],
    "kind": ["gpus", "torch", "cuda", "platforms", "recipes"],
    "lock": ["envforge.lock", "torn.lock", "missing.lock"],
    "matrix": ["fleet.yaml", "torn.lock"],
    "memory": SIZES,
    "mirror": ["mirror", "there"],
    "on": ["docker", "local"],
    "path": ["envforge.lock", "torn.lock", "missing.lock"],
    "plans": ["0" * 12, "canary", "p"],
    "platform": [row.name for row in DATABASE.platforms],
    "port": ["0", "1", "65536", "-1"],
    "profile": ["training", "minimal", "system-libs"],
    "python": VERSIONS,
    "recipe": [*recipe_names(), "./there", "canary/"],
    "root": RUNS,
    "route": ["wheel", "wheel-variant", "conda-forge", "distribution", "source", "cpu"],
    "run_dir": RUNS,
    "settings": ["variant=2017-11", "preset=short", "seed=1", "steps=1e9", "steps=-1", "=", "a"],
    "shelves": [str(assets.RECIPES), "there"],
    "source": ["there", "missing"],
    "taken": RUNS,
    "target": ["card.so", "there", "torch.whl", "debian:12", "image:x", "container:y:/z"],
    "torch": VERSIONS,
    "until": ["toolchain", "torch", "runtime"],
    "upstream": FOLDERS,
    "vram": SIZES,
    "wait_s": ["0", "nan", "inf", "-1", "1e308"],
    "wheels": FOLDERS,
}
"""For every parameter that takes a value: words it knows."""

_CARD = {"gpu": "gtx760", "torch": "1.0.1"}
BESIDE: dict[Path_, dict[str, str | bool]] = {
    ("check",): _CARD,
    ("explain",): _CARD,
    ("inspect",): {"target": "card.so", "gpu": "gtx760", "quiet": True},
    ("list",): {"kind": "cuda"},
    ("build",): {**_CARD, "dry_run": True, "context": "context"},
    ("verify",): {"path": "envforge.lock"},
    ("run",): {"recipe": "canary", "dry_run": True},
    ("mirror", "create"): {**_CARD, "directory": "made", "route": "source", "quiet": True},
    ("mirror", "prune"): {"directory": "mirror", "dry_run": True},
    ("mirror", "serve"): {"directory": "mirror"},
    ("mirror", "verify"): {"directory": "mirror"},
    ("runs", "follow"): {"folder": "runs/one"},
    ("runs", "list"): {"root": "runs"},
    ("runs", "profile"): {"folder": "runs/one"},
    ("runs", "report"): {"folder": "runs/one"},
    ("runs", "resume"): {"folder": "runs/one"},
    ("runs", "stop"): {"folder": "runs/one"},
}
"""With what each command is asked: it answers soon, needs no network and changes no system."""
LEFT_OUT = {"install_engine"}
"""Installs packages of the system where no dry run keeps it from it."""

anything = st.text(st.characters(exclude_characters="\0"), max_size=30)
"""Every code point but NUL, which no process can be given."""
bytes_ = st.binary(max_size=12).map(lambda data: os.fsdecode(data.replace(b"\0", b"")))
"""Names that are no UTF-8, as Python shows them."""
nasty = st.sampled_from(
    ["", " ", "-", "--", "\n", "$(id)", "`id`", "; id", "../../etc/passwd", "%s%n", "{0}",
     "\udcff", "\u0663.\u0665", "\uff11.\uff10", "1" * 5000, "((((", "[a-", "🂡", "\u202e", "null", "1e999"]
)  # fmt: skip


@st.composite
def spoilt(draw: st.DrawFn, known: list[str]) -> str:
    """Take something that is known and change a piece of it."""
    word = draw(st.sampled_from(known))
    at = draw(st.integers(0, len(word)))
    taken = draw(st.integers(0, 3))
    return word[:at] + draw(anything)[:3] + word[at + taken :]


def values(known: list[str]) -> st.SearchStrategy[str]:
    drawn = st.one_of(anything, bytes_, nasty, st.sampled_from(known), spoilt(known))
    return drawn.filter(_fits_the_system)


def _is_harmless(name: str, value: str) -> bool:
    """Outside the folder nothing is written or run, no name server asked, no disk looked through."""
    if name == "host":
        return "." in value or ":" in value or not value.isascii()
    if name in ("interpreter", "installed"):
        return bool(value.strip("./ \n")) and shutil.which(value) is None
    if name in ("context", "directory", "wheels", "run_dir", "folder", "root"):
        return not value.startswith("/") and ".." not in value
    return name not in ("target", "diff") or bool(value.strip("./ \n"))


def values_of(name: str) -> st.SearchStrategy[str]:
    return values(WORDS[name]).filter(lambda value: _is_harmless(name, value))


def is_switch(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.is_flag


def takes_value(parameter: click.Parameter) -> bool:
    return not is_switch(parameter)


def test_every_command_and_every_option_is_asked() -> None:
    assert set(BESIDE) == set(COMMANDS)
    assert set(WORDS) == {name for (_, name), each in PARAMETERS.items() if takes_value(each)}
    assert {
        name for path, some in BESIDE.items() for name in some if (path, name) not in PARAMETERS
    } == set()


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder of our own, without engine or network, and read the database only once."""
    folder = tmp_path_factory.mktemp("random")
    _furnish(folder)
    environment = {
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "DOCKER_HOST": f"unix://{folder}/no-engine",
        "CONTAINER_HOST": f"unix://{folder}/no-engine",
        "ENVFORGE_OFFLINE": "1",
    }
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(load, "load", return_value=DATABASE),
        contextlib.chdir(folder),
    ):
        for name in ("ENVFORGE_GPU", "ENVFORGE_DRIVER", "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        yield folder


def _furnish(folder: Path) -> None:
    """A run, a mirror, a lock, a matrix and a library for the words above to find."""
    for name in ("there", "context", "runs/one"):
        (folder / name).mkdir(parents=True)
    (folder / "card.so").write_bytes(Path(sys.executable).read_bytes()[:4096])
    (folder / "torn.lock").write_text('{"schema": "envforge.lock/1", "image"')
    (folder / "fleet.yaml").write_text('builds: {a: {gpu: gtx760, torch: "1.0.1"}}\n')
    record = RunRecord(id="1", recipe="canary", reference="canary", run_dir="runs/one", on="docker")
    (folder / "runs/one/run.json").write_text(to_json(record))
    Mirror(folder / "mirror").write(
        Manifest(kind="recipe", name="canary", title="", created="", envforge="", inputs={})
    )


def words_for(path: Path_, given: dict[str, str | bool]) -> list[str]:
    """Write values as a shell would pass them: nothing in one of them can become another option."""
    options, arguments = [], []
    for parameter in COMMANDS[path].params:
        value = given.get(str(parameter.name))
        if value is None or value is False:
            continue
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif value is True:
            options.append(parameter.opts[0])
        elif parameter.nargs > 1:
            options += [parameter.opts[0], *[str(value)] * parameter.nargs]
        else:
            long = max(parameter.opts, key=len)
            options.append(f"{long}={value}")
    return [*path, *options, "--", *arguments]


def called(*arguments: str) -> int:
    """Call the command line in process, with streams like a terminal's; an answer must be JSON."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2))
    empty = io.TextIOWrapper(io.BytesIO())  # "-" reads it
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", empty),
        _ended_at_once(),
    ):
        code = cli.main(list(arguments))
    out.flush()
    err.flush()
    said = err.buffer.getvalue().decode()
    assert code in DOCUMENTED, (arguments, said)
    assert "Traceback" not in said
    printed = out.buffer.getvalue().decode()
    if "--json" in arguments and printed and code != 2:
        json.loads(printed)
    return code


@contextlib.contextmanager
def _ended_at_once() -> Iterator[None]:
    """A command that waits for a signal (``mirror serve``) finds one; handlers are put back."""
    ends = {signal.SIGTERM, signal.SIGHUP}
    before = {number: signal.getsignal(number) for number in ends}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    os.kill(os.getpid(), signal.SIGTERM)
    try:
        yield
    finally:
        while signal.sigtimedwait(ends, 0) is not None:
            pass
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)


VALUED = [key for key, each in PARAMETERS.items() if takes_value(each)]


@pytest.mark.parametrize(("path", "name"), VALUED, ids=[".".join((*p, n)) for p, n in VALUED])
def test_any_value(path: Path_, name: str) -> None:
    @ASKED
    @given(values_of(name), st.booleans())
    def ask(value: str, as_json: bool) -> None:  # noqa: FBT001
        given = {**BESIDE[path], name: value, "as_json": as_json}
        called(*words_for(path, given))

    ask()


@pytest.mark.parametrize("path", COMMANDS, ids=".".join)
def test_any_options_together(path: Path_) -> None:
    names = [str(each.name) for each in COMMANDS[path].params if each.name not in LEFT_OUT]
    wishes = {
        name: st.booleans() if is_switch(PARAMETERS[path, name]) else values_of(name)
        for name in names
    }

    @ASKED
    @given(st.data(), st.sets(st.sampled_from(names), max_size=4))
    def ask(data: st.DataObject, chosen: set[str]) -> None:
        drawn = {name: data.draw(wishes[name], name) for name in sorted(chosen)}
        safe = {name: True for name, on in BESIDE[path].items() if on is True}
        called(*words_for(path, {**BESIDE[path], **drawn, **safe}))

    ask()


VARIABLES = {
    "ENVFORGE_GPU": (CARDS, ("check",), {"torch": "1.0.1"}),
    "ENVFORGE_DRIVER": (DRIVERS, ("check",), {"gpu": "gtx1080", "torch": "1.13.1"}),
    "CUDA_VISIBLE_DEVICES": (VISIBLE, ("check",), {}),
    "NO_COLOR": (["1", ""], ("check",), _CARD),
    "FORCE_COLOR": (["1", ""], ("check",), _CARD),
    "DOCKER_HOST": (["unix:///x", "tcp://[", "ssh://a b", "npipe:"], ("verify",), {}),
    "DOCKER_CONTEXT": (["default", "../x"], ("verify",), {}),
}
"""Variables that no option has: values they know, and who is asked with them."""
BOUND = {
    str(each.envvar): (WORDS.get(str(each.name), ["1", "0", "yes"]), path, BESIDE[path])
    for (path, _), each in PARAMETERS.items()
    if each.envvar is not None and path == ("build",)
}


@pytest.mark.parametrize("variable", {**VARIABLES, **BOUND})
def test_any_value_of_a_variable(variable: str) -> None:
    known, path, beside = {**VARIABLES, **BOUND}[variable]

    @ASKED
    @given(values(known))
    def ask(value: str) -> None:
        with mock.patch.dict(os.environ, {variable: value}):
            called(*words_for(path, beside))

    ask()


def _fits_the_system(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True
