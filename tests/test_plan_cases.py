"""Fifty plans and a dozen refusals, each decided by a source outside envforge: ``cases/plans.yaml``.

A plan's digest is kept in ``golden/digests.txt``; ``pytest tests/test_plan_cases.py
--update-golden`` writes it anew after a change of a template.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml
from plan_contexts import CASES, PLANS, REFUSALS, prepared

from envforge.errors import EnvforgeError, Unsatisfiable

ROOT = Path(__file__).parent.parent
DATA = ROOT / "envforge/capability/data"
DIGESTS = Path(__file__).parent / "golden/digests.txt"
FIELDS = {"name", "ask", "capability", "expect", "changes", "untouched", "why", "source", "xfail"}
UPDATE = "pytest tests/test_plan_cases.py --update-golden"


def parameters(cases: list) -> list:
    return [
        pytest.param(
            case,
            id=case["name"],
            marks=[pytest.mark.xfail(reason=case["xfail"])] if "xfail" in case else [],
        )
        for case in cases
    ]


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory):
    """A case's plan and context, decided once a module."""
    scratch = tmp_path_factory.mktemp("plans")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(scratch / "cache"))
        known = cache(lambda name: prepared(next(c for c in CASES if c["name"] == name), scratch))
        yield lambda case: known(case["name"])


def test_there_are_forty_plans_and_each_says_where_its_answer_comes_from():
    assert len(PLANS) >= 40
    assert len({case["name"] for case in CASES}) == len(CASES)
    for case in CASES:
        assert set(case) <= FIELDS, case["name"]
        assert case["why"], case["name"]
        assert case["source"], case["name"]


@pytest.mark.parametrize("case", parameters(PLANS))
def test_the_plan_is_what_the_sources_say(case, plan_of):
    plan = plan_of(case).plan
    found = {
        "route": plan.resolution.route,
        "platform": plan.platform.name,
        "cuda": plan.resolution.cuda,
        "cuda_origin": plan.resolution.cuda_origin,
        "gcc": plan.resolution.gcc,
        "python": plan.python.version,
        "profile": plan.source.profile.name if plan.source else None,
        "tree": tree_of(plan.source),
        "cudnn": plan.source.cudnn.version if plan.source and plan.source.cudnn else None,
    }
    assert {key: found[key] for key in case["expect"]} == case["expect"]
    assert plan.resolution.compute_capability == case.get("capability")


def tree_of(source) -> str | None:
    origins = {"SourceArchive": "archive", "GitTree": "git", "LocalTree": "local"}
    return origins[type(source.tree.origin).__name__] if source else None


@pytest.mark.parametrize(
    "case", parameters([c for c in PLANS if {"changes", "untouched"} & set(c)])
)
def test_the_tree_is_changed_where_the_sources_say(case, plan_of):
    rows = json.loads(plan_of(case).context.files["edits.json"])
    changed = {row.get("file") for row in rows}
    assert set(case.get("changes", ())) <= changed
    assert not set(case.get("untouched", ())) & changed


@pytest.mark.parametrize("case", parameters(REFUSALS))
def test_what_cannot_be_is_refused_for_the_reason_the_sources_give(case, tmp_path):
    with pytest.raises(EnvforgeError) as caught:
        prepared(case, tmp_path)
    if "error" in case["expect"]:
        assert caught.value.code == case["expect"]["error"]
    else:
        assert isinstance(caught.value, Unsatisfiable)
        found = {rule.id for rule in caught.value.conflict.rules}
        assert set(case["expect"]["conflict"]) <= found, found


@pytest.fixture(scope="module")
def golden(request, plan_of):
    if request.config.getoption("--update-golden"):
        lines = [f"{case['name']} {plan_of(case).context.digest}\n" for case in PLANS]
        DIGESTS.write_text("".join(lines), encoding="utf-8")
    return dict(line.split() for line in DIGESTS.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("case", PLANS, ids=lambda case: case["name"])
def test_the_context_has_its_golden_digest(case, plan_of, golden):
    digest = plan_of(case).context.digest
    assert digest == golden.get(case["name"]), f"if this change is meant: {UPDATE}"


def test_the_golden_digests_are_of_these_plans_and_no_others(golden):
    assert list(golden) == [case["name"] for case in PLANS]


def test_plans_that_ask_for_different_things_have_different_digests(golden):
    asked_alike = [  # one architecture, one context: the card's name is not built from
        {"k40-1.13.1-debian-12", "gtx780-1.13.1-debian-12"},
        {"k40-2.8.0-debian-12", "gtx780-2.8.0-debian-12"},
    ]
    names = {}
    for name, digest in golden.items():
        names.setdefault(digest, set()).add(name)
    shared = [group for group in names.values() if len(group) > 1]
    wheels = [group for group in shared if not any(group <= alike for alike in asked_alike)]
    assert [group for group in shared if group not in wheels] == asked_alike
    # A wheel is the same wheel whatever card it is for, and without one.
    assert all(name.startswith("cpu-") or name.endswith("-wheel") for g in wheels for name in g)


def test_every_profile_of_the_database_is_in_a_plan(plan_of):
    rows = yaml.safe_load((DATA / "profiles.yaml").read_text(encoding="utf-8"))["profiles"]
    plans = [plan_of(case).plan for case in PLANS if "profile" in case["expect"]]
    planned = {(plan.source.profile.name, plan.source.profile.torch) for plan in plans}
    assert {(row["name"], row["torch"]) for row in rows} == planned


def test_every_platform_that_is_built_here_has_a_plan_with_a_published_wheel():
    rows = yaml.safe_load((DATA / "platforms.yaml").read_text(encoding="utf-8"))["platforms"]
    built = {row["name"] for row in rows if row["built"]}
    assert built <= {c["expect"]["platform"] for c in PLANS if c["expect"]["route"] == "wheel"}


# Rendering is pure.

IMPURE = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "ftplib.")
WATCHED = """
import json, os, sys
from plan_contexts import CASES, prepared
from pathlib import Path
from envforge.image.render import render
names = json.loads(sys.argv[2])
plans = [prepared(c, Path(sys.argv[1])).plan for c in CASES if c["name"] in names]
seen = []
sys.addaudithook(lambda event, args: seen.append((event, args)))
for plan in plans:
    render(plan)
opened = [(os.fspath(a[0]), a[1]) for e, a in seen if e == "open" and not isinstance(a[0], int)]
sys.stdout.write(json.dumps({"events": sorted({e for e, _ in seen}), "opened": opened}))
"""


def test_rendering_reads_templates_and_patches_and_does_nothing_else(tmp_path):
    names = json.dumps(["gtx760-1.0.1", "k40-1.13.1-debian-12", "k80-1.13.1-wheel"])
    seen = json.loads(
        subprocess.run(
            [sys.executable, "-c", WATCHED, tmp_path, names],
            env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
            capture_output=True,
            check=True,
        ).stdout
    )
    assert [event for event in seen["events"] if event.startswith(IMPURE)] == []
    for path, mode in seen["opened"]:
        assert mode in {"r", "rb"}, path
        places = (ROOT / "templates", ROOT / "patches", ROOT / "envforge")
        assert any(Path(path).is_relative_to(place) for place in places), path
    read = {Path(path).name for path, _ in seen["opened"]}
    assert {"Dockerfile.j2", "series.yaml"} <= read


def test_the_watch_sees_a_render_that_opens_a_socket(tmp_path):
    impure = WATCHED.replace("    render(plan)\n", "    import socket; socket.socket().close()\n")
    names = json.dumps(["gtx760-1.0.1"])
    outcome = subprocess.run(
        [sys.executable, "-c", impure, tmp_path, names],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        check=True,
    )
    assert "socket.__new__" in json.loads(outcome.stdout)["events"]
