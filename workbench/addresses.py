"""Which of Gradio's addresses this server has. Every one that Gradio registers is judged here; the rest is not there.

Gradio brings a proxy for files of other hosts, which would answer in this page's own origin, and pages for sharing,
monitoring and editing. The page needs few of its addresses, so these are listed and all others are refused.
A test holds the list against the installed Gradio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.responses import PlainTextResponse
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

# By the template under which Gradio registers it: the methods that are let through, and what for. All of them stand
# behind the password where there is one, and behind the guard's rule for pages of other sites.
SERVED: dict[str, tuple[tuple[str, ...], str]] = {
    "/": (("GET", "HEAD"), "the page"),
    "/assets/{path:path}": (("GET",), "Gradio's own modules and styles"),
    "/static/{path:path}": (("GET",), "Gradio's own images and fonts"),
    "/theme.css": (("GET",), "the theme"),
    "/config": (("GET",), "gradio_client: what the page is made of"),
    "/gradio_api/info": (("GET",), "gradio_client: the public API"),
    "/gradio_api/run/{api_name}": (("POST",), "events without a queue"),
    "/gradio_api/queue/join": (("POST",), "events with a queue"),
    "/gradio_api/queue/data": (("GET",), "their answers"),
    "/gradio_api/call/{api_name}": (("POST",), "the API from curl"),
    "/gradio_api/call/{api_name}/{event_id}": (("GET",), "its answers"),
    "/gradio_api/call/v2/{api_name}": (("POST",), "the API from curl, arguments by name"),
    "/gradio_api/call/v2/{api_name}/{event_id}": (("GET",), "its answers"),
    "/gradio_api/cancel": (("POST",), "gradio_client: takes a job back"),
    "/gradio_api/reset": (("POST",), "gradio_client: the same, older"),
    "/gradio_api/component_server/": (("POST",), "the server functions of our own components"),
    "/gradio_api/upload": (("POST",), "Load settings, Upload a log"),
    "/gradio_api/upload_progress": (("GET",), "how far an upload is"),
}
_PROXY = "fetches what another host serves, into this origin"
_FILES = "files of this machine; ours are named one by one in workbench.shelf"
_LOGIN = "workbench.login has its own"
_STREAM = "no component of the page streams"
_EDIT = "Gradio's editor"
_HISTORY = "Gradio's own history of calls, in the browser or on the hub"
_TWIN = "the same address, with or without its slash, is served"
_NEEDLESS = "nothing of the page asks for it"
REFUSED: dict[str, str] = {
    "/login": _LOGIN, "/login/": _LOGIN, "/logout": _LOGIN,
    "/gradio_api/user": _LOGIN, "/gradio_api/user/": _LOGIN,
    "/gradio_api/login_check": _LOGIN, "/gradio_api/login_check/": _LOGIN,
    "/gradio_api/token": "hands out what the login cookie holds",
    "/gradio_api/token/": "hands out what the login cookie holds",
    "/gradio_api/proxy={url_path:path}": _PROXY,
    "/gradio_api/file={path_or_url:path}": _PROXY + "; and " + _FILES,
    "/gradio_api/file/{path:path}": _PROXY + "; and " + _FILES,
    "/gradio_api/custom_component/{id}/{environment}/{type}/{file_name}": "there are no custom components",
    "/gradio_api/deep_link": "writes the page's state into a file for whoever has the link; the address says it all",
    "/gradio_api/stream/{event_id}": _STREAM, "/gradio_api/stream/{event_id}/close": _STREAM,
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist.m3u8": _STREAM,
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/{segment_id}.{ext}": _STREAM,
    "/gradio_api/stream/{session_hash}/{run}/{component_id}/playlist-file": _STREAM,
    "/gradio_api/heartbeat/{session_hash}": "would hold one of the browser's six connections for each of its windows",
    "/gradio_api/process_recording": "no component of the page records",
    "/gradio_api/dev/reload": _EDIT,
    "/gradio_api/vibe-edit": _EDIT, "/gradio_api/vibe-edit/": _EDIT,
    "/gradio_api/undo-vibe-edit": _EDIT, "/gradio_api/undo-vibe-edit/": _EDIT,
    "/gradio_api/vibe-code": _EDIT, "/gradio_api/vibe-code/": _EDIT,
    "/gradio_api/vibe-starter-queries": _EDIT, "/gradio_api/vibe-starter-queries/": _EDIT,
    "/gradio_api/runs": _HISTORY, "/gradio_api/runs/": _HISTORY,
    "/gradio_api/run-history/connect": _HISTORY, "/gradio_api/run-history/buckets": _HISTORY,
    "/gradio_api/run-history/records": _HISTORY,
    "/gradio_api/run-history/records/{endpoint}/{record_id}/assets/{asset_id}": _HISTORY,
    "/monitoring": "a page about all users", "/monitoring/summary": "a page about all users",
    "/monitoring/{key}": "a page about all users",
    "/gradio_api/startup-events": "done when the server starts",
    "/gradio_api/openapi.json": _NEEDLESS, "/openapi.json": _NEEDLESS,
    "/gradio_api/queue/status": _NEEDLESS, "/gradio_api/app_id": _NEEDLESS, "/gradio_api/app_id/": _NEEDLESS,
    "/svelte/{path:path}": _NEEDLESS, "/favicon.ico": "the icon is part of the page",
    "/gradio_api/theme.css": _TWIN, "/robots.txt": _NEEDLESS,
    "/pwa_icon": _NEEDLESS, "/pwa_icon/{size}": _NEEDLESS, "/manifest.json": _NEEDLESS,
    "/config/": _TWIN, "/gradio_api/info/": _TWIN, "/gradio_api/reset/": _TWIN,
    "/gradio_api/run/{api_name}/": _TWIN, "/gradio_api/api/{api_name}": _TWIN, "/gradio_api/api/{api_name}/": _TWIN,
    "/gradio_api/call/{api_name}/": _TWIN, "/gradio_api/call/v2/{api_name}/": _TWIN,
    "/gradio_api/component_server": _TWIN,
}  # fmt: skip
_SERVED = [(compile_path(template)[0], methods) for template, (methods, _) in SERVED.items()]
_RUN = "/gradio_api/run/"
AT_ONCE = 2  # calls of the public API
_MULTIPART = b"multipart/form-data"
TAKES_FILES = "/gradio_api/upload"


class Turns:
    """ASGI middleware: calls of the public API that go past Gradio's queue wait for each other, and nobody for them.

    Gradio walks through every value of an answer in the server's one event loop, 40 ms for a thousand steps.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app, self._paths = app, frozenset(f"{_RUN}{name}" for name in names)
        self._free = asyncio.Semaphore(AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] not in self._paths:
            await self.app(scope, receive, send)
            return
        async with self._free:
            await self.app(scope, receive, send)


def serves(method: str, path: str) -> bool:
    """Whether this server has an address at all; `path` decoded and without a proxy's prefix."""
    return any(pattern.fullmatch(path) and method in methods for pattern, methods in _SERVED)


class Addresses:
    """ASGI middleware: 404 for whatever `SERVED` does not name."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._lets_through(scope):
            await PlainTextResponse("There is nothing at this address.", 404)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _lets_through(self, scope: Scope) -> bool:
        kind = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
        if kind.lower().startswith(_MULTIPART) and scope["path"] != TAKES_FILES:
            return False
        return serves(scope["method"], scope["path"])
