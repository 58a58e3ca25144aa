"""A conflict over many releases is read at a glance, and nothing of it is lost."""

from __future__ import annotations

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import Card, find_card
from envforge.report.conflict import conflict_json, conflict_lines
from envforge.report.explain import Explanation, explanation_json, explanation_text
from envforge.report.groups import groups
from envforge.resolver import Request, explain, rejections, resolve
from envforge.values import ComputeCapability

DATABASE = load()


def conflict_of(gpu: str, **parts: str):
    return explain(DATABASE, Request(card=find_card(DATABASE, gpu), **parts))


@pytest.mark.parametrize("gpu", ["sm_20", "gtx580"])
def test_every_release_on_fermi_is_refused_for_two_reasons(gpu):
    lines = [click.unstyle(line) for line in conflict_lines(conflict_of(gpu, torch=">=1"))]
    wheels = [wheel for wheel in DATABASE.wheels if wheel.torch[0] != "0"]
    sources = len({wheel.source for wheel in wheels})
    builds = [*DATABASE.conda_builds, *(b for b in DATABASE.distribution_builds if b.cuda)]
    shipped = len({build.source for build in builds})
    assert "\n".join(lines) == (
        f"  - none of {len(wheels)} wheels (torch 1.0.0 to 2.15.0) carries code that runs on"
        " compute capability 2.0\n"
        f"    kernels · third-party · {sources} sources; each rule with its own: --json\n"
        f"  - none of {len(builds)} builds (torch 1.6.0 to 2.13.0) of conda-forge and distribution"
        " carries code that runs on compute capability 2.0\n"
        f"    shipped-kernels · upstream · {shipped} sources; each rule with its own: --json\n"
        "  - PyTorch's kernels use warp shuffles (__shfl), which Fermi (2.x) does not have\n"
        "    pytorch-kernels-need-shfl · inferred · pytorch issue 4557"
        " (https://github.com/pytorch/pytorch/issues/4557)\n"
        "what could give way:\n"
        "  without the card: torch 2.15.0 on the CPU (route cpu):"
        " envforge build --cpu --torch 2.15.0"
    )


def test_one_release_is_refused_wheel_by_wheel():
    found = conflict_json(conflict_of("sm_20", torch="1.0.0"))["rules"]
    assert [rule["id"] for rule in found] == [
        "wheel-1.0.0-cu100-kernels",
        "wheel-1.0.0-cu80-kernels",
        "wheel-1.0.0-kernels",
        "pytorch-kernels-need-shfl",
    ]
    assert not any("members" in rule for rule in found)


def test_a_group_keeps_each_rule_with_its_own_source():
    first = conflict_json(conflict_of("sm_20", torch=">=1"))["rules"][0]
    assert (first["id"], first["evidence"]) == ("kernels", "third-party")
    assert len(first["members"]) == len([w for w in DATABASE.wheels if w.torch[0] != "0"])
    assert all(rule["id"] and rule["text"] and rule["source"] for rule in first["members"])


def test_a_satisfied_request_groups_what_was_left_behind():
    request = Request(card=find_card(DATABASE, "k40"))
    explanation = Explanation(request, resolve(DATABASE, request), rejections(DATABASE, request))
    assert len(explanation_text(explanation).splitlines()) < 40
    document = explanation_json(explanation)
    counted = sum(rejection.branches for rejection in explanation.rejections)
    assert sum(row["branches"] for row in document["rejections"]) == counted
    listed = {rule["id"] for row in document["rejections"] for rule in row.get("members", [row])}
    assert listed == {rejection.rule.id for rejection in explanation.rejections}


@given(
    capability=st.sampled_from(sorted(DATABASE.architectures)),
    torch=st.sampled_from([None, ">=1", "<2", ">=1.8,<2.5"]),
    cuda=st.none() | st.sampled_from(["9", "11", ">=11", "13"]),
    gcc=st.none() | st.sampled_from(["5", "7", "12"]),
    python=st.none() | st.sampled_from(["2.7", "3.6", "3.13"]),
    platform=st.none() | st.sampled_from([row.name for row in DATABASE.platforms]),
    driver=st.none() | st.sampled_from(["390.157", "450.80.02", "580.65.06"]),
    placed=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_conflict_is_longer_than_a_screen_and_none_loses_a_rule(capability, **parts):
    card = Card(capability, ComputeCapability.parse(capability))
    conflict = explain(DATABASE, Request(card=card, **parts))
    lines = conflict_lines(conflict)
    assert len(lines) <= 60
    assert not any("{" in line for line in lines)
    assert sorted(r.id for group in groups(conflict.rules) for r in group.rules) == sorted(
        rule.id for rule in conflict.rules
    )
