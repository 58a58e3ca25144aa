"""What a platform's base image is called, and what it begins with. Pure."""

from __future__ import annotations

import hashlib

import msgspec

from envforge.assets import BASE_DOCKERFILE
from envforge.capability.models import Platform

VARIANT = "minbase"
INCLUDED = {
    "debian": ("ca-certificates",),
    # Debian's minbase holds apt, for it is "required" there; in Ubuntu it is only "important".
    "ubuntu": ("apt", "ca-certificates"),
}


def base_tag(platform: Platform) -> str:
    """Name the base image of a platform: its record and ``Dockerfile.base`` decide."""
    record = (
        platform.name,
        platform.distribution,
        platform.suite,
        platform.archive.components,
        VARIANT,
        INCLUDED[platform.distribution],
    )
    digest = hashlib.sha256(msgspec.json.encode(record))
    digest.update(BASE_DOCKERFILE.read_bytes())
    return f"envforge/base:{platform.name}-{digest.hexdigest()[:12]}"
