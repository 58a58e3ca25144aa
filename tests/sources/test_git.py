"""Real repositories with real submodules, made here and asked for over file:// and local paths."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from envforge.errors import HashMismatch, SourceError
from envforge.sources import repository
from envforge.sources.git import GitTree, Submodule, fetch_tree
from envforge.sources.mirror import HeldTree, Manifest, Mirror
from envforge.sources.store import Store

WITHOUT = frozenset({"third_party/fbgemm"})
WHO = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]


def git(cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    command = ["git", *WHO, *arguments]
    done = subprocess.run(
        command, cwd=cwd, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, message: str = "a commit") -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def made(folder: Path, **files: str) -> str:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name).write_text(text)
    return commit(folder)


def add_submodule(folder: Path, where: str, path: str, url: str) -> None:
    # A relative address is meant relative to the remote; a fresh repository has none yet.
    git(folder / where, "remote", "add", "origin", f"file://{folder}/{where}")
    git(folder / where, "submodule", "add", "-q", url, path)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A tree with a submodule that has a submodule itself; its tag is v1."""
    folder = tmp_path_factory.mktemp("pristine")
    made(folder / "asmjit", asm="jit")
    made(folder / "fbgemm", lib="gemm")
    add_submodule(folder, "fbgemm", "asmjit", "../asmjit")
    commit(folder / "fbgemm")
    made(folder / "torch", setup="a tree")
    add_submodule(folder, "torch", "third_party/fbgemm", "../fbgemm")
    commit(folder / "torch")
    git(folder / "torch", "tag", "-a", "v1", "-m", "one")
    return folder


class Upstream:
    """A copy of that tree that a test may harm."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}/torch"
        self.commit, self.fbgemm, self.inner = (
            git(folder / name, "rev-parse", "HEAD") for name in ("torch", "fbgemm", "asmjit")
        )

    def tree(self, **changes) -> GitTree:
        return GitTree((self.url,), self.commit, "v1")._replace(**changes)

    def recorded(self, *urls: str, unused: bool = False) -> tuple[Submodule, ...]:
        found = urls or (f"file://{self.folder}/fbgemm",)
        return (Submodule("third_party/fbgemm", found, self.fbgemm, unused),)


@pytest.fixture
def upstream(pristine, tmp_path) -> Upstream:
    return Upstream(shutil.copytree(pristine, tmp_path / "upstream", symlinks=True))


@pytest.fixture
def git_store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def extracted(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="tar")
    return folder


def record_of(folder: Path) -> set[str]:
    """What git itself finds there; a tree whose submodule is another has a ``+`` before it."""
    status = git(folder, "submodule", "status", "--recursive").splitlines()
    lines = {" ".join(line.split()[:2]) for line in status}
    return lines | {f"{git(folder, 'rev-parse', 'HEAD')} ."}


def test_a_tree_comes_with_its_submodules_and_theirs(upstream, git_store, tmp_path):
    fetched = fetch_tree(upstream.tree(submodules=upstream.recorded()), git_store)
    assert fetched.record == (
        f"{upstream.commit} .",
        f"{upstream.fbgemm} third_party/fbgemm",
        f"{upstream.inner} third_party/fbgemm/asmjit",
    )
    folder = extracted(fetched.archive, tmp_path / "out")
    assert (folder / "setup").read_text() == "a tree"
    assert (folder / "third_party/fbgemm/asmjit/asm").read_text() == "jit"
    assert record_of(folder) == set(fetched.record)


def test_git_itself_finds_the_extracted_tree_clean_and_complete(upstream, git_store, tmp_path):
    folder = extracted(fetch_tree(upstream.tree(), git_store).archive, tmp_path / "out")
    assert git(folder, "rev-parse", "HEAD") == upstream.commit
    assert git(folder, "describe", "--tags") == "v1"
    status = git(folder, "submodule", "status", "--recursive").splitlines()
    assert [line.split()[:2] for line in status] == [
        [upstream.fbgemm, "third_party/fbgemm"],
        [upstream.inner, "third_party/fbgemm/asmjit"],
    ]
    assert git(folder, "status", "--porcelain") == ""


def test_a_release_without_recorded_submodules_takes_what_its_commit_pins(upstream, git_store):
    assert len(fetch_tree(upstream.tree(), git_store).parts) == 3


def test_what_is_in_the_store_needs_no_upstream(upstream, git_store):
    first = fetch_tree(upstream.tree(), git_store)
    shutil.rmtree(upstream.folder)
    assert fetch_tree(upstream.tree(), git_store) == first


def test_two_stores_pack_the_same_bytes(upstream, tmp_path):
    packed = [fetch_tree(upstream.tree(), Store(tmp_path / name)).sha256 for name in "ab"]
    assert packed[0] == packed[1]


def test_a_vanished_submodule_is_replaced_by_its_mirror(upstream, git_store, tmp_path):
    gone = f"file://{upstream.folder}/fbgemm"
    shutil.copytree(upstream.folder / "fbgemm", tmp_path / "mirror" / "fbgemm")
    shutil.copytree(upstream.folder / "asmjit", tmp_path / "mirror" / "asmjit")
    shutil.rmtree(upstream.folder / "fbgemm")
    heard = []
    recorded = upstream.recorded(gone, str(tmp_path / "mirror" / "fbgemm"))
    fetched = fetch_tree(upstream.tree(submodules=recorded), git_store, heard.append)
    assert fetched.parts[1].commit == upstream.fbgemm
    warnings = [event.text for event in heard if event.kind == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{gone}: fatal: ")


def test_a_vanished_submodule_without_a_mirror_names_what_was_tried(upstream, git_store):
    gone = f"file://{upstream.folder}/fbgemm"
    shutil.rmtree(upstream.folder / "fbgemm")
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(submodules=upstream.recorded()), git_store)
    assert caught.value.what == f"cannot fetch third_party/fbgemm at commit {upstream.fbgemm}"
    assert caught.value.because[0].startswith(f"{gone}: fatal: ")
    assert caught.value.hint.startswith(
        "check the network, or name a mirror that has it: git config"
    )
    assert caught.value.exit_code == 5


def test_a_vanished_submodule_that_nothing_reads_is_left_out_with_a_warning(upstream, git_store):
    shutil.rmtree(upstream.folder / "fbgemm")
    heard = []
    tree = upstream.tree(submodules=upstream.recorded(unused=True))
    assert [part.path for part in fetch_tree(tree, git_store, heard.append).parts] == ["."]
    warnings = [event.text for event in heard if event.kind == "warning"]
    assert warnings[-1] == "third_party/fbgemm: vanished, and nothing reads it; left out"


def test_a_submodule_the_profile_does_without_is_not_fetched(upstream, git_store, tmp_path):
    tree = upstream.tree(without=WITHOUT)
    fetched = fetch_tree(tree, git_store)
    assert [part.path for part in fetched.parts] == ["."]
    folder = extracted(fetched.archive, tmp_path / "out")
    assert record_of(folder) == set(fetched.record)
    assert git(folder, "submodule", "status", "--recursive") == ""


def test_a_commit_that_is_not_there_is_refused(upstream, git_store):
    wrong = "0123456789" * 4
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(commit=wrong, tag=None), git_store)
    assert caught.value.what == f"cannot fetch torch at commit {wrong}"
    assert "not our ref" in caught.value.because[0]
    assert not (git_store.root / "git" / "01" / wrong).exists()


def test_a_moved_tag_is_refused_even_where_the_commit_is_still_there(upstream, git_store):
    torch = upstream.folder / "torch"
    (torch / "setup").write_text("another tree")
    moved = commit(torch, "another")
    git(torch, "tag", "-f", "-a", "v1", "-m", "moved")
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(), git_store)
    assert caught.value.because == (
        f"{upstream.url}: tag v1 names {moved} there, not the recorded commit: it was moved",
    )


def test_other_submodules_than_the_recorded_ones_are_refused_by_path(upstream, git_store):
    other = upstream.recorded()[0]._replace(commit="0123456789" * 4)
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(submodules=(other,)), git_store)
    assert caught.value.what == "torch pins other submodules than the recorded ones"
    assert caught.value.because == (
        f"third_party/fbgemm: pinned {upstream.fbgemm}, recorded {other.commit}",
    )


def test_a_commit_that_no_branch_leads_to_is_fetched_by_its_id(upstream, git_store):
    """FBGEMM rewrote its history: pytorch issue 35149."""
    torch = upstream.folder / "torch"
    git(torch, "tag", "-d", "v1")
    git(torch, "checkout", "-q", "--orphan", "rewritten")
    commit(torch, "a new history")
    git(torch, "branch", "-D", "main")
    assert fetch_tree(upstream.tree(tag=None), git_store).parts[0].commit == upstream.commit


def test_an_old_server_that_gives_no_commit_by_id_gives_it_by_its_refs(
    upstream, git_store, monkeypatch
):
    (upstream.folder / "torch" / "more").write_text("later")
    commit(upstream.folder / "torch", "later")
    git(upstream.folder / "torch", "tag", "-d", "v1")
    # Protocol 0 is what servers spoke when these trees were new.
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "protocol.version")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "0")
    fetched = fetch_tree(upstream.tree(tag=None), git_store)
    assert fetched.parts[0].commit == upstream.commit


def test_a_local_path_is_an_address_too(upstream, git_store):
    tree = upstream.tree(urls=(str(upstream.folder / "torch"),))
    assert len(fetch_tree(tree, git_store).parts) == 3


@pytest.mark.parametrize("url", ["--upload-pack=touch /tmp/x", "ext::sh -c id", "torch", "-u"])
def test_what_is_not_an_address_never_reaches_git(url, upstream, git_store):
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(urls=(url,)), git_store)
    assert caught.value.because == (f"{url}: not an address of a git repository",)


def test_the_users_own_mirror_by_instead_of_is_honoured(upstream, git_store, tmp_path, monkeypatch):
    configuration = tmp_path / "gitconfig"
    base = f'[url "file://{upstream.folder}/"]\n\tinsteadOf = https://example.org/pytorch/\n'
    configuration.write_text(base)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    tree = upstream.tree(urls=("https://example.org/pytorch/torch",))
    assert fetch_tree(tree, git_store).parts[0].commit == upstream.commit


def test_bytes_changed_in_the_store_are_fetched_anew(upstream, git_store):
    fetched = fetch_tree(upstream.tree(), git_store)
    pack = next((fetched.parts[0].repository / "objects" / "pack").glob("*.pack"))
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 0xFF
    pack.write_bytes(data)
    fetched.archive.chmod(0o644)
    fetched.archive.write_bytes(b"changed on disk")
    again = fetch_tree(upstream.tree(), git_store)
    assert again.sha256 == fetched.sha256


def test_a_silent_server_is_given_up(upstream, tmp_path, monkeypatch):
    """A connection that is accepted and never answered."""
    import socket  # noqa: PLC0415

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"git://127.0.0.1:{server.getsockname()[1]}/torch"
        with pytest.raises(repository.GitFailed, match="nothing came for 1 seconds"):
            repository.git("ls-remote", "--", url, cwd=tmp_path, idle_s=1)


KILLED = """
import sys
from envforge.sources.git import GitTree, fetch_tree
from envforge.sources.mirror import HeldTree, Manifest, Mirror
from envforge.sources.store import Store
from pathlib import Path
url, commit, root = sys.argv[1:]
fetch_tree(GitTree((url,), commit, "v1"), Store(Path(root)), lambda e: print(e.text, flush=True))
"""


def test_a_killed_fetch_is_resumed_with_what_was_fetched(upstream, git_store):
    """The submodule hangs in its transport; the process is killed; the rest is not asked again."""
    hanging = upstream.folder / "fbgemm" / ".git"
    hanging.rename(upstream.folder / "hidden")
    os.mkfifo(hanging)  # git opens it to see whether it is a gitfile, and waits
    command = [sys.executable, "-c", KILLED, upstream.url, upstream.commit, str(git_store.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("fetching third_party/fbgemm"):
                time.sleep(0.3)
                process.kill()
                break
    hanging.unlink()
    (upstream.folder / "hidden").rename(hanging)
    shutil.rmtree(upstream.folder / "torch")  # what is in the store already is not asked for again
    fetched = fetch_tree(upstream.tree(), git_store)
    assert [part.path for part in fetched.parts] == [
        ".",
        "third_party/fbgemm",
        "third_party/fbgemm/asmjit",
    ]


def test_progress_is_told_in_bytes(upstream, git_store):
    (upstream.folder / "torch" / "weights").write_bytes(os.urandom(4 << 20))
    heavy = commit(upstream.folder / "torch", "weights")
    heard = []
    fetch_tree(upstream.tree(commit=heavy, tag=None), git_store, heard.append)
    received = [event for event in heard if event.kind == "bytes" and event.text == "torch"]
    assert received[-1].done >= 4 << 20
    assert next(event.text for event in heard if event.kind == "step").startswith(
        "fetching torch at "
    )


def test_a_submodule_nobody_wrote_an_address_for_is_left_out_with_a_warning(upstream, git_store):
    """pytorch issue 7150: an entry in the tree alone."""
    torch = upstream.folder / "torch"
    git(torch, "update-index", "--add", "--cacheinfo", f"160000,{upstream.inner},third_party/nccl")
    git(torch, "commit", "-q", "-m", "an entry by mistake")
    heard = []
    tree = upstream.tree(commit=git(torch, "rev-parse", "HEAD"), tag=None)
    paths = [part.path for part in fetch_tree(tree, git_store, heard.append).parts]
    assert "third_party/nccl" not in paths
    warnings = [event.text for event in heard if event.kind == "warning"]
    assert warnings == ["third_party/nccl: no address is written for it; left out"]


def test_an_address_that_does_not_answer_is_tried_once_and_named(upstream, git_store, tmp_path):
    gone = f"file://{tmp_path}/gone"
    fetched = fetch_tree(upstream.tree(urls=(gone, upstream.url), without=WITHOUT), git_store)
    assert fetched.parts[0].commit == upstream.commit
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(urls=(gone,)), Store(tmp_path / "other"))
    assert len(caught.value.because) == 1
    assert caught.value.because[0].startswith(f"{gone}: fatal: ")


def test_a_machine_without_git_says_what_to_install(upstream, git_store, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(), git_store)
    assert caught.value.what == "git cannot be started"
    assert caught.value.hint == "apt-get install git"


def test_an_abbreviated_commit_is_a_mistake_of_the_caller(upstream, git_store):
    with pytest.raises(ValueError, match="not a full commit id"):
        fetch_tree(upstream.tree(commit=upstream.commit[:12]), git_store)


def test_a_repository_that_a_hook_is_run_for_is_not_touched(upstream, git_store, monkeypatch):
    """git sets GIT_DIR for its hooks; a build started from one must not write there."""
    elsewhere = made(upstream.folder / "elsewhere", a="b")
    monkeypatch.setenv("GIT_DIR", str(upstream.folder / "elsewhere" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(upstream.folder / "elsewhere" / ".git" / "index"))
    assert len(fetch_tree(upstream.tree(), git_store).parts) == 3
    monkeypatch.undo()
    assert git(upstream.folder / "elsewhere", "rev-parse", "HEAD") == elsewhere
    assert git(upstream.folder / "elsewhere", "status", "--porcelain") == ""


class Locked(http.server.BaseHTTPRequestHandler):
    """A private repository, or one that was deleted: GitHub asks for a password for both."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="git"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments) -> None:
        pass


def test_a_server_that_asks_for_a_password_is_an_error_not_a_prompt(upstream, git_store):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Locked) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/deleted.git"
        with pytest.raises(SourceError) as caught:
            fetch_tree(upstream.tree(urls=(url,)), git_store)
        server.shutdown()
    assert caught.value.because == (f"{url}: fatal: Authentication failed for '{url}/'",)


def mirrored(upstream, folder: Path, tree: GitTree) -> Store:
    """A store with nothing in it, and a mirror that holds ``tree``; the upstream is gone."""
    fetched = fetch_tree(tree, Store(folder / "first"))
    mirror = Mirror(folder / "mirror")
    mirror.write(
        Manifest(
            kind="recipe",
            name="demo",
            title="a recipe",
            created="2026-11-22T22:00:00+00:00",
            envforge="0.1.0",
            inputs={},
            trees={
                upstream.commit: HeldTree(file=mirror.put(fetched.archive), record=fetched.record)
            },
        )
    )
    shutil.rmtree(upstream.folder)
    return Store(folder / "second", mirror.root, offline=True)


def test_a_tree_in_the_mirror_needs_neither_upstream_nor_network(upstream, tmp_path):
    tree = upstream.tree(submodules=upstream.recorded())
    store = mirrored(upstream, tmp_path, tree)
    fetched = fetch_tree(tree, store)
    folder = extracted(fetched.archive, tmp_path / "out")
    assert record_of(folder) == set(fetched.record)
    assert len(fetched.record) == 3


def test_a_commit_of_a_tree_in_the_mirror_is_had_as_a_repository(upstream, tmp_path):
    store = mirrored(upstream, tmp_path, upstream.tree())
    wanted = repository.Wanted((upstream.url,), upstream.commit)
    bare = repository.fetch_commit(wanted, "torch", store)
    assert git(bare, "show", f"{upstream.commit}:setup") == "a tree"


def test_a_tree_in_the_mirror_that_lacks_a_submodule_is_not_taken(upstream, tmp_path):
    store = mirrored(upstream, tmp_path, upstream.tree(without=WITHOUT))
    with pytest.raises(SourceError) as caught:
        fetch_tree(upstream.tree(submodules=upstream.recorded()), store)
    assert caught.value.what == (
        f"third_party/fbgemm at commit {upstream.fbgemm} is not on this machine,"
        " and --offline asks no network"
    )


def test_a_tree_damaged_in_the_mirror_is_not_taken(upstream, tmp_path):
    tree = upstream.tree()
    store = mirrored(upstream, tmp_path, tree)
    assert store.mirror
    held = Mirror(store.mirror).manifests()[0].trees[upstream.commit].file
    path = Mirror(store.mirror).store.path_of(held.sha256)
    path.unlink()
    path.write_bytes(b"not a tar file")
    with pytest.raises(HashMismatch) as caught:
        fetch_tree(tree, store)
    name = f"the source tree of commit {upstream.commit[:12]}"
    assert caught.value.what == f"{name} in the mirror has changed on disk"
