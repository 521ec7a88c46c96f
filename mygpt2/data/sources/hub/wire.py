"""What every byte of an HTTP connection passes: a floor under its speed, and an end when the client is closed.

httpx limits each read by itself, so a server that sends a byte now and then holds a request for ever, in its head as in
its body. Here a read ends as well when the last PERIOD brought less than FLOOR bytes a second, or at once on `closed`.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import httpcore
import httpx

from mygpt2.errors import UserError

FLOOR = 1000.0  # bytes a second; a modem has five times as much
HERE = ("127.0.0.1", "localhost", "[::1]")  # never through a proxy
SLICE = 0.5  # seconds after which a read looks whether the client was closed


class Watched(httpcore.NetworkStream):
    """One connection. `period`: seconds over which the speed is taken, beginning with an answer's first byte."""

    def __init__(self, inner: httpcore.NetworkStream, period: float, closed: threading.Event) -> None:
        self._inner, self._period, self._closed = inner, period, closed
        self._since: float | None = None
        self._bytes = 0

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        until = time.monotonic() + (self._period if timeout is None else timeout)
        while True:
            if self._closed.is_set():
                raise httpcore.ReadError("the client was closed")
            try:
                data = self._inner.read(max_bytes, max(0.001, min(SLICE, until - time.monotonic())))
            except httpcore.ReadTimeout:
                if time.monotonic() >= until:
                    raise
                continue
            self._count(len(data))
            return data

    def _count(self, size: int) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since, self._bytes = now, 0
        self._bytes += size
        seconds = now - self._since
        if seconds >= self._period:
            if size and self._bytes < FLOOR * seconds:
                raise httpcore.ReadTimeout(f"{self._bytes} bytes in {seconds:.0f} s")
            self._since, self._bytes = now, 0

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._since = None  # a new request: its answer is measured anew
        self._inner.write(buffer, timeout)

    def start_tls(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return Watched(self._inner.start_tls(*args, **kwargs), self._period, self._closed)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    def __init__(self, period: float, closed: threading.Event) -> None:
        self._period, self._closed = period, closed

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return Watched(super().connect_tcp(*args, **kwargs), self._period, self._closed)


def http_client(timeout_s: float, closed: threading.Event) -> httpx.Client:
    """A client with the proxies that the environment names, except to this machine. UserError for a bad one.

    httpx has no public way to give its pools a network backend, which httpcore has: a test holds the attributes.
    """
    try:
        client = httpx.Client(
            timeout=httpx.Timeout(timeout_s, connect=min(10.0, timeout_s), pool=None),
            limits=httpx.Limits(max_connections=64, max_keepalive_connections=32),
            headers={"User-Agent": "mygpt2", "Accept-Encoding": "identity"},
            mounts={f"all://{host}": None for host in HERE},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise proxy_advice(error) from error
    for transport in {client._transport, *client._mounts.values()}:  # those of proxies as well
        if isinstance(transport, httpx.HTTPTransport):
            pool: Any = transport._pool
            pool._network_backend = _Backend(timeout_s, closed)
    return client


def proxy_advice(error: Exception) -> UserError:
    """What to do about a proxy in the environment that httpx refuses."""
    if isinstance(error, ImportError):
        return UserError(
            "the environment names a SOCKS proxy (ALL_PROXY or HTTPS_PROXY) and the package for it is not installed; "
            "run `pip install 'httpx[socks]'`, name an HTTP proxy, or unset the variable"
        )
    return UserError(
        f"the proxy that the environment names cannot be used ({error}); allowed: http://HOST:PORT or "
        "socks5://HOST:PORT in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; correct or unset them"
    )
