from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envforge.recipes import load_recipe
from envforge.recipes.ladder import Explosion
from envforge.run.job import patterns_of
from envforge.training.job import LogPatterns
from envforge.training.metrics import LONGEST, TAIL, LogReader, Pace

CANARY = patterns_of(load_recipe("canary").recipe)
# Two upstreams whose lines were captured from the real projects (the recipes come later).
PIX2PIX = LogPatterns(
    progress=re.compile(
        r"\(epoch: \d+, iters: (?P<step>\d+), time: (?P<seconds>[\d.]+)[^)]*\) ,?\s*(?P<losses>.*)"
    ),
    loss=re.compile(r"(?P<name>\w+): (?P<value>-?[\d.]+|nan|-?inf)"),
)
MASKTEXTSPOTTER = LogPatterns(
    progress=re.compile(
        r"iter: (?P<step>\d+)  (?P<losses>.*?)  time: (?P<seconds>\S+) .*max mem: \d+"
    ),
    loss=re.compile(r"(?P<name>loss\w*): (?P<value>\S+) \("),
)


def read(patterns: LogPatterns, *lines: str) -> LogReader:
    reader = LogReader(patterns)
    for line in lines:
        reader.read(line.encode())
    return reader


def test_a_line_of_the_canary_gives_step_total_losses_and_time():
    reader = read(
        CANARY,
        "step: 20/300  loss_g: 1.2345  loss_d: 0.6789  loss_l1: 0.2345  time: 0.123  lr: 0.000200",
    )
    assert (reader.step, reader.total, reader.seconds_per_step) == (20, 300, 0.123)
    assert {name: loss.last for name, loss in reader.losses.items()} == {
        "loss_g": 1.2345,
        "loss_d": 0.6789,
        "loss_l1": 0.2345,
    }


@pytest.mark.parametrize(
    "line",
    [
        "(epoch: 1, iters: 4, time: 2.874) G_GAN: 0.633 G_L1: 40.897 D_real: 0.630 D_fake: 0.848 ",
        "(epoch: 1, iters: 4, time: 2.874, data: 0.027) G_GAN: 0.633 G_L1: 40.897 D_real: 0.63 ",
        "[Rank 0] (epoch: 1, iters: 4, time: 2.874, data: 0.014) , G_GAN: 0.633, G_L1: 40.897",
    ],
)
def test_every_era_of_pix2pix_lines_is_read_by_one_pattern(line):
    reader = read(PIX2PIX, line)
    assert (reader.step, reader.seconds_per_step) == (4, 2.874)
    assert reader.losses["G_GAN"].last == 0.633
    assert reader.losses["G_L1"].last == 40.897


def test_masktextspotter_lines_are_read_by_their_medians():
    reader = read(
        MASKTEXTSPOTTER,
        "2026-11-22 09:01:46,303 maskrcnn_benchmark.trainer INFO: eta: 1 day, 3:04:05  iter: 40  "
        "loss: 10.7926 (28.0002)  loss_classifier: 0.1138 (0.2048)  time: 5.2520 (5.5973)  "
        "data: 0.0056 (0.0126)  lr: 0.000017  max mem: 0",
    )
    assert reader.step == 40
    assert {name: loss.last for name, loss in reader.losses.items()} == {
        "loss": 10.7926,
        "loss_classifier": 0.1138,
    }


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "NaN", "Infinity"])
def test_a_loss_that_is_no_number_is_read_and_remembered(value):
    reader = read(
        CANARY,
        "step: 5/300  loss_g: 1.0  time: 0.1",
        f"step: 10/300  loss_g: {value}  time: 0.1",
        "step: 15/300  loss_g: 2.0  time: 0.1",
    )
    assert reader.bad_value == f"loss_g was {float(value)} at step 10"
    assert reader.losses["loss_g"].last == 2.0


def test_least_survives_a_first_value_that_is_no_number():
    lines = [f"step: {step}/9  loss: {value}  time: 1" for step, value in enumerate(["nan", 3, 4])]
    assert read(CANARY, *lines).losses["loss"].least == 3


def test_checks_checkpoints_resumes_and_stops_are_notable():
    reader = LogReader(CANARY)
    lines = [
        b"resumed: checkpoints/step-000050.pth at step 50",
        b"check: conv2d ok  0 off",
        b"check: gpu skipped  no GPU",
        b"check: adam failed  3 of a step away",
        b"checkpoint: checkpoints/step-000100.pth",
        b"stopped: at step 101",
        b"canary: passed",
    ]
    assert [reader.read(line) for line in lines] == ["notable"] * 7
    assert reader.resumed_at == 50
    assert reader.checkpoint == "checkpoints/step-000100.pth"
    assert reader.step == 101
    assert (reader.stopped, reader.success) == (True, True)
    assert [tuple(check) for check in reader.failed_checks()] == [
        ("adam", "failed", "3 of a step away")
    ]


def test_a_check_made_again_counts_once():
    reader = read(CANARY, "check: adam failed  x", "check: adam ok  y")
    assert reader.failed_checks() == ()


def test_a_line_that_only_mentions_success_is_no_success():
    assert not read(CANARY, "assert canary: passed", "canary: passed?").success


def test_words_of_a_death_are_kept_however_long_the_stack_below_them_and_until_it_goes_on():
    reader = read(CANARY, "RuntimeError: CUDA error: out of memory")
    for number in range(3 * TAIL):
        reader.read(f"frame #{number}: c10::Error::Error(c10::SourceLocation)".encode())
    assert reader.death is not None
    assert reader.death.message.reason == "gpu-oom"
    reader.read(b"step: 6/300  loss_g: 1.0  time: 0.1")
    assert reader.death is None


def test_the_weightiest_words_name_the_death():
    lines = (
        "ValueError: Caught RuntimeError in DataLoader worker process 0.",
        '  File "/x/data/datasets/icdar.py", line 149, in load_gt_from_txt',
        "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB",
    )
    assert read(CANARY, *lines).death.message.reason == "gpu-oom"
    assert read(CANARY, *lines[:2]).death.message.reason == "data"


EXPLOSION = Explosion(loss="loss", times_median=10, lines=3, after=5)


def read_losses(*values):
    reader = LogReader(LogPatterns(progress=LINE, loss=LOSS), explosion=EXPLOSION)
    for step, value in enumerate(values, 1):
        reader.read(f"step: {step}  loss: {value}".encode())
    return reader


LINE = re.compile(r"step: (?P<step>\d+)")
LOSS = re.compile(r"(?P<name>loss): (?P<value>\S+)(?: \((?P<average>\S+)\))?")


def test_a_loss_far_above_its_median_has_exploded_after_some_lines():
    calm = [1.0, 1.2, 0.9, 1.1, 1.0]
    assert read_losses(*calm, 50, 60, 1.0, 70).bad_value == ""
    reader = read_losses(*calm, 50, 60, 70)
    assert reader.bad_value == "loss was 70 at step 8, its median before was 1.1"
    assert reader.good_step == 5, "what is high already is not good"
    assert read_losses(1, 1, 50, 50, 50).bad_value == ""  # too young to have a median


def test_an_average_tells_of_the_nan_that_the_median_hides():
    reader = read_losses("1.0 (1.0)", "1.0 (nan)")
    assert reader.bad_value == "the average of loss was nan at step 2"
    assert reader.good_step == 1


def test_steps_of_an_epoch_are_counted_on():
    patterns = LogPatterns(
        progress=re.compile(r"\(epoch: (?P<epoch>\d+), iters: (?P<step>\d+)"),
        epoch_size=re.compile(r"images = (?P<items>\d+)"),
        epoch_end=re.compile(r"End of epoch (?P<epoch>\d+) / (?P<epochs>\d+)"),
        checkpoint=re.compile(r"end of epoch (?P<number>\d+)"),
    )
    reader = LogReader(patterns, parts=("c/{number}_net_G.pth", "c/{number}_net_D.pth"))
    for line in (
        "The number of training images = 400",
        "(epoch: 1, iters: 100, time: 1.9) G_GAN: 0.983",
        "saving the model at the end of epoch 1, iters 400",
        "End of epoch 1 / 200 \t Time Taken: 9 sec",
        "(epoch: 2, iters: 100, time: 1.9) G_GAN: 0.983",
    ):
        reader.read(line.encode())
    assert (reader.step, reader.total, reader.checkpoint) == (500, 80_000, "c/1_net_G.pth")


def test_steps_that_are_no_steps_are_no_progress():
    reader = LogReader(CANARY)
    assert reader.read(b"step: " + b"9" * 5000 + b"/300  loss: 1  time: 1") == "other"
    assert reader.step is None


@given(st.binary(max_size=400))
def test_no_bytes_whatsoever_stop_the_reader(raw):
    for patterns in (CANARY, PIX2PIX, MASKTEXTSPOTTER):
        LogReader(patterns).read(raw)


WORDS = (
    *(b"step: ", b"1", b"/", b"300", b"  ", b"loss_g: ", b"nan", b"1e999", b"-", b"time: "),
    *(b"check: ", b"ok", b"resumed: ", b" at step ", b"stopped: at step ", b"\x00", b"\xff"),
)


@given(st.lists(st.sampled_from(WORDS), max_size=20))
def test_no_shuffled_contract_line_stops_the_reader(parts):
    reader = LogReader(CANARY)
    reader.read(b"".join(parts))
    assert reader.lines == 1


def test_a_line_of_a_hundred_megabytes_is_cut_before_it_is_looked_at():
    reader = LogReader(CANARY)
    reader.read(b"x" * 100_000_000)
    assert len(reader.tail[-1]) == LONGEST


def test_pace_takes_the_logs_own_time_for_a_step():
    pace = Pace()
    for step, seconds in ((5, 0.5), (10, 0.1), (15, 0.2)):
        pace.add(step, seconds, at=0.0)
    assert pace.seconds_per_step == 0.2
    assert pace.left_s(15, 20) == pytest.approx(1.0)


def test_pace_measures_where_the_log_says_nothing():
    pace = Pace()
    pace.add(10, None, at=100.0)
    assert pace.seconds_per_step is None
    assert pace.left_s(10, 20) is None
    pace.add(20, None, at=105.0)
    assert pace.seconds_per_step == 0.5
    pace.add(5, None, at=106.0)  # a resumed training goes back
    assert pace.seconds_per_step == 0.5
    assert pace.left_s(5, None) is None


def test_an_absurd_time_is_no_pace():
    pace = Pace()
    pace.add(1, math.inf, at=0.0)
    assert pace.seconds_per_step is None


def test_the_peak_that_a_rehearsal_says_at_its_end_is_the_memory():
    reader = LogReader(CANARY)
    line = b"envforge-memory: allocated 1578 MiB, reserved 1624 MiB, of 1843 MiB"
    assert reader.read(line) == "notable"
    assert reader.memory_mib == 1624
