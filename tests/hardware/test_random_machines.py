"""Whatever the kernel's files say: a machine is judged, or refused by a documented error.

``ENVFORGE_EXAMPLES`` as in tests/test_random_options.py.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from captured import HOSTS, Capture, read_capture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envforge.capability.load import load
from envforge.check import check
from envforge.documents import to_json
from envforge.errors import EnvforgeError
from envforge.hardware.detect import detect
from envforge.hardware.probes import Probes
from envforge.report.check import check_json, check_text
from envforge.resolver import Request

DATABASE = load()
CAPTURES = [read_capture(path) for path in sorted(HOSTS.glob("*.txt"))]
CONTENTS = ["", "0x", "0xffff", "0x10de", "10de", "-1", "9" * 400, "470", "470.x.y", "\\0", "\ufeff",
            "NVRM version:", "Model: ", "\u0663", "a=b=c", "=\n==\n", "x" * 5000]  # fmt: skip
contents = st.sampled_from(CONTENTS) | st.text(max_size=40)


@settings(
    max_examples=int(os.environ.get("ENVFORGE_EXAMPLES", "25")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(
    st.sampled_from(CAPTURES),
    st.dictionaries(st.integers(0, 30), contents, max_size=4),
    st.sampled_from(["", "0", "1,0", "GPU-", "MIG-", "\u0663", "-1", "x" * 300]),
)
def test_any_contents_of_a_captured_machines_files(
    capture: Capture, spoil: dict[int, str], visible: str
) -> None:
    """nvidia-smi is left out: its answers have tests of their own, and a process each costs time."""
    files = dict(capture.files)
    for at, text in spoil.items():
        name = sorted(files)[at % len(files)] if files else "/proc/driver/nvidia/version"
        files[name] = text.encode("utf-8", "replace").decode()
    machine = capture._replace(files=files, commands={})
    environ = {**machine.environ, "CUDA_VISIBLE_DEVICES": visible}
    with tempfile.TemporaryDirectory() as place:
        root = machine.build(Path(place))
        try:
            found = detect(
                root,
                environ,
                known=DATABASE.devices,
                probes=Probes(nvml_argv=("/bin/false",)),
            )
            report = check(DATABASE, None, Request(torch="1.13.1"), detection=found)
        except EnvforgeError as error:
            assert error.exit_code in {2, 3, 4}
            return
        assert check_text(report, DATABASE)
        assert json.loads(to_json(check_json(report, DATABASE)))
