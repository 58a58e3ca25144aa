"""The report of a run, in the form of a page and of sentences."""

from __future__ import annotations

import struct
import zlib

import msgspec
import pytest

from envforge.recipes.document import Boxes
from envforge.report.run_page import page, try_write_page, write_page
from envforge.report.run_samples import find_samples
from envforge.report.run_verdict import profile_text
from envforge.report.runs import runs_text
from envforge.training.bottleneck import Bottleneck
from envforge.training.record import Attempt, Change, LossSummary, RunFolder, RunRecord
from envforge.training.runs import Seen
from envforge.training.series import Point, Series

LOSSES = {"loss": LossSummary(first=2.0, last=0.5, least=0.4)}


def png():
    """One white pixel."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0\xff\xff\xff")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture
def record(tmp_path):
    """A run that died for memory, diverged and came home, with its curves and a picture."""
    attempts = (
        Attempt(started="2026-11-22T15:00:00Z", ended="2026-11-22T15:00:40Z", reason="gpu-oom",
                because=("CUDA out of memory <script>alert(1)</script>",), last_iteration=14,
                total_iterations=400),
        Attempt(started="2026-11-22T15:00:45Z", ended="2026-11-22T15:02:00Z", reason="finished",
                why="after gpu-oom: half the examples", first_iteration=10, last_iteration=400,
                changes=(Change(setting="batch", before=4, after=2),), losses=LOSSES,
                from_checkpoint="model_10.pth", rates=(0.04,), memory_mib=1465.0,
                quarantined=("model_20.pth: is empty",), forgets=("optimizer",),
                total_iterations=400, seconds_per_iteration=0.1),
    )  # fmt: skip
    made = RunRecord(id="x", state="SUCCEEDED", recipe="toy", reference="toy", on="local",
                     run_dir=str(tmp_path), attempts=attempts, settings={"batch": 2},
                     torch="1.0.1", python="/usr/bin/python", command=("python", "toy.py"),
                     show=("samples",))  # fmt: skip
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step-400.png").write_bytes(png())
    for number in range(2):
        series = Series(tmp_path / "series.jsonl", number)
        for step in range(10):
            series.add_losses(100.0 * number + step, step, {"loss": 1.0 / (step + 1)}, 0.1)
            series.add(Point(at=100.0 * number + step, attempt=number, cpu=1.0, gpu=0.9, cores=2,
                             machine_cpu=0.5, waiting=0.0))  # fmt: skip
        series.close()
    return made


def test_the_page_says_how_the_run_came_home(record):
    text = page(record)
    for words in (
        "400 of 400",
        "1465 MiB",
        "after gpu-oom: half the examples",
        "batch: 4 to 2",
        "from model_10.pth",
        "learning rate in the checkpoint: 0.04",
        "set aside model_20.pth: is empty",
        "upstream begins its optimizer anew",
        "GPU-bound: the card is what it waits for, as it should be",
        "card busy 90% of the time",
    ):
        assert words in text, words


@pytest.fixture
def found(record, tmp_path):
    """What a test of a model that finds words leaves: pictures, and a file of lines for each."""
    for place, name in (("a_visu", "one"), ("a_visu", "none"), ("b_visu", "one")):
        (tmp_path / "results" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / place / f"{name}.png").write_bytes(png())
    (tmp_path / "results" / "a_words").mkdir()
    (tmp_path / "results" / "a_words" / "res_one.txt").write_text(
        "1,2,3,4 <b>one</b> 0.93\n5.5,6,7,8,9,-10 two\nwhat is no line\n"
    )
    boxes = Boxes(
        file="results/*_words/res_*.txt",
        line=r"^(?P<points>[-\d.,]+) (?P<words>\S+)(?: (?P<score>\S+))?$",
    )
    return msgspec.structs.replace(record, samples="results/*_visu/*.png", boxes=boxes)


def test_what_was_found_is_drawn_over_the_picture_it_was_found_in(found):
    samples = {each.name: each.boxes for each in find_samples(found)}
    assert samples == {
        "results/a_visu/one.png": (
            ("1,2 3,2 3,4 1,4", "<b>one</b>", "0.93"), ("5.5,6 7,8 9,-10", "two", "")
        ),
        "results/a_visu/none.png": (),
        "results/b_visu/one.png": (),
    }  # fmt: skip
    text = page(found)
    assert text.count("<svg>") == 1
    drawn = (
        '<polygon points="1,2 3,2 3,4 1,4" stroke-opacity="0.93">'
        "<title>&lt;b&gt;one&lt;/b&gt;, 0.93</title></polygon>"
    )
    assert drawn in text
    assert '<span class="words">two</span>' in text
    assert "one.png: 2 found<" in text


def test_of_many_findings_all_are_drawn_and_the_surest_readings_told(found, tmp_path):
    """A hardly trained model finds a hundred, most of them nothing."""
    lines = [f"1,2,3,{n} word{n} 0.0{n:02d}" for n in range(1, 51)] + ["9,9,10,10 - 0.99"] * 50
    (tmp_path / "results" / "a_words" / "res_one.txt").write_text("\n".join(lines))
    boxes = msgspec.structs.replace(
        found.boxes, line=r"^(?P<points>\S+) (?:-|(?P<words>\w+)) (?P<score>\S+)$"
    )
    (sample,) = (
        each for each in find_samples(msgspec.structs.replace(found, boxes=boxes)) if each.boxes
    )
    assert len(sample.boxes) == 100
    assert sample.readings == tuple(f"word{n}, 0.0{n}" for n in range(50, 44, -1))
    assert sample.boxes[0].weight == 0.15, "still to be seen"


def test_the_page_needs_nothing_but_itself(record):
    text = page(record)
    head, _, rest = text.partition("<script>")
    body = head + rest[rest.index("</script>") :]
    assert 'src="data:image/png;base64,' in body
    for outside in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert outside not in body


def test_a_trainings_words_cannot_become_part_of_the_page(record):
    assert "<script>alert(1)" not in page(record)
    assert "&lt;script&gt;alert(1)" in page(record)


def test_a_run_that_was_killed_at_its_start_has_a_page_too(tmp_path):
    attempt = Attempt(started="2026-11-22T15:00:00Z")
    record = RunRecord(id="x", recipe="toy", reference="toy", on="local", run_dir=str(tmp_path),
                       attempts=(attempt,))  # fmt: skip
    RunFolder(tmp_path, None).write(record)
    path = write_page(record)
    assert "too few samples to say" in path.read_text()


def test_a_page_that_cannot_be_written_is_said_and_no_error(record, tmp_path):
    (tmp_path / "report.html").mkdir()
    assert try_write_page(record).startswith("no report.html: IsADirectoryError: ")


def test_a_profile_in_words():
    found = Bottleneck("disk", 40, gpu=0.31, cpu=1.5, waiting=0.44, read_mib_s=118.2, cores=2)
    assert profile_text(found) == (
        "IO-bound: the processors wait for disks while the card waits for them\n"
        "  card busy 31% of the time\n"
        "  1.5 of 2 cores busy with it\n"
        "  44% of the cores' time waiting for disks\n"
        "  118.2 MiB/s read from disks\n"
        "  -> let the data lie on a faster disk, or in memory: it is read again in every epoch\n"
        "  -> decode once: store the images in the size the training wants\n"
        "  medians of 40 samples while steps were made"
    )


def test_runs_in_a_list(record, tmp_path):
    rows = runs_text([Seen(tmp_path, record, held=False)]).splitlines()
    assert rows[0].split() == ["run", "recipe", "state", "steps", "attempts", "last"]
    assert rows[1].split() == [str(tmp_path), "toy", "succeeded", "400/400", "2", "finished"]
    assert "running, 0 s left" in runs_text([Seen(tmp_path, record, held=True)])
    assert runs_text([]) == "no runs"
