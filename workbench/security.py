"""Who may talk to the server: hosts, origins, passwords.

Gradio alone runs calls that reach 127.0.0.1 through a foreign name (DNS rebinding), and calls that another site's
page posts as text/plain. Both are refused here before Gradio sees them.
"""

from __future__ import annotations

import hmac
import ipaddress
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mygpt2.errors import UserError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
MIN_PASSWORD = 8
TRIES, TRIES_SECONDS = 5, 60.0
UNTOUCHED = ("GET", "HEAD", "OPTIONS")


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def read_password(path: Path | None, host: str) -> str | None:
    """The password of a file's first line; UserError where it is missing, weak, or readable by others.

    An address beyond this machine needs one: whoever opens the page can run training code here.
    """
    if path is None:
        if is_loopback(host):
            return None
        raise UserError(
            f"--host {host} can be reached from other machines and needs --password-file FILE (first line: a password "
            f"of {MIN_PASSWORD} characters or more); or stay on 127.0.0.1 and use ssh -L"
        )
    try:
        words = path.read_text(encoding="utf-8").splitlines()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--password-file {path} cannot be read: {error}; give a text file") from None
    password = words[0].strip() if words else ""
    if len(password) < MIN_PASSWORD:
        raise UserError(
            f"--password-file {path}: the first line has {len(password)} characters; at least {MIN_PASSWORD}"
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"--password-file {path} is open to other users; chmod 600 {path}")
    return password


class Door:
    """Compares passwords in constant time, and rests for a minute after five wrong ones."""

    def __init__(self, password: str | None) -> None:
        self._password = password
        self._wrong: list[float] = []
        self._lock = threading.Lock()

    @property
    def locked(self) -> bool:
        with self._lock:
            self._wrong = [at for at in self._wrong if time.monotonic() - at < TRIES_SECONDS]
            return len(self._wrong) >= TRIES

    @property
    def has_password(self) -> bool:
        return self._password is not None

    def opens(self, given: str) -> bool:
        """Whether this is the password; never without one."""
        if self._password is None or self.locked:
            return False
        if hmac.compare_digest(given.encode(), self._password.encode()):
            return True
        with self._lock:
            self._wrong.append(time.monotonic())
        return False

    def login(self, user: str, password: str) -> bool:
        """Gradio's `auth`: any user name with the password."""
        return self.opens(password)


def allowed_hosts(host: str, port: int, extra: Sequence[str] = ()) -> frozenset[str]:
    """Values of the Host header that are let in. Beyond loopback the password guards, and any address may lead here."""
    names = {*LOOPBACK_NAMES, host, *extra}
    return frozenset({name.lower() for name in names} | {f"{name}:{port}".lower() for name in names})


class Guard:
    """Refuses a foreign Host (400) and a foreign Origin (403), and adds the headers a browser should see."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], any_host: bool, door: Door) -> None:
        self.app, self.hosts, self.any_host, self.door = app, hosts, any_host, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).extend(HEADERS)
            await send(message)

        await self.app(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        host = headers.get("host", "").lower()
        if not host or not (self.any_host or host in self.hosts):
            return PlainTextResponse("This host name is not served here.", status_code=400)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host:
            return PlainTextResponse("Requests from other sites are refused.", status_code=403)
        if (
            headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")
            and scope.get("method") not in UNTOUCHED
        ):
            return PlainTextResponse("Requests from other sites are refused.", status_code=403)
        if scope.get("path", "").rstrip("/").endswith("/login") and scope.get("method") == "POST" and self.door.locked:
            return PlainTextResponse("Too many wrong passwords; wait a minute.", status_code=429)
        return None


# Nothing may come from another host: the browser itself is told to refuse it.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' "
    "'unsafe-inline'; connect-src 'self' ws: wss:; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
]
