"""What files say: the bus, the module's /proc, the board, the host. Nothing here may ever raise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from captured import HOSTS, read_capture
from hypothesis import given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.errors import UsageError
from envforge.hardware.detect import detect
from envforge.hardware.host import read_host
from envforge.hardware.pci import PciGpu, find_gpus, normal_address, pci_id_of, same_card
from envforge.hardware.probes import Probes
from envforge.hardware.procfs import Information, parse_information
from envforge.hardware.tegra import CAPABILITIES, find_tegra


def machine(folder: Path, story: str) -> Path:
    (path,) = HOSTS.glob(f"{story}__*")
    return read_capture(path).build(folder)


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


# --- the bus ------------------------------------------------------------------------------------


def function(root: Path, address: str, device: str, kind: str = "0x030000") -> None:
    folder = f"sys/bus/pci/devices/{address}"
    write(root, f"{folder}/vendor", "0x10de\n")
    write(root, f"{folder}/class", f"{kind}\n")
    write(root, f"{folder}/device", f"{device}\n")


def test_cards_come_in_bus_order_also_where_a_domain_has_five_digits(tmp_path: Path) -> None:
    for address in ("10000:01:00.0", "0000:81:00.0", "0000:02:00.0"):
        function(tmp_path, address, "0x1187")
    addresses = [gpu.address for gpu in find_gpus(tmp_path / "sys")]
    assert addresses == ["0000:02:00.0", "0000:81:00.0", "10000:01:00.0"]


@pytest.mark.parametrize("kind", ["0x030000", "0x030200"])
def test_vga_and_3d_controllers_are_cards(tmp_path: Path, kind: str) -> None:
    function(tmp_path, "0000:01:00.0", "0x1187", kind)
    assert find_gpus(tmp_path / "sys") == [PciGpu("0000:01:00.0", "10de:1187")]


@pytest.mark.parametrize("kind", ["0x040300", "0x0c0330", "0x068000", ""])
def test_other_functions_of_the_vendor_are_none(tmp_path: Path, kind: str) -> None:
    function(tmp_path, "0000:01:00.1", "0x0e0a", kind)
    assert find_gpus(tmp_path / "sys") == []


@pytest.mark.parametrize("device", ["", "0x", "1187", "0x11871187", "garbage"])
def test_a_function_whose_id_cannot_be_read_is_left_out(tmp_path: Path, device: str) -> None:
    function(tmp_path, "0000:01:00.0", device)
    assert find_gpus(tmp_path / "sys") == []


def test_a_machine_without_a_bus_has_no_cards(tmp_path: Path) -> None:
    assert find_gpus(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("00000000:0B:00.0", "0000:0b:00.0"),
        ("0000:05:00.0", "0000:05:00.0"),
        ("000052CE:00:00.0", "52ce:00:00.0"),
        ("[N/A]", None),
        ("", None),
    ],
)
def test_addresses_of_the_driver_are_spelled_as_sysfs_does(text: str, address: str | None) -> None:
    assert normal_address(text) == address


def test_a_domain_cut_to_16_bits_is_recognised_only_where_it_is_the_only_one() -> None:
    assert same_card("8e05:00:00.0", ["3e3f8e05:00:00.0"]) == "3e3f8e05:00:00.0"
    assert same_card("8e05:00:00.0", ["3e3f8e05:00:00.0", "11118e05:00:00.0"]) is None
    assert same_card("8e05:00:00.0", ["3e3f8e05:00:00.0", "8e05:00:00.0"]) == "8e05:00:00.0"
    assert same_card(None, ["0000:01:00.0"]) is None


def test_ids_of_the_driver_are_turned_round() -> None:
    assert pci_id_of(0x233510DE) == "10de:2335"
    assert pci_id_of(0x008E1414) is None


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = normal_address(text)
    assert address is None or normal_address(address) == address


# --- /proc/driver/nvidia ------------------------------------------------------------------------


def test_the_module_names_model_uuid_and_device_node() -> None:
    text = (
        "Model: \t\t NVIDIA L4\nIRQ:   \t\t 16\n"
        "GPU UUID: \t GPU-00000001-0000-0000-0000-000000000000\nVideo BIOS: \t 95.04.65.00.13\n"
        "Bus Location: \t 0000:70:00.0\nDevice Minor: \t 3\nGPU Excluded:\t No\n"
    )
    uuid = "GPU-00000001-0000-0000-0000-000000000000"
    assert parse_information(text) == Information("NVIDIA L4", uuid, 3, excluded=False)


@pytest.mark.parametrize("word", ["GPU Excluded", "GPU Blacklisted"])
def test_both_words_for_an_excluded_card_are_known(word: str) -> None:
    assert parse_information(f"Model: \t GTX 760\n{word}:\t Yes\n").excluded


@given(st.text(max_size=200))
def test_any_information_file_is_survived(text: str) -> None:
    parse_information(text)


# --- the board ----------------------------------------------------------------------------------


def test_every_tegra_chip_has_a_capability_that_the_database_knows() -> None:
    known = load().architectures
    assert {str(capability) for capability in CAPABILITIES.values()} <= set(known)


def test_every_capability_of_a_tegra_alone_belongs_to_a_chip() -> None:
    alone = {name for name, row in load().architectures.items() if row.tegra}
    assert alone <= {str(capability) for capability in CAPABILITIES.values()}


def test_a_board_of_another_vendor_is_no_tegra(tmp_path: Path) -> None:
    write(tmp_path, "proc/device-tree/compatible", "raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert find_tegra(tmp_path) is None


# --- the host -----------------------------------------------------------------------------------


def test_the_driver_is_read_from_sysfs_then_proc(tmp_path: Path) -> None:
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157  Wed Oct 12 09:22:18 UTC 2022"
    write(tmp_path, "proc/driver/nvidia/version", line)
    host = read_host(tmp_path, {})
    assert (host.driver, host.driver_detected_by) == ("390.157", "proc")
    assert host.driver_flavour == "proprietary"
    write(tmp_path, "sys/module/nvidia/version", "390.157\n")
    assert read_host(tmp_path, {}).driver_detected_by == "sysfs"


def test_envforge_driver_overrides_the_driver_of_this_machine(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nvidia/version", "580.159.04\n")
    host = read_host(tmp_path, {"ENVFORGE_DRIVER": "470.256.02"})
    assert (host.driver, host.driver_detected_by) == ("470.256.02", "ENVFORGE_DRIVER")


@pytest.mark.parametrize("text", ["newest", "470.x", "-1", "9" * 5000, "470 ", "٤٧٠"])
def test_a_driver_that_is_no_version_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_host(tmp_path, {"ENVFORGE_DRIVER": text})
    assert refused.value.what == f"ENVFORGE_DRIVER: {text!r} is not a driver version"
    assert refused.value.hint == "write it as nvidia-smi does: ENVFORGE_DRIVER=470.256.02"


@pytest.mark.parametrize(
    ("mark", "environ", "container"),
    [
        (".dockerenv", {}, "docker"),
        ("run/.containerenv", {}, "podman"),
        ("etc/hostname", {"container": "lxc"}, "lxc"),
        ("etc/hostname", {"APPTAINER_CONTAINER": "/torch.sif"}, "apptainer"),
        ("etc/hostname", {"SINGULARITY_CONTAINER": "/torch.sif"}, "apptainer"),
        ("etc/hostname", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ("etc/hostname", {}, None),
    ],
)
def test_a_container_is_known_by_the_marks_of_its_engine(
    tmp_path: Path, mark: str, environ: dict[str, str], container: str | None
) -> None:
    write(tmp_path, mark, "")
    assert read_host(tmp_path, environ).container == container


def test_a_library_of_the_right_version_in_any_folder_is_no_mismatch(tmp_path: Path) -> None:
    write(tmp_path, "sys/module/nvidia/version", "580.173.02\n")
    for folder, version in (("x86_64-linux-gnu", "550.163.01"), ("", "580.173.02")):
        link = tmp_path / "usr/lib" / folder / "libcuda.so.1"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"libcuda.so.{version}")
    assert read_host(tmp_path, {}).driver_library == "580.173.02"


def test_an_os_release_without_a_version_names_no_distribution(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", 'NAME="Arch Linux"\nID=arch\n')
    assert read_host(tmp_path, {}).distribution is None


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_file_of_the_module_is_survived(tmp_path_factory: object, a: str, b: str) -> None:
    root = tmp_path_factory.mktemp("root")  # type: ignore[attr-defined]
    write(root, "sys/module/nvidia/version", a.encode("utf-8", "replace").decode())
    write(root, "proc/device-tree/compatible", b.encode("utf-8", "replace").decode())
    detect(root, {}, asking="never")


# --- the hot path -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "story",
    [
        "gtx760-desktop",
        "gt710-driver-ignores-it",
        "k40m-kernel-6.12",
        "jetson-nano",
        "h200-in-a-vm",
    ],
)
def test_no_program_is_started_where_files_answer(story: str, tmp_path: Path) -> None:
    root = machine(tmp_path, story)
    asked = tmp_path / "asked"
    child = tmp_path / "child"
    child.write_text(f"#!/bin/sh\n: >{asked}\n")
    child.chmod(0o755)
    probes = Probes(nvml_argv=(str(child),))
    assert detect(root, {}, known=load().devices, probes=probes).cards
    assert not asked.exists()


@pytest.mark.parametrize("story", ["server-without-card", "nvidia-chipset-board"])
def test_no_program_is_started_on_a_machine_without_a_driver(story: str, tmp_path: Path) -> None:
    probes = Probes(nvml_argv=("/nonexistent",))
    detection = detect(machine(tmp_path, story), {}, asking="always", probes=probes)
    assert (detection.cards, detection.findings) == ((), ())


def test_nothing_that_starts_programs_is_even_loaded_where_files_answer(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from envforge.hardware.detect import detect;"
        f"assert detect(Path({str(machine(tmp_path, 'gtx760-desktop'))!r}), {{}}).cards;"
        "print(sorted({'subprocess', 'json', 'shutil', 'pynvml'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-c", code]
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == "[]\n"


@pytest.mark.parametrize(
    ("model", "slice_of"),
    [
        ("GRID V100D-8Q", True),
        ("NVIDIA A40-48Q", True),
        ("GRID P4-1B4", True),
        ("NVIDIA A100-1-5CME", True),
        ("GRID K120Q", True),
        ("GRID K520", False),
        ("GRID K1", False),
        ("NVIDIA A100-SXM4-40GB", False),
        ("NVIDIA H200", False),
        ("Tesla V100-SXM2-16GB", False),
        ("NVIDIA RTX A2000", False),
        ("NVIDIA", False),
    ],
)
def test_a_slice_of_a_card_is_known_by_its_name(
    tmp_path: Path, model: str, *, slice_of: bool
) -> None:
    root = machine(tmp_path, "v100-vgpu-guest")
    path = root / "proc/driver/nvidia/gpus/0000:02:00.0/information"
    path.write_text(f"Model: \t\t {model}\nDevice Minor: \t 0\n")
    keys = [finding.key for finding in detect(root, {}).findings]
    assert keys == (["vgpu-guest"] if slice_of else [])
