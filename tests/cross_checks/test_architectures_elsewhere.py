"""Which toolkits compile for a card: Spack and nixpkgs."""

from __future__ import annotations

from elsewhere import DATABASE, TOOLKITS, assert_exactly, between, series

from envforge.capability.models import parse_range
from envforge.values import version_key

# Spack: repos/spack_repo/builtin/build_systems/cuda.py, commit 1e8cf059 (2026-07-01), "CUDA version
# vs Architecture": which toolkits compile for a capability.
SPACK_ARCHITECTURES = {
    "1.0": ":6.0", "1.1": ":6.5", "1.2": "2.1:6.5", "1.3": "2.1:6.5", "2.0": "3.0:8.0",
    "2.1": "3.2:8.0", "3.0": "5.0:10.2", "3.2": "5.0:10.2", "3.5": "5.0:11.8", "3.7": "6.5:11.8",
    "5.0": "6.0:12.9", "5.2": "6.5:12.9", "5.3": "6.5:12.9", "6.0": "8.0:12.9", "6.1": "8.0:12.9",
    "6.2": "8.0:12.9", "7.0": "9.0:12.9", "7.2": "9.0:", "7.5": "10.0:", "8.0": "11.0:",
    "8.6": "11.1:", "8.7": "11.4:", "8.9": "11.8:", "9.0": "12.0:", "10.0": "12.8:",
    "10.1": "12.8:12.9", "10.3": "12.9:", "11.0": "13.0:", "12.0": "12.8:", "12.1": "12.9:",
}  # fmt: skip
XAVIER_FIRST = "NVIDIA's matrix and nixpkgs know Xavier (7.2) from 9.2 on"
XAVIER_LAST = "ptxas --help measured: 12.9 lists sm_72, 13.0 does not; Spack gives no upper bound"
SPACK_ARCHITECTURES_DIFFER = {
    ("7.2", "9.0"): XAVIER_FIRST,
    ("7.2", "9.1"): XAVIER_FIRST,
    **{("7.2", f"13.{minor}"): XAVIER_LAST for minor in range(6)},
    ("9.0", "11.8"): "ptxas 11.8 measured lists sm_90; NVIDIA's matrix and nixpkgs say 11.8 too",
}


def test_spack_knows_the_same_toolkits_for_each_capability():
    found = set()
    for capability, bounds in SPACK_ARCHITECTURES.items():
        ours = parse_range(DATABASE.architectures[capability].cuda)
        found |= {(capability, series(v)) for v in TOOLKITS if between(v, bounds) != (v in ours)}
    assert_exactly(found, SPACK_ARCHITECTURES_DIFFER)
    missing = set(DATABASE.architectures) - set(SPACK_ARCHITECTURES)
    assert missing == {"8.8", "10.7"}, "known from ptxas only"


# nixpkgs: pkgs/development/cuda-modules/_cuda/db/bootstrap/cuda.nix at 55d5788b: first toolkit where
# it is later than nixpkgs' own oldest (11.2), and last.
NIX_FIRST = {"8.7": "11.4", "8.9": "11.8", "9.0": "11.8", "10.0": "12.7", "10.1": "12.7",
             "10.3": "12.9", "11.0": "13.0", "12.0": "12.8", "12.1": "12.9"}  # fmt: skip
NIX_LAST = {"3.5": "11.8", "3.7": "11.8", "5.0": "12.9", "5.2": "12.9", "6.0": "12.9",
            "6.1": "12.9", "7.0": "12.9", "7.2": "12.2", "10.1": "12.9"}  # fmt: skip
NIX_DIFFERS = {
    ("7.2", minor): "ptxas --help measured: 12.9 still lists sm_72; nixpkgs thinks of cuda_compat"
    for minor in ("12.3", "12.4", "12.5", "12.6", "12.8", "12.9")
}


def test_nixpkgs_knows_the_same_first_and_last_toolkits():
    found = set()
    for capability in NIX_FIRST.keys() | NIX_LAST.keys():
        ours = parse_range(DATABASE.architectures[capability].cuda)
        first, last = NIX_FIRST.get(capability, ""), NIX_LAST.get(capability, "")
        for version in TOOLKITS:
            told = first or version_key(version) >= ours.lower  # not below nixpkgs' own oldest
            if told and between(version, f"{first}:{last}") != (version in ours):
                found.add((capability, series(version)))
    assert_exactly(found, NIX_DIFFERS)
