"""The series on PyTorch's real trees; run by hand with local repositories of PyTorch and gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MIRRORS = [os.environ.get(name, "") for name in ("ENVFORGE_PYTORCH_MIRROR", "ENVFORGE_GLOO_MIRROR")]
RELEASES = ["0.4.1", "1.0.0", "1.0.1", "1.2.0", "1.4.0", "1.7.1"]


@pytest.mark.upstream
@pytest.mark.skipif(not all(MIRRORS), reason="no ENVFORGE_PYTORCH_MIRROR and ENVFORGE_GLOO_MIRROR")
def test_every_selection_fits_the_real_trees_and_stands_the_second_time():
    script = Path(__file__).parent.parent / "scripts" / "try_series.py"
    command = [sys.executable, str(script), *MIRRORS, *RELEASES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert {line.partition(":")[0] for line in done.stdout.splitlines()[:-1]} == set(RELEASES)
