"""Which Python of this machine ``--torch`` would make an environment with, and why none."""

from __future__ import annotations

import sys

import pytest

from envforge.capability.load import load
from envforge.errors import HostMismatch, UnknownName
from envforge.events import ignore
from envforge.image.plan import find_requirements
from envforge.recipes import load_recipe
from envforge.run.environment import make_interpreter

HERE = "cp{0}{1}-cp{0}{1}".format(*sys.version_info[:2])


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """This Python is the only program on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python{}.{}".format(*sys.version_info[:2])).symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    assert not list(tmp_path.glob("cache/**/*.whl")), "nothing is fetched for what cannot be made"


def releases(tag):
    """Releases with a default wheel for it whose companions are not pinned."""
    database = load()
    return [
        wheel.torch
        for wheel in database.wheels
        if wheel.variant is None
        and tag in [file.tag for file in wheel.files]
        and not find_requirements(database, wheel.torch, tag)
    ]


def test_a_torch_whose_companions_are_not_pinned_is_refused_before_it_is_fetched():
    """1.0.1 does not import without numpy, and today's not without a dozen others."""
    torch = releases(HERE)[0]
    with pytest.raises(HostMismatch) as caught:
        make_interpreter(torch, load_recipe("canary"), ignore)
    assert caught.value.what == f"no Python of this machine can be given torch {torch}"
    assert f"its wheel for {HERE}: what torch needs there is not pinned" in caught.value.because


def test_where_no_python_is_of_a_wheel_each_is_named():
    with pytest.raises(HostMismatch) as caught:
        make_interpreter("1.0.1", load_recipe("masktextspotter-train"), ignore)
    assert caught.value.because == tuple(
        f"its wheel for cp{version}-cp{version}m: no such Python on PATH"
        for version in (37, 36, 35)
    )


def test_a_release_that_is_not_known_is_refused_by_name():
    with pytest.raises(UnknownName):
        make_interpreter("1.0.7", load_recipe("canary"), ignore)


@pytest.mark.parametrize("torch", ["1.0.0", "1.0.1", "1.1.0", "1.2.0"])
def test_what_old_releases_need_is_pinned_for_the_pythons_people_have(torch):
    for tag in ("cp36-cp36m", "cp37-cp37m"):
        assert "numpy" in [row.project for row in find_requirements(load(), torch, tag)]
