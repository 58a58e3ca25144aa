"""The fixtures of a real web server; its pieces are imported from ``sources_site``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from sources_site import certificate, heard, site, store, tls_site

__all__ = ["certificate", "heard", "site", "store", "tls_site"]
