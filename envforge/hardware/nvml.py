"""Ask NVML, the driver's management library, from a child process.

A thread would not do: a call that is stuck in the driver keeps its process from ending, and a
library that crashes takes its process along. The child can be left behind, and what it said before
is kept.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from os.path import join
from pathlib import Path
from typing import Any

from envforge.hardware.child import Answer, ask
from envforge.hardware.files import there_is
from envforge.hardware.finding import Finding
from envforge.hardware.layer import LayerReport, ReportedGpu, parse_capability, parse_driver
from envforge.hardware.pci import normal_address, pci_id_of

CHILD = Path(__file__).with_name("nvml_child.py")
_WSL_LIBRARIES = "usr/lib/wsl/lib"


def nvml_argv() -> list[str]:
    """The child: this interpreter, away from PYTHONPATH and the current directory."""
    return [sys.executable, "-I", str(CHILD)]


def ask_nvml(
    root: str,
    environ: Mapping[str, str],
    timeout_s: float,
    argv: Sequence[str] | None = None,
) -> LayerReport:
    """List the cards as NVML names them; the report of what went wrong where it has none."""
    answer = ask(argv or nvml_argv(), _with_wsl_libraries(root, environ), timeout_s)
    rows = list(_rows(answer))
    gpus = tuple(_gpu(row) for row in rows if "index" in row)
    driver = next((parse_driver(str(row["driver"])) for row in rows if "driver" in row), None)
    return LayerReport(gpus, driver, tuple(_failures(answer, rows, timeout_s)))


def _with_wsl_libraries(root: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    folder = join(root, _WSL_LIBRARIES)
    if not there_is(folder):
        return environ
    known = environ.get("LD_LIBRARY_PATH", "")
    return {**environ, "LD_LIBRARY_PATH": f"{known}:{folder}" if known else folder}


def _rows(answer: Answer) -> Iterator[dict[str, Any]]:
    """One JSON object a line; a line that is none was cut off, or the library's own chatter."""
    for line in answer.text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _gpu(row: Mapping[str, Any]) -> ReportedGpu:
    device, memory, mig = row.get("pci_device_id"), row.get("memory_bytes"), row.get("mig")
    return ReportedGpu(
        address=normal_address(str(row.get("bus_id"))),
        pci_id=pci_id_of(device) if isinstance(device, int) else None,
        name=_word(row.get("name")),
        uuid=_word(row.get("uuid")),
        compute_capability=parse_capability(str(row.get("compute_capability"))),
        memory_mib=memory // 2**20 if isinstance(memory, int) else None,
        mig=bool(mig) if isinstance(mig, int) else None,
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _failures(
    answer: Answer, rows: Sequence[Mapping[str, Any]], timeout_s: float
) -> Iterator[Finding]:
    if answer.timed_out:
        yield Finding("probe-timed-out", None, {"layer": "nvml", "timeout_s": f"{timeout_s:g}"})
    for row in rows:
        if "fault" in row:
            yield Finding("probe-failed", None, {"layer": "nvml", "message": str(row["fault"])})
    if not rows and not answer.timed_out:
        message = f"exit code {answer.exit_code}"
        yield Finding("probe-failed", None, {"layer": "nvml", "message": message})
