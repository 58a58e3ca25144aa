"""The host's own certificates, for the steps of a build that speak https.

Of everything that a build runs only apt asks a network: all other inputs are fetched by envforge,
outside. Containers that verify or train have no network at all.
"""

from __future__ import annotations

import os
from pathlib import Path

from envforge.capability.models import Platform
from envforge.sources.archive import candidates

_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def certificates_for(platform: Platform, archive: str | None) -> Path | None:
    """Return the bundle that the environment names, if apt will reach its archive by https.

    ``archive``: the address the user stated, if any. Raises UsageError for one that is none.
    """
    addresses = candidates(platform, archive)
    if not addresses or not addresses[0].startswith("https://"):
        return None
    named = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    return Path(named) if Path(named).is_file() else None
