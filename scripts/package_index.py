"""The Python package index as pip is configured to see it (``PIP_INDEX_URL`` is honoured)."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import requests
from packaging.utils import canonicalize_name


def index_url() -> str:
    from pip._internal.models.index import PyPI  # noqa: PLC0415 -- pip has no public way

    return os.environ.get("PIP_INDEX_URL", PyPI.simple_url).rstrip("/")


@cache
def files_of(project: str) -> list[dict[str, Any]]:
    response = requests.get(
        f"{index_url()}/{canonicalize_name(project)}/",
        headers={"Accept": "application/vnd.pypi.simple.v1+json"},
        timeout=60,
    )
    response.raise_for_status()
    files: list[dict[str, Any]] = response.json()["files"]
    return files
