"""A patch lifts a rule: the plan is possible, comes last, and says so."""

from __future__ import annotations

import pytest

from envforge.capability.load import load
from envforge.capability.lookup import find_card
from envforge.errors import Unsatisfiable
from envforge.patching.series import load_series, select
from envforge.report.sentences import note_text
from envforge.resolver import Request, resolve


def request(**parts) -> Request:
    return Request(card=find_card(load(), "gtx760"), torch="1.2.0", route="source", **parts)


def test_a_python_that_needs_a_patch_is_possible_where_it_is_asked_for():
    found = resolve(load(), request(python="3.8"))
    assert found.python == "3.8"
    assert "lifted-by-python-3.8-type-slots" in found.notes


def test_the_patch_that_lifts_the_rule_is_selected_for_that_plan():
    found = resolve(load(), request(python="3.8"))
    chosen = select(load_series(), torch=found.torch, cuda=found.cuda, python=found.python)
    assert "python-3.8-type-slots" in [patch.id for patch in chosen]


def test_a_python_the_sources_know_is_preferred_to_one_that_needs_a_patch():
    found = resolve(load(), request())
    assert found.python in {"2.7", "3.5", "3.6", "3.7"}
    assert not [note for note in found.notes if note.startswith("lifted-by-")]


def test_a_python_no_patch_is_for_stays_refused():
    with pytest.raises(Unsatisfiable) as caught:
        resolve(load(), request(python="3.9"))
    assert "torch-1.2.0-python" in [rule.id for rule in caught.value.conflict.rules]


def test_a_resolution_says_which_patch_lifts_the_rule():
    assert note_text("lifted-by-python-3.8-type-slots") == (
        "its sources alone refuse this Python: patch python-3.8-type-slots lifts that rule"
    )
