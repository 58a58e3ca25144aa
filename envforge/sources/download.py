"""One file over HTTP: resumed where it broke off, checked for size and hash."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import NamedTuple

import requests

from envforge.errors import DiskFull, SourceError
from envforge.events import Event, OnEvent

CONNECT_TIMEOUT_S = 20.0
READ_TIMEOUT_S = 60.0
_CHUNK = 1 << 16
_FRUITLESS_TRIES = 3
_PAUSE_S = 1.0
_HTML = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)\Z")
_PARTIAL_CONTENT = 206
_RANGE_NOT_SATISFIABLE = 416
_FIRST_RETRYABLE = 500


class _Interrupted(Exception):
    """The connection broke; what came so far is kept."""


class _Body(NamedTuple):
    response: requests.Response
    start: int
    total: int


def session() -> requests.Session:
    """Open a session with the user's proxies and certificates.

    requests reads ``REQUESTS_CA_BUNDLE`` and ``CURL_CA_BUNDLE`` itself, but not ``SSL_CERT_FILE``,
    which is what OpenSSL, Go and most company images set.
    """
    opened = requests.Session()
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and not {"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & set(os.environ):
        opened.verify = bundle
    # A body compressed on the way has another length and another hash than the file.
    opened.headers.update({"Accept-Encoding": "identity", "User-Agent": "envforge"})
    return opened


def download(url: str, name: str, partial: Path, on_event: OnEvent) -> None:
    """Bring ``url`` to ``partial``, going on from what is there already. The hash is not looked at.

    Raises SourceError naming the URL; ``partial`` stays, to be resumed.
    """
    on_event(Event("step", f"fetching {name}"))
    with session() as opened:
        _fetch_all(opened, url, name, partial, on_event)
    on_event(Event("done", f"fetched {name}"))


def _fetch_all(
    opened: requests.Session, url: str, name: str, partial: Path, on_event: OnEvent
) -> None:
    """Append until the file is whole; give up after a few tries that brought nothing."""
    fruitless = 0
    while True:
        before = _size(partial)
        try:
            _fetch_rest(opened, url, name, partial, on_event)
        except _Interrupted as error:
            fruitless = 0 if _size(partial) > before else fruitless + 1
            if fruitless >= _FRUITLESS_TRIES:
                raise _unreachable(url, name, str(error), partial) from error.__cause__
            on_event(Event("warning", f"{name}: connection broke, resuming ({error})"))
            time.sleep(_PAUSE_S)
        else:
            return


def _fetch_rest(
    opened: requests.Session, url: str, name: str, partial: Path, on_event: OnEvent
) -> None:
    try:
        with _request(opened, url, _size(partial)) as response:
            if response.status_code == _RANGE_NOT_SATISFIABLE and _size(partial):
                # Either the file is whole already (the hash decides) or it is another file now.
                return
            body = _check(response, url, name, partial)
            _copy(body, url, name, partial, on_event)
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        if isinstance(error, requests.exceptions.SSLError):
            raise _bad_certificate(url, name, error) from error
        raise _Interrupted(reason_of(error)) from error
    except requests.RequestException as error:
        raise _unreachable(url, name, reason_of(error), partial) from error


def _request(opened: requests.Session, url: str, start: int) -> requests.Response:
    headers = {"Range": f"bytes={start}-"} if start else {}
    return opened.get(
        url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
    )


def _check(response: requests.Response, url: str, name: str, partial: Path) -> _Body:
    """Tell a file from everything else that answers with a body."""
    if response.status_code >= _FIRST_RETRYABLE:
        raise _Interrupted(f"HTTP {response.status_code} {response.reason}")
    if not response.ok:
        raise SourceError(
            f"cannot fetch {name}: {url} answers HTTP {response.status_code} {response.reason}",
            hint="the file may have moved; give another address, or the file itself",
        )
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not name.endswith((".html", ".htm")):
        raise html_page(url, name)
    matched = _RANGE.match(response.headers.get("Content-Range", ""))
    if response.status_code == _PARTIAL_CONTENT and matched and int(matched[1]) == _size(partial):
        total = 0 if matched[2] == "*" else int(matched[2])
        return _Body(response, _size(partial), total)
    length = response.headers.get("Content-Length", "")
    return _Body(response, 0, int(length) if length.isdigit() else 0)


def _copy(body: _Body, url: str, name: str, partial: Path, on_event: OnEvent) -> None:
    done = body.start
    try:
        with partial.open("ab" if done else "wb") as stream:
            for chunk in body.response.iter_content(_CHUNK):
                if not done and _HTML.match(chunk):
                    raise html_page(url, name)
                stream.write(chunk)
                done += len(chunk)
                on_event(Event("bytes", name, done, body.total))
    except SourceError:
        partial.unlink(missing_ok=True)
        raise
    except requests.RequestException:
        raise
    except OSError as error:
        if DiskFull.is_told_by(error):
            raise DiskFull.here(f"{name} into {partial.parent}: {error}") from error
        raise SourceError(
            f"cannot write {name} to the local store",
            because=(str(error),),
            hint=f"choose another place: XDG_CACHE_HOME (now {partial.parent})",
        ) from error
    if body.total and done != body.total:
        raise _Interrupted(f"{done} of {body.total} bytes came")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def reason_of(error: BaseException) -> str:
    """Return the innermost words of a nested network error."""
    inner: BaseException = error
    while isinstance(inner.args[0] if inner.args else None, BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None)
    return str(reason if isinstance(reason, BaseException) else inner)


def _unreachable(url: str, name: str, reason: str, partial: Path) -> SourceError:
    kept = _size(partial)
    because = (reason, f"{kept} bytes are kept and will be resumed") if kept else (reason,)
    return SourceError(
        f"cannot fetch {name} from {url}",
        because=because,
        hint="check the network (https_proxy, SSL_CERT_FILE); then run the same command again",
    )


def _bad_certificate(url: str, name: str, error: BaseException) -> SourceError:
    return SourceError(
        f"cannot fetch {name}: the certificate of {url} is not accepted",
        because=(reason_of(error),),
        hint="behind a company proxy give its CA bundle: export SSL_CERT_FILE=/path/to/bundle.crt",
    )


def html_page(url: str, name: str) -> SourceError:
    """Word the error for a login or error page that came instead of the file."""
    return SourceError(
        f"{url} gives an HTML page, not {name}",
        because=("a login, licence or error page answers at that address",),
        hint="open the address in a browser, or give another one",
    )
