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
            told, status = (
                f"Too many wrong passwords. Wait {math.ceil(wait)} seconds, then try again.",
                HTTPStatus.TOO_MANY_REQUESTS,
            )
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
            told, status = "That password is not right. Type it again.", HTTPStatus.UNAUTHORIZED
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
    """The form. `told`: what is wrong with the password that was given; `user`: the name that was given with it."""
    problem = f'<p id="problem" class="bad" role="alert">{escape(told)}</p>' if told else ""
    wrong = ' aria-invalid="true" aria-describedby="problem"' if told else ""
    mark = (look.ASSETS / "icon.svg").read_text(encoding="utf-8").replace("<svg", '<svg aria-hidden="true"')
    text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Log in - mygpt2 workbench</title>
<meta name="viewport" content="width=device-width, initial-scale=1">{look.icon()}
<style>{look.colours()}{look.asset("login.css")}</style></head>
<body><main><h1>{mark}mygpt2 workbench</h1>
<p id="why">Whoever has the password can see the runs here and start new ones.</p>
<form method="post" action="login"><input type="hidden" name="query" value="{escape(_query(query))}">
<label for="user">User name <span id="any">optional</span></label>
<input id="user" name="username" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="100"
 aria-describedby="any" value="{escape(user[:100])}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus{wrong}>{problem}
<button>Log in</button></form></main></body></html>"""
    return HTMLResponse(text, status, {"content-security-policy": POLICY, "cache-control": "no-store"})
