"""A plan for what builds it without envforge: its files, its inputs, and the command to type."""

from __future__ import annotations

from envforge.build.prepare import BuildRequest, Prepared
from envforge.events import OnEvent
from envforge.image.backend import Backend, render_backend
from envforge.image.backend.apptainer import NAME
from envforge.image.inputs import place_inputs
from envforge.image.render import write_context
from envforge.sources.archive import candidates
from envforge.sources.store import default_store

PLACED: tuple[Backend, ...] = ("shell", "apptainer")
"""What no engine builds: everything it takes is put into one folder."""


def for_backend(prepared: Prepared, wanted: BuildRequest, backend: Backend) -> Prepared:
    """Return ``prepared`` as ``backend`` takes it, in a folder of its own."""
    context = render_backend(prepared.plan, prepared.context, backend)
    if wanted.context is None and backend != "docker":
        folder = prepared.folder.with_name(f"{prepared.folder.name}-{backend}")
        prepared = prepared._replace(folder=folder)
    return prepared._replace(context=context)


def place(prepared: Prepared, wanted: BuildRequest, on_event: OnEvent) -> None:
    """Put the files and every input into the folder; raises SourceError or HashMismatch."""
    write_context(prepared.context, prepared.folder)
    place_inputs(prepared.plan, prepared.folder, default_store(), wanted.archive, on_event)


def command_for(prepared: Prepared, wanted: BuildRequest, backend: Backend) -> list[str]:
    """Return what builds a placed plan, typed in its folder; none where envforge builds it."""
    if backend == "shell":
        jobs = ["env", f"MAX_JOBS={wanted.jobs}"] if wanted.jobs else []
        return ["sudo", *jobs, "sh", "build.sh"]
    if backend == "apptainer":
        archive = next(iter(candidates(prepared.plan.platform, wanted.archive)), "http://ADDRESS")
        arguments = [f"archive={archive}"]
        if wanted.jobs and prepared.compiles:
            arguments.append(f"MAX_JOBS={wanted.jobs}")
        image = f"{prepared.image.rpartition(':')[2]}.sif"
        given = [word for argument in arguments for word in ("--build-arg", argument)]
        return ["sudo", "apptainer", "build", *given, image, NAME]
    return []
