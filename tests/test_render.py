"""Rendered contexts: goldens of the four first plans, quoting, and the same bytes every time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.errors import SourceError
from envforge.image import render as rendering
from envforge.image.plan import Wanted, make_plan
from envforge.image.render import arch_list, render, write_context
from envforge.resolver import Request, resolve

DATABASE = load()
GOLDEN = Path(__file__).parent / "golden"
PLANS = {
    "gtx780-torch-1.0.1-wheel": ({"gpu": "gtx780", "torch": "1.0.1"}, "runtime"),
    "gtx780-torch-1.13.1-source": (
        {"gpu": "gtx780", "torch": "1.13.1", "route": "source"},
        "toolchain",
    ),
    "gtx760-torch-1.0.1-source": ({"gpu": "gtx760", "torch": "1.0.1"}, "runtime"),
    "cpu-torch-1.0.1": ({"torch": "1.0.1", "route": "cpu"}, "runtime"),
}


def context_of(asked, until):
    fields = dict(asked)
    gpu = fields.pop("gpu", None)
    card = find_card(DATABASE, gpu) if gpu else None
    resolution = resolve(DATABASE, Request(card=card, placed=True, **fields))
    return render(make_plan(DATABASE, resolution, Wanted(until)))


@pytest.mark.parametrize("name", PLANS)
def test_the_context_is_the_golden_one(name, request):
    context = context_of(*PLANS[name])
    folder = GOLDEN / name
    files = {**context.files, "digest": f"{context.digest}\n".encode()}
    for copied in ("edit.py", "runtime_files.py"):  # programs, which have their own tests
        files.pop(copied, None)
    if request.config.getoption("--update-golden"):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for file, data in files.items():
            (folder / file).write_bytes(data)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("name", PLANS)
def test_the_same_plan_gives_the_same_bytes(name, tmp_path):
    first, second = context_of(*PLANS[name]), context_of(*PLANS[name])
    assert first == second
    write_context(first, tmp_path / "a")
    write_context(second, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_file())
    for file in names:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_every_input_is_pinned_by_hash():
    for asked, until in PLANS.values():
        context = context_of(asked, until)
        for path, identity in context.inputs.items():
            assert path.startswith("inputs/")
            assert re.fullmatch(r"[0-9a-f]{64}|git:[0-9a-f]{40}", identity)
        assert json.loads(context.files["inputs.json"]) == context.inputs


def test_no_address_of_an_archive_or_registry_enters_a_context():
    for asked, until in PLANS.values():
        text = b"\n".join(context_of(asked, until).files.values()).decode()
        assert "deb http" not in text
        assert "index-url" not in text


def test_the_users_own_build_takes_the_patch_and_the_runfile_by_hash():
    context = context_of(*PLANS["gtx760-torch-1.0.1-source"])
    dockerfile = context.files["Dockerfile"].decode()
    assert context.patches[0].id == "rename-cusparse-error-string"
    assert 'TORCH_CUDA_ARCH_LIST="3.0"' in dockerfile
    assert 'CC="gcc-7"' in dockerfile
    assert context.inputs["inputs/source.tar"] == "git:83221655a8237ca80f9673dad06a98d34c43e546"
    assert "inputs/cuda_10.1.243_418.87.00_linux.run" in context.inputs
    assert "= 83221655a8237ca80f9673dad06a98d34c43e546" in dockerfile


def test_ptx_is_written_as_torch_reads_it():
    assert arch_list(("sm_35", "compute_35")) == "3.5+PTX"
    assert arch_list(("sm_61",)) == "6.1"
    assert arch_list(("sm_90", "sm_120", "compute_120")) == "9.0;12.0+PTX"


def test_a_wheel_whose_needs_are_not_pinned_is_refused_with_the_way_without_an_image():
    resolution = resolve(
        DATABASE,
        Request(card=find_card(DATABASE, "k80"), torch="2.0.0", route="wheel", placed=True),
    )
    with pytest.raises(SourceError) as caught:
        make_plan(DATABASE, resolution)
    assert "are not pinned" in caught.value.what
    assert "pip install torch==2.0.0" in caught.value.hint


def test_an_unquoted_value_never_reaches_a_dockerfile(tmp_path, monkeypatch):
    (tmp_path / "bad.j2").write_text("RUN echo {{ value }}\n")
    monkeypatch.setattr(rendering.assets, "TEMPLATES", tmp_path)
    with pytest.raises(ValueError, match="without a quoting filter"):
        rendering._template("bad.j2", value="x; rm -rf /")


def test_a_missing_value_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "bad.j2").write_text("{{ nothing | sh }}")
    monkeypatch.setattr(rendering.assets, "TEMPLATES", tmp_path)
    with pytest.raises(jinja2.UndefinedError):
        rendering._template("bad.j2")


@settings(deadline=None)
@given(st.text())
def test_a_word_is_plain_or_refused(text):
    try:
        quoted = rendering._word(text)
    except ValueError:
        return
    assert not set(quoted) & set(" \t\n\r\"'\\$`;&|<>(){}*?!#\0")


@settings(deadline=None)
@given(st.text(alphabet=st.characters(blacklist_categories=["Cc", "Cs"])))
def test_shell_quoting_survives_a_real_shell(text):
    import subprocess  # noqa: PLC0415

    command = f"printf %s {rendering._shell(text)}"
    out = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    assert out.decode() == text


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "\x1b[0m"])
def test_control_characters_are_refused_everywhere(value):
    for quote in (rendering._shell, rendering._environment, rendering._json, rendering._word):
        with pytest.raises(ValueError, match=r"control characters|plain word"):
            quote(value)
