"""``check`` on captured machines: what a user reads there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from captured import HOSTS, expected, read_capture

from envforge.capability.load import load
from envforge.check import CheckReport, check
from envforge.hardware.detect import detect
from envforge.hardware.finding import FindingKey
from envforge.hardware.probes import Probes
from envforge.report.check import check_json, check_text
from envforge.report.findings import SENTENCES
from envforge.resolver import Request

CAPTURES = sorted(HOSTS.glob("*.txt"))


def checked(path: Path, folder: Path) -> CheckReport:
    database, capture = load(), read_capture(path)
    probes = Probes(nvml_argv=capture.nvml_argv(folder))
    root = capture.build(folder)
    found = detect(root, capture.environ, known=database.devices, probes=probes)
    return check(database, None, Request(), detection=found)


def document(path: Path, folder: Path) -> dict[str, Any]:
    return json.loads(json.dumps(check_json(checked(path, folder), load())))


def story(name: str) -> Path:
    (path,) = HOSTS.glob(f"{name}__*")
    return path


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: expected(path).story)
def test_every_captured_machine_gets_an_answer(path: Path, tmp_path: Path) -> None:
    report = checked(path, tmp_path)
    text, answer = check_text(report, load()), check_json(report, load())
    assert len(answer["cards"]) == len(expected(path).cards)
    keys = {row["key"] for card in answer["cards"] for row in card["findings"]}
    keys |= {row["key"] for row in answer["findings"]}
    assert keys == set(expected(path).findings)
    assert all(row["text"] for row in answer["findings"])
    assert text


def test_every_finding_has_its_sentence() -> None:
    assert set(SENTENCES) == set(get_args(FindingKey))


def test_an_unknown_card_is_reported_with_its_id_and_without_routes(tmp_path: Path) -> None:
    path = story("card-of-tomorrow-without-driver")
    (card,) = document(path, tmp_path)["cards"]
    assert (card["pci_id"], card["compute_capability"], card["routes"]) == ("10de:ffff", None, [])
    assert [row["key"] for row in card["findings"]] == ["unknown-device", "no-driver"]


def test_a_driver_that_leaves_the_card_alone_does_not_judge_its_routes(tmp_path: Path) -> None:
    path = story("k40m-beside-rtx3090")
    kepler, ampere = document(path, tmp_path)["cards"]
    assert kepler["routes"][0]["torch"] == "1.3.0"
    assert kepler["driver_bound"] is None
    assert ampere["driver_bound"] == "nvidia"
