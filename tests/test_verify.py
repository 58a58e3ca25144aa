"""``envforge verify``: what a rehearsal's lines mean, and what is said of them."""

from __future__ import annotations

import json

import pytest

from envforge import cli
from envforge.capability.load import load
from envforge.check import sole_card
from envforge.errors import HostMismatch, VerificationFailed
from envforge.events import ignore
from envforge.report.build import stand_in_text
from envforge.report.verify import rehearsal_text
from envforge.resolver import Request, resolve
from envforge.verify import _rehearsal, find_stand_in

CARD = {
    "card": "NVIDIA H200", "capability": [9, 0], "torch": "1.13.1", "cuda": "11.8",
    "codes": ["sm_35", "compute_35"], "ready_s": 1.5, "processes": 4,
}  # fmt: skip
RIGHT = {
    "operator": "sorting", "part": "sorting", "precision": "float", "outcome": "right",
    "error": 1e-7, "first_s": 2.0, "again_s": 0.001,
}  # fmt: skip
WRONG = {**RIGHT, "operator": "sums", "outcome": "wrong", "error": 0.5}
TRAINING = {"training": [1.0, 0.2], "on_cpu": [1.0, 0.2001], "step_s": 0.002}


def rehearsal(*rows, codes=()):
    return _rehearsal((json.dumps(row) for row in rows), codes, ignore)


def test_ptx_that_a_newer_card_compiled_is_said_to_be_that():
    found = rehearsal(CARD, RIGHT, TRAINING)
    assert (found.executed, found.wrong, found.trained) == ("ptx-jit", (), True)
    text = rehearsal_text(found)
    assert "1 of 1 operators computed rightly: this card's driver compiled the compute_35" in text
    assert "not shown: its machine code itself" in text


def test_code_for_this_very_card_is_no_rehearsal():
    found = rehearsal(CARD, RIGHT, TRAINING, codes=("sm_90",))
    assert found.executed == "native"
    assert rehearsal_text(found).endswith("for this very card: this was no rehearsal")


def test_an_operator_that_computes_wrongly_proves_the_opposite():
    found = rehearsal(CARD, RIGHT, WRONG, TRAINING)
    assert [row.operator for row in found.wrong] == ["sums"]
    text = rehearsal_text(found)
    assert "1 of 2 operators computed rightly" in text
    assert "shown: " not in text


@pytest.mark.parametrize("losses", [[1.0, float("inf")], [1.0, 1.1], [1.0, 0.3]])
def test_a_training_that_goes_elsewhere_than_on_the_cpu_did_not_train(losses):
    assert not rehearsal(CARD, RIGHT, {**TRAINING, "training": losses}).trained


def test_machine_code_alone_cannot_be_rehearsed_on_a_newer_card():
    with pytest.raises(HostMismatch) as error:
        rehearsal(CARD, RIGHT, TRAINING, codes=("sm_35",))
    assert error.value.what == "a NVIDIA H200 cannot stand in for this build"
    assert error.value.because == ("it carries sm_35, the card is 9.0",)


def test_a_program_that_breaks_off_shows_what_it_said_last():
    lines = [json.dumps(CARD), "terminate called", json.dumps(RIGHT)]
    with pytest.raises(VerificationFailed) as error:
        _rehearsal(lines, (), ignore)
    assert error.value.because == ("terminate called",)


def test_an_interpreter_is_for_a_rehearsal(capsys):
    assert cli.main(["verify", "--interpreter", "python3"]) == 2
    assert "--interpreter is for --rehearse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("here", "flags", "said"),
    [("h200", [], True), ("h200", ["--ptx"], False), ("gtx780", [], False), ("gtx680", [], False)],
)
def test_a_newer_card_of_this_machine_is_named_where_ptx_would_let_it_stand_in(
    monkeypatch, here, flags, said
):
    database = load()
    monkeypatch.setenv("ENVFORGE_GPU", here)
    request = Request(
        card=sole_card(database, "gtx780"), torch="1.13.1", route="source", ptx=bool(flags)
    )
    found = find_stand_in(database, resolve(database, request))
    assert (found is not None) is said
    if found is not None:
        assert "with --ptx it can execute this build" in stand_in_text(found)
