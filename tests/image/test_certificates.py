"""When a build is given the host's certificates: only where apt speaks https, only if named."""

from __future__ import annotations

from pathlib import Path

import pytest

from envforge.capability.load import load
from envforge.capability.lookup import find_platform
from envforge.image.certificates import certificates_for


@pytest.mark.parametrize(
    ("archive", "variable", "given"),
    [
        ("https://archive.example/debian", "SSL_CERT_FILE", True),
        ("https://archive.example/debian", "REQUESTS_CA_BUNDLE", True),
        ("https://archive.example/debian", "", False),
        ("http://archive.example/debian", "SSL_CERT_FILE", False),
    ],
)
def test_certificates_go_where_apt_speaks_https_and_somebody_named_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: str, variable: str, *, given: bool
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    bundle = tmp_path / "bundle.crt"
    bundle.touch()
    if variable:
        monkeypatch.setenv(variable, str(bundle))
    platform = find_platform(load(), "debian-12")
    assert certificates_for(platform, archive) == (bundle if given else None)
