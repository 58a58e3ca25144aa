from __future__ import annotations

from pathlib import Path

import pytest
from fatbin_writer import elf, fatbin, ptx, sass

from envforge.binaries.difference import compare_libraries
from envforge.binaries.subject import Subject, read_subject

TORCH = "_ZN2at6native6kernelEv"
CUDNN = "_ZN5cudnn6detail6kernelEv"


@pytest.fixture
def subject(tmp_path):
    """Return a function that makes a folder of libraries and reads it."""
    sides = iter("ab")

    def make(**libraries: bytes) -> Subject:
        root = tmp_path / next(sides)
        for name, data in libraries.items():
            path = root / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".so").write_bytes(elf((".nv_fatbin", data)))
        return read_subject(root)

    return make


def test_two_that_carry_the_same_do_not_differ(subject):
    code = fatbin(sass(35, TORCH))
    first, second = subject(libtorch_cuda=code), subject(libtorch_cuda=code)
    assert compare_libraries(first, second) == ()


def test_what_each_lacks_is_told_by_role_and_for_the_whole_file(subject):
    first = subject(
        libtorch_cuda=fatbin(sass(35, TORCH), sass(70, TORCH)) + fatbin(sass(50, CUDNN))
    )
    second = subject(
        libtorch_cuda=fatbin(sass(70, TORCH), ptx(70, TORCH)) + fatbin(sass(50, CUDNN))
    )
    (found,) = compare_libraries(first, second)
    assert (found.name, found.roles) == (
        *("libtorch_cuda.so", {"torch": (("sm_35",), ("compute_70",))}),
    )
    assert found.images == (("sm_35",), ("compute_70",))


def test_an_architecture_may_move_from_one_role_to_another(subject):
    first = subject(libtorch_cuda=fatbin(sass(35, TORCH)) + fatbin(sass(70, CUDNN)))
    second = subject(libtorch_cuda=fatbin(sass(70, TORCH)) + fatbin(sass(35, CUDNN)))
    (found,) = compare_libraries(first, second)
    assert found.roles == {"torch": (("sm_35",), ("sm_70",)), "cudnn": (("sm_70",), ("sm_35",))}
    assert found.images == ((), ())


def test_a_library_that_only_one_has_is_named(subject):
    code = fatbin(sass(35, "_Z1kv"))
    first, second = subject(_C=code, _D=code), subject(_D=code, _E=code)
    assert [(one.name, bool(one.first), bool(one.second)) for one in compare_libraries(first, second)] == [
        ("_C.so", True, False),
        ("_E.so", False, True),
    ]  # fmt: skip


def test_libraries_of_one_name_are_told_apart_by_their_place(subject):
    old, new = fatbin(sass(35, "_Z1kv")), fatbin(sass(80, "_Z1kv"))
    first = subject(one___C=old, two___C=old)
    second = subject(**{"site-packages__one___C": old, "site-packages__two___C": new})
    assert [one.name for one in compare_libraries(first, second)] == ["two/_C.so"]


def test_hashes_of_bundled_libraries_and_the_python_are_no_difference(tmp_path):
    data = elf((".nv_fatbin", fatbin(sass(35, "_Z1kv"))))
    names = {
        "a": ("libmagma-1a2b3c4d.so", "_C.cpython-37m-x86_64-linux-gnu.so"),
        "b": ("libmagma-99887766.so", "_C.cpython-310-x86_64-linux-gnu.so"),
    }
    for side, files in names.items():
        (tmp_path / side).mkdir()
        for name in files:
            (tmp_path / side / name).write_bytes(data)
    assert compare_libraries(read_subject(tmp_path / "a"), read_subject(tmp_path / "b")) == ()


def test_two_single_libraries_are_compared_whatever_they_are_called(tmp_path):
    paths: list[Path] = []
    for name, number in (("old.so", 35), ("new.so", 80)):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(elf((".nv_fatbin", fatbin(sass(number, "_Z1kv")))))
    (found,) = compare_libraries(*map(read_subject, paths))
    assert (found.first, found.second) == tuple(map(str, paths))
    assert found.roles == {"extension": (("sm_35",), ("sm_80",))}
