"""Files of checkpoints in a directory; what is inside them is another test's (tests/recipe)."""

from __future__ import annotations

import os

import pytest

from envforge.errors import RunFailed
from envforge.events import ignore
from envforge.recipes.document import CheckpointRule
from envforge.recipes.ladder import Ladder
from envforge.training.checkpoints import (
    Saved,
    Scaling,
    Suspicion,
    find_saved,
    protect,
    prune,
    recover,
    resume_words,
    scale,
)
from envforge.training.keeper import Keeper
from envforge.training.local import LocalExecutor

PAIR = CheckpointRule(
    parts=("c/{number}_net_G.pth", "c/{number}_net_D.pth"),
    unit="epoch",
    resume=("--continue_train", "--epoch_count", "{next}", "--epoch", "{number}"),
    forgets=("optimizer", "schedule", "step"),
    size_mib=229,
    every="save_epoch_freq",
    keep=2,
)
STEPS = CheckpointRule(
    parts=("model_{number}.pth",), unit="step", pointer="last_checkpoint", size_mib=350,
    every="checkpoint_period", keep=2,
)  # fmt: skip


def write(folder, *names, text="x"):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(saved):
    return [each.files[0].name for each in saved]


class Program(LocalExecutor):
    """Answers for the program: the files named bad hold a NaN."""

    def __init__(self, bad=(), code=0):
        self.bad, self.code, self.asked = bad, code, []

    def call(self, _job, _program, arguments):
        self.asked.append(arguments)
        files = [word for word in arguments if word.endswith(".pth")]
        rows = [
            f'checkpoint: {{"file": "{name}", "rates": [0.1], "fault": '
            f'"{"model.bias is not finite" if name in self.bad else ""}"}}'
            for name in files
        ]
        return self.code, "\n".join(rows if self.code == 0 else ["Traceback", "ImportError: torch"])


def test_a_checkpoint_of_two_files_is_none_without_the_other(tmp_path):
    write(tmp_path, "c/5_net_G.pth", "c/5_net_D.pth", "c/10_net_G.pth", "c/latest_net_G.pth")
    (found,) = find_saved(tmp_path, "c/*_net_G.pth", PAIR)
    assert (found.number, found.step) == ("5", 5)
    assert [path.name for path in found.files] == ["5_net_G.pth", "5_net_D.pth"]


def test_they_are_in_the_order_of_their_numbers_newest_first(tmp_path):
    write(tmp_path, "model_0000900.pth", "model_0001000.pth", "model_final.pth")
    assert names(find_saved(tmp_path, "model_*.pth", STEPS)) == [
        "model_0001000.pth", "model_0000900.pth"
    ]  # fmt: skip


def test_without_a_rule_every_file_of_the_glob_is_one(tmp_path):
    write(tmp_path, "step-9.txt", "step-10.txt", "final.txt")
    assert names(find_saved(tmp_path, "*.txt", None)) == ["step-10.txt", "step-9.txt", "final.txt"]


def test_a_resumed_pix2pix_is_told_the_epoch_that_follows(tmp_path):
    saved = Saved("15", (tmp_path / "15_net_G.pth",))
    assert resume_words(PAIR, saved) == ("--continue_train", "--epoch_count", "16", "--epoch", "15")
    assert resume_words(PAIR, None) == ()
    assert resume_words(None, saved) == ()


def test_the_number_in_words_is_as_the_file_has_it(tmp_path):
    rule = CheckpointRule(parts=("m_{number}",), unit="step", size_mib=1, every="x",
                          resume=("{number}", "{next}"))  # fmt: skip
    assert resume_words(rule, Saved("0000020", (tmp_path / "m_0000020",))) == ("0000020", "21")


def test_a_nan_is_set_aside_and_the_older_one_named_in_upstreams_note(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth", "model_0000020.pth")
    write(job.run_dir, "last_checkpoint", text="/x/out/model_0000020.pth")
    recovered = recover(job, Program(bad={"model_0000020.pth"}), "attempt-1")
    assert names([recovered.good]) == ["model_0000010.pth"]
    assert recovered.quarantined == ("model_0000020.pth: model.bias is not finite",)
    assert recovered.rates == (0.1,)
    assert (job.run_dir / "last_checkpoint").read_text() == "/x/out/model_0000010.pth"
    assert (job.run_dir / "quarantine/attempt-1/model_0000020.pth").exists()


@pytest.mark.parametrize("text", [None, ""])
def test_a_note_that_a_kill_left_empty_or_unwritten_is_written(toy_job, text):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth")
    if text is not None:
        write(job.run_dir, "last_checkpoint", text=text)
    recover(job, Program(), "attempt-1")
    expected = f"{job.run_dir}/model_0000010.pth"
    assert (job.run_dir / "last_checkpoint").read_text() == expected


def test_where_none_is_left_upstreams_note_goes_too(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth", "last_checkpoint")
    recovered = recover(job, Program(bad={"model_0000010.pth"}), "attempt-1")
    assert recovered.good is None
    assert not (job.run_dir / "last_checkpoint").exists()


def test_epochs_are_suspicious_by_the_time_they_were_written(toy_job):
    job = toy_job(checkpoints="c/*_net_G.pth", rule=PAIR)
    write(job.run_dir, "c/5_net_G.pth", "c/5_net_D.pth", "c/10_net_G.pth", "c/10_net_D.pth")
    for path in job.run_dir.glob("c/*"):
        at = 1000 if path.name.startswith("5") else 2000
        os.utime(path, (at, at))
    program = Program()
    recovered = recover(job, program, "attempt-1", Suspicion(step=4000, at=1500.0))
    assert recovered.good.number == "5"
    assert recovered.quarantined == ("c/10_net_G.pth: was saved after the last good step",)
    assert program.asked == [("verify", "c/5_net_G.pth", "c/5_net_D.pth")]


def test_a_program_that_cannot_run_sets_nothing_aside(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth")
    with pytest.raises(RunFailed) as caught:
        recover(job, Program(code=1), "attempt-1")
    assert caught.value.what == "the checkpoints cannot be looked into"
    assert caught.value.because == ("Traceback", "ImportError: torch")
    assert (job.run_dir / "model_0000010.pth").exists()


def test_a_file_that_crashes_whoever_loads_it_is_set_aside(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth")
    recovered = recover(job, Program(code=139), "attempt-1")
    assert recovered.quarantined == ("model_0000010.pth: whoever loads it crashes",)


def test_a_rate_that_cannot_be_lowered_is_an_error(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    write(job.run_dir, "model_0000010.pth")
    (saved,) = find_saved(job.run_dir, job.checkpoints, STEPS)
    with pytest.raises(RunFailed, match=r"the learning rate in model_0000010\.pth stays"):
        scale(saved, [Scaling(0.5, 10)], job, Program(bad={"model_0000010.pth"}))


def test_only_one_copy_is_protected(tmp_path):
    write(tmp_path, "a/model_1.pth", "a/model_2.pth")
    for number in ("1", "2"):
        protect(Saved(number, (tmp_path / "a" / f"model_{number}.pth",)), tmp_path)
    kept = [path.name for path in (tmp_path / "protected").glob("**/*") if path.is_file()]
    assert kept == ["model_2.pth"]


def saved_in(folder, *numbers):
    write(folder, *(f"model_{number}.pth" for number in numbers))
    return find_saved(folder, "model_*.pth", STEPS)


def test_pruning_keeps_the_newest_and_the_good_one(tmp_path):
    saved = saved_in(tmp_path, "10", "20", "30", "40", "50")
    gone = prune(saved, 2, good=saved[3])
    assert sorted(gone) == ["model_10.pth", "model_30.pth"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model_20.pth", "model_40.pth", "model_50.pth"
    ]  # fmt: skip


def test_nothing_is_pruned_before_one_is_known_to_be_good(tmp_path):
    saved = saved_in(tmp_path, "10", "20", "30")
    assert prune(saved, 1, good=None) == ()
    assert len(list(tmp_path.iterdir())) == 3


def test_the_keeper_looks_at_the_newest_whole_one_and_prunes(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    saved_in(job.run_dir, "10", "20", "30", "40")
    program = Program()
    keeper = Keeper(job, program, ignore, every_s=3600)
    keeper.look()
    keeper.look()
    keeper.close()
    assert program.asked == [("verify", "model_30.pth")]
    assert names(find_saved(job.run_dir, "model_*.pth", STEPS)) == ["model_40.pth", "model_30.pth"]


def test_the_keeper_deletes_nothing_while_the_newest_are_bad(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS)
    saved_in(job.run_dir, "10", "20", "30", "40")
    told = []
    keeper = Keeper(job, Program(bad={"model_30.pth"}), told.append, every_s=3600)
    keeper.look()
    keeper.close()
    assert [event.text for event in told] == ["model_30.pth model.bias is not finite"]
    assert len(find_saved(job.run_dir, "model_*.pth", STEPS)) == 4


def test_existence_is_enough_for_files_that_are_no_torch_files(toy_job):
    job = toy_job(checkpoints="model_*.pth", rule=STEPS, ladder=Ladder(verify="existence"))
    write(job.run_dir, "model_0000010.pth", "model_0000020.pth")
    (job.run_dir / "model_0000020.pth").write_text("")
    program = Program()
    recovered = recover(job, program, "attempt-1")
    assert recovered.quarantined == ("model_0000020.pth: model_0000020.pth is empty",)
    assert (names([recovered.good]), program.asked) == (["model_0000010.pth"], [])
