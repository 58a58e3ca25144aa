"""NVML and nvidia-smi: old drivers, hangs, crashes, and what happens to the other layer then."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from captured import HOSTS, read_capture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envforge.hardware import nvml_child
from envforge.hardware.detect import Detection, detect
from envforge.hardware.nvml import ask_nvml, nvml_argv
from envforge.hardware.probes import Probes
from envforge.hardware.smi import ask_smi
from envforge.values import ComputeCapability

PATIENCE_S = 1.0  # a shell must have started by then, also on a busy machine
NO_NVML = ("/bin/false",)
UUID = "GPU-00000001-0000-0000-0000-000000000000"


def machine(folder: Path, story: str) -> Path:
    """The captured machine of that story, with its own nvidia-smi."""
    (path,) = HOSTS.glob(f"{story}__*")
    return read_capture(path).build(folder)


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


def driver_only(folder: Path) -> Path:
    """A machine that shows its driver and hides its bus, as some containers do."""
    root = folder / "root"
    (root / "dev").mkdir(parents=True)
    for name in ("nvidia0", "nvidiactl"):
        (root / "dev" / name).touch()
    return root


def keys(detection: Detection) -> list[str]:
    return [finding.key for finding in detection.findings]


# --- nvidia-smi ---------------------------------------------------------------------------------


def test_driver_470_without_compute_cap_still_names_its_cards(tmp_path: Path) -> None:
    report = ask_smi(machine(tmp_path, "container-without-sysfs"), {}, 10)
    assert [gpu.pci_id for gpu in report.gpus] == ["10de:1023", "10de:1024"]
    assert [gpu.memory_mib for gpu in report.gpus] == [11441, 11441]
    assert [gpu.compute_capability for gpu in report.gpus] == [None, None]
    assert report.driver == "470.256.02"


def test_nvidia_smi_says_compute_capability_memory_and_mig(tmp_path: Path) -> None:
    report = ask_smi(machine(tmp_path, "wsl2-rtx4070"), {}, 10)
    (gpu,) = report.gpus
    assert gpu.address == "0000:01:00.0"
    assert gpu.compute_capability == ComputeCapability(8, 9)
    assert (gpu.memory_mib, gpu.mig) == (12282, None)
    assert report.driver == "555.99"


def test_nvidia_smi_on_the_path_is_preferred(tmp_path: Path) -> None:
    root = machine(tmp_path, "wsl2-rtx4070")
    program(
        tmp_path / "bin/nvidia-smi", "echo Failed to initialize NVML: Driver Not Loaded; exit 9"
    )
    report = ask_smi(root, {"PATH": str(tmp_path / "bin")}, 10)
    (finding,) = report.findings
    assert finding.key == "probe-failed"
    assert finding.facts["message"] == "Failed to initialize NVML: Driver Not Loaded"


def test_nvidia_smi_is_never_taken_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "nvidia-smi", "echo taken")
    monkeypatch.chdir(tmp_path)
    for path in ("", ":", "::/nonexistent"):
        assert ask_smi(tmp_path / "root", {"PATH": path}, 10) == ((), None, ())


def test_a_machine_without_nvidia_smi_gives_no_report(tmp_path: Path) -> None:
    assert ask_smi(tmp_path, {}, 10) == ((), None, ())


def test_no_devices_found_is_a_message_not_a_card(tmp_path: Path) -> None:
    program(tmp_path / "usr/bin/nvidia-smi", "echo 'No devices were found'; exit 6")
    report = ask_smi(tmp_path, {}, 10)
    assert report.gpus == ()
    assert report.findings[0].facts["message"] == "No devices were found"


def test_a_warning_among_the_rows_is_not_a_card(tmp_path: Path) -> None:
    row = f"0, {UUID}, Tesla K80, 00000000:00:1E.0, 0x102D10DE, 390.77"
    program(
        tmp_path / "usr/bin/nvidia-smi",
        f"case $1 in *uuid*) echo 'WARNING: infoROM is corrupted at gpu 0'; echo '{row}';;",
        "*) exit 2;; esac",
    )
    (gpu,) = ask_smi(tmp_path, {}, 10).gpus
    assert (gpu.name, gpu.address, gpu.pci_id) == ("Tesla K80", "0000:00:1e.0", "10de:102d")


def test_words_in_brackets_are_no_values(tmp_path: Path) -> None:
    row = "0, [Unknown Error], [Unknown Error], [N/A], [N/A], [N/A]"
    program(
        tmp_path / "usr/bin/nvidia-smi",
        f"case $1 in *uuid*) echo '{row}';; *) echo '0, [Not Supported]';; esac",
    )
    report = ask_smi(tmp_path, {}, 10)
    assert report.driver is None
    assert set(report.gpus[0]) == {None}


def test_a_hanging_nvidia_smi_is_left_after_its_time_and_named(tmp_path: Path) -> None:
    root = driver_only(tmp_path)
    program(root / "usr/bin/nvidia-smi", "sleep 60")
    before = time.monotonic()
    detection = detect(root, {"PATH": "/bin"}, probes=Probes(PATIENCE_S, NO_NVML))
    assert time.monotonic() - before < 20
    assert detection.cards == ()
    (finding,) = (finding for finding in detection.findings if finding.key == "probe-timed-out")
    assert finding.facts == {"layer": "nvidia-smi", "timeout_s": "1"}


def test_what_nvidia_smi_said_before_it_hung_is_kept(tmp_path: Path) -> None:
    row = f"0, {UUID}, Tesla K80, 00000000:00:1E.0, 0x102D10DE, 390.77"
    program(
        tmp_path / "usr/bin/nvidia-smi",
        f"case $1 in *uuid*) echo '{row}';; *) sleep 60;; esac",
    )
    before = time.monotonic()
    report = ask_smi(tmp_path, {"PATH": "/bin"}, PATIENCE_S)
    assert time.monotonic() - before < 20  # all its questions together, not each
    assert [gpu.name for gpu in report.gpus] == ["Tesla K80"]
    assert [finding.key for finding in report.findings] == ["probe-timed-out"]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(text=st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=80))
def test_any_output_of_nvidia_smi_is_survived(text: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text(text, encoding="utf-8")
    program(tmp_path / "usr/bin/nvidia-smi", f"/bin/cat {tmp_path}/said")
    ask_smi(tmp_path, {}, 10)


# --- NVML ---------------------------------------------------------------------------------------


class NvmlError(Exception):
    """What the package raises."""


def refuse(*_: Any) -> Any:
    raise NvmlError("Not Supported")


def fake_nvml(**answers: Any) -> SimpleNamespace:
    """NVML of one K40 under driver 470, where nothing else is said."""
    pci = SimpleNamespace(busId=b"00000000:02:00.0", pciDeviceId=0x102310DE)
    functions = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlSystemGetDriverVersion": lambda: b"470.256.02",
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetPciInfo": lambda _: pci,
        "nvmlDeviceGetCudaComputeCapability": lambda _: (3, 5),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=11996954624),
        "nvmlDeviceGetMigMode": refuse,
        "nvmlDeviceGetName": lambda _: b"Tesla K40m",
        "nvmlDeviceGetUUID": lambda _: UUID,
    }
    return SimpleNamespace(NVMLError=NvmlError, **{**functions, **answers})


def says(folder: Path, *rows: object, then: str = "exit 0") -> tuple[str, ...]:
    """A child that writes rows as NVML's child does."""
    said = folder / "said"
    said.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return (str(program(folder / "child", f"/bin/cat {said}", then)),)


def test_nvml_is_asked_field_by_field_and_bytes_become_text(tmp_path: Path) -> None:
    rows = list(nvml_child.collect(fake_nvml()))
    report = ask_nvml(tmp_path, {}, 10, says(tmp_path, *rows))
    (gpu,) = report.gpus
    assert (gpu.name, gpu.uuid, gpu.address) == ("Tesla K40m", UUID, "0000:02:00.0")
    assert gpu.compute_capability == ComputeCapability(3, 5)
    assert (gpu.memory_mib, gpu.mig) == (11441, None)
    assert report.driver == "470.256.02"
    assert report.findings == ()


def test_what_a_library_chatters_is_not_an_answer(tmp_path: Path) -> None:
    child = program(
        tmp_path / "child", "echo dxcore: loaded", "echo 7", 'echo \'{"driver": "552.22"}\''
    )
    assert ask_nvml(tmp_path, {}, 10, [str(child)]) == ((), "552.22", ())


@pytest.mark.parametrize(
    ("known", "seen"), [({}, ""), ({"LD_LIBRARY_PATH": "/opt/lib"}, "/opt/lib:")]
)
def test_on_wsl2_the_child_finds_the_windows_library(
    tmp_path: Path, known: dict[str, str], seen: str
) -> None:
    folder = tmp_path / "usr/lib/wsl/lib"
    folder.mkdir(parents=True)
    child = program(tmp_path / "child", 'echo "{\\"fault\\": \\"$LD_LIBRARY_PATH\\"}"')
    (finding,) = ask_nvml(tmp_path, known, 10, [str(child)]).findings
    assert finding.facts["message"] == f"{seen}{folder}"


def test_a_library_that_cannot_be_initialised_is_a_fault() -> None:
    rows = list(nvml_child.collect(fake_nvml(nvmlInit=refuse)))
    assert rows == [{"fault": "Not Supported"}]


def test_a_card_that_is_lost_does_not_hide_the_other() -> None:
    def handle(index: int) -> int:
        return refuse() if index == 0 else index

    rows = list(
        nvml_child.collect(
            fake_nvml(nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=handle)
        )
    )
    assert [row.get("fault") for row in rows] == [None, "Not Supported", None]


def test_a_driver_that_answers_nothing_but_the_count_still_counts() -> None:
    deaf = {
        name: refuse
        for name in vars(fake_nvml())
        if name.startswith(("nvmlDeviceGet", "nvmlSystem"))
        and name not in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex")
    }
    _, row = nvml_child.collect(fake_nvml(**deaf))
    assert {value for key, value in row.items() if key != "index"} == {None}


def test_the_child_runs_alone_and_says_in_json_what_it_lacks_here() -> None:
    answer = subprocess.run(nvml_argv(), capture_output=True, text=True, timeout=60, check=True)
    rows = [json.loads(line) for line in answer.stdout.splitlines()]
    assert rows
    assert "fault" in rows[0] or "driver" in rows[0]


def test_the_child_without_the_package_says_so() -> None:
    argv = [sys.executable, "-I", "-S", nvml_argv()[-1]]  # -S: no site-packages
    answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(answer.stdout) == {"fault": "nvidia-ml-py is not installed"}


def test_a_hanging_nvml_is_left_and_nvidia_smi_is_not_asked_the_same(tmp_path: Path) -> None:
    root = driver_only(tmp_path)
    program(root / "usr/bin/nvidia-smi", f"touch {tmp_path}/asked")
    child = program(tmp_path / "child", "sleep 60")
    before = time.monotonic()
    detection = detect(root, {"PATH": "/bin"}, probes=Probes(PATIENCE_S, (str(child),)))
    assert time.monotonic() - before < 20
    assert "probe-timed-out" in keys(detection)
    assert not (tmp_path / "asked").exists()


def test_what_nvml_said_before_it_hung_is_kept(tmp_path: Path) -> None:
    root = driver_only(tmp_path)
    rows = list(nvml_child.collect(fake_nvml()))
    argv = says(tmp_path, *rows, then="sleep 60")
    detection = detect(root, {"PATH": "/bin"}, probes=Probes(PATIENCE_S, argv))
    assert [(card.pci_id, card.detected_by) for card in detection.cards] == [("10de:1023", "nvml")]
    assert (detection.host.driver, detection.host.driver_detected_by) == ("470.256.02", "nvml")
    assert "probe-timed-out" in keys(detection)


def test_an_nvml_that_crashes_leaves_the_question_to_nvidia_smi(tmp_path: Path) -> None:
    root = machine(tmp_path, "container-without-sysfs")
    child = program(tmp_path / "child", "kill -SEGV $$")
    detection = detect(root, {}, probes=Probes(10, (str(child),)))
    assert {card.detected_by for card in detection.cards} == {"nvidia-smi"}
    assert "probe-failed" not in keys(detection)  # somebody answered


def test_when_no_layer_answers_both_failures_are_told(tmp_path: Path) -> None:
    root = driver_only(tmp_path)
    program(root / "usr/bin/nvidia-smi", "echo 'Driver/library version mismatch'; exit 18")
    detection = detect(root, {}, probes=Probes(10, NO_NVML))
    failed = [finding.facts for finding in detection.findings if finding.key == "probe-failed"]
    assert failed == [
        {"layer": "nvml", "message": "exit code 1"},
        {"layer": "nvidia-smi", "message": "Driver/library version mismatch"},
    ]


def test_a_card_that_both_layers_name_differently_is_told(tmp_path: Path) -> None:
    root = machine(tmp_path, "gtx760-desktop")
    pci = SimpleNamespace(busId="00000000:01:00.0", pciDeviceId=0x118810DE)
    rows = nvml_child.collect(fake_nvml(nvmlDeviceGetPciInfo=lambda _: pci))
    probes = Probes(10, says(tmp_path, *rows))
    detection = detect(root, {}, asking="always", probes=probes)
    assert detection.cards[0].pci_id == "10de:1187"
    (finding,) = (finding for finding in detection.findings if finding.key == "layers-disagree")
    assert finding.facts == {"field": "pci_id", "files": "10de:1187", "driver": "10de:1188"}


def test_memory_comes_from_the_driver_alone(tmp_path: Path) -> None:
    root = machine(tmp_path, "gtx760-desktop")
    pci = SimpleNamespace(busId="00000000:01:00.0", pciDeviceId=0x118710DE)
    rows = nvml_child.collect(fake_nvml(nvmlDeviceGetPciInfo=lambda _: pci))
    probes = Probes(10, says(tmp_path, *rows))
    assert detect(root, {}, probes=probes).cards[0].memory_mib is None
    full = detect(root, {}, asking="always", probes=probes).cards[0]
    assert (full.memory_mib, full.detected_by) == (11441, "sysfs")


def test_a_thor_that_nvml_knows_is_one_card_not_two(tmp_path: Path) -> None:
    root = machine(tmp_path, "jetson-agx-orin")
    pci = SimpleNamespace(busId="00000000:01:00.0", pciDeviceId=0x2B0010DE)
    rows = nvml_child.collect(
        fake_nvml(
            nvmlDeviceGetPciInfo=lambda _: pci,
            nvmlDeviceGetCudaComputeCapability=lambda _: (8, 7),
        )
    )
    detection = detect(root, {}, asking="always", probes=Probes(10, says(tmp_path, *rows)))
    (card,) = detection.cards
    assert (card.detected_by, card.uuid) == ("device-tree", UUID)


def test_uuids_that_files_do_not_have_are_asked_for(tmp_path: Path) -> None:
    root = machine(tmp_path, "gtx480-never-used")
    pci = SimpleNamespace(busId="00000000:01:00.0", pciDeviceId=0x06C010DE)
    rows = nvml_child.collect(
        fake_nvml(
            nvmlDeviceGetPciInfo=lambda _: pci,
            nvmlDeviceGetCudaComputeCapability=lambda _: (2, 0),
        )
    )
    environ = {"CUDA_VISIBLE_DEVICES": UUID[:12]}
    detection = detect(root, environ, probes=Probes(10, says(tmp_path, *rows)))
    assert (detection.cards[0].uuid, detection.cards[0].visible) == (UUID, True)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None
)
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "index",
                    "driver",
                    "name",
                    "uuid",
                    "bus_id",
                    "pci_device_id",
                    "compute_capability",
                    "memory_bytes",
                    "mig",
                    "fault",
                ]
            ),
            st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2),
        ),
        max_size=3,
    )
)
def test_any_answer_of_the_child_is_survived(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    ask_nvml(tmp_path, {}, 10, says(tmp_path, *rows))
