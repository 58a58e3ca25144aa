"""A file whose hash no source gives: it is kept under the hash it turns out to have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from envforge.errors import SourceError
from envforge.events import OnEvent, ignore
from envforge.sources import download
from envforge.sources.fetch import AGAIN
from envforge.sources.store import Store, hash_file


class Unpinned(NamedTuple):
    """What to fetch."""

    urls: tuple[str, ...]
    """Asked in turn."""
    name: str
    size_bytes: int | None = None
    """Where a source gives it: another size is refused."""


def fetch_unpinned(
    wanted: Unpinned, store: Store, on_event: OnEvent = ignore
) -> tuple[Path, str, str]:
    """Return path in the store, sha256 and the address that gave it.

    An interrupted download is resumed, also by a later call. SourceError with what every address
    answered, or where the size is another than the stated one.
    """
    store.expect_network(wanted.name)
    tried: list[str] = []
    for url in wanted.urls:
        key = hashlib.sha256(url.encode()).hexdigest()
        with store.locked(f"unpinned-{key[:16]}", on_event):
            partial = store.partial_of(key)
            try:
                download.download(url, wanted.name, partial, on_event)
                _refuse_size(wanted, url, partial)
            except SourceError as error:
                tried += [str(error), *error.because]
                continue
            sha256 = hash_file(partial)
            return store.put_verified(partial, sha256, wanted.name), sha256, url
    raise SourceError(f"no address gives {wanted.name}", because=tuple(tried), hint=AGAIN)


def _refuse_size(wanted: Unpinned, url: str, path: Path) -> None:
    found = path.stat().st_size
    if wanted.size_bytes not in (None, found):
        path.unlink()
        raise SourceError(
            f"{wanted.name} from {url} has {found} bytes, {wanted.size_bytes} were expected",
            hint="the address gives another file now; give the file itself",
        )
