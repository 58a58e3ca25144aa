"""Questions and their answers, each with a source outside envforge: ``cases/resolve/*.yaml``."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import Card, find_card
from envforge.documents import parse_yaml
from envforge.errors import EnvforgeError, Unsatisfiable
from envforge.report import sentences
from envforge.resolver import Request, explain, resolve, routes
from envforge.values import ComputeCapability, DeviceCode, best_support

DATABASE = load()
CASES = [
    pytest.param(case, id=case["name"])
    for path in sorted((Path(__file__).parent / "cases/resolve").glob("*.yaml"))
    for case in parse_yaml(path.read_text(encoding="utf-8"), path.name)["cases"]
]


def request_of(asked: dict) -> Request:
    fields = dict(asked)
    gpu = fields.pop("gpu", None)
    if fields.pop("cpu", False):
        fields["route"] = "cpu"
    return Request(card=find_card(DATABASE, gpu) if gpu else None, **fields)


@pytest.mark.parametrize("case", CASES)
def test_the_answer_is_what_the_source_says(case):
    assert case["source"]
    request = request_of(case["request"])
    if "resolution" in case:
        resolution = resolve(DATABASE, request)
        for field, expected in case["resolution"].items():
            found = getattr(resolution, field)
            assert (list(found) if isinstance(found, tuple) else found) == expected, field
        return
    with pytest.raises(Unsatisfiable) as caught:
        resolve(DATABASE, request)
    conflict = caught.value.conflict
    ids = [rule.id for rule in conflict.rules]
    assert set(case["conflict"]) <= set(ids)
    assert [relaxation.drop for relaxation in conflict.relaxations] == case["relaxations"]
    if "compiling" in case:
        assert list(conflict.toolkits.compiling) == case["compiling"]
        assert set(case["refusing_includes"]) <= set(conflict.toolkits.refusing)


@pytest.mark.parametrize("case", [case for case in CASES if "conflict" in case.values[0]])
def test_every_rule_of_a_conflict_can_be_said_and_has_a_source(case):
    conflict = explain(DATABASE, request_of(case["request"]))
    for rule in conflict.rules:
        assert "{" not in sentences.rule_text(rule)
        assert rule.source
        assert rule.evidence


@pytest.mark.parametrize("case", [case for case in CASES if "conflict" in case.values[0]])
def test_a_relaxation_really_gives_what_it_says(case):
    request = request_of(case["request"])
    for relaxation in explain(DATABASE, request).relaxations:
        if relaxation.drop != "gpu":
            relaxed = request._replace(**{relaxation.drop: None})
            assert resolve(DATABASE, relaxed) == relaxation.gives


cards = st.sampled_from(sorted(DATABASE.architectures)).map(
    lambda text: Card(text, ComputeCapability.parse(text))
)
releases = st.sampled_from([release.version for release in DATABASE.releases])


@given(cards)
@settings(max_examples=40, deadline=None)
def test_no_route_carries_kernels_that_do_not_run_on_the_card(card):
    for route in routes(DATABASE, Request(card=card)):
        codes = [DeviceCode.parse(code) for code in route.codes]
        assert best_support(codes, card.compute_capability) != "none"


@given(cards, releases)
@settings(max_examples=60, deadline=None)
def test_a_card_gets_an_answer_or_reasons(card, release):
    try:
        resolution = resolve(DATABASE, Request(card=card, torch=release))
    except Unsatisfiable as error:
        assert error.conflict.considered == 0 or error.conflict.rules
    else:
        assert resolution.torch == release
        assert resolution.route != "cpu"


DRIVERS = ["340.108", "390.157", "418.39", "450.80.02", "470.256.02", "535.261.03", "615.10"]


@given(cards, releases, st.sampled_from(list(pairwise(DRIVERS))))
@settings(max_examples=60, deadline=None)
def test_a_newer_driver_never_removes_a_route(card, release, drivers):
    older, newer = (
        {
            route.route
            for route in routes(DATABASE, Request(card=card, torch=release, driver=driver))
        }
        for driver in drivers
    )
    assert older <= newer


def test_the_minimal_rules_are_minimal():
    request = request_of({"gpu": "gtx760", "torch": "1.0.1", "platform": "debian-12"})
    conflict = explain(DATABASE, request)
    ids = {rule.id for rule in conflict.rules}
    assert "torch-1.0.1-cuda" in ids, "CUDA 11.8 of Debian 12 is refused by the release"
    assert "cuda-10.2.89-gcc" in ids, "and 10.2 by the platform's compilers"


def test_a_request_that_matches_nothing_is_refused_not_guessed():
    request = request_of({"gpu": "gtx780", "torch": "1.13.1", "python": "2.6"})
    with pytest.raises(EnvforgeError) as caught:
        resolve(DATABASE, request)
    assert caught.value.exit_code == 4
