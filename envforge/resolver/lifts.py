"""What a patch makes possible: rules that are lifted, and how a resolution says so. Pure.

The patches themselves are ``patching``'s; the database names them where they lift a rule.
"""

from __future__ import annotations

from envforge.capability.models import TorchRelease
from envforge.resolver.model import Resolution

LIFTED = "lifted-by-"
"""A note of a resolution: this, and the id of the patch that lifts a rule for it."""


def notes_of(release: TorchRelease, python: str) -> tuple[str, ...]:
    """Return the note of the patch that lifts the rule about Pythons, if one does."""
    patch = release.source_build.patched_pythons.get(python)
    return () if patch is None else (LIFTED + patch,)


def needs_patch(resolution: Resolution) -> bool:
    """Tell whether a rule had to be lifted for it."""
    return any(note.startswith(LIFTED) for note in resolution.notes)
