from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from envforge.errors import DocumentError
from envforge.training.messages import find_death, load_messages

LINES = yaml.safe_load((Path(__file__).parent / "deaths" / "lines.yaml").read_text())["lines"]


@pytest.mark.parametrize("said", LINES, ids=lambda said: f"{said['id']}-{LINES.index(said)}")
def test_a_line_that_was_really_printed_is_known_for_what_it_is(said):
    death = find_death(said["line"])
    found = (death.message.id, death.message.reason) if death else (None, None)
    assert found == (said["id"], said["reason"])


def test_every_shape_has_a_line_and_every_line_its_source():
    assert {said["id"] for said in LINES} - {None} == {row.id for row, _ in load_messages()}
    assert all(said["source"].strip() for said in LINES)


def test_every_row_has_a_source_and_no_id_stands_twice():
    rows = [row for row, _ in load_messages()]
    assert len({row.id for row in rows}) == len(rows)
    assert all(row.source.startswith("https://") for row in rows)


@pytest.mark.parametrize(
    "line",
    [
        "step: 7/9  loss_g: 1.0  time: 1",
        "max mem: 3917",
        "Loading checkpoint from outputs/model_0000020.pth",
        "Killed",
        "UserWarning: lr_scheduler.step() before optimizer.step()",
    ],
)
def test_ordinary_lines_are_no_death(line):
    assert find_death(line) is None


def test_a_pattern_that_is_none_is_a_fault_of_its_row(tmp_path):
    path = tmp_path / "messages.yaml"
    row = "{id: x, reason: gpu-oom, pattern: '%s', source: x, evidence: upstream}"
    path.write_text(f"messages: [{row % 'a'}, {row % '(?1'}]")
    with pytest.raises(DocumentError) as caught:
        load_messages(path)
    assert "messages[1]: unknown extension ?1" in caught.value.because[0]


def test_a_row_with_an_unknown_key_is_a_fault(tmp_path):
    path = tmp_path / "messages.yaml"
    path.write_text("messages: [{id: x, reason: gpu-oom, pattern: x, source: x, why: x}]")
    with pytest.raises(DocumentError) as caught:
        load_messages(path)
    assert "unknown field `why`" in caught.value.because[0]
