"""What must hold of every answer, whatever is asked: searched by hypothesis."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.capability.lookup import Card, pip_arguments, toolkits_of
from envforge.documents import parse_yaml
from envforge.errors import Unsatisfiable
from envforge.report import sentences
from envforge.report.conflict import conflict_json
from envforge.resolver import Request, explain, resolve, routes
from envforge.resolver.candidates import searches
from envforge.resolver.ground import Terrain
from envforge.resolver.model import Candidate
from envforge.values import ComputeCapability, DeviceCode, best_support, version_key

DATABASE = load()
RELEASES = [release.version for release in DATABASE.releases]


def card_of(capability: str) -> Card:
    return Card(capability, ComputeCapability.parse(capability))


cards = st.sampled_from(sorted(DATABASE.architectures)).map(card_of)
releases = st.sampled_from(RELEASES)
floors = {row.driver_min for row in DATABASE.toolkits if row.driver_min}
branches = {row.last_version or row.branch for row in DATABASE.drivers}
drivers = st.sampled_from(sorted(floors | branches, key=version_key))
cudas = st.sampled_from(sorted({row.version.rpartition(".")[0] for row in DATABASE.toolkits}))
platforms = st.sampled_from([platform.name for platform in DATABASE.platforms])
pythons = st.sampled_from(["2.7", "3.5", "3.6", "3.8", "3.9", "3.11", "3.12", "3.13"])
gccs = st.sampled_from(["5", "6", "7", "8", "9", "10", "11", "12", "13", "14"])
codes = st.lists(
    st.sampled_from(["sm_35", "sm_37", "sm_50", "sm_61", "sm_75", "sm_86", "sm_90a", "compute_50"]),
    unique=True,
)
requests = st.builds(
    Request,
    card=cards,
    torch=releases,
    cuda=st.none() | cudas,
    gcc=st.none() | gccs,
    python=st.none() | pythons,
    platform=st.none() | platforms,
    driver=st.none() | drivers,
    ptx=st.booleans(),
    placed=st.booleans(),
)


def kinds(request: Request) -> set[str]:
    return {route.route for route in routes(DATABASE, request)}


# A wish that is taken back never costs a route.


@given(cards, releases, drivers, drivers)
@settings(max_examples=80, deadline=None)
def test_a_newer_driver_never_removes_a_route(card, release, one, other):
    older, newer = sorted((one, other), key=version_key)
    asked = Request(card=card, torch=release)
    assert kinds(asked._replace(driver=older)) <= kinds(asked._replace(driver=newer))


@given(cards, drivers, drivers)
@settings(max_examples=15, deadline=None)
def test_a_newer_driver_never_ages_the_newest_release_of_a_route(card, one, other):
    older, newer = sorted((one, other), key=version_key)
    before = {r.route: r.torch for r in routes(DATABASE, Request(card=card, driver=older))}
    after = {r.route: r.torch for r in routes(DATABASE, Request(card=card, driver=newer))}
    for kind, torch in before.items():
        assert version_key(torch) <= version_key(after[kind])


@given(requests)
@settings(max_examples=80, deadline=None)
def test_adding_ptx_never_removes_a_card(request):
    without, added = request._replace(ptx=False), request._replace(ptx=True)
    assert kinds(without) <= kinds(added)


@given(codes, st.sampled_from(sorted(DATABASE.architectures)), cards)
@settings(max_examples=200, deadline=None)
def test_code_that_is_added_never_removes_a_card(held, extra, card):
    before = [DeviceCode.parse(code) for code in held]
    after = [*before, DeviceCode("compute", ComputeCapability.parse(extra))]
    order = ("none", "ptx-jit", "native")
    supports = [best_support(had, card.compute_capability) for had in (before, after)]
    assert order.index(supports[0]) <= order.index(supports[1])


@given(cards, st.lists(releases, min_size=4, max_size=4, unique=True))
@settings(max_examples=20, deadline=None)
def test_a_wider_range_of_releases_never_removes_a_route(card, bounds):
    low, inner_low, inner_high, high = sorted(bounds, key=version_key)
    narrow = Request(card=card, torch=f">={inner_low},<={inner_high}")
    assert kinds(narrow) <= kinds(narrow._replace(torch=f">={low},<={high}"))


@given(requests, st.sampled_from(["cuda", "gcc", "python", "platform", "driver", "placed"]))
@settings(max_examples=120, deadline=None)
def test_a_wish_taken_back_never_removes_a_route(request, part):
    wider = request._replace(**{part: False if part == "placed" else None})
    if part == "driver":
        wider = wider._replace(driver="9999")  # None assumes the last branch of the card
    assert kinds(request) <= kinds(wider)


# What is offered is true.


@given(requests)
@settings(max_examples=120, deadline=None)
def test_no_route_carries_kernels_that_do_not_run_on_the_card(request):
    for route in routes(DATABASE, request):
        held = [DeviceCode.parse(code) for code in route.codes]
        assert best_support(held, request.card.compute_capability) == route.support != "none"
        assert route.route != "cpu"


def measured_cells() -> dict[tuple[str, str], bool]:
    path = Path(__file__).parent / "cases/measured_wheels.yaml"
    table = parse_yaml(path.read_text(encoding="utf-8"), path.name)
    return {
        (row["torch"], capability): capability in f"{row['natively']} {row['by_ptx']}".split()
        for row in table["wheels"]
        for capability in f"{table['since_3_5']} {table['never']}".split()
    }


def test_no_wheel_is_offered_whose_measured_kernels_lack_the_card():
    for (torch, capability), runs in measured_cells().items():
        asked = Request(card=card_of(capability), torch=torch, route="wheel")
        assert bool(routes(DATABASE, asked)) == runs, (torch, capability)


@given(requests)
@settings(max_examples=120, deadline=None)
def test_every_version_of_a_command_exists_in_the_database(request):
    for route in routes(DATABASE, request):
        pip = pip_arguments(DATABASE, route.torch, route.variant)
        words = shlex.split(sentences.route_command(route, "sm_61", pip))
        assert route.torch in RELEASES
        assert not route.cuda or toolkits_of(DATABASE, route.cuda)
        typed = {re.split("==?", word)[-1].partition("+")[0] for word in words}
        assert route.torch in typed | set(words) or route.route == "distribution"
        check_route(route, words)


def check_route(route, words):
    if route.route in ("wheel", "wheel-variant"):
        rows = [
            wheel
            for wheel in DATABASE.wheels
            if (wheel.torch, wheel.variant) == (route.torch, route.variant)
        ]
        assert len(rows) == 1
        digits = (route.python or "").replace(".", "")
        tags = [file.tag for file in rows[0].files]
        assert not digits or not tags or any(tag.startswith(f"cp{digits}-") for tag in tags)
        assert route.variant is None or any(route.variant in word for word in words)
    elif route.route == "conda-forge":
        held = {(build.torch, build.cuda) for build in DATABASE.conda_builds}
        assert (route.torch, route.cuda) in held
    elif route.route == "distribution":
        assert route.package in {build.package for build in DATABASE.distribution_builds}
        assert words[-1] == route.package
    else:
        check_source(route)


def check_source(route):
    platform = next(row for row in DATABASE.platforms if row.name == route.platform)
    toolkit = next(row for row in DATABASE.toolkits if row.version == route.cuda)
    assert route.gcc in {compiler.version for compiler in platform.compilers}
    own = {python.version for python in platform.pythons}
    known = {python.version for python in DATABASE.pythons.versions}
    assert route.python in (own if route.python_origin == "distribution" else known - own)
    if route.cuda_origin == "distribution":
        assert platform.cuda
        assert platform.cuda.version == toolkit.version
    else:
        assert toolkit.runfile


# What is refused is explained, and by no more than it takes.


def walk(request: Request) -> list[Candidate]:
    """The resolver's own walk."""
    from envforge.resolver import _space  # noqa: PLC0415

    return list(_space(tuple(searches(Terrain(DATABASE), request)), request))


def walked(request: Request) -> list[set[str]]:
    """The rules every candidate of the resolver's own walk broke."""
    return [{rule.id for rule in candidate.broken} for candidate in walk(request)]


@given(requests)
@settings(max_examples=100, deadline=None)
def test_every_rule_of_a_conflict_is_needed(request):
    if kinds(request):
        return
    kept = {rule.id for rule in explain(DATABASE, request).rules}
    space = walked(request)
    assert all(broken & kept for broken in space)
    for rule in kept:
        assert any(not broken & (kept - {rule}) for broken in space), rule


@given(requests)
@settings(max_examples=60, deadline=None)
def test_a_relaxation_gives_what_resolving_without_it_gives(request):
    if kinds(request):
        return
    conflict = explain(DATABASE, request)
    assert conflict.considered == 0 or conflict.rules
    for relaxation in conflict.relaxations:
        if relaxation.drop != "gpu":
            relaxed = request._replace(**{relaxation.drop: None})
            assert resolve(DATABASE, relaxed) == relaxation.gives


@given(requests)
@settings(max_examples=60, deadline=None)
def test_a_route_is_offered_exactly_where_a_candidate_breaks_no_rule(request):
    assert bool(kinds(request)) == any(not broken for broken in walked(request))
    if not kinds(request):
        with pytest.raises(Unsatisfiable):
            resolve(DATABASE, request)


# The same question has one answer.


@given(requests)
@settings(max_examples=40, deadline=None)
def test_the_same_question_has_the_same_answer(request):
    assert routes(DATABASE, request) == routes(DATABASE, request)
    first, second = explain(DATABASE, request), explain(DATABASE, request)
    assert conflict_json(first) == conflict_json(second)


@given(requests)
@settings(max_examples=40, deadline=None)
def test_the_cheapest_route_comes_first(request):
    order = ("wheel", "wheel-variant", "conda-forge", "distribution", "source")
    found = [route.route for route in routes(DATABASE, request)]
    assert found == [kind for kind in order if kind in found]
    if found:
        assert resolve(DATABASE, request).route == found[0]


ASKED = """
import json
from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.report.conflict import conflict_json
from envforge.resolver import Request, explain, routes
database = load()
for gpu, torch in (("gtx760", "2.15.0"), ("10de:1140", "1.0.1"), ("k40", "2.9.1")):
    asked = Request(card=find_card(database, gpu), torch=torch, placed=True)
    print(json.dumps(conflict_json(explain(database, asked))))
    print(json.dumps([str(route) for route in routes(database, asked._replace(torch=None))]))
"""


def test_the_answer_does_not_depend_on_the_hash_seed():
    answers = set()
    for seed in ("0", "1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", ASKED],
            env={"PYTHONHASHSEED": seed, "HOME": str(Path.home())},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.add(done.stdout)
    assert len(answers) == 1
    conflicts = [json.loads(line) for line in answers.pop().splitlines()[::2]]
    assert all(conflict["rules"] for conflict in conflicts)


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


@given(cards, releases, st.sampled_from(["wheel", "wheel-variant", "source"]))
@settings(max_examples=60, deadline=None)
def test_a_branch_that_is_left_says_which_rule_it_broke(card, release, route):
    for candidate in walk(Request(card=card, torch=release, route=route)):
        assert candidate.broken or candidate.resolution.support != "none"


@given(requests)
@settings(max_examples=60, deadline=None)
def test_the_quick_look_leaves_out_nothing_that_the_whole_walk_finds(request):
    whole = [candidate.resolution for candidate in walk(request) if not candidate.broken]
    if whole:
        assert resolve(DATABASE, request) == whole[0]
    else:
        with pytest.raises(Unsatisfiable):
            resolve(DATABASE, request)
