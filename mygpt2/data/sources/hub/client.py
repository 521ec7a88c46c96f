"""Ranges of files on the hub, over HTTP that fails: what arrives is what was asked for, or an error says why not.

One client serves all threads of a process. While the hub is in trouble only one of them knocks, after a pause that
doubles or that the hub asked for, and the others wait for what it finds out: an outage costs a few requests, not some
per thread.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from huggingface_hub import get_token

from mygpt2.data.sources.faults import Clock, Outage, OutageClock
from mygpt2.data.sources.hub.wire import http_client
from mygpt2.data.sources.manifest import SourceFile

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
TRIES = 4  # of one request before it is an Outage; the loader goes on from there, within its budget
LONGEST_WISH = 300.0  # seconds: the hub's windows are 5 minutes long
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MOST_REDIRECTS = 5
MOST_JSON = 64 << 20  # bytes of an answer, unpacked; a list of 100,000 files has some 10 million
MOST_RANGE = 2 << 30  # bytes asked for at once: of a row group or a footer, and far above what they have
OUTAGE_S = 30 * 60.0  # budget where the caller has none
_USED_UP = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,9})")  # IETF draft, "api";r=0;t=55


class Refused(Exception):
    """The hub answers, and the answer is no: `status`, and the hub's own `code` for it (may be empty)."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"the hub answers {status} {code}".rstrip())
        self.status = status
        self.code = code


class Changed(Exception):
    """A file is not, or no longer, the one that was asked for."""


class _Trouble(Exception):
    """A try that failed in a way that may pass. `shared`: others would fail in the same way now."""

    def __init__(self, reason: str, retry_after: float | None = None, shared: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.shared = reason, retry_after, shared


class HubClient:
    """Requests to one endpoint. Neither tokens nor signed addresses ever reach a message or a log."""

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        clock: Clock | None = None,
        tries: int = TRIES,
        timeout_s: float = 30.0,
        budget_s: float = OUTAGE_S,
    ) -> None:
        """`timeout_s`: longest silence of the hub, and the time over which its speed is taken (see `wire`).

        `budget_s`: no request waits longer for an end of trouble. UserError when the proxy settings cannot be used.
        """
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/")
        self._clock = clock or Clock()
        self._closed = threading.Event()
        self._outage = OutageClock(budget_s, self._clock)  # from a failure to the next success
        self._not_before = 0.0
        self._knocking = threading.Lock()
        self._tries = tries
        self._signed: dict[str, str] = {}  # where a file's address was redirected to
        self._token = get_token()
        self._lock = threading.Lock()
        self._in_flight = 0
        logger = logging.getLogger("httpx")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)  # it logs every address at INFO, signatures included
        self._http = http_client(timeout_s, self._closed)

    def close(self) -> None:
        """End all waiting at once; requests raise Outage from now on. Safe while other threads use the client."""
        self._closed.set()
        with self._lock:
            if not self._in_flight:
                self._http.close()

    def json(self, path: str) -> tuple[Any, str | None]:
        """(JSON answer of an API path or address, address of the next page). Raises Refused, Outage."""

        def read(r: httpx.Response) -> tuple[Any, str | None]:
            try:
                return json.loads(_limited(r)), r.links.get("next", {}).get("url")
            except (ValueError, RecursionError, httpx.DecodingError) as error:
                raise _Trouble("the hub's answer is not JSON") from error

        return self._whole(path, read)

    def text(self, path: str) -> str:
        """A small file of text. Raises Refused, Outage."""
        return self._whole(path, lambda r: _limited(r).decode(errors="replace"))

    def _whole(self, path: str, read: Callable[[httpx.Response], T]) -> T:
        def checked(r: httpx.Response) -> T:
            if r.status_code != 200:
                raise Refused(r.status_code, r.headers.get("X-Error-Code", ""))
            return read(r)

        return self._patiently(lambda: self._answer(urljoin(self.endpoint + "/", path), {}, checked)[0])

    def part(self, file: SourceFile, start: int, stop: int) -> bytes:
        """Bytes start .. stop of a file whose ETag is its identity ("": not checked).

        Raises Outage (may pass), Refused (404, 410, 401, 403) and Changed (other ETag or size): these do not pass.
        """
        if stop - start > MOST_RANGE:
            raise Changed(f"{stop - start:,} bytes of it belong together; allowed: {MOST_RANGE:,}")
        url, headers = file.location, {"Range": f"bytes={start}-{stop - 1}"}

        def body(r: httpx.Response) -> bytes:
            return _body(r, start, stop, file.size)

        def ask() -> bytes:
            known = self._signed.get(url)
            if known is not None:
                try:
                    return self._answer(known, headers, body)[0]
                except Refused:
                    self._signed.pop(url, None)  # the signature has run out
            found, final = self._answer(url, headers, body, file.identity)
            if final != url:
                self._signed[url] = final
            return found

        return self._patiently(ask)

    def _answer(
        self, url: str, headers: dict[str, str], read: Callable[[httpx.Response], T], identity: str = ""
    ) -> tuple[T, str]:
        """(what `read` makes of the answer behind all redirects, where that was)."""
        for hop in range(MOST_REDIRECTS):
            with self._open(url, headers) as r:
                etag = r.headers.get("X-Linked-ETag") or ("" if hop else r.headers.get("ETag", ""))
                found = etag.removeprefix("W/").strip('"')
                if identity and found and found != identity and (r.status_code in REDIRECTS or r.status_code < 300):
                    raise Changed(f"the hub has other bytes under this name (ETag {found[:12]}, not {identity[:12]})")
                if r.status_code not in REDIRECTS:
                    return read(r), url
                url = self._redirect(url, r)
        raise _Trouble("the hub redirects without end")

    @contextmanager
    def _open(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """A streamed GET whose transient failures, in the head or while the body is read, are _Trouble."""
        ours = urlsplit(url)[:2] == urlsplit(self.endpoint)[:2]
        if ours and self._token:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        with self._lock:
            if self._closed.is_set():
                raise Outage("closed")
            self._in_flight += 1
        got_answer = False
        try:
            with self._http.stream("GET", url, headers=headers, follow_redirects=False) as r:
                got_answer = True
                if r.status_code in TRANSIENT:
                    raise _Trouble(f"the hub answers {r.status_code}", _wish(r.headers))
                yield r
        except httpx.TimeoutException as error:
            slow = "the hub sends too slowly" if got_answer else "the hub does not answer in time"
            raise _Trouble(slow) from error
        except httpx.TransportError as error:
            if self._closed.is_set():
                raise Outage("closed") from error
            reason = f"{urlsplit(self.endpoint).netloc} cannot be reached"
            if isinstance(error, httpx.RemoteProtocolError):
                reason = "the hub's answer breaks off or is not HTTP"
            raise _Trouble("the connection breaks off" if got_answer else reason, shared=not got_answer) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _Trouble("the hub names an address that is none") from error
        finally:
            with self._lock:
                self._in_flight -= 1
                if self._closed.is_set() and not self._in_flight:
                    self._http.close()

    def _redirect(self, url: str, r: httpx.Response) -> str:
        try:
            target = urljoin(url, r.headers.get("Location", ""))
            urlsplit(target)
        except ValueError as error:
            raise _Trouble("the hub redirects to an address that is none") from error
        if urlsplit(target).scheme not in ("https", urlsplit(self.endpoint).scheme):
            raise Refused(r.status_code, "redirect to an address that is not https")
        return target

    def _patiently(self, ask: Callable[[], T]) -> T:
        """`ask`, several times where it meets trouble that may pass."""
        trouble, began = _Trouble(""), self._clock.now()
        for attempt in range(self._tries):
            try:
                return self._in_turn(ask, first=attempt == 0)
            except _Trouble as error:
                trouble = error
                if self._clock.now() - began >= self._outage.budget_s:
                    break
        left = max(0.0, self._not_before - self._clock.now()) if self._outage.failures else None
        raise Outage(trouble.reason, left, began) from trouble

    def _in_turn(self, ask: Callable[[], T], first: bool) -> T:
        """`ask` at once while all is well; from a failure to the next success one at a time, after a pause."""
        mine = False
        while self._outage.failures and not mine:
            if self._closed.is_set():
                raise Outage("closed")
            mine = self._knocking.acquire(timeout=0.2)
        if mine and not self._outage.failures:  # whoever knocked before was let in
            self._knocking.release()
            mine = False
        try:
            if mine and self._clock.wait(self._closed, max(0.0, self._not_before - self._clock.now())):
                raise Outage("closed")
            began = self._clock.now()
            try:
                answer = ask()
            except _Trouble as trouble:
                # What befell one answer only is simply asked for again. Failures count one after the other only: those
                # of many threads at one moment are one failure.
                if mine or ((trouble.shared or not first) and not self._outage.failures):
                    self._outage.failed(trouble.reason, began)
                if mine or trouble.shared or not first:
                    # Never past the budget, which is for the loader to end: a hub that wants more is asked at its end.
                    pause = self._outage.pause_s(trouble.retry_after)
                    self._not_before = max(self._not_before, self._clock.now() + pause)
                raise
            except (Refused, Changed):  # no is an answer, too
                if mine:
                    self._outage.recovered()
                raise
            if mine:
                self._outage.recovered()
            return answer
        finally:
            if mine:
                self._knocking.release()


def _body(r: httpx.Response, start: int, stop: int, size: int) -> bytes:
    """The body of an answer to a range request, if it is that range and whole."""
    if r.status_code == 416:
        raise Changed(f"the file is shorter than the {size} bytes it was listed with")
    if r.status_code == 200:
        raise _Trouble("the hub answers 200 where a part (206) was asked for", shared=False)
    if r.status_code != 206:
        raise Refused(r.status_code, r.headers.get("X-Error-Code", ""))
    packed = r.headers.get("Content-Encoding", "identity")
    if packed != "identity":
        raise _Trouble(f"the hub or a proxy packs its answers ({packed[:20]})", shared=False)
    told = r.headers.get("Content-Range", "")
    there = told.rpartition("/")[2]
    if there.isdigit() and there != str(size):
        raise Changed(f"the file has {there} bytes and was listed with {size}")
    if told != f"bytes {start}-{stop - 1}/{size}":
        raise _Trouble("the hub sends another range than the one asked for", shared=False)
    parts, left = [], stop - start
    for part in r.iter_raw():
        parts.append(part)
        left -= len(part)
        if left < 0:
            break
    if left:
        raise _Trouble(f"the hub sends {stop - start - left} of {stop - start} bytes", shared=False)
    return b"".join(parts)


def _limited(r: httpx.Response) -> bytes:
    """The body of an answer in memory. A proxy may have packed it: by gzip, once, so that no piece of it is large."""
    packed = r.headers.get("Content-Encoding", "identity").lower()
    if packed not in ("identity", "gzip"):
        raise _Trouble(f"the hub or a proxy packs its answers ({packed[:20]})")
    parts, size = [], 0
    for part in r.iter_bytes(1 << 16):
        parts.append(part)
        size += len(part)
        if size > MOST_JSON:
            raise _Trouble(f"the hub's answer does not end after {MOST_JSON >> 20} MB")
    return b"".join(parts)


def _wish(headers: httpx.Headers) -> float | None:
    """Seconds that an answer asks to wait: `Retry-After` (seconds or a date) or, at a used-up limit, `RateLimit`."""
    value = headers.get("Retry-After", "").strip()
    try:
        if re.fullmatch(r"[0-9]+", value):
            seconds = float(value)
        elif value:
            until, now = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", value))
            seconds = max(0.0, (until - now).total_seconds())
        else:
            used_up = _USED_UP.search(headers.get("RateLimit", ""))
            return min(float(used_up[1]), LONGEST_WISH) if used_up else None
        return min(seconds, LONGEST_WISH)
    except (TypeError, ValueError, OverflowError):
        return None
