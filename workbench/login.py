"""The password page, and who has passed it. Nothing else of the server answers to anybody who has not.

Gradio's own login leaves a dozen addresses open, wants a user name, and is painted with colours that arrive after it.
This page is one small document without a script.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from http import HTTPStatus
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench import look
from workbench.html import escape
from workbench.security import Door, by_link

FORM_BYTES = 16 * 1024
SESSION_SECONDS = 30 * 24 * 3600.0
MOST_SESSIONS = 1000
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class Sessions:
    """Who is logged in: digests of the cookies given out, each with its end. Gone when the server ends."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}

    def begin(self) -> str:
        """A new cookie's value; the oldest session gives way where there are too many."""
        token = secrets.token_urlsafe(32)
        while len(self._ends) >= MOST_SESSIONS:
            del self._ends[next(iter(self._ends))]
        self._ends[_digest(token)] = time.monotonic() + SESSION_SECONDS
        return token

    def has(self, token: str | None) -> bool:
        return token is not None and self._ends.get(_digest(token), 0.0) > time.monotonic()

    def end(self, token: str | None) -> None:
        self._ends.pop(_digest(token or ""), None)


class Login:
    """ASGI middleware: the password page at /login, its end at /logout, and 401 for everything else without a session.

    `cookie`: the cookie's name; a browser sends one machine's cookies to all of its ports.
    """

    def __init__(self, app: ASGIApp, door: Door, cookie: str, root_path: str = "") -> None:
        self.app, self.door, self.cookie, self.path = app, door, cookie, root_path or "/"
        self.sessions = Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.door.has_password:
            answer = await self._answer(Request(scope, receive))
            if answer is not None:
                await answer(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        if request.scope["path"] == "/logout":
            return self._logout(request)
        if request.scope["path"] == "/login":
            return await self._login(request) if request.method == "POST" else _page(_linked(request))
        if self.sessions.has(request.cookies.get(self.cookie)):
            return None
        if request.scope["path"] == "/" and request.method in ("GET", "HEAD"):
            return _page(_linked(request))
        return JSONResponse({"detail": {"error": "Not authenticated; log in at /login."}}, HTTPStatus.UNAUTHORIZED)

    def _logout(self, request: Request) -> Response:
        """By POST only: a link or a picture of another page must not be able to."""
        if request.method != "POST":
            return PlainTextResponse("Log out with the button of the page.", 405, {"allow": "POST"})
        self.sessions.end(request.cookies.get(self.cookie))
        answer = RedirectResponse("./", HTTPStatus.SEE_OTHER)
        answer.delete_cookie(self.cookie, path=self.path)
        return answer

    async def _login(self, request: Request) -> Response:
        address = request.client.host if request.client else ""
        form = await _fields(request)
        query, user, by_browser = form.get("query", ""), form.get("username", ""), _wants_page(request.headers)
        wait = self.door.closed(address)
        if wait > 0:
            told, status = f"Too many wrong passwords; wait {math.ceil(wait)} seconds.", HTTPStatus.TOO_MANY_REQUESTS
        elif await self.door.knock(form.get("password", ""), address):
            answer: Response = JSONResponse({"success": True})
            if by_browser:
                answer = RedirectResponse("./" + _query(query), HTTPStatus.SEE_OTHER)
            secure = request.url.scheme == "https"
            answer.set_cookie(
                self.cookie, self.sessions.begin(), path=self.path, httponly=True, samesite="lax", secure=secure
            )
            return answer
        else:
            told, status = "That is not the password.", HTTPStatus.UNAUTHORIZED
        if not by_browser:
            return JSONResponse({"detail": told}, status)
        return _page(query, told, user, status)


async def _fields(request: Request) -> dict[str, str]:
    """The fields of the posted form; none of one that is too large. Gradio's client posts the same form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return {}
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except ValueError:
        return {}


def _linked(request: Request) -> str:
    """The query part of the address; what another site's link asks for stays marked as that."""
    query = request.url.query
    return f"{query}&link=1" if query and by_link(request.headers) else query


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _wants_page(headers: Headers) -> bool:
    return "text/html" in headers.get("accept", "")


def _query(text: str) -> str:
    """The link's query part, written anew: nothing else of it reaches the address that follows the login."""
    pairs = parse_qsl(text.removeprefix("?")[:4096], keep_blank_values=True)
    return "?" + urlencode(pairs) if pairs else ""


def _page(query: str, told: str = "", user: str = "", status: HTTPStatus = HTTPStatus.UNAUTHORIZED) -> HTMLResponse:
    problem = f'<p class="bad" role="alert">{escape(told)}</p>' if told else ""
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>mygpt2 workbench</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{look.icon()}
<style>{look.colours()}{_STYLE}</style></head>
<body><main><h1>mygpt2 workbench</h1>{problem}
<form method="post" action="login"><input type="hidden" name="query" value="{escape(_query(query))}">
<label for="user">User name <span>(any, may stay empty)</span></label>
<input id="user" name="username" autocomplete="username" maxlength="100" value="{escape(user[:100])}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button></form></main></body></html>"""
    return HTMLResponse(text, status, {"content-security-policy": POLICY, "cache-control": "no-store"})


_STYLE = """
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--wb-paper);
  color: var(--wb-ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { width: min(22rem, calc(100vw - 4rem)); padding: 1.5rem; background: var(--wb-panel);
  border: 1px solid var(--wb-line); border-radius: 10px; }
h1 { font-size: 1.2rem; margin: 0 0 1rem; }
form { display: grid; gap: 0.3rem; }
label span { color: var(--wb-muted); }
input { font: inherit; color: var(--wb-ink); background: var(--wb-field); border: 1px solid var(--wb-edge);
  border-radius: 6px; padding: 0.45rem 0.6rem; margin-bottom: 0.6rem; }
button { font: inherit; font-weight: 600; color: var(--wb-on-accent); background: var(--wb-accent); border: 0;
  border-radius: 6px; padding: 0.55rem; cursor: pointer; }
input:focus-visible, button:focus-visible { outline: 2px solid var(--wb-accent); outline-offset: 2px; }
.bad { color: var(--wb-bad); margin: 0 0 0.8rem; }
"""
