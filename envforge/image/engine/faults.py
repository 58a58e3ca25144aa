"""Foreign errors of the engine's client, turned into ours here and nowhere else.

A killed dockerd shows as urllib3's ProtocolError during a build, as requests'
ChunkedEncodingError during a wait, and as a plain OSError on the socket: all of them mean that
the engine stopped answering.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors
import requests
import urllib3.exceptions

from envforge.errors import EngineUnavailable, EnvforgeError, RunFailed

BROKEN_CONNECTION = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    docker.errors.DockerException,
    OSError,
)


@contextlib.contextmanager
def converted(doing: str, refused: type[EnvforgeError] = RunFailed) -> Iterator[None]:
    """Turn a foreign error inside the block into one of ours; ``doing`` is what was tried.

    Raises ``refused`` where the engine answered with an error, EngineUnavailable where it did
    not answer at all.
    """
    try:
        yield
    except docker.errors.APIError as error:
        raise refused(f"the engine refused to {doing}", because=(said_by(error),)) from error
    except BROKEN_CONNECTION as error:
        raise stopped_answering(doing, error) from error


@contextlib.contextmanager
def closed_responses(api: Any) -> Iterator[None]:
    """Close every response that this thread got inside the block.

    docker-py leaves the sockets of archives and of commands inside containers to the garbage
    collector, and cannot close a followed log over SSH at all.
    """
    thread, got = threading.get_ident(), []

    def remember(response: requests.Response, *_: Any, **__: Any) -> None:
        if threading.get_ident() == thread:
            got.append(response)

    api.hooks["response"].append(remember)
    try:
        yield
    finally:
        api.hooks["response"].remove(remember)
        for response in got:
            response.close()


def said_by(error: docker.errors.APIError) -> str:
    """Return the engine's own words."""
    return str(error.explanation or error).strip()


def stopped_answering(doing: str, error: BaseException | None = None) -> EngineUnavailable:
    """Word the error for an engine that went away in the middle of work."""
    return EngineUnavailable(
        f"the container engine stopped answering while envforge tried to {doing}",
        because=(f"{type(error).__name__}: {error}",) if error else (),
        hint="sudo systemctl status docker   (or dockerd's log); then run the same command again",
    )
