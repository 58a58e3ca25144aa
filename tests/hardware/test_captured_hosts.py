"""Every captured machine must be read as its file name says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from captured import HOSTS, Capture, expected, read_capture

from envforge.capability.database import Database
from envforge.capability.load import load
from envforge.capability.models import Architecture
from envforge.hardware.cards import DetectedGpu
from envforge.hardware.detect import Detection, detect
from envforge.hardware.judge import judge_card, judge_host
from envforge.hardware.probes import Probes

CAPTURES = sorted(HOSTS.glob("*.txt"))
SEEN = {True: "seen", False: "hidden", None: "unsure"}


@pytest.fixture(scope="module")
def database() -> Database:
    return load()


def detected(capture: Capture, folder: Path, database: Database) -> Detection:
    probes = Probes(nvml_argv=capture.nvml_argv(folder))
    root = capture.build(folder)
    return detect(root, capture.environ, known=database.devices, probes=probes)


def token(card: DetectedGpu, database: Database) -> str:
    """``1187.nvidia.seen.sysfs``; an id that the database lacks carries what the driver said."""
    words = [card.pci_id[5:]] if card.pci_id else []
    if card.compute_capability and not (words and words[0] in database.devices):
        words.append(f"sm{card.compute_capability.number}")
    bound, seen = card.driver_bound or "none", SEEN[card.visible]
    return f"{'-'.join(words) or 'unnamed'}.{bound}.{seen}.{card.detected_by}"


def architecture_of(card: DetectedGpu, database: Database) -> Architecture | None:
    device = database.devices.get((card.pci_id or "")[5:])
    capability = device.compute_capability if device else str(card.compute_capability)
    return database.architectures.get(capability)


def findings(detection: Detection, database: Database) -> tuple[str, ...]:
    found = [*detection.findings, *judge_host(detection.host, database)]
    for card in detection.cards:
        if architecture := architecture_of(card, database):
            found += judge_card(card, architecture, detection.host, database)
    return tuple(sorted({finding.key for finding in found}))


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: expected(path).story)
def test_a_captured_machine_is_read_as_its_file_name_says(
    path: Path, tmp_path: Path, database: Database
) -> None:
    answer = expected(path)
    detection = detected(read_capture(path), tmp_path, database)
    assert tuple(token(card, database) for card in detection.cards) == answer.cards
    assert (detection.host.driver or "no-driver") == answer.driver
    assert findings(detection, database) == answer.findings


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: expected(path).story)
def test_what_the_driver_adds_never_contradicts_the_files(
    path: Path, tmp_path: Path, database: Database
) -> None:
    capture = read_capture(path)
    root, probes = capture.build(tmp_path), Probes(nvml_argv=capture.nvml_argv(tmp_path))
    quick = detect(root, capture.environ, asking="never")
    full = detect(root, capture.environ, asking="always", known=database.devices, probes=probes)
    assert not [finding for finding in full.findings if finding.key == "layers-disagree"]
    if quick.cards and quick.cards[0].detected_by != "proc":
        ids = [(card.address, card.pci_id, card.detected_by) for card in full.cards]
        assert ids == [(card.address, card.pci_id, card.detected_by) for card in quick.cards]


def test_captures_say_in_their_name_whether_they_are_real() -> None:
    made = {expected(path).made for path in CAPTURES}
    assert made == {"real", "synthetic"}


def test_no_capture_holds_a_uuid_of_a_real_card() -> None:
    uuids = [
        uuid
        for path in CAPTURES
        for uuid in re.findall(r"GPU-[0-9a-f]{8}-[-0-9a-f]+", path.read_text(encoding="utf-8"))
    ]
    assert uuids
    assert {uuid[12:] for uuid in uuids} == {"-0000-0000-0000-000000000000"}
