"""Who may talk to the server: hosts, origins, passwords.

Gradio alone runs calls that reach 127.0.0.1 through a foreign name (DNS rebinding), and calls that another site's
page posts as text/plain. Both are refused here before Gradio sees them. Which of Gradio's addresses exist at all is
`workbench.addresses`; who is logged in, `workbench.login`.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mygpt2.errors import UserError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
MIN_PASSWORD = 8
TRIES, TRIES_SECONDS = 5, 60.0  # wrong passwords from one address
CROWD, CROWD_SECONDS, AT_ONCE = 60, 1.0, 16  # wrong passwords from everywhere; what each further try then waits
FOREIGN = ("cross-site", "same-site")
# What a page of another site may ask for: the page itself, as a link does, and Gradio's own scripts and styles.
OPEN_TO_LINKS = ("/", "/login")
OPEN_TO_ALL = ("/assets/", "/static/")


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
    """Compares passwords in constant time. Five wrong ones from one address close it to that address for a minute.

    A flood of wrong ones from many addresses makes every further try slower and refuses nobody: otherwise whoever can
    reach the server could keep its owner out.
    """

    def __init__(self, password: str | None) -> None:
        self._password = password
        self._wrong: dict[str, list[float]] = {}
        self._lock = threading.Lock()
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def has_password(self) -> bool:
        return self._password is not None

    def closed(self, address: str = "") -> float:
        """Seconds until this address may try again; 0 where it may now."""
        with self._lock:
            wrong = self._recent().get(block(address), [])
            return wrong[-TRIES] + TRIES_SECONDS - time.monotonic() if len(wrong) >= TRIES else 0.0

    @property
    def crowded(self) -> bool:
        """Whether so many wrong passwords arrived, from wherever, that tries wait."""
        with self._lock:
            return sum(map(len, self._recent().values())) >= CROWD

    def opens(self, given: str, address: str = "") -> bool:
        """Whether this is the password; never without one, and not for an address that is closed out."""
        if self._password is None or self.closed(address) > 0:
            return False
        if hmac.compare_digest(given.encode("utf-8", "replace"), self._password.encode()):
            return True
        with self._lock:
            self._wrong.setdefault(block(address), []).append(time.monotonic())
        return False

    async def knock(self, given: str, address: str) -> bool:
        """`opens`, after a wait while the door is crowded."""
        if self.crowded:
            async with self._turns:
                await asyncio.sleep(CROWD_SECONDS)
        return self.opens(given, address)

    def _recent(self) -> dict[str, list[float]]:
        since = time.monotonic() - TRIES_SECONDS
        kept = {who: [at for at in times if at > since] for who, times in self._wrong.items()}
        self._wrong = {who: times for who, times in kept.items() if times}
        return self._wrong


def block(address: str) -> str:
    """Whom wrong passwords are counted against: an IPv4 address, or the /64 that one household of IPv6 has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def allowed_hosts(host: str, port: int, extra: Sequence[str] = ()) -> frozenset[str]:
    """Values of the Host header that are let in. Beyond loopback the password guards, and any address may lead here."""
    names = {*LOOPBACK_NAMES, host, *extra}
    return frozenset({name.lower() for name in names} | {f"{name}:{port}".lower() for name in names})


class Guard:
    """Refuses a foreign Host (400) and requests of foreign pages (403), and adds the headers a browser should see.

    `named`: what --allow-host names. A page of such an origin is this server's own although a proxy has rewritten the
    Host; every other origin must be the Host that was asked.
    """

    def __init__(
        self, app: ASGIApp, hosts: frozenset[str], any_host: bool, named: Sequence[str] = (), root_path: str = ""
    ) -> None:
        self.app, self.hosts, self.any_host = app, hosts, any_host
        self.named, self.root_path = frozenset(name.lower() for name in named), root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            else:  # nothing here speaks WebSocket
                await send({"type": "websocket.close", "code": 1008})
            return
        if self.root_path and (scope["path"] == self.root_path or scope["path"].startswith(self.root_path + "/")):
            # A proxy may strip its prefix or leave it. From here on it is stripped, for what is judged and done.
            path = scope["path"][len(self.root_path) :] or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                for name, value in HEADERS.items():
                    if name not in headers:
                        headers[name] = value
            await send(message)

        await (self._refusal(scope) or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        known = host in self.hosts or host.rpartition(":")[0] in self.named  # a proxy may have any port
        if not host or not (self.any_host or known):
            return PlainTextResponse(unserved(host), status_code=400)
        origin = headers.get("origin")
        if origin is not None and not self._own(urlsplit(origin).netloc.lower(), host):
            return PlainTextResponse(
                f"Requests from other sites are refused: this one came from a page of {origin[:200]!r} and asked for "
                f"{host!r}. If both are this workbench behind a proxy, start it with --allow-host.",
                status_code=403,
            )
        if self._foreign(headers, host) and not _for_links(scope):
            return PlainTextResponse("Requests from other sites are refused.", status_code=403)
        return None

    def _own(self, origin: str, host: str) -> bool:
        return origin == host or origin in self.named

    def _foreign(self, headers: Headers, host: str) -> bool:
        """Whether a page of another site asks. Plain http to another machine has no Sec-Fetch-Site: then by Referer."""
        site = headers.get("sec-fetch-site")
        if site is None and (referer := headers.get("referer")):
            return not self._own(urlsplit(referer).netloc.lower(), host)
        return site in FOREIGN


def by_link(headers: Headers) -> bool:
    """Whether a page was opened by another site's link, or may have been; typed, kept and reloaded addresses are not.

    What such an address asks for fills forms, and waits for a click before the server works for it.
    """
    return headers.get("sec-fetch-site", "cross-site") not in ("none", "same-origin")


def _for_links(scope: Scope) -> bool:
    if scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] in OPEN_TO_LINKS or scope["path"].startswith(OPEN_TO_ALL)


def unserved(host: str) -> str:
    """Why a page stays empty that was reached by a name nobody told the server."""
    shown = repr(host[:200]) if host else "an empty name"
    return (
        f"This workbench does not answer to {shown}. Open it as http://127.0.0.1:PORT/ on its own machine; or, where "
        "a proxy serves it under another name, start it with --allow-host NAME (the name as the browser shows it, "
        "with its port if it has one)."
    )


# What everything but the page and the login has: nothing that is served may run as a document of its own.
HEADERS = {
    "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Nothing may come from another host: the browser itself is told to refuse it. Gradio compiles what Python hands it as
# `js=` and `js_on_load=` with new Function, so without 'unsafe-eval' no tab opens; inline scripts need the nonce, which
# markup that somebody smuggled into the page does not have.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
    "form-action 'self'; base-uri 'self'; object-src 'none'; frame-ancestors 'none'"
)
