"""Files by hash: from the local store, else from where they are published."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from envforge.errors import HashMismatch, SourceError
from envforge.events import OnEvent, ignore
from envforge.sources import download, pip
from envforge.sources.store import Store


class WheelInput(NamedTuple):
    """One wheel of a plan. The file name is what pip is asked for: it holds the exact version."""

    distribution: str
    version: str
    name: str
    sha256: str
    size_bytes: int
    tag: str


def fetch_wheel(wheel: WheelInput, store: Store, on_event: OnEvent = ignore) -> Path:
    """Return the wheel's path in the store, asking the user's package index if need be.

    pip does the fetching, so that the index, proxies, credentials and certificates of the user's
    own pip configuration hold and envforge names no host.

    Raises HashMismatch (changed on the way or in the store) or SourceError (no pip, no index,
    no such file); nothing partial is kept.
    """
    with store.locked(wheel.sha256, on_event):
        found = store.get(wheel.sha256, wheel.name)
        if found is not None:
            return found
        store.expect_network(wheel.name)
        with store.workspace() as directory:
            fetched = pip.download_wheel(
                wheel.name, wheel.sha256, wheel.size_bytes, directory, on_event
            )
            return store.put_verified(fetched, wheel.sha256, wheel.name)


def fetch_url(url: str, sha256: str, name: str, store: Store, on_event: OnEvent = ignore) -> Path:
    """Return the file's path in the store, downloading it from ``url`` if need be.

    An interrupted download is resumed, also by a later call. Raises HashMismatch (nothing kept)
    or SourceError naming the URL.
    """
    with store.locked(sha256, on_event):
        found = store.get(sha256, name)
        if found is not None:
            return found
        store.expect_network(name)
        partial = store.partial_of(sha256)
        resumed = partial.exists()
        download.download(url, name, partial, on_event)
        try:
            return store.put_verified(partial, sha256, name, f"from {url}")
        except HashMismatch:
            if not resumed:
                raise
        # What lay there may be of an older file at the same address: once more, from nothing.
        download.download(url, name, partial, on_event)
        return store.put_verified(partial, sha256, name, f"from {url}")


AGAIN = "is there a network, a proxy (http_proxy)? Again goes on; --mirror DIR takes what one has"


def fetch_first(
    urls: tuple[str, ...], sha256: str, name: str, store: Store, on_event: OnEvent = ignore
) -> Path:
    """Return the file's path in the store, asking each address in turn.

    Raises HashMismatch, or SourceError with what every address answered.
    """
    tried: list[str] = []
    for url in urls:
        try:
            return fetch_url(url, sha256, name, store, on_event)
        except HashMismatch:
            raise
        except SourceError as error:
            tried += [str(error), *error.because]
    raise SourceError(f"no address gives {name}", because=tuple(tried), hint=AGAIN)
