from __future__ import annotations

import pytest

from envforge.errors import PatchError
from envforge.recipes.document import Override
from envforge.recipes.value import check_old_values, edit_yaml, same, upstream_value

OPTIONS = """
import argparse
p = argparse.ArgumentParser()
p.add_argument('--ngf', type=int, default=64)
p.add_argument('--lr', default=0.0002)
p.add_argument('--most', type=int, default=float("inf"))
p.add_argument('--flip', action='store_true')
p.add_argument('--name', type=str)
p.set_defaults(ngf=32)
"""
DEFAULTS = """
from yacs.config import CfgNode as CN
_C = CN()
_C.SOLVER = CN()
_C.SOLVER.WARMUP_ITERS = 500
_C.SOLVER.STEPS = (30000,)
"""
CONFIG = """\
SOLVER:
  BASE_LR: 0.01   # for eight
  STEPS: (100000, 200000)
  BIAS: true
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "options.py").write_text(OPTIONS)
    (tmp_path / "defaults.py").write_text(DEFAULTS)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path


def override(form, key, upstream, file="options.py", **others):
    stated = {"form": form, "key": key, "upstream": upstream, "file": file}
    return Override(**stated, value="x", why="y", **others)


@pytest.mark.parametrize(
    ("form", "key", "file", "value"),
    [
        ("argparse", "--ngf", "options.py", 32),
        ("argparse", "--lr", "options.py", 0.0002),
        ("argparse", "--most", "options.py", "float('inf')"),
        ("argparse", "--flip", "options.py", False),
        ("argparse", "--name", "options.py", None),
        ("yaml", "SOLVER.BASE_LR", "config.yaml", 0.01),
        ("yaml", "SOLVER.BIAS", "config.yaml", True),
        ("yacs", "SOLVER.STEPS", "config.yaml", "(100000, 200000)"),
        ("yacs", "SOLVER.WARMUP_ITERS", "config.yaml", 500),
    ],
)
def test_upstreams_own_value_is_read_and_nothing_of_it_is_run(checkout, form, key, file, value):
    stated = override(form, key, None, file, otherwise="defaults.py" if form == "yacs" else None)
    assert upstream_value(stated, checkout) == value


@pytest.mark.parametrize(
    ("found", "stated", "equal"),
    [
        (0.0002, "0.0002", True),
        (64, 64, True),
        (64, "64", True),
        (64, 63, False),
        (1, True, False),
        (False, False, True),
        ("(100000, 200000)", "(100000,200000)", True),
        ([100000, 200000], "(100000, 200000)", True),
        ("unet_256", "unet_256", True),
        ("unet_256", "unet_128", False),
        (1.0, 1, False),
    ],
)
def test_values_are_compared_as_upstream_would_read_them(found, stated, equal):
    assert same(found, stated) is equal


def test_every_value_that_is_another_one_is_named_with_its_file(checkout):
    wrong = (
        override("argparse", "--ngf", 64),
        override("argparse", "--ndf", 64),
        override("yaml", "SOLVER.MAX_ITER", 1, "config.yaml"),
        override("yacs", "SOLVER.GAMMA", 1, "config.yaml", otherwise="defaults.py"),
        override("yacs", "SOLVER.GAMMA", 1, "config.yaml"),
        override("argparse", "--lr", 1, "gone.py"),
        override("argparse", "--lr", "0.0002"),
    )
    with pytest.raises(PatchError) as caught:
        check_old_values(wrong, checkout)
    assert caught.value.exit_code == 5
    assert caught.value.because == (
        "options.py: --ngf: 64 was expected, 32 stands there",
        "options.py: --ndf: upstream has no such option there",
        "config.yaml: SOLVER.MAX_ITER: upstream has no such key there",
        "config.yaml: SOLVER.GAMMA: upstream has no such key, nor has defaults.py",
        "config.yaml: SOLVER.GAMMA: upstream has no such key there",
        "gone.py: --lr: there is no such file (No such file or directory)",
    )


def test_code_that_this_python_cannot_parse_is_said(checkout):
    (checkout / "options.py").write_text("x.cuda(0, async=True)\n")
    with pytest.raises(LookupError, match="cannot be parsed: invalid syntax"):
        upstream_value(override("argparse", "--lr", 1), checkout)


@pytest.mark.parametrize(
    ("form", "text", "said"),
    [
        ("yaml", "a: " + "[" * 5000, "nested deeper"),
        ("yaml", "a: 2024-13-45", "cannot be parsed: month must be in"),
        ("argparse", "x = " + "(" * 5000, "cannot be parsed: too many nested|nested deeper"),
        (
            "argparse",
            "p.add_argument('a', default=" + "-" * 2500 + "1)",
            "nested deeper|cannot be parsed",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_said(checkout, form, text, said):
    (checkout / "options.py").write_text(text)
    with pytest.raises(LookupError, match=said):
        upstream_value(override(form, "a", 1, file="options.py"), checkout)


def test_a_text_that_is_nested_too_deeply_is_compared_as_text():
    assert not same("[" * 5000, "[]")


def test_a_yaml_value_is_edited_and_the_rest_of_the_file_stays(checkout):
    edit_yaml(override("yaml", "SOLVER.BASE_LR", "0.01", "config.yaml"), "0.00125", checkout)
    assert (checkout / "config.yaml").read_text() == CONFIG.replace("0.01 ", "0.00125 ")
