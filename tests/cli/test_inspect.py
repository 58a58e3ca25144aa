"""``envforge inspect``: a file, a directory, an interpreter, an image."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from envforge import cli
from envforge.cli.options import complete_cards

CAPTURES = Path(__file__).parent.parent / "binaries/captures"


def call(capsys, *arguments):
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def sample():
    """A real object that nvcc wrote; its name says what it carries."""
    return next(path for path in sorted(CAPTURES.iterdir()) if path.name.endswith((".o", ".so")))


def test_a_library_is_listed_and_every_card_judged(capsys, sample):
    code, out, _ = call(capsys, "inspect", str(sample), "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert document["schema"] == "envforge.inspect/1"
    (file,) = document["files"]
    assert {"path", "role", "sass", "ptx", "counts"} <= set(file)
    assert file["counts"]
    assert len(document["verdicts"]) == 32
    assert {found["support"] for found in document["verdicts"].values()} <= {
        "native", "ptx-jit", "partial", "none",
    }  # fmt: skip


def test_one_card_is_judged_alone(capsys, sample):
    code, out, _ = call(capsys, "inspect", str(sample), "--gpu", "sm_20", "--quiet")
    assert code == 0
    assert "on compute capability 2.0: none: does not run" in out


def test_a_directory_is_walked(capsys, sample, tmp_path):
    shutil.copy(sample, tmp_path / "libsample.so")
    (tmp_path / "libtext.so").write_text("not a library")
    code, out, _ = call(capsys, "inspect", str(tmp_path), "--json", "--quiet")
    document = json.loads(out)
    assert code == 0
    assert [Path(file["path"]).name for file in document["files"]] == ["libsample.so"]
    assert "libtext.so" in document["unreadable"][0]


def test_an_interpreter_means_its_packages(capsys):
    code, out, _ = call(capsys, "inspect", sys.executable, "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["subject"].endswith("site-packages")


def test_what_is_no_binary_is_refused_with_the_reason(capsys, tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    code, _, err = call(capsys, "inspect", str(text), "--quiet")
    assert code == 3
    assert "not a CUDA binary" in err


def test_a_missing_file_is_said_to_be_missing(capsys):
    code, _, err = call(capsys, "inspect", "./gone.so", "--quiet")
    assert code == 3
    assert "unknown file: './gone.so'" in err


@pytest.mark.engine
def test_an_image_is_read_without_being_run(capsys, engine, sample, tmp_path):
    from envforge.image.engine import Build  # noqa: PLC0415

    shutil.copy(sample, tmp_path / "libsample.so")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY libsample.so /usr/lib/\n")
    before = engine.leftovers()
    engine.build(Build(tmp_path, "envforge-test/inspected"), log=tmp_path / "log.txt")
    code, out, _ = call(capsys, "inspect", "envforge-test/inspected", "--json", "--quiet")
    engine.remove("envforge-test/inspected")
    assert code == 0
    assert [file["path"] for file in json.loads(out)["files"]] == ["/usr/lib/libsample.so"]
    assert set(engine.leftovers()) <= set(before)


@pytest.mark.engine
def test_an_unknown_image_is_refused(capsys, engine):
    code, _, err = call(capsys, "inspect", "envforge-test/never-built", "--quiet")
    assert code == 3
    assert "unknown image, container or file: 'envforge-test/never-built'" in err


def test_cards_are_completed():
    assert "gtx760" in complete_cards(None, None, "gtx76")


def test_check_finds_the_torch_of_an_environment_without_importing_it(capsys, tmp_path, sample):
    package = tmp_path / "lib/python3/site-packages/torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('this torch must not be imported')")
    (package / "version.py").write_text("__version__ = '1.13.1+cu117'\n")
    shutil.copy(sample, package / "libtorch_cuda.so")
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.write_text(
        f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {str(package.parent)!r})\n"
        "exec(sys.argv[sys.argv.index('-c') + 1])\n"
    )
    python.chmod(0o755)
    code, out, _ = call(capsys, "check", "--gpu", "k40", "--installed", str(tmp_path), "--json")
    installed = json.loads(out)["installed"]
    assert code == 0
    assert installed["torch"] == "1.13.1+cu117"
    assert installed["verdicts"]["3.5"]["support"] in ("native", "partial", "ptx-jit")


def test_an_environment_without_torch_is_said_to_have_none(capsys, tmp_path):
    code, _, err = call(capsys, "check", "--gpu", "k40", "--installed", sys.executable)
    assert code == 3
    assert "unknown installed torch" in err
