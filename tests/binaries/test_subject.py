from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
from fatbin_writer import elf, fatbin, sass

from envforge.binaries import subject
from envforge.binaries.errors import BinaryError
from envforge.binaries.subject import read_subject, read_wheel
from envforge.events import Event

LIBRARY = elf((".nv_fatbin", fatbin(sass(35, "_ZN2at6native6kernelEv"))))
HOST_ONLY = elf((".text", b"code"))


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "torch-1.0.1-cp37-cp37m-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("torch/__init__.py", "version = 1")
        out.writestr("torch/lib/libcaffe2_gpu.so", LIBRARY)
        out.writestr("torch/lib/libcudart-f7fdd8d7.so.9.0", HOST_ONLY)
        out.writestr("torch/_C.cpython-37m-x86_64-linux-gnu.so", HOST_ONLY)
        out.writestr("torch/lib/libscript.so", "INPUT(libreal.so)")
    return path


@pytest.fixture
def site_packages(tmp_path):
    lib = tmp_path / "torch" / "lib"
    lib.mkdir(parents=True)
    (lib / "libtorch_cuda.so").write_bytes(LIBRARY)
    (lib / "libtorch_cuda.so.1").symlink_to("libtorch_cuda.so")
    (lib / "libtorch_copy.so").hardlink_to(lib / "libtorch_cuda.so")
    (lib / "libc10.so").write_bytes(HOST_ONLY)
    (lib / "libcublas_static.a").write_bytes(b"!<arch>\n")
    (lib / "libscript.so").write_text("INPUT(libreal.so)")
    (tmp_path / "torch" / "kernel.cubin").write_bytes(b"nothing")
    return tmp_path


def test_only_libraries_with_device_code_are_read_from_a_wheel(wheel):
    found = read_wheel(wheel)
    assert [(library.path, library.role) for library in found.libraries] == [
        ("torch/lib/libcaffe2_gpu.so", "torch")
    ]


def test_unpacking_a_wheel_tells_how_far_it_is(wheel):
    events: list[Event] = []
    read_wheel(wheel, on_event=events.append)
    first = events[0]
    assert (first.kind, first.text, first.done) == (
        *("bytes", "torch/lib/libcaffe2_gpu.so", len(LIBRARY)),
    )
    assert first.total == len(LIBRARY)
    assert "torch/lib/libcudart-f7fdd8d7.so.9.0" not in {event.text for event in events}


def test_nothing_unpacked_is_left_behind(wheel, tmp_path, monkeypatch):
    monkeypatch.setattr(subject.tempfile, "tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    read_wheel(wheel)
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_too_small_is_said_before_it_is_full(wheel, monkeypatch):
    monkeypatch.setattr(subject.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(BinaryError, match=r"no room to unpack torch/lib/libcaffe2_gpu\.so") as no:
        read_wheel(wheel)
    assert no.value.hint == "set TMPDIR to a larger disk"


@pytest.mark.parametrize(
    ("damage", "value"), [(slice(100, 400), 0), (slice(-60, None), 0), (slice(150, 200), 0xFF)]
)
def test_a_damaged_wheel_is_refused_by_name(wheel, damage, value):
    data = bytearray(wheel.read_bytes())
    data[damage] = bytes([value]) * len(data[damage])
    wheel.write_bytes(data)
    with pytest.raises(BinaryError, match=r"cannot read the wheel .*torch-1\.0\.1"):
        read_wheel(wheel)


def test_a_directory_gives_each_library_once(site_packages):
    found = read_subject(site_packages)
    assert [library.path.rsplit("/", 1)[1] for library in found.libraries] == ["libtorch_copy.so"]
    assert len(found.unreadable) == 2
    assert "libscript.so: not a CUDA binary" in found.unreadable[1]


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BinaryError, match=r"cannot read .*venv"):
        read_subject(tmp_path / "venv")


def test_a_subject_is_read_as_what_it_is(wheel, site_packages):
    library = site_packages / "torch" / "lib" / "libtorch_cuda.so"
    subjects = [read_subject(path) for path in (wheel, site_packages, library)]
    assert [len(found.libraries) for found in subjects] == [1, 1, 1]


def test_an_editable_install_is_followed_to_where_it_is(tmp_path):
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    project, linked = tmp_path / "my project", tmp_path / "linked"
    for folder in (packages / "mine-1.dist-info", project / "src", linked):
        folder.mkdir(parents=True)
    (project / "src" / "_C.so").write_bytes(LIBRARY)
    (linked / "_D.so").write_bytes(LIBRARY)
    document = {"url": project.as_uri(), "dir_info": {"editable": True}}
    (packages / "mine-1.dist-info" / "direct_url.json").write_text(json.dumps(document))
    (packages / "other.pth").write_text(f"# a remark\nimport os; os.abort()\n{linked}\n/gone\n")
    for path in (packages, tmp_path / "venv"):
        found = read_subject(path)
        assert [library.path for library in found.libraries] == [
            *(str(linked / "_D.so"), str(project / "src" / "_C.so")),
        ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"url": "file:///x"}',
        '{"url": 3, "dir_info": {"editable": true}}',
        "\xff",
        pytest.param("[" * 9999, id="deep"),
        '{"url": "file:///a%00b", "dir_info": {"editable": true}}',
        pytest.param(
            '{"url": "file:///%s", "dir_info": {"editable": true}}' % ("a" * 5000), id="long"
        ),
    ],
)
def test_a_direct_url_that_says_nothing_is_passed_over(tmp_path, text):
    folder = tmp_path / "site-packages" / "mine-1.dist-info"
    folder.mkdir(parents=True)
    (folder / "direct_url.json").write_bytes(text.encode("latin-1"))
    assert read_subject(tmp_path / "site-packages").libraries == ()


def test_the_links_of_a_conda_environment_are_no_second_library(tmp_path):
    lib = tmp_path / "lib"
    package = lib / "python3.11" / "site-packages" / "torch" / "lib"
    other = tmp_path / "envs" / "other" / "lib"
    for folder in (tmp_path / "conda-meta", package, other):
        folder.mkdir(parents=True)
    (lib / "libtorch_cuda.so").write_bytes(LIBRARY)
    (package / "libtorch_cuda.so").symlink_to(lib / "libtorch_cuda.so")
    (other / "libtorch_cuda.so").write_bytes(LIBRARY)
    assert [one.path for one in read_subject(tmp_path).libraries] == [str(lib / "libtorch_cuda.so")]
    # Asked for the package alone, its link is all there is.
    assert [one.path for one in read_subject(package).libraries] == [
        str(package / "libtorch_cuda.so")
    ]


def test_a_folder_without_libraries_and_one_without_code_are_told_apart(tmp_path, site_packages):
    (site_packages / "torch" / "lib" / "libtorch_cuda.so").unlink()
    (site_packages / "torch" / "lib" / "libtorch_copy.so").unlink()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert read_subject(empty).looked_at == 0
    assert read_subject(site_packages).looked_at == 3


@pytest.fixture
def as_nobody():
    """Root may read everything, so the test goes on as somebody else; yields a folder of his."""
    user = os.geteuid()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "closed").mkdir()
        (Path(folder) / "closed" / "_D.so").touch()
        (Path(folder) / "_C.so").write_bytes(LIBRARY)
        (Path(folder) / "_E.so").write_bytes(LIBRARY)
        (Path(folder) / "_E.so").chmod(0)
        (Path(folder) / "closed").chmod(0)
        if not user:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)
            (Path(folder) / "closed").chmod(0o755)


def test_what_may_not_be_read_is_named_with_the_reason(as_nobody):
    closed, library = as_nobody / "closed", as_nobody / "_E.so"
    found = read_subject(as_nobody)
    assert len(found.libraries) == 1
    assert found.unreadable == tuple(
        f"{path}: cannot read {path}: Permission denied" for path in (library, closed)
    )
    for path in (library, closed / "_D.so"):
        with pytest.raises(BinaryError, match="cannot read") as refusal:
            read_subject(path)
        assert refusal.value.because == ("Permission denied",)


def test_a_wheel_is_told_by_its_bytes_whatever_it_is_called(wheel, tmp_path):
    copy = tmp_path / "download"
    copy.write_bytes(wheel.read_bytes())
    assert len(read_subject(copy).libraries) == 1


def test_what_is_unreadable_in_a_wheel_is_named(wheel):
    (reason,) = read_wheel(wheel).unreadable
    assert reason.startswith("torch/lib/libscript.so: not a CUDA binary")
