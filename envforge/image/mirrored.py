"""The distribution's archive as a mirror holds it for one plan: one state, through a proxy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import NamedTuple

from envforge.capability.models import Platform
from envforge.errors import BuildFailed, SourceError
from envforge.image.engine import Engine
from envforge.sources.archive import FoundArchive, Release, parse_release, suites_of
from envforge.sources.mirror import HeldArchive, Mirror
from envforge.sources.proxy import Exchange, Upstream, serving
from envforge.sources.store import Store

_SHOWN = 10


class Reach(NamedTuple):
    """How a build reaches the archive."""

    source: FoundArchive | None = None
    """None: as this machine is set up, and in the state that answers now."""
    build_args: Mapping[str, str] = {}
    """What tells the steps of a Dockerfile. Docker predefines them: no layer keeps their value and
    no cache depends on it (https://docs.docker.com/build/building/variables/)."""


class Question(NamedTuple):
    """Which plan's archive is wanted."""

    digest: str
    platform: Platform
    archive: str | None = None
    """The address the user stated, if any."""


@contextlib.contextmanager
def reach_archive(engine: Engine, asked: Question, store: Store) -> Iterator[Reach]:
    """Give the archive from the store's mirror for as long as the block runs.

    Without a mirror, or with one that does not hold the plan, it is the archive itself; SourceError
    where the network is not to be asked.
    """
    held = _held(asked, store)
    if held is None or store.mirror is None:
        yield Reach()
        return
    address = asked.archive or held.address
    upstream = None if store.offline else Upstream(address)
    exchange = Exchange(Store(store.mirror), held.files, upstream)
    releases = _releases(asked.platform, held, store)
    with (
        serving(exchange, engine.gateway()) as proxy,
        telling_why(exchange, proxy, f"the mirror {store.mirror}"),
    ):
        yield Reach(FoundArchive(address, releases, proxy), proxied(proxy))


def proxied(proxy: str) -> dict[str, str]:
    """Name a proxy to the steps of a Dockerfile, and none beside it."""
    return {"http_proxy": proxy, "HTTP_PROXY": proxy, "no_proxy": "", "NO_PROXY": ""}


def _held(asked: Question, store: Store) -> HeldArchive | None:
    manifest = Mirror(store.mirror).find("plan", asked.digest) if store.mirror else None
    if manifest is not None and manifest.archive is not None:
        return manifest.archive
    if store.offline:
        raise _lacking(asked.digest, store.mirror)
    return None


def _lacking(digest: str, mirror: Path | None) -> SourceError:
    if mirror is None:
        return SourceError(
            "--offline builds from a mirror, and none is given",
            hint="envforge mirror create DIR …  where there is a network, then: --mirror DIR",
        )
    plans = [each for each in Mirror(mirror).manifests() if each.kind == "plan"]
    return SourceError(
        f"the mirror {mirror} does not hold the plan {digest[:12]}",
        because=tuple(
            f"it holds {each.name[:12]}: {each.title} (made by envforge {each.envforge})"
            for each in plans
        )
        or ("it holds no plan",),
        hint=f"where there is a network: envforge mirror create {quote(str(mirror))}"
        "   with the same flags",
    )


def _releases(platform: Platform, held: HeldArchive, store: Store) -> tuple[Release, ...]:
    """Read the state the mirror holds; HashMismatch where it is damaged."""
    return tuple(_release(suite, held, store) for suite in suites_of(platform))


def _release(suite: str, held: HeldArchive, store: Store) -> Release:
    for name in ("InRelease", "Release"):
        path = f"dists/{suite}/{name}"
        row = held.files.get(path)
        found = store.get(row.sha256, path) if row else None
        if found is not None:
            return parse_release(found.read_bytes(), suite)
    raise SourceError(
        f"the mirror {store.mirror} has no signed Release file of {suite}",
        hint=f"envforge mirror verify {quote(str(store.mirror))}",
    )


@contextlib.contextmanager
def telling_why(exchange: Exchange, proxy: str, who: str) -> Iterator[None]:
    """Add to a failed build what the proxy could not answer: apt only says ``404``."""
    try:
        yield
    except (BuildFailed, SourceError) as error:
        if exchange.refused:
            rows = list(exchange.refused.items())[:_SHOWN]
            raise SourceError(
                f"{who} did not give what the build asked for",
                because=(*(f"{what}: {reason}" for what, reason in rows), error.what),
                hint=error.hint,
            ) from error
        if isinstance(error, BuildFailed) and not exchange.was_reached_by_others():
            error.hint += (
                f"\nno container asked {proxy}: where apt could not connect, a firewall of this"
                " machine may keep containers from it"
            )
        raise
