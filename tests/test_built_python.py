"""A Python that the platform's archive has not is built from CPython's own sources, and comes last."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from msgspec.structs import replace

from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.capability.pythons import python_source_of
from envforge.errors import SourceError, Unsatisfiable
from envforge.events import ignore
from envforge.image.inputs import place_inputs
from envforge.image.plan import Plan, Wanted, make_plan
from envforge.image.render import render
from envforge.report.sentences import build_command, note_text
from envforge.resolver import Request, Resolution, all_routes, resolve
from envforge.sources.store import Store
from envforge.values import version_key

DATABASE = load()
WITHOUT = replace(
    DATABASE,
    python_table=msgspec.Raw(msgspec.msgpack.encode(replace(DATABASE.pythons, versions=()))),
)
"""What envforge knew before it could build a Python."""
ASKED = {"torch": "1.13.1", "route": "source", "platform": "debian-12", "placed": True}


def request(gpu: str = "gtx780", **parts) -> Request:
    return Request(card=find_card(DATABASE, gpu), **parts)


def plan_of(wanted: Wanted, database=DATABASE, **parts) -> Plan:
    return make_plan(database, resolve(database, request(**{**ASKED, **parts})), wanted)


def test_a_python_the_platform_has_not_is_built_from_source():
    found = resolve(DATABASE, request(**ASKED, python="3.9"))
    assert (found.platform, found.python, found.python_origin) == ("debian-12", "3.9", "source")
    assert found.notes == ("python-from-source",)
    assert note_text("python-from-source") == (
        "the platform has no such Python: it is built from CPython's own sources, without"
        " torchvision; not verified with a real torch"
    )


def test_its_command_says_where_it_is_built():
    found = resolve(DATABASE, request(**ASKED, python="3.9"))
    assert build_command(found, "sm_35") == (
        "envforge build --gpu sm_35 --route source --torch 1.13.1 --platform debian-12 --python 3.9"
    )


def test_the_distributions_own_python_is_taken_where_it_fits():
    found = resolve(DATABASE, request(**ASKED))
    assert (found.python, found.python_origin, found.notes) == ("3.11", "distribution", ())
    found = resolve(DATABASE, request(**ASKED, python="3.11"))
    assert found.python_origin == "distribution"


def test_another_platform_with_that_python_is_better_than_building_it():
    parts = {**ASKED, "platform": None, "torch": "1.7.1", "python": "3.9"}
    found = resolve(DATABASE, request("gtx1080", **parts))
    assert (found.platform, found.python_origin) == ("debian-11", "distribution")


def test_an_older_release_on_a_distributions_python_comes_before_a_newer_one_on_a_built_one():
    asked = request("gtx1080", route="source", python="3.13")
    own, newest = resolve(WITHOUT, asked), all_routes(DATABASE, asked)[0]
    assert newest.python_origin == "source"
    assert version_key(newest.torch) > version_key(own.torch)
    assert resolve(DATABASE, asked) == own


@pytest.mark.parametrize("python", [None, "2.7", "3.6", "3.9", "3.13"])
@pytest.mark.parametrize("gpu", ["sm_30", "sm_35", "sm_50", "sm_70", "sm_86"])
def test_no_answer_with_a_distributions_python_is_lost_or_changed(gpu, python):
    def answers(database) -> dict[tuple[str, str, str | None], Resolution]:
        found = all_routes(database, request(gpu, python=python))
        return {(row.route, row.torch, row.variant): row for row in found}

    before, after = answers(WITHOUT), answers(DATABASE)
    assert {key: after.get(key) for key in before} == before
    assert all(after[key].python_origin == "source" for key in set(after) - set(before))


def test_a_python_the_release_does_not_know_is_refused_though_it_could_be_built():
    with pytest.raises(Unsatisfiable) as caught:
        resolve(DATABASE, request(**{**ASKED, "torch": "2.8.0"}, python="3.8"))
    assert [rule.id for rule in caught.value.conflict.rules] == ["torch-2.8.0-python"]


def test_a_python_that_needs_a_newer_openssl_than_the_platforms_is_refused_by_that_rule():
    parts = {"torch": "1.13.1", "route": "source", "platform": "ubuntu-18.04", "python": "3.10"}
    with pytest.raises(Unsatisfiable) as caught:
        resolve(DATABASE, request("gtx1080", **parts))
    rules = [rule.id for rule in caught.value.conflict.rules]
    assert "python-3.10-openssl-1.1.1" in rules
    found = resolve(DATABASE, request("gtx1080", **{**parts, "python": "3.9"}))
    assert (found.python, found.python_origin) == ("3.9", "source")


def test_where_a_python_could_be_built_the_refusal_names_what_is_left():
    parts = {"torch": "0.4.1", "route": "source", "platform": "ubuntu-14.04"}
    with pytest.raises(Unsatisfiable) as caught:
        resolve(DATABASE, request("gtx760", **parts))
    rules = [rule.id for rule in caught.value.conflict.rules]
    assert "torch-0.4.1-gcc" in rules
    assert "torch-0.4.1-python" not in rules


def test_the_plan_has_its_sources_by_hash_and_the_tools_of_that_python():
    plan = plan_of(Wanted(), python="3.9")
    assert plan.python.executable == "/opt/python/bin/python3.9"
    assert plan.source is not None
    assert plan.source.python is not None
    assert plan.source.python.source == python_source_of(DATABASE, "3.9")
    # Debian's own numpy is for its own Python, whatever tree is built
    assert plan.source.profile.name == "system-libs"
    assert {tool.tag for tool in plan.source.tools if tool.distribution == "numpy"} == {"cp39-cp39"}
    assert plan.source.torchvision is None


def test_what_is_not_pinned_for_that_python_is_refused_with_the_command_that_pins_it():
    unpinned = replace(DATABASE.pinned_builds, builds=())
    table = msgspec.Raw(msgspec.msgpack.encode(unpinned))
    database = replace(DATABASE, pinned_build_table=table)
    with pytest.raises(SourceError) as caught:
        plan_of(Wanted(), database, python="3.9")
    assert caught.value.exit_code == 5
    assert caught.value.what == (
        "what building torch 1.13.1 on Python 3.9 runs and imports is not pinned in the database"
        " yet"
    )
    assert caught.value.because == ("an image is built only from files whose sha256 is known",)
    assert caught.value.hint == (
        "python scripts/pin_build_tools.py 1.13.1:cp39-cp39  pins them, in a checkout of envforge"
    )
    # a toolchain runs none of them
    assert plan_of(Wanted("toolchain"), database, python="3.9").source is not None


def test_an_old_python_is_configured_as_its_wheels_were():
    plan = plan_of(Wanted("toolchain"), torch="1.0.1", platform="ubuntu-18.04", python="2.7")
    assert plan.python.wheel_tag == "cp27-cp27mu"
    assert "--enable-unicode=ucs4" in render(plan).files["Dockerfile"].decode()


def test_its_sources_are_among_the_inputs_even_of_a_toolchain(tmp_path):
    text = b"sources"
    sha256 = hashlib.sha256(text).hexdigest()
    source = replace(python_source_of(DATABASE, "3.9"), sha256=sha256)
    store = Store(tmp_path / "store")
    fetched = tmp_path / "fetched"
    fetched.write_bytes(text)
    store.put_verified(fetched, sha256, source.name)
    plan = plan_of(Wanted("toolchain"), python="3.9")
    parts = plan.source._replace(python=plan.source.python._replace(source=source))
    place_inputs(plan._replace(source=parts), tmp_path, store, None, ignore)
    assert (tmp_path / "inputs/Python-3.9.2.tar.xz").read_bytes() == text


def test_every_python_is_named_by_its_release_and_tag():
    for row in DATABASE.pythons.versions:
        digits = row.version.replace(".", "")
        assert row.release.startswith(f"{row.version}.")
        assert row.wheel_tag.startswith(f"cp{digits}-cp{digits}")
        assert row.name.startswith(f"Python-{row.release}.t")
        assert f"/{row.release}/" in row.url
        assert row.pool is None or f"python{row.version}_{row.release}.orig" in row.pool
