"""Questions and their answers, each with a source outside envforge: ``cases/resolve/*.yaml``.

A case asks (``request``, once for every value under ``each``) and states what its source says:
``resolution`` (fields of the best route), ``routes`` (kind -> fields of the newest that takes it),
``no_route`` (kinds that must not be offered), ``conflict`` (rules that must be named), ``card``
(what the name means), ``ambiguous`` (id -> compute capability of every choice), ``error``.
``notes`` of a resolution are some of those it must carry; ``warns`` asks for one of any kind that
speaks of a library beside torch's own kernels.
``xfail`` says what in envforge contradicts the source; it must go when that is repaired.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from envforge.capability.load import load
from envforge.capability.lookup import Card, find_card
from envforge.documents import parse_yaml
from envforge.errors import AmbiguousName, EnvforgeError, Unsatisfiable
from envforge.report import sentences
from envforge.resolver import Request, explain, resolve, routes
from envforge.values import ComputeCapability

DATABASE = load()
HERE = Path(__file__).parent
STATEMENTS = {"resolution", "routes", "no_route", "conflict", "card", "ambiguous", "error"}
STATEMENTS |= {"warns"}
FIELDS = {"name", "source", "evidence", "request", "each", "xfail", "relaxations", "compiling"}
FIELDS |= {"refusing_includes", *STATEMENTS}


def read(name: str) -> dict:
    return parse_yaml((HERE / "cases" / name).read_text(encoding="utf-8"), name)


def every(case: dict) -> list[dict]:
    """One case for every combination of the values under ``each``."""
    axes = case.get("each", {})
    cases = []
    for values in product(*axes.values()):
        asked = dict(zip(axes, values, strict=True))
        suffix = ", ".join(map(str, values))
        name = f"{case['name']} [{suffix}]" if axes else case["name"]
        cases.append({**case, "name": name, "request": {**case["request"], **asked}})
    return cases


FILES = sorted(path.name for path in (HERE / "cases/resolve").glob("*.yaml"))
CASES = [case for name in FILES for row in read(f"resolve/{name}")["cases"] for case in every(row)]


def parameters(*statements: str, sound: bool = False) -> list:
    """The cases that state one of these; ``sound``: only where envforge agrees with the source."""
    return [
        pytest.param(
            case,
            id=case["name"],
            marks=[pytest.mark.xfail(reason=case["xfail"])] if "xfail" in case else [],
        )
        for case in CASES
        if set(statements) & set(case) and not (sound and "xfail" in case)
    ]


def request_of(asked: dict) -> Request:
    fields = dict(asked)
    gpu = fields.pop("gpu", None)
    if fields.pop("cpu", False):
        fields["route"] = "cpu"
    return Request(card=find_card(DATABASE, gpu) if gpu else None, **fields)


def assert_fields(found: object, expected: dict) -> None:
    for field, value in expected.items():
        got = getattr(found, field)
        if field == "notes":
            assert set(value) <= set(got), got
            continue
        got = list(got) if isinstance(got, tuple) and isinstance(value, list) else got
        assert (str(got) if isinstance(got, ComputeCapability) else got) == value, field


def test_every_case_names_an_outside_source():
    for case in CASES:
        assert set(case) <= FIELDS, case["name"]
        assert set(case) & STATEMENTS, case["name"]
        assert case["source"], case["name"]
        assert case["evidence"] in {"measured", "vendor-docs", "upstream", "third-party"}
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 200


@pytest.mark.parametrize("case", parameters("card"))
def test_the_card_is_what_the_source_says(case):
    assert_fields(find_card(DATABASE, case["request"]["gpu"]), case["card"])


@pytest.mark.parametrize("case", parameters("ambiguous"))
def test_an_ambiguous_name_is_asked_back_with_every_id(case):
    with pytest.raises(AmbiguousName) as caught:
        find_card(DATABASE, case["request"]["gpu"])
    found = {choice["pci_id"]: choice["compute_capability"] for choice in caught.value.choices}
    assert found == case["ambiguous"]


@pytest.mark.parametrize("case", parameters("error"))
def test_what_is_unknown_is_refused_by_name(case):
    with pytest.raises(EnvforgeError) as caught:
        resolve(DATABASE, request_of(case["request"]))
    assert caught.value.code == case["error"]
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("case", parameters("resolution"))
def test_the_answer_is_what_the_source_says(case):
    assert_fields(resolve(DATABASE, request_of(case["request"])), case["resolution"])


@pytest.mark.parametrize("case", parameters("routes", "no_route"))
def test_the_routes_are_those_of_the_source(case):
    found = {route.route: route for route in routes(DATABASE, request_of(case["request"]))}
    assert set(case.get("no_route", ())) & set(found) == set()
    for kind, expected in case.get("routes", {}).items():
        assert_fields(found[kind], expected)


@pytest.mark.parametrize("case", parameters("warns"))
def test_a_library_without_code_for_the_card_is_warned_of(case):
    notes = set(resolve(DATABASE, request_of(case["request"])).notes)
    assert bool(notes - {"ptx-jit", "not-built-yet"}) is case["warns"], notes


@pytest.mark.parametrize("case", parameters("conflict"))
def test_the_refusal_names_the_rules_of_the_source(case):
    with pytest.raises(Unsatisfiable) as caught:
        resolve(DATABASE, request_of(case["request"]))
    conflict = caught.value.conflict
    assert set(case["conflict"]) <= {rule.id for rule in conflict.rules}
    if "relaxations" in case:
        assert [relaxation.drop for relaxation in conflict.relaxations] == case["relaxations"]
    if "compiling" in case:
        assert list(conflict.toolkits.compiling) == case["compiling"]
        assert set(case["refusing_includes"]) <= set(conflict.toolkits.refusing)


@pytest.mark.parametrize("case", parameters("conflict", sound=True))
def test_every_rule_of_a_conflict_can_be_said_and_has_a_source(case):
    conflict = explain(DATABASE, request_of(case["request"]))
    assert conflict.rules
    for rule in conflict.rules:
        assert "{" not in sentences.rule_text(rule)
        assert rule.source
        assert rule.evidence


@pytest.mark.parametrize("case", parameters("conflict", sound=True))
def test_a_relaxation_really_gives_what_it_says(case):
    request = request_of(case["request"])
    conflict = explain(DATABASE, request)
    assert conflict.rules
    for relaxation in conflict.relaxations:
        if relaxation.drop != "gpu":
            relaxed = request._replace(**{relaxation.drop: None})
            assert resolve(DATABASE, relaxed) == relaxation.gives


# The wheels that were measured, card by card.

MEASURED = read("measured_wheels.yaml")
WHEELS = [pytest.param(row, id=row["torch"]) for row in MEASURED["wheels"]]


def ruled(row: dict, capability: str) -> str:
    """NVIDIA's rule, written down once more: the oracle is not envforge."""
    card = ComputeCapability.parse(capability)
    sass = [divmod(int(code[3:]), 10) for code in row["sass"].split()]
    ptx = [divmod(int(code[8:]), 10) for code in row["ptx"].split()]
    if any(major == card.major and minor <= card.minor for major, minor in sass):
        return "native"
    return "ptx-jit" if any(code <= card for code in ptx) else "none"


def derived(row: dict, capability: str) -> str:
    """What the measurement itself says of the card."""
    if capability in row["natively"].split():
        return "native"
    return "ptx-jit" if capability in row["by_ptx"].split() else "none"


def test_the_measured_table_follows_nvidias_rule():
    listed = f"{MEASURED['since_3_5']} {MEASURED['never']}".split()
    for row in MEASURED["wheels"]:
        for capability in listed:
            assert derived(row, capability) == ruled(row, capability), (row["torch"], capability)


@pytest.mark.parametrize("row", WHEELS)
def test_no_cell_of_a_measured_wheel_is_wrong(row):
    for capability in DATABASE.architectures:
        card = Card(capability, ComputeCapability.parse(capability))
        asked = Request(card=card, torch=row["torch"], route="wheel")
        found = [route.support for route in routes(DATABASE, asked)]
        expected = ruled(row, capability)
        tegra_aside = DATABASE.architectures[capability].tegra and not found
        assert found == ([] if expected == "none" else [expected]) or tegra_aside, capability


def test_every_measured_wheel_and_every_capability_is_in_the_table():
    measured = {row["torch"] for row in MEASURED["wheels"]}
    ours = {w.torch for w in DATABASE.wheels if w.variant is None and w.evidence == "measured"}
    assert measured == ours
    assert len(measured) * len(DATABASE.architectures) >= 434


# What README.md types is what is tried here.


def test_every_card_and_release_in_the_readme_is_a_case():
    text = (HERE.parent / "README.md").read_text(encoding="utf-8")
    asked = {
        (case["request"].get("gpu"), case["request"].get("torch"))
        for row in read("resolve/readme.yaml")["cases"]
        for case in every(row)
    }
    lines = [line for line in text.splitlines() if line.startswith("$ envforge")]
    for line in lines:
        gpu = re.search(r"--gpu (\S+)", line)
        torch = re.search(r"--torch (\S+)", line)
        if gpu or torch:
            assert (gpu and gpu[1], torch and torch[1]) in asked, line
    assert lines


def test_a_request_that_matches_nothing_is_refused_not_guessed():
    request = request_of({"gpu": "gtx780", "torch": "1.13.1", "python": "2.6"})
    with pytest.raises(EnvforgeError) as caught:
        resolve(DATABASE, request)
    assert caught.value.exit_code == 4
