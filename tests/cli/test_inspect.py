"""``envforge inspect``: a file, a directory, an interpreter, an image."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from envforge import cli
from envforge.cli.options import complete_cards

CAPTURES = Path(__file__).parent.parent / "binaries/captures"
OLD = CAPTURES / "nvcc-11.8,sm_35=1,sm_50=1,compute_35=1.o"
NEW = CAPTURES / "nvcc-13.0,sm_75=1,sm_90a=1,sm_100f=1,sm_120a=1,compute_120a=1.o"


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


def test_the_driver_that_compiles_the_ptx_is_named(capsys):
    """CUDA 11.8 writes PTX 7.8, and its release notes name driver 520.61.05."""
    arguments = ["inspect", str(OLD), "--gpu", "v100", "--quiet"]
    _, out, _ = call(capsys, *arguments)
    assert "  the driver must know PTX 7.8, needs driver >= 520.61.05\n" in out
    _, out, _ = call(capsys, *arguments, "--json")
    (verdict,) = json.loads(out)["verdicts"].values()
    assert (verdict["ptx_version"], verdict["driver_min"]) == ("7.8", "520.61.05")
    _, out, _ = call(capsys, *arguments[:2], "--quiet")
    assert out.endswith("  the driver must know PTX 7.8, needs driver >= 520.61.05\n")


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


def test_standard_input_is_read_as_a_file(capsys, monkeypatch):
    with OLD.open("rb") as stdin:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stdin))
        code, out, _ = call(capsys, "inspect", "-", "--gpu", "k40", "--quiet")
    assert code == 0
    assert out == (
        "standard input\n  extension       sm_35 sm_50 compute_35  (1 fatbins)\n\n"
        "on compute capability 3.5: native: machine code of the card\n"
    )


def test_nothing_on_standard_input_is_refused_by_name(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    code, _, err = call(capsys, "inspect", "-", "--quiet")
    assert code == 3
    assert err.startswith(
        "error: unreadable-binary: standard input: not a CUDA binary\n  it is empty\n"
    )


def test_the_kernels_of_a_file_are_listed_by_architecture(capsys):
    code, out, _ = call(capsys, "inspect", str(OLD), "--kernels", "^axpy", "--quiet")
    assert code == 0
    assert out == (
        f"{OLD.name}\n  sm_35 sm_50 compute_35\n    axpy(float, float const*, float*, int)\n"
    )
    code, out, _ = call(capsys, "inspect", str(OLD), "--kernels", "softmax", "--quiet")
    assert (code, out) == (0, f"{OLD}: no kernel matches 'softmax'\n")


def test_each_kernel_is_judged_for_a_card_that_is_named(capsys):
    arguments = ["inspect", str(OLD), "--kernels", "axpy", "--gpu", "v100", "--quiet"]
    _, out, _ = call(capsys, *arguments)
    assert "  sm_35 sm_50 compute_35   on 7.0: ptx-jit\n" in out
    _, out, _ = call(capsys, *arguments, "--json")
    assert json.loads(out) == {
        "schema": "envforge.inspect-kernels/1",
        "subject": str(OLD),
        "pattern": "axpy",
        "card": "7.0",
        "files": [
            {
                "path": str(OLD),
                "unread_images": 0,
                "kernels": [
                    {
                        "name": "axpy(float, float const*, float*, int)",
                        "mangled": "_Z4axpyfPKfPfi",
                        "codes": ["sm_35", "sm_50", "compute_35"],
                        "support": "ptx-jit",
                    }
                ],
            }
        ],
        "unreadable": [],
    }


def test_a_pattern_that_is_none_is_refused_with_the_reason(capsys):
    code, _, err = call(capsys, "inspect", str(OLD), "--kernels", "axpy(", "--quiet")
    assert code == 2
    assert err == (
        "error: usage: not a regular expression: 'axpy('\n"
        "  missing ), unterminated subpattern at position 4\n"
        "hint: put a backslash before ( ) * + [ ] where they are meant as such\n"
    )


def test_two_targets_are_compared(capsys):
    code, out, _ = call(capsys, "inspect", "--diff", str(OLD), str(NEW), "--gpu", "t4", "--quiet")
    assert code == 0
    assert out == (
        f"- {OLD}\n+ {NEW}\n\n{OLD.name}\n"
        "  extension       -sm_35 -sm_50 -compute_35 +sm_75 +sm_90a +sm_100f +sm_120a +compute_120a\n"
        "on compute capability 7.5: ptx-jit -> native\n"
    )
    _, out, _ = call(capsys, "inspect", "--diff", str(OLD), str(OLD), "--json", "--quiet")
    document = json.loads(out)
    assert (document["same"], document["files"], document["verdicts"]) == (True, [], {})


def test_a_target_without_device_code_runs_on_no_card(capsys, tmp_path):
    _, out, _ = call(
        capsys, "inspect", "--diff", str(tmp_path), str(OLD), "--gpu", "k40", "--quiet"
    )
    assert f"{OLD.name}  only in B\n" in out
    assert out.endswith("on compute capability 3.5: none -> native\n")


@pytest.mark.parametrize(
    "arguments", [[], [str(OLD), "--diff", "a", "b"], ["--diff", "a", "b", "--kernels", "x"]]
)
def test_one_target_or_two_to_compare_are_asked_for(capsys, arguments):
    code, _, err = call(capsys, "inspect", *arguments)
    assert code == 2
    assert err.startswith("error: usage: inspect takes one TARGET, or --diff with two\n")


def test_an_empty_folder_and_one_without_code_are_told_apart(capsys, tmp_path):
    _, out, _ = call(capsys, "inspect", str(tmp_path), "--quiet")
    assert out == f"{tmp_path}: there is no library in it\n"
    shutil.copy(sys.executable, tmp_path / "libhost.so")
    _, out, _ = call(capsys, "inspect", str(tmp_path), "--quiet")
    assert out == f"{tmp_path}: no device code for NVIDIA cards in 1 file\n"


def test_a_library_cut_off_is_not_said_to_have_no_code(capsys, sample, tmp_path):
    data = sample.read_bytes()
    (tmp_path / "libcut.so").write_bytes(data[: len(data) // 2])
    because = "no section headers: the file is cut off or stripped"
    code, _, err = call(capsys, "inspect", str(tmp_path / "libcut.so"), "--quiet")
    assert code == 3
    assert f"libcut.so: its sections cannot be found\n  {because}\n" in err
    code, out, _ = call(capsys, "inspect", str(tmp_path), "--quiet")
    assert code == 0
    assert f"! {tmp_path}/libcut.so: its sections cannot be found: {because}\n" in out


@pytest.mark.parametrize(
    ("data", "because"),
    [
        (b"MZ" + bytes(98), "it is a Windows file (PE), which is not read"),
        (b"\xcf\xfa\xed\xfe" + bytes(96), "it is a macOS file (Mach-O), which has no CUDA code"),
        (b"\x1f\x8b" + bytes(98), "it is packed: unpack it first"),
        (b"\x7fELF\x01\x01" + bytes(94), "it is a 32-bit ELF file"),
        (b"\x7fELF\x02\x02" + bytes(94), "it is a big-endian ELF file"),
        (b"\x7fELF\x02\x01", "it is an ELF file cut off in its header"),
        (b"#!/bin/sh\n" + bytes(90), "it is text"),
        (b"version 1\n", "it is text"),
    ],
)
def test_what_a_file_is_instead_is_said(capsys, tmp_path, data, because):
    path = tmp_path / "thing.so"
    path.write_bytes(data)
    code, _, err = call(capsys, "inspect", str(path), "--quiet")
    assert code == 3
    assert err == (
        f"error: unreadable-binary: {path}: not a CUDA binary\n  {because}\n"
        "hint: give a library (.so), a wheel, a directory, an image, or an object nvcc made\n"
    )


@pytest.mark.engine
def test_an_image_is_read_without_being_run(capsys, engine, sample, tmp_path):
    from envforge.image.engine import Build  # noqa: PLC0415

    shutil.copy(sample, tmp_path / "libsample.so")
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY libsample.so /usr/lib/\n")
    engine.build(Build(tmp_path, "envforge-test/inspected"), log=tmp_path / "log.txt")
    code, out, _ = call(capsys, "inspect", "envforge-test/inspected", "--json", "--quiet")
    engine.remove("envforge-test/inspected")  # refused where a container of it is left
    assert code == 0
    assert [file["path"] for file in json.loads(out)["files"]] == ["/usr/lib/libsample.so"]


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
