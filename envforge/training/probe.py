"""Which torch is there, asked of the interpreter that will train: envforge never imports it."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import NamedTuple

from envforge.errors import HostMismatch, UsageError
from envforge.image.engine import Engine, Launch

_TIMEOUT_S = 120.0
"""torch takes half a minute to import from a cold disk, and longer from a network's."""
_MARK = "envforge-probe "
# Runs on Python 2.7 too.
_PROBE = (
    "import json, sys, torch; "
    f"sys.stdout.write('\\n{_MARK}' + json.dumps("
    "[sys.executable, str(torch.__version__), torch.version.cuda]) + '\\n')"
)
_INSIDE = (
    'for each in python3 python python2.7; do command -v "$each" >/dev/null'
    ' && "$each" -c "$0" && exit 0; done; exit 1'
)


class Interpreter(NamedTuple):
    """A Python that has a torch."""

    python: str
    """Path of the executable."""
    torch: str
    cuda: str | None
    """What that torch was built with; None for one that knows only the CPU."""


def probe_interpreter(path: str, timeout_s: float = _TIMEOUT_S) -> Interpreter:
    """Ask the interpreter ``path``, a file or a name on PATH.

    UsageError where there is no such program, HostMismatch where it has no torch that imports.
    """
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"there is no interpreter {path!r}", hint="--interpreter PATH")
    try:
        answer = subprocess.run(
            [found, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        because = f"`import torch` took more than {timeout_s:.0f} s"
        raise HostMismatch(f"{found} does not answer", because=(because,)) from None
    except OSError as error:
        raise UsageError(f"{found} does not run", because=(str(error),)) from error
    # The path that was given is kept: it may be a script that sets up what the torch needs.
    return _parse(answer.stdout, answer.stderr, found, _LOCAL_HINT)._replace(python=found)


_LOCAL_HINT = "give the Python that has the torch: --on local --interpreter PATH"
_IMAGE_HINT = "give an image that envforge build made, or one whose python3 imports torch"


def probe_image(engine: Engine, image: str) -> Interpreter:
    """Ask the first Python of ``image`` that has a torch; HostMismatch where none has."""
    launch = Launch(image, ("sh", "-c", _INSIDE, _PROBE), network="none")
    with engine.run(launch) as container:
        output = "\n".join(container.logs()).encode()
    return _parse(output, output, image, _IMAGE_HINT)


def _parse(output: bytes, errors: bytes, where: str, hint: str) -> Interpreter:
    """Find the probe's one line among what a ``sitecustomize`` or torch itself may print."""
    for line in reversed(output.decode("utf-8", errors="replace").splitlines()):
        if line.startswith(_MARK):
            return Interpreter(*json.loads(line.removeprefix(_MARK)))
    said = errors.decode("utf-8", errors="replace").strip().splitlines()[-1:]
    raise HostMismatch(f"{where} has no torch that imports", because=tuple(said), hint=hint)
