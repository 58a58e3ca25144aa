"""Ask nvidia-smi: one group of fields at a time, because one unknown field fails a whole query.

``compute_cap`` came after branch 470 (https://github.com/huggingface/candle/issues/733), and the
nvidia-smi of a snap or a container may be older than the driver it asks
(https://github.com/canonical/inference-snaps/issues/89).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from os.path import join
from time import monotonic

from envforge.hardware.child import Answer, ask
from envforge.hardware.finding import Finding
from envforge.hardware.layer import LayerReport, ReportedGpu, parse_capability, parse_driver
from envforge.hardware.pci import normal_address, pci_id_of

IDENTITY = ("index", "uuid", "name", "pci.bus_id", "pci.device_id", "driver_version")
EXTRAS = ("compute_cap", "memory.total", "mig.mode.current")

_MIB = re.compile(r"[0-9]{1,9}\Z")
_FOLDERS = ("usr/lib/wsl/lib", "usr/bin", "usr/local/bin", "usr/local/nvidia/bin")


def find_smi(root: str, environ: Mapping[str, str]) -> str | None:
    """Find nvidia-smi on ``PATH``, then where WSL2 and container images keep it."""
    folders = [*environ.get("PATH", "").split(":"), *(join(root, name) for name in _FOLDERS)]
    return shutil.which("nvidia-smi", path=":".join(filter(None, folders)))


def ask_smi(root: str, environ: Mapping[str, str], timeout_s: float) -> LayerReport:
    """List the cards as nvidia-smi names them, all its answers together within ``timeout_s``."""
    program = find_smi(root, environ)
    if program is None:
        return LayerReport()
    deadline = monotonic() + timeout_s

    def query(*fields: str) -> Answer:
        argv = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
        return ask(argv, environ, max(deadline - monotonic(), 0.1))

    answer = query(*IDENTITY)
    rows = list(_rows(answer, len(IDENTITY)))
    if not rows:
        return LayerReport(findings=(_failure(answer, timeout_s),))
    extras: dict[str, dict[str, str]] = {}
    for field in EXTRAS:
        answer = query("index", field)
        extras[field] = {row[0]: row[1] for row in _rows(answer, 2)}
        if answer.timed_out:
            break
    late = (_failure(answer, timeout_s),) if answer.timed_out else ()
    return LayerReport(tuple(_gpu(row, extras) for row in rows), parse_driver(rows[0][5]), late)


def _rows(answer: Answer, width: int) -> Iterator[list[str]]:
    """Split the CSV; a line of another width is a message: drivers warn on the same stream."""
    if answer.exit_code != 0:
        return
    for line in answer.text.splitlines():
        row = [value.strip() for value in line.split(",")]
        if len(row) == width and row[0].isdecimal():
            yield row


def _gpu(row: list[str], extras: dict[str, dict[str, str]]) -> ReportedGpu:
    index, uuid, name, bus_id, device_id, _ = row

    def extra(field: str) -> str:
        return extras.get(field, {}).get(index, "")

    memory = extra("memory.total")
    return ReportedGpu(
        address=normal_address(bus_id),
        pci_id=_pci_id(device_id),
        name=None if name.startswith("[") else name,
        uuid=uuid if uuid.startswith("GPU-") else None,
        compute_capability=parse_capability(extra("compute_cap")),
        memory_mib=int(memory) if _MIB.match(memory) else None,
        mig={"Enabled": True, "Disabled": False}.get(extra("mig.mode.current")),
    )


def _pci_id(text: str) -> str | None:
    try:
        return pci_id_of(int(text, 16))
    except ValueError:
        return None


def _failure(answer: Answer, timeout_s: float) -> Finding:
    if answer.timed_out:
        facts = {"layer": "nvidia-smi", "timeout_s": f"{timeout_s:g}"}
        return Finding("probe-timed-out", None, facts)
    message = " ".join(answer.text.split())[:200] or f"exit code {answer.exit_code}"
    return Finding("probe-failed", None, {"layer": "nvidia-smi", "message": message})
