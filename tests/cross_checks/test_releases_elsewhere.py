"""What was published of a release: PyTorch's own matrices, its conda channel, cog."""

from __future__ import annotations

from elsewhere import CP311, DATABASE, RELEASES, assert_exactly, series

# PyTorch: RELEASE.md, "Release Compatibility Matrix": Python (first, last, experimental ones
# included) and CUDA (stable and experimental) of a release series.
RELEASE_MATRIX = {
    "2.14": ("3.10", "3.15", {"12.6", "13.0", "13.2"}),
    "2.13": ("3.10", "3.15", {"12.6", "13.0", "13.2"}),
    "2.12": ("3.10", "3.14", {"12.6", "13.0", "13.2"}),
    "2.11": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.10": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.9": ("3.10", "3.14", {"12.6", "12.8", "13.0"}),
    "2.8": ("3.9", "3.13", {"12.6", "12.8", "12.9"}),
    "2.7": ("3.9", "3.13", {"11.8", "12.6", "12.8"}),
    "2.6": ("3.9", "3.13", {"11.8", "12.4", "12.6"}),
    "2.5": ("3.9", "3.13", {"11.8", "12.1", "12.4"}),
    "2.4": ("3.8", "3.12", {"11.8", "12.1", "12.4"}),
    "2.3": ("3.8", "3.12", {"11.8", "12.1"}),
    "2.2": ("3.8", "3.12", {"11.8", "12.1"}),
    "2.1": ("3.8", "3.11", {"11.8", "12.1"}),
    "2.0": ("3.8", "3.11", {"11.7", "11.8"}),
    "1.13": ("3.7", "3.10", {"11.6", "11.7"}),
    "1.12": ("3.7", "3.10", {"11.3", "11.6"}),
}
# The same matrix: cuDNN of a series with a CUDA, where it names one for each.
RELEASE_CUDNN = {
    ("1.12", "11.3"): "8.3.2.44", ("1.12", "11.6"): "8.3.2.44", ("1.13", "11.6"): "8.3.2.44",
    ("1.13", "11.7"): "8.5.0.96", ("2.0", "11.7"): "8.5.0.96", ("2.0", "11.8"): "8.7.0.84",
    ("2.1", "11.8"): "8.7.0.84", ("2.1", "12.1"): "8.9.2.26", ("2.2", "12.1"): "8.9.2.26",
    ("2.3", "12.1"): "8.9.2.26", ("2.4", "12.1"): "9.1.0.70", ("2.5", "12.4"): "9.1.0.70",
    ("2.6", "12.4"): "9.1.0.70", ("2.7", "12.6"): "9.5.1.17", ("2.8", "12.8"): "9.10.2.21",
    ("2.9", "12.8"): "9.10.2.21", ("2.10", "12.8"): "9.10.2.21", ("2.11", "13.0"): "9.17.1.4",
    ("2.12", "13.0"): "9.20.0.48", ("2.13", "13.0"): "9.20.0.48", ("2.14", "13.0"): "9.24.0.43",
}  # fmt: skip
CP315 = "the package index carries no cp315 file before 2.15.0 (measured); experimental there"
RELEASE_PYTHONS_DIFFER = {
    "1.13.0": CP311, "1.13.1": CP311, "2.13.0": CP315, "2.14.0": CP315, "2.14.1": CP315,
}  # fmt: skip
CU102 = "the wheel on the package index is CUDA 10.2 (1.12.1 measured)"
RELEASE_CUDA_DIFFERS = {("1.12.0", "10.2"): CU102, ("1.12.1", "10.2"): CU102}


def of_series(name: str) -> list[str]:
    return [version for version in RELEASES if series(version) == name]


def test_the_release_matrix_names_the_same_pythons():
    found = set()
    for name, (first, last, _) in RELEASE_MATRIX.items():
        for version in of_series(name):
            pythons = RELEASES[version].source_build.pythons
            if (pythons[0], pythons[-1]) != (first, last):
                found.add(version)
    assert_exactly(found, RELEASE_PYTHONS_DIFFER)


def wheels_cuda(version: str) -> set[str]:
    return {series(wheel.cuda) for wheel in DATABASE.wheels if wheel.torch == version}


def test_the_release_matrix_names_the_same_cuda_builds():
    found = {
        (version, cuda)
        for name, (_, _, theirs) in RELEASE_MATRIX.items()
        for version in of_series(name)
        for cuda in theirs ^ wheels_cuda(version)
    }
    assert_exactly(found, RELEASE_CUDA_DIFFERS)


RELEASE_CUDNN_DIFFERS = {"2.11.0": "the wheel's METADATA asks for 9.19.0.56 (measured)"}


def test_the_release_matrix_names_the_same_cudnn():
    held = {
        (row.torch, series(row.cuda)): row.cudnn.version for row in DATABASE.wheels if row.cudnn
    }
    asked = {key: RELEASE_CUDNN.get((series(key[0]), key[1])) for key in held}
    assert sum(version is not None for version in asked.values()) >= 14
    found = {key[0] for key in held if asked[key] not in (None, held[key])}
    assert_exactly(found, RELEASE_CUDNN_DIFFERS)


def test_the_wheels_requirements_name_the_same_cudnn():
    versions = {
        (row.torch, row.cudnn.project): row.cudnn.version
        for row in DATABASE.wheels
        if row.cudnn and row.variant is None  # the requirements are those of the default wheels
    }
    for row in DATABASE.requirements:
        for package in row.packages:
            if package.project.startswith("nvidia-cudnn"):
                assert package.version == versions[row.torch, package.project], row.torch


# Build strings of PyTorch's own conda channel (pytorch-1.2.0-py3.7_cuda10.0.130_cudnn7.6.2_0), as
# lock files and logs of third parties carry them: same release and CUDA as the wheel, so same cuDNN.
CHANNEL_CUDNN = {
    ("1.0.0", "9.0"): "7.4.1", ("1.0.1", "9.0"): "7.4.2", ("1.1.0", "9.0"): "7.5.1",
    ("1.2.0", "10.0"): "7.6.2", ("1.3.1", "10.1"): "7.6.3", ("1.4.0", "10.1"): "7.6.3",
    ("1.5.0", "10.2"): "7.6.5", ("1.5.1", "10.2"): "7.6.5", ("1.6.0", "10.2"): "7.6.5",
    ("1.7.0", "10.2"): "7.6.5", ("1.7.1", "10.2"): "7.6.5", ("1.8.0", "10.2"): "7.6.5",
    ("1.8.1", "10.2"): "7.6.5", ("1.9.0", "10.2"): "7.6.5", ("1.11.0", "10.2"): "7.6.5",
    ("1.12.1", "10.2"): "7.6.5", ("1.13.1", "11.7"): "8.5.0",
    # the variants
    ("1.4.0", "9.2"): "7.6.3", ("1.5.0", "9.2"): "7.6.3", ("1.5.1", "9.2"): "7.6.3",
    ("1.7.1", "9.2"): "7.6.3", ("1.5.0", "10.1"): "7.6.3", ("1.5.1", "10.1"): "7.6.3",
    ("1.7.0", "10.1"): "7.6.3", ("1.7.0", "11.0"): "8.0.3", ("1.7.1", "11.0"): "8.0.5",
    ("1.8.1", "11.1"): "8.0.5", ("1.9.0", "11.1"): "8.0.5", ("1.9.1", "11.1"): "8.0.5",
    ("1.10.1", "11.1"): "8.0.5", ("1.10.0", "11.3"): "8.2.0", ("1.10.2", "11.3"): "8.2.0",
    ("1.11.0", "11.3"): "8.2.0", ("1.12.0", "11.6"): "8.3.2", ("1.12.1", "11.6"): "8.3.2",
    ("1.13.0", "11.6"): "8.3.2", ("1.13.1", "11.6"): "8.3.2", ("2.0.1", "11.8"): "8.7.0",
    ("2.2.0", "11.8"): "8.7.0", ("2.2.2", "11.8"): "8.7.0", ("2.3.1", "11.8"): "8.7.0",
}  # fmt: skip
CHANNEL_CUDNN_DIFFERS = {
    ("1.7.0", "11.0"): "the wheels' own script took 8.0.4.30 two weeks before the release (builder"
    " c286aade); the channel's image was older. Both are for the same cards",
}


def test_pytorchs_conda_channel_names_the_same_cudnn():
    held = {
        (row.torch, series(row.cuda)): ".".join(row.cudnn.version.split(".")[:3])
        for row in DATABASE.wheels
        if row.cudnn
    }
    assert held.keys() >= CHANNEL_CUDNN.keys()
    found = {key for key, theirs in CHANNEL_CUDNN.items() if held.get(key, theirs) != theirs}
    assert_exactly(found, CHANNEL_CUDNN_DIFFERS)


# PyTorch: RELEASE.md, "PyTorch CUDA Support Matrix", Linux x86: 2.9 and 2.10 as quoted in pytorch
# issue 172352 and PR 175253 (the lines they take away), 2.11 in the PR, 2.12 to 2.14 in RELEASE.md.
OLD = "5.0 6.0 7.0 7.5 8.0 8.6 9.0"
VOLTA = "7.0 7.5 8.0 8.6 9.0 10.0 12.0"
TURING = "7.5 8.0 8.6 9.0 10.0 12.0"
SUPPORT_MATRIX = {
    "2.9": {"12.6": OLD, "12.8": VOLTA, "13.0": f"{TURING}+PTX"},
    "2.10": {"12.6": OLD, "12.8": VOLTA, "13.0": f"{TURING}+PTX"},
    "2.11": {"12.6": OLD, "12.8": TURING, "13.0": f"{TURING}+PTX"},
    "2.12": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
    "2.13": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
    "2.14": {"12.6": OLD, "13.0": f"{TURING}+PTX", "13.2": f"{TURING}+PTX"},
}
NO_PTX = "the wheel of the package index carries no PTX (2.11.0 to 2.14.1 measured; PR 175253)"
UNMEASURED = "nobody measured cu132; without PTX is the careful reading, and no card needs it"
SUPPORT_DIFFERS = {
    **{(version, "13.0"): NO_PTX
       for version in ("2.11.0", "2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1")},
    **{(version, "13.2"): UNMEASURED
       for version in ("2.12.0", "2.12.1", "2.13.0", "2.14.0", "2.14.1")},
}  # fmt: skip


def spelled(architectures: str) -> set[str]:
    """``7.5 12.0+PTX`` -> ``sm_75``, ``sm_120``, ``compute_120``."""
    codes = set()
    for word in architectures.split():
        number = word.removesuffix("+PTX").replace(".", "")
        codes.add(f"sm_{number}")
        codes |= {f"compute_{number}"} if word.endswith("+PTX") else set()
    return codes


def test_the_support_matrix_names_the_same_architectures():
    found = set()
    for name, builds in SUPPORT_MATRIX.items():
        for version in of_series(name):
            for wheel in DATABASE.wheels:
                if wheel.torch == version and set(wheel.codes) != spelled(builds[wheel.cuda]):
                    found.add((version, wheel.cuda))
                    assert spelled(builds[wheel.cuda]) - set(wheel.codes) == {"compute_120"}
    assert_exactly(found, SUPPORT_DIFFERS)


# cog: pkg/config/torch_compatibility.json at 173033b4, read from the wheels' own index: CUDA builds.
COG = {
    "1.11.0": "10.2 11.3", "1.12.0": "10.2 11.3 11.6", "1.12.1": "10.2 11.3 11.6",
    "1.13.0": "11.6 11.7", "1.13.1": "11.6 11.7", "2.0.0": "11.7 11.8", "2.0.1": "11.7 11.8",
    "2.1.0": "11.8 12.1", "2.1.1": "11.8 12.1", "2.1.2": "11.8 12.1", "2.2.0": "11.8 12.1",
    "2.2.1": "11.8 12.1", "2.2.2": "11.8 12.1", "2.3.0": "11.8 12.1", "2.3.1": "11.8 12.1",
    "2.4.0": "11.8 12.1 12.4", "2.4.1": "11.8 12.1 12.4", "2.5.0": "11.8 12.1 12.4",
    "2.5.1": "11.8 12.1 12.4", "2.6.0": "11.8 12.4 12.6", "2.7.0": "11.8 12.6 12.8",
    "2.7.1": "11.8 12.6 12.8", "2.8.0": "12.6 12.8 12.9", "2.9.0": "12.6 12.8 13.0",
    "2.9.1": "12.6 12.8 13.0", "2.10.0": "12.6 12.8 13.0", "2.11.0": "12.6 12.8 13.0",
    "2.12.1": "12.6 12.9 13.0 13.2",
}  # fmt: skip
COG_DIFFERS = {
    ("1.11.0", "11.5"): "pytorch/builder release/1.11 publishes cu115",
    ("2.12.1", "12.9"): "RELEASE.md does not name it and nobody measured its architectures",
}


def test_cog_finds_the_same_cuda_builds_on_the_index():
    found = {
        (version, cuda)
        for version, theirs in COG.items()
        for cuda in set(theirs.split()) ^ wheels_cuda(version)
    }
    assert_exactly(found, COG_DIFFERS)
