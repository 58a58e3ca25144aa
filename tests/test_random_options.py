"""Whatever is typed: an answer or a documented error, never a traceback.

``ENVFORGE_EXAMPLES=10000 pytest tests/test_random_options.py tests/test_random_documents.py`` asks
ten thousand times for every option and document; docs/verification says how that went.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envforge import cli
from envforge.capability import load

EXAMPLES = int(os.environ.get("ENVFORGE_EXAMPLES", "25"))
ASKED = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 9}
DATABASE = load.load()

CARDS = [*list(DATABASE.names)[::40], "10de:1187", "sm_35", "3.5", "gt730", "Tesla K40", "gtx760"]
VERSIONS = ["1.0.1", "2.15.0", ">=1.8,<2", "==2.*", "!=1.0", "~=1.4", "10.2", "3.6", "7", "9" * 30]
PLATFORMS = [row.name for row in DATABASE.platforms]
ROUTES = ["wheel", "wheel-variant", "conda-forge", "distribution", "source", "cpu"]
DRIVERS = ["470.256.02", "390.157", "580", "0", "99999.1", "-1", "470.x"]
VISIBLE = ["0", "0,1", "-1", "GPU-1", "MIG-x/y", "", "none", "0,0", "18446744073709551616"]

anything = st.text(st.characters(exclude_characters="\0"), max_size=30)
"""Every code point but NUL, which no process can be given: all scripts, and lone surrogates, which
stand for the bytes of a name that is no UTF-8."""
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
    return st.one_of(anything, nasty, st.sampled_from(known), spoilt(known))


def _is_no_tree(target: str) -> bool:
    """A whole file system takes minutes to look through, and is no random input."""
    return bool(target.strip("./ \n"))


OPTIONS = {
    "--gpu": values(CARDS),
    "--torch": values(VERSIONS),
    "--cuda": values(VERSIONS),
    "--python": values(VERSIONS),
    "--gcc": values(VERSIONS),
    "--platform": values(PLATFORMS),
    "--route": values(ROUTES),
}
WISHES = st.fixed_dictionaries({}, optional=OPTIONS)
SWITCHES = st.lists(
    st.sampled_from(["--ptx", "--cpu", "--all", "--json", "--pip-args"]), max_size=3
)


@pytest.fixture(scope="module", autouse=True)
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder of our own, without an engine, and read the database only once."""
    folder = tmp_path_factory.mktemp("random")
    environment = {
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "DOCKER_HOST": f"unix://{folder}/no-engine",
    }
    with (
        mock.patch.dict(os.environ, environment),
        mock.patch.object(load, "load", return_value=DATABASE),
        contextlib.chdir(folder),
    ):
        for name in ("ENVFORGE_GPU", "ENVFORGE_DRIVER", "CUDA_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        yield folder


def called(*arguments: str) -> int:
    """Call the command line in process, with streams like a terminal's; an answer must be JSON."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors="replace") for _ in range(2))
    empty = io.TextIOWrapper(io.BytesIO())  # "-" reads it
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", empty),
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


@pytest.mark.parametrize("option", OPTIONS)
def test_any_value_of_an_option(option: str) -> None:
    beside = () if option == "--gpu" else ("--gpu", "gtx760")

    @ASKED
    @given(OPTIONS[option], st.booleans())
    def ask(value: str, as_json: bool) -> None:  # noqa: FBT001
        called("check", f"{option}={value}", *beside, *(["--json"] if as_json else []))

    ask()


@ASKED
@given(WISHES, SWITCHES)
def test_any_options_together(wishes: dict[str, str], switches: list[str]) -> None:
    called("check", *switches, *(f"{option}={value}" for option, value in wishes.items()))


@ASKED
@given(WISHES, st.booleans())
def test_any_options_of_explain_together(wishes: dict[str, str], as_json: bool) -> None:  # noqa: FBT001
    called("explain", *["--json"] * as_json, *(f"{name}={value}" for name, value in wishes.items()))


@ASKED
@given(values(["python4", "/usr/bin/nothing", "debian:12", "./venv"]).filter(_is_no_tree))
def test_any_interpreter_environment_or_image(target: str) -> None:
    called("check", "--gpu", "gtx760", "--torch", "1.0.1", f"--installed={target}")


@ASKED
@given(values(["gpus", "torch", "cuda", "platforms"]), st.lists(values(CARDS), max_size=3))
def test_any_list_and_filters(kind: str, words: list[str]) -> None:
    called("list", "--", kind, *words)


@ASKED
@given(values(["libtorch.so", "torch.whl", "debian:12"]).filter(_is_no_tree), values(CARDS))
def test_any_target_of_inspect(target: str, gpu: str) -> None:
    called("inspect", "--quiet", f"--gpu={gpu}", "--", target)


@pytest.mark.parametrize(
    ("name", "known", "beside"),
    [
        ("ENVFORGE_GPU", CARDS, ("--torch", "1.0.1")),
        ("ENVFORGE_DRIVER", DRIVERS, ("--gpu", "gtx1080", "--torch", "1.13.1")),
        ("CUDA_VISIBLE_DEVICES", VISIBLE, ()),
        ("NO_COLOR", ["1", ""], ("--gpu", "gtx760", "--torch", "1.0.1")),
    ],
)
def test_any_value_of_a_variable(name: str, known: list[str], beside: tuple[str, ...]) -> None:
    @ASKED
    @given(values(known).filter(_fits_the_system))
    def ask(value: str) -> None:
        with mock.patch.dict(os.environ, {name: value}):
            called("check", *beside)

    ask()


def _fits_the_system(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize(
    "option", ["--output", "--lock", "--archive", "--profile", "--jobs", "--until"]
)
def test_any_value_of_an_option_of_build(option: str, apart: Path) -> None:
    known = {
        "--output": [str(apart / "context")],
        "--lock": [str(apart / "envforge.lock")],
        "--archive": ["http://archive.example/debian", "file:///srv"],
        "--profile": ["training", "minimal"],
        "--jobs": ["1", "4", "0", "-1"],
        "--until": ["toolchain", "torch", "runtime"],
    }[option]
    beside = [] if option == "--output" else ["--output", str(apart / "context")]

    @ASKED
    @given(values(known).filter(lambda value: not value.startswith("/") or option != "--output"))
    def ask(value: str) -> None:
        wanted = ["--gpu", "gtx760", "--torch", "1.0.1", "--dry-run", *beside]
        called("build", *wanted, f"{option}={value}")

    ask()
