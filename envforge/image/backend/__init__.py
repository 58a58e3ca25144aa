"""One plan, several ways to build it: each backend is written from the plan's own Dockerfile. Pure.

``docker`` is that Dockerfile itself, ``classic`` one for the builder without BuildKit, ``shell`` a
script for a bare machine or a chroot, ``apptainer`` a definition file. See docs/backends.md.
"""

from __future__ import annotations

from typing import Literal

from envforge.image.backend.apptainer import write_apptainer
from envforge.image.backend.classic import write_classic
from envforge.image.backend.shell import write_shell
from envforge.image.dialect import read_dockerfile
from envforge.image.plan import Plan
from envforge.image.render import BuildContext

Backend = Literal["docker", "classic", "shell", "apptainer"]


def render_backend(plan: Plan, context: BuildContext, backend: Backend) -> BuildContext:
    """Return the context of ``plan`` as ``backend`` takes it: other files, the same identity.

    ValueError where a template says what the backend has no word for.
    """
    if backend == "docker":
        return context
    stages = read_dockerfile(context.files["Dockerfile"].decode())
    if backend == "classic":
        files = {**context.files, "Dockerfile": write_classic(stages).encode()}
        return context._replace(files=files)
    write = write_shell if backend == "shell" else write_apptainer
    files = write(plan, context, stages)
    kept = {name: context.files[name] for name in ("inputs.json", "plan.json")}
    return context._replace(files={**kept, **files})
