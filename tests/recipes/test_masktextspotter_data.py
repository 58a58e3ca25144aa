"""MaskTextSpotter's data programs, run as a training runs them: checked, mended, laid out, drawn."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from envforge import assets

FILES = assets.RECIPES / "masktextspotter-train" / "files"
QUAD = "10,10,50,10,50,30,10,30"
GOOD = f"{QUAD},c5,12,12,20,12,20,28,12,28,c,22,12,30,12,30,28,22,28,5\n"


def run(program, *arguments):
    """Run a program as a run does; return its exit code, its lines, and what it says of the data."""
    done = subprocess.run(
        [sys.executable, FILES / program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    said = [json.loads(line[len("data: ") :]) for line in lines if line.startswith("data: ")]
    return done.returncode, [line for line in lines if not line.startswith("data: ")], said


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (120, 130, 140)).save(path)


def synthtext(data, **labels):
    """Lay out a set of one image for each keyword, with its labels."""
    folder = data / "synthtext"
    for name, text in labels.items():
        picture(folder / "train_images" / "8" / f"{name}.jpg")
        target = folder / "train_gts" / "8" / f"{name}.jpg.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    (folder / "train_list.txt").write_text("".join(f"8/{name}.jpg\n" for name in labels))
    return folder


def test_a_clean_set_is_counted(tmp_path):
    synthtext(tmp_path, a=GOOD, b=GOOD + f"{QUAD},###\n")
    code, lines, said = run("dataset.py", "check", tmp_path, "synthtext_train,icdar_2013_test?")
    assert (code, lines) == (0, [])
    assert said == [
        {
            "items": 2,
            "sets": {"synthtext_train": {"images": 2, "words": 3, "skipped": 1, "characters": 4}},
        }
    ]


def test_every_fault_has_its_file_and_line(tmp_path):
    folder = synthtext(
        tmp_path,
        blank=GOOD + "\n" + GOOD,
        comma=f"{QUAD},$5,000,12,12,20,12,20,28,12,28,5\n",
        mark=GOOD + f"{QUAD},x!,1,1,2,1,2,2,1,2,x,3,1,4,1,4,2,3,2,!\n",
        none=f"{QUAD},###\n",
        outside=GOOD + "70,10,90,10,90,30,70,30,x,1,1,2,1,2,2,1,2,x\n",
        plain=f"{QUAD},word\n",
    )
    (folder / "train_images" / "8" / "broken.jpg").write_bytes(b"<?xml error page")
    (folder / "train_gts" / "8" / "broken.jpg.txt").write_text(GOOD)
    with (folder / "train_list.txt").open("a") as stream:
        stream.write("8/broken.jpg\n8/gone.jpg\n\n")
    code, lines, _ = run("dataset.py", "check", tmp_path, "synthtext_train")
    gts = "fault: synthtext/train_gts/8/"
    assert code == 1
    assert [line for line in lines if "broken" not in line] == [
        f"{gts}blank.jpg.txt:2: a blank line: upstream stops with ValueError",
        f"{gts}comma.jpg.txt:1: a comma in '$5,000': upstream reads the rest as coordinates",
        f"{gts}mark.jpg.txt:2: character '!' is none of 0-9 a-z: upstream stops or learns another",
        f"{gts}none.jpg.txt: no word to learn: upstream trains on a made-up box instead",
        f"{gts}outside.jpg.txt:2: 'x' lies outside the image of 64x48",
        f"{gts}plain.jpg.txt:1: 'word' has no characters: upstream teaches the decoder an empty one",
        "fault: synthtext/train_images/8/gone.jpg: not there",
        f"{gts}gone.jpg.txt: cannot be read: No such file or directory",
        "fault: synthtext/train_list.txt:9: a blank line: upstream stops on it",
    ]
    assert any("8/broken.jpg: cannot be opened: " in line for line in lines)


def test_a_test_set_may_have_commas_but_nothing_that_is_no_image(tmp_path):
    folder = tmp_path / "icdar2013"
    picture(folder / "test_images" / "img_1.jpg")
    (folder / "test_images" / "Thumbs.db").write_bytes(b"")
    (folder / "test_gts").mkdir()
    (folder / "test_gts" / "gt_img_1.txt").write_text(f"\ufeff{QUAD},$5,000\n", encoding="utf-8")
    code, lines, _ = run("dataset.py", "check", tmp_path, "icdar_2013_test")
    assert (code, lines) == (
        1,
        ["fault: icdar2013/test_images/Thumbs.db: not an image: upstream opens every file here"],
    )


def test_a_set_that_is_not_there_is_one_fault(tmp_path):
    code, lines, _ = run("dataset.py", "check", tmp_path, "total_text_train")
    assert (code, lines) == (
        1,
        ["fault: total_text/train_images: not there: total_text_train needs it"],
    )


def test_what_was_mended_is_said_and_checks_clean_and_the_source_is_untouched(tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    data.mkdir()
    comma = f"{QUAD},5,0!,12,12,20,12,20,28,12,28,5,1,1,2,1,2,2,1,2,!\n"
    folder = synthtext(source, good=GOOD, comma=comma, none="\n", plain=GOOD + f"{QUAD},word\n")
    code, lines, _ = run("dataset.py", "clean", source, data, "synthtext_train,icdar_2013_test")
    assert code == 0
    assert lines == [
        "cleaned: synthtext/train_gts/8/comma.jpg.txt:1: '5,0!' became '50!'",
        (
            "cleaned: synthtext/train_gts/8/none.jpg.txt:1: "
            "dropped: a blank line: upstream stops with ValueError"
        ),
        "cleaned: synthtext/train_gts/8/none.jpg.txt: left out: no word to learn",
        "cleaned: synthtext/train_gts/8/plain.jpg.txt:2: 'word' became '###'",
    ]
    assert (folder / "train_gts" / "8" / "comma.jpg.txt").read_text() == comma
    code, lines, said = run("dataset.py", "check", data, "synthtext_train")
    assert (code, lines, said[0]["items"]) == (0, [], 3)


def test_synthtext_is_unpacked_labelled_and_listed(tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    picture(source / "made" / "a.jpg")
    picture(source / "made" / "b.jpg")
    with zipfile.ZipFile(source / "SynthText.zip", "w") as archive:
        archive.write(source / "made" / "a.jpg", "SynthText/8/a.jpg")
        archive.write(source / "made" / "b.jpg", "SynthText/9/b.jpg")
        archive.writestr("SynthText/readme.txt", "not a picture")
        archive.writestr("../../escaped.jpg", "stays out")
    with zipfile.ZipFile(source / "labels.zip", "w") as archive:
        archive.writestr("train_gts/8/a.txt", GOOD)  # upstream opens a.jpg.txt
        archive.writestr("train_gts/9/b.jpg.txt", GOOD)
        archive.writestr("train_gts/9/c.jpg.txt", GOOD)
    code, lines, said = run("synthtext.py", source, data)
    assert (code, said) == (0, [{"items": 2}])
    assert lines == [
        "unpacked: 2 images",
        "unpacked: 3 label files",
        "listed: 2 images; 1 label files have no image",
    ]
    assert (data / "synthtext" / "train_list.txt").read_text() == "8/a.jpg\n9/b.jpg\n"
    assert not list(tmp_path.rglob("escaped.jpg"))
    assert run("dataset.py", "check", data, "synthtext_train")[0] == 0
    assert run("synthtext.py", source, data)[1][0] == "unpacked: 0 images"  # nothing twice


def test_an_unpacked_synthtext_is_taken_as_it_lies(tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    picture(source / "SynthText" / "8" / "a.jpg")
    labels = source / "labels" / "8" / "a.jpg.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text(GOOD)
    code, lines, said = run("synthtext.py", source, data)
    assert (code, said) == (0, [{"items": 1}])
    assert lines[:2] == ["taken: 1 images", "taken: 1 label files"]
    taken = data / "synthtext" / "train_images" / "8" / "a.jpg"
    assert not taken.is_symlink()
    assert taken.samefile(source / "SynthText" / "8" / "a.jpg")


def test_a_folder_without_synthtext_is_a_fault(tmp_path):
    assert run("synthtext.py", tmp_path, tmp_path / "data")[:2] == (
        1,
        [f"fault: {tmp_path}: neither SynthText.zip nor a folder SynthText is there"],
    )


@pytest.mark.parametrize("seed", [1, 7])
def test_what_is_drawn_is_clean_and_the_same_every_time(tmp_path, seed):
    arguments = ("--images", 5, "--test-images", 2, "--seed", seed)
    for name in ("one", "two"):
        assert run("generate.py", tmp_path / name, *arguments) == (
            0,
            [],
            [{"items": 5, "test_items": 2}],
        )
    labels = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(labels) == 5 + 5 + 2 + 2 + 1
    for path in labels:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    code, lines, said = run(
        "dataset.py", "check", tmp_path / "one", "synthtext_train,icdar_2013_test"
    )
    assert (code, lines) == (0, [])
    assert said[0]["sets"]["synthtext_train"]["characters"] > 20


def test_the_first_test_image_has_the_transcription_that_upstream_stopped_at(tmp_path):
    run("generate.py", tmp_path, "--images", 1, "--test-images", 1)
    lines = (tmp_path / "icdar2013" / "test_gts" / "img_1.jpg.txt").read_text().splitlines()
    assert lines[0].endswith(",$5,000")


def test_the_drawn_characters_lie_where_the_labels_say(tmp_path):
    """Inside a character's corners pixels differ from their surroundings; a shift would show."""
    run("generate.py", tmp_path, "--images", 3, "--words", 2)
    for number in range(3):
        name = f"1/drawn_{number:05d}.jpg"
        image = Image.open(tmp_path / "synthtext" / "train_images" / name).convert("L")
        text = (tmp_path / "synthtext" / "train_gts" / f"{name}.txt").read_text()
        for line in text.splitlines():
            fields = line.split(",")
            for start in range(9, len(fields), 9):
                xs = [int(value) for value in fields[start : start + 8 : 2]]
                ys = [int(value) for value in fields[start + 1 : start + 8 : 2]]
                low, high = image.crop((min(xs), min(ys), max(xs), max(ys))).getextrema()
                assert high - low > 40


@pytest.fixture
def program():
    sys.path.insert(0, str(FILES))
    try:
        yield importlib.import_module("synthtext")
    finally:
        sys.path.remove(str(FILES))
        for name in ("synthtext", "dataset", "labels"):
            del sys.modules[name]


def test_a_disk_without_room_is_said_before_the_first_byte(program, tmp_path):
    with pytest.raises(program.Unusable) as caught:
        program.ensure_space(41 * 10**15, tmp_path / "data" / "synthtext")
    assert str(caught.value).startswith(
        f"{tmp_path}/data/synthtext: 41000000.0 GB are to be unpacked here, "
    )
    assert str(caught.value).endswith(" GB are free")
    program.ensure_space(1, tmp_path / "data" / "synthtext")
    assert not (tmp_path / "data").exists()


def test_an_index_entry_becomes_lines(program):
    """As gt.mat has it: (2, 4, words) corners, one text with two words, punctuation among them."""
    words = [[[0.4, 20], [9.6, 29], [9.6, 29], [0.4, 20]], [[0, 5], [0, 5], [9, 14], [9, 14]]]
    characters = [
        [[0, 5, 20, 23, 26], [4, 9, 22, 25, 29], [4, 9, 22, 25, 29], [0, 5, 20, 23, 26]],
        [[0, 0, 5, 5, 5], [0, 0, 5, 5, 5], [9, 9, 14, 14, 14], [9, 9, 14, 14, 14]],
    ]
    lines = [str(word) for word in program.convert(words, characters, ["Hi \n a,9"])]
    assert lines == [
        "0,0,10,0,10,9,0,9,Hi,0,0,4,0,4,9,0,9,H,5,0,9,0,9,9,5,9,i",
        "20,5,29,5,29,14,20,14,a9,20,5,22,5,22,14,20,14,a,26,5,29,5,29,14,26,14,9",
    ]
    one = [[1, 9, 9, 1], [1, 1, 5, 5]]
    assert [str(word) for word in program.convert(one, one, ["!"])] == ["1,1,9,1,9,5,1,5,###"]
    with pytest.raises(program.Unusable, match="2 words and 2 characters, but 1 and 1 boxes"):
        program.convert(one, one, ["a b"])
