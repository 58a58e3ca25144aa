from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from envforge.errors import DiskFull, SourceError
from envforge.sources.store import Store, hash_file
from envforge.sources.tarball import pack, pack_directory, unpack


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "tree"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.c").write_text("int main;")
    (folder / "setup.py").write_text("#!/usr/bin/env python\n")
    (folder / "setup.py").chmod(0o755)
    (folder / "link").symlink_to("src/main.c")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    return folder


def test_what_is_packed_comes_out_again(tree, tmp_path):
    pack(tree, tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "out")
    assert (tmp_path / "out" / "src" / "main.c").read_text() == "int main;"
    assert (tmp_path / "out" / "setup.py").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "link").readlink() == Path("src/main.c")


def test_times_owners_and_hard_links_of_this_machine_do_not_change_the_bytes(tree, tmp_path):
    pack(tree, tmp_path / "one.tar")
    os.utime(tree / "setup.py", (1, 1))
    (tree / "src" / "main.c").chmod(0o600)
    os.link(tree / "setup.py", tmp_path / "elsewhere")
    pack(tree, tmp_path / "two.tar")
    assert hash_file(tmp_path / "one.tar") == hash_file(tmp_path / "two.tar")


def test_two_names_of_one_file_are_both_packed_whole(tree, tmp_path):
    os.link(tree / "setup.py", tree / "setup2.py")
    pack(tree, tmp_path / "tree.tar")
    unpack(tmp_path / "tree.tar", tmp_path / "out")
    assert (tmp_path / "out" / "setup2.py").read_text() == "#!/usr/bin/env python\n"


def test_a_local_tree_goes_into_the_store_without_its_git(tree, tmp_path):
    store = Store(tmp_path / "store")
    archive, sha256 = pack_directory(tree, store)
    assert archive == store.path_of(sha256)
    with tarfile.open(archive) as opened:
        assert opened.getnames() == ["link", "setup.py", "src", "src/main.c"]
    assert pack_directory(tree, store) == (archive, sha256)


def test_a_local_tree_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SourceError) as caught:
        pack_directory(tmp_path / "gone", Store(tmp_path / "store"))
    assert caught.value.what == f"there is no source tree at {tmp_path / 'gone'}"


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


@pytest.mark.parametrize(
    "entries",
    [
        [entry("../escape")],
        [entry("a/../../escape")],
        [entry("link", tarfile.SYMTYPE, "/etc"), entry("link/escape")],
        [entry("link", tarfile.SYMTYPE, ".."), entry("link/escape")],
        [entry("hard", tarfile.LNKTYPE, "../escape")],
        [entry("device", tarfile.CHRTYPE)],
    ],
)
def test_no_entry_of_a_tar_file_leaves_its_folder(entries, tmp_path):
    archive = tmp_path / "in" / "bad.tar"
    archive.parent.mkdir()
    with tarfile.open(archive, "w") as opened:
        for one in entries:
            opened.addfile(one, io.BytesIO())
    with pytest.raises(SourceError) as caught:
        unpack(archive, tmp_path / "out" / "tree")
    assert caught.value.what == "cannot unpack bad.tar"
    assert not list(tmp_path.rglob("escape"))
    assert not Path("/etc/escape").exists()


def test_an_absolute_name_is_unpacked_below_the_folder(tmp_path):
    archive = tmp_path / "absolute.tar"
    with tarfile.open(archive, "w") as opened:
        opened.addfile(entry("/absolute"), io.BytesIO())
    unpack(archive, tmp_path / "out")
    assert (tmp_path / "out" / "absolute").is_file()


@pytest.mark.parametrize("name", ["../escape", "/escape"])
def test_no_entry_of_a_zip_file_leaves_its_folder(name, tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as opened:
        opened.writestr(name, "x")
    with pytest.raises(SourceError, match=r"cannot unpack bad\.zip"):
        unpack(tmp_path / "bad.zip", tmp_path / "out" / "tree")
    assert not list(tmp_path.rglob("escape"))


def test_a_file_that_is_no_archive_says_so(tmp_path):
    (tmp_path / "page.tar.xz").write_text("<html>not found</html>")
    with pytest.raises(SourceError, match=r"cannot unpack page\.tar\.xz"):
        unpack(tmp_path / "page.tar.xz", tmp_path / "out")


def test_a_full_disk_is_no_broken_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        archive.writestr("setup.py", "x" * 100_000)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "setup.py").symlink_to("/dev/full")
    with pytest.raises(DiskFull) as caught:
        unpack(tmp_path / "tree.zip", tmp_path / "out")
    assert caught.value.because[0].startswith(f"tree.zip into {tmp_path / 'out'}: ")


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "x"), True),
        (OSError(errno.EDQUOT, "x"), True),
        (OSError(errno.EACCES, "No such luck"), False),
        (RuntimeError("fatal: unable to write file a.c: No space left on device"), True),
        (RuntimeError("fatal: not a git repository"), False),
    ],
)
def test_files_and_tools_tell_of_a_full_disk(error, full):
    assert DiskFull.is_told_by(error) is full
