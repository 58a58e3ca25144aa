"""The proof of the mirror: the network is cut, and the same image comes out of an empty engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from image_parts import PrivateEngine

from envforge.image.lock import load_lock

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(5400)]

PLAN = ("--gpu", "gtx780", "--torch", "1.0.1")


def envforge(
    folder: Path, *words: str, before: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-m", "envforge", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class Cut:
    """Commands in the network of a private engine, which reaches nothing but itself."""

    def __init__(self, engine: PrivateEngine, folder: Path) -> None:
        self.enter = ("nsenter", f"--net=/proc/{engine.pid}/ns/net")
        self.environment = {"DOCKER_HOST": engine.host, "XDG_CACHE_HOME": str(folder / "cache")}
        subprocess.run([*self.enter, "ip", "link", "set", "lo", "up"], check=True)
        said = subprocess.run([*self.enter, "ip", "route"], check=True, capture_output=True)
        assert b"default" not in said.stdout

    def envforge(self, folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return envforge(folder, *words, before=self.enter, **self.environment, **more)


@pytest.fixture(scope="module")
def mirrored(engine, tmp_path_factory):
    """A folder with a lock that was made with a network, and a mirror of the same plan."""
    folder = tmp_path_factory.mktemp("mirrored")
    built = envforge(folder, "build", *PLAN)
    assert built.returncode == 0, built.stderr
    created = envforge(folder, "mirror", "create", "mirror", *PLAN, "--json")
    assert created.returncode == 0, created.stderr
    assert json.loads(created.stdout)["name"] == load_lock(folder / "envforge.lock").plan
    assert not [tag for tag in tags(engine) if tag.startswith("envforge/recording")]
    yield folder
    shutil.rmtree(folder)


def tags(engine) -> list[str]:
    return [tag for image in engine._client.images.list() for tag in image.tags]


def test_with_the_network_cut_the_same_image_comes_out(mirrored, own_engine, tmp_path):
    with own_engine.start() as empty:
        assert tags(empty) == []
        cut = Cut(own_engine, tmp_path)
        mirror = ("--mirror", str(mirrored / "mirror"))
        without = cut.envforge(tmp_path, "build", *PLAN, "--quiet")
        assert without.returncode == 5, "there really is no network"
        answer = cut.envforge(tmp_path, "build", *PLAN, "--offline", *mirror)
        assert answer.returncode == 0, answer.stderr
        online, offline = (
            load_lock(mirrored / "envforge.lock"),
            load_lock(tmp_path / "envforge.lock"),
        )
        for field in ("plan", "inputs", "files", "packages", "patches", "tree"):
            assert getattr(offline, field) == getattr(online, field), field
        assert offline.base.packages_sha256 == online.base.packages_sha256
        assert offline.base.rootfs_sha256 == online.base.rootfs_sha256
        assert [row.sha256 for row in offline.base.releases] == [
            row.sha256 for row in online.base.releases
        ]
        history = str(empty._client.images.get(offline.image).history())
        assert "proxy" not in history.lower(), "no layer names the mirror"
        again = cut.envforge(tmp_path, "build", *PLAN, "--offline", *mirror)
        assert "already built and verified" in again.stdout


def test_a_mirror_made_again_has_nothing_to_do(mirrored):
    again = envforge(mirrored, "mirror", "create", "mirror", *PLAN)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(
        "held already: torch 1.0.1 for sm_35 on debian-11, wheel route\n"
    )
    assert "->" not in again.stderr, "no step was begun"
    verified = envforge(mirrored, "mirror", "verify", "mirror")
    assert verified.returncode == 0, verified.stdout
