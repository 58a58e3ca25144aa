"""A mirror small enough for every test: one plan with a wheel, a runfile and two archive files."""

from __future__ import annotations

from pathlib import Path

from envforge.sources.mirror import Answer, Held, HeldArchive, Manifest, Mirror

PLAN = "ab" * 32
DEB = b"!<arch>\n" * 500
INPUTS = {"inputs/wheels/demo.whl": b"PK" * 700, "inputs/cuda.run": b"#!/bin/sh\n" * 1000}
ARCHIVE = {"dists/bookworm/InRelease": b"Codename: bookworm\n", "pool/a.deb": DEB}


def put(mirror: Mirror, folder: Path, data: bytes) -> Held:
    path = folder / "file"
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return mirror.put(path)


def small_mirror(folder: Path) -> Mirror:
    mirror = Mirror(folder / "mirror")
    held = {name: put(mirror, folder, data) for name, data in ARCHIVE.items()}
    files = {
        name: Answer(sha256=file.sha256, size_bytes=file.size_bytes) for name, file in held.items()
    }
    mirror.write(
        Manifest(
            kind="plan",
            name=PLAN,
            title="torch 1.0.1 for sm_35 on debian-12, wheel route",
            created="2026-11-22T22:00:00+00:00",
            envforge="0.1.0",
            inputs={name: put(mirror, folder, data) for name, data in INPUTS.items()},
            archive=HeldArchive(address="http://archive.example/debian", files=files),
        )
    )
    return mirror
