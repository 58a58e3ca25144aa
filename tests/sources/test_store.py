from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from envforge.errors import HashMismatch
from envforge.sources.store import Store, default_root

DATA = b"the bytes of a wheel"
SHA256 = hashlib.sha256(DATA).hexdigest()


def put(store: Store, data: bytes = DATA, sha256: str = SHA256) -> Path:
    with store.workspace() as folder:
        fetched = folder / "fetched"
        fetched.write_bytes(data)
        return store.put_verified(fetched, sha256, "demo.whl")


def test_a_file_is_found_under_its_hash(store: Store) -> None:
    assert store.get(SHA256, "demo.whl") is None
    path = put(store)
    assert store.get(SHA256, "demo.whl") == path == store.path_of(SHA256)
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_byte_changed_on_disk_is_never_handed_out_and_the_file_is_removed(store: Store) -> None:
    path = put(store)
    path.chmod(0o644)
    path.write_bytes(b"The bytes of a wheel")
    with pytest.raises(HashMismatch) as caught:
        store.get(SHA256, "demo.whl")
    assert caught.value.exit_code == 5
    assert caught.value.what == "demo.whl in the local store has changed on disk"
    assert caught.value.because[0] == f"expected sha256 {SHA256}"
    assert not path.exists()
    assert store.get(SHA256, "demo.whl") is None


def test_other_bytes_than_the_pinned_ones_are_not_kept(store: Store) -> None:
    with pytest.raises(HashMismatch) as caught:
        put(store, b"something else")
    assert caught.value.what == "demo.whl does not have the pinned hash; nothing of it was kept"
    assert not [path for path in store.root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["../../etc/passwd", SHA256.upper(), SHA256[:-1], ""])
def test_what_is_not_a_sha256_names_no_path(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="not a sha256"):
        store.path_of(name)


def test_the_store_lies_where_xdg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "envforge" / "store"


def interrupted(store: Store, seen: list[Path]) -> None:
    with store.workspace() as folder:
        seen.append(folder / "half")
        seen[0].write_bytes(b"x")
        raise KeyboardInterrupt


def test_a_workspace_is_gone_after_a_failure(store: Store) -> None:
    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(store, seen)
    assert not seen[0].parent.exists()


LEFT = """
import sys, time
from pathlib import Path
from envforge.sources.store import Store
with Store(Path(sys.argv[1])).workspace() as folder:
    (folder / "half a wheel").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_in_its_workspace_is_removed_and_a_living_ones_is_not(
    store: Store,
) -> None:
    command = [sys.executable, "-c", LEFT, str(store.root)]
    killed, living = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    try:
        left, used = [Path(each.stdout.readline().strip()) for each in (killed, living)]
        killed.kill()
        killed.wait()
        with store.workspace() as folder:
            assert sorted(path.name for path in folder.parent.iterdir() if path.is_dir()) == sorted(
                [folder.name, used.name]
            )
        assert not left.exists()
        assert (used / "half a wheel").exists()
    finally:
        for each in (killed, living):
            each.kill()
            each.communicate()
    with store.workspace() as folder:
        assert len(list(folder.parent.iterdir())) == 2, "a directory and its lock"
    assert list(folder.parent.iterdir()) == []
