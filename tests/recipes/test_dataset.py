from __future__ import annotations

import tarfile

import pytest

from envforge.errors import DocumentError, UsageError
from envforge.recipes.dataset import Request, Said, prepare_examples
from envforge.recipes.document import Dataset

DEMO = ("make", "{data}")
CHECK = ("check", "{data}")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "tool.py").write_text("1")
    return folder


@pytest.fixture
def events():
    return []


class Programs:
    """Stands for the place of execution: makes a file, and says what it is told to say."""

    def __init__(self, *lines, exit_code=0):
        self.said = Said(exit_code, lines)
        self.calls = []

    def __call__(self, words, places, writable):
        self.calls.append((words, tuple(sorted(places)), writable))
        if writable:
            (places["data"] / "made.txt").write_text(words[0])
            return Said(0, ())
        return self.said


def request(files, *, given=None, demo=False, archive=None, **stated):
    return Request("d", Dataset(help="pairs", **stated), given, demo, archive, files)


def test_a_demo_is_made_once_and_judged_each_time(files, events):
    programs = Programs('data: {"items": 8, "classes": 2}', "data: nonsense", "data: [1]")
    wanted = request(files, demo=True)._replace(dataset=Dataset(help="x", demo=DEMO, check=CHECK))
    first = prepare_examples(wanted, programs, events.append)
    second = prepare_examples(wanted, programs, events.append)
    assert (first.items, first.facts, first.origin) == (
        8,
        {"items": 8, "classes": 2},
        "made for the demo",
    )
    assert first == second
    assert [call[0][0] for call in programs.calls] == ["make", "check", "check"]
    (files / "tool.py").write_text("2")
    assert prepare_examples(wanted, programs, events.append).path != first.path


def test_a_folder_of_the_user_is_used_as_it_is_and_never_written_to(files, events, tmp_path):
    programs = Programs()
    given = tmp_path / "mine"
    (given / "train").mkdir(parents=True)
    found = prepare_examples(
        request(files, given=given, layout=("train",), check=CHECK), programs, events.append
    )
    assert (found.path, found.items) == (str(given), None)
    assert programs.calls == [(CHECK, ("data",), "")]


def test_what_has_to_be_converted_is_converted_once_for_the_same_files(files, events, tmp_path):
    programs = Programs()
    given = tmp_path / "mine"
    given.mkdir()
    (given / "a.txt").write_text("a")
    wanted = request(files, given=given, convert=("convert", "{source}", "{data}"))
    first = prepare_examples(wanted, programs, events.append)
    assert prepare_examples(wanted, programs, events.append) == first
    assert programs.calls == [(("convert", "{source}", "{data}"), ("data", "source"), "data")]
    (given / "b.txt").write_text("b")
    assert prepare_examples(wanted, programs, events.append).path != first.path


def test_an_archive_is_unpacked_and_its_folder_taken(files, events, tmp_path):
    (tmp_path / "facades/train").mkdir(parents=True)
    archive = tmp_path / "facades.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(tmp_path / "facades", "facades")
    wanted = request(files, archive=archive, folder="facades", layout=("train",))
    found = prepare_examples(wanted, Programs(), events.append)
    assert found.path.endswith("/facades")


def test_faults_end_with_exit_3_and_every_place(files, events, tmp_path):
    said = ["fault: a/1.txt:3: comma inside a word", "noise", "fault: b: c: d"]
    with pytest.raises(DocumentError) as caught:
        prepare_examples(
            request(files, given=tmp_path, check=CHECK), Programs(*said, exit_code=1), events.append
        )
    assert caught.value.exit_code == 3
    assert caught.value.what == f"the examples in {tmp_path} have 2 faults"
    assert caught.value.because == ("a/1.txt:3: comma inside a word", "b: c: d")


def test_of_many_faults_the_first_are_shown(files, events, tmp_path):
    said = [f"fault: {number}.txt: bad" for number in range(23)]
    with pytest.raises(DocumentError) as caught:
        prepare_examples(
            request(files, given=tmp_path, check=CHECK), Programs(*said), events.append
        )
    assert caught.value.because[-1] == "and 3 more"
    assert len(caught.value.because) == 21


def test_a_program_that_broke_off_is_no_judgement(files, events, tmp_path):
    programs = Programs("Traceback", "ImportError: PIL", exit_code=1)
    with pytest.raises(DocumentError) as caught:
        prepare_examples(request(files, given=tmp_path, check=CHECK), programs, events.append)
    assert caught.value.what == f"the examples in {tmp_path} could not be judged"
    assert caught.value.because == ("exit code 1", "Traceback", "ImportError: PIL")


def test_a_folder_of_another_kind_is_refused_before_it_is_judged(files, events, tmp_path):
    with pytest.raises(DocumentError) as caught:
        prepare_examples(
            request(files, given=tmp_path, layout=("train", "test")), Programs(), events.append
        )
    assert caught.value.because == ("train: is missing", "test: is missing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "d has to be brought: pairs"),
        ({"demo": True}, "this dataset has no generated examples"),
    ],
)
def test_where_there_are_no_examples_it_is_said_how_to_get_some(files, events, changes, message):
    with pytest.raises(UsageError) as caught:
        prepare_examples(request(files, **changes), Programs(), events.append)
    assert caught.value.what == message


def test_a_folder_that_is_not_there_is_a_usage_error(files, events, tmp_path):
    with pytest.raises(UsageError, match="there is no folder"):
        prepare_examples(request(files, given=tmp_path / "gone"), Programs(), events.append)
