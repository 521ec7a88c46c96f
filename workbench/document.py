"""The page's document: Gradio's, with something to see at once, the page's own scripts, and no inline script but ours.

Gradio's document begins with all of the page's configuration (some 400 kB, which took 50 ms to make for each page and
is made once here) and says nothing until its modules have arrived, names pictures on other hosts; and calls the server
by whatever Host a proxy gave. What is to be seen at once depends on none of that: it is sent before Gradio is asked.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench import look
from workbench.charts.component import early_script
from workbench.html import escape
from workbench.page import TABS
from workbench.security import PAGE_POLICY, by_link
from workbench.shelf import Packer, encoding_of

CONFIGURATION = "<script>window.gradio_config"
MODE = "<script data-gradio-mode>"
_BODY = re.compile(r"<body[^>]*>")
_STYLE = re.compile(r'<link rel="stylesheet" crossorigin href="([^"]+)">')
# In the head, where the order of the cascade wants it, without holding up what is to be seen at once.
_STYLE_LATER = (
    r'<link rel="preload" as="style" crossorigin href="\1">'
    r'<link rel="stylesheet" crossorigin href="\1" media="not all" id="wb-base">'
    "<script>{ const base = document.getElementById('wb-base'), use = () => { base.media = 'all'; };"
    " if (base.sheet) use(); else base.addEventListener('load', use); }</script>"
)
_NOT_OURS = re.compile(r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>')
_FRAMES = re.compile(r"<script>\s*\(\(\) => \{\s*const root =.*?</script>", re.DOTALL)  # it may not be framed
# Whatever a proxy does to the Host or the path, the browser knows where the page came from. And Svelte has every read
# of a plain object go through a proxy: looking up the events of each component so was a third of opening the page.
# The tab of the address is the first one to be made, instead of the second. An event that follows another is found by
# that one; for the target that Gradio writes beside it, nothing, it would search the whole page, at each event again.
_BEFORE = """<script>{
  const { dependencies, components } = window.gradio_config;
  window.gradio_config.root = new URL(".", document.baseURI).href.replace(/\\/$/, "");
  class AsItIs {}
  for (const each of [...dependencies, ...components]) Object.setPrototypeOf(each, AsItIs.prototype);
  for (const each of dependencies) each.targets = each.targets.filter(([component]) => component !== null);
  const asked = new URLSearchParams(window.location.search).get("tab");
  const known = components.some(({ type, props }) => type === "tabitem" && props.elem_id === `wb-tab-${asked}`);
  if (known) components.find(({ props }) => props.elem_id === "wb-tabs").props.selected = asked;
  window.workbench.early.begin(components, SCRIPT);
}</script>"""
_FAILED = """<script>document.querySelector("#wb-opening p").textContent =
  "The server could not make the page; its log says why.";</script>"""

log = logging.getLogger("workbench")


class Parts:
    """The document in two parts, by the template of the installed Gradio. ValueError if it is not the known one."""

    def __init__(self, template: str) -> None:
        head, found, rest = template.partition(CONFIGURATION)
        body, style = _BODY.search(rest), _STYLE.search(rest)
        if not found or body is None or style is None or "</head>" not in rest or MODE not in rest:
            raise ValueError("the document of the installed Gradio is not the known one")
        doctype = head[: head.index("<head>")]
        self._head = f'{doctype}<head><meta charset="utf-8"><base href="./">'
        self._head += '<meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover">'
        self._head += f"<title>mygpt2 workbench</title>{look.icon()}"
        self._begin = f"{style.expand(_STYLE_LATER)}</head>{body[0]}{_opening()}"
        self._before = _BEFORE.replace("SCRIPT", json.dumps(early_script()).replace("<", "\\u003c"))
        self._ours = look.style() + look.head()
        self._gone = ("</head>", body[0], style[0])

    def opening(self, asked: Headers, nonce: str) -> str:
        """What is seen until the page is there. `asked`: the headers of the request."""
        ours = ""
        for name, content in (("wb-host", asked.get("host", "")), ("wb-link", "1" if by_link(asked) else "")):
            ours += f'<meta name="{name}" content="{escape(content)}">'
        return _signed(f"{self._head}{ours}{self._begin}", nonce)

    def rest(self, text: str, nonce: str) -> str:
        """The page's own styles and scripts, and Gradio's document without what `opening` has. ValueError as above."""
        _, found, rest = text.partition(CONFIGURATION)
        if not found or any(gone not in rest for gone in self._gone) or MODE not in rest:
            raise ValueError("the document of the installed Gradio is not that of its template")
        for gone in self._gone:
            rest = rest.replace(gone, "", 1)
        rest = _FRAMES.sub("", rest.replace(MODE, self._before + MODE, 1))
        return _signed(f"{self._ours}{found}{_NOT_OURS.sub('', rest)}", nonce)


def _signed(text: str, nonce: str) -> str:
    return text.replace("<script", f'<script nonce="{nonce}"')  # Gradio writes "<" as \u003c within its JSON


def _opening() -> str:
    """What stands there until the page's header does, in the colours that it will have. These bytes come first."""
    mark = (look.ASSETS / "icon.svg").read_text(encoding="utf-8")
    tabs = "".join(f'<span data-opens="{name}">{name.capitalize()}</span>' for name in TABS)
    return (
        f"<style>{look.colours('#wb-opening', choice=True)}{look.asset('opening.css')}</style>"
        f'<div id="wb-opening"><div><div class="top">{mark}mygpt2 workbench</div><div class="tabs" aria-hidden="true">'
        f'{tabs}</div><p role="status">Loading …</p><noscript><p>This page needs JavaScript.</p></noscript>'
        f'<div class="rest" aria-hidden="true"><i></i><i></i><i></i></div></div></div>'
        f"<script>{look.asset('opening.js')}</script>"
    )


class Document:
    """ASGI middleware: the page as `Parts` makes it, compressed, under a policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        import gradio

        template = Path(gradio.__file__).parent / "templates" / "frontend" / "index.html"
        self.app, self.parts = app, Parts(template.read_text(encoding="utf-8"))
        self._gradio: str | None = None
        self._asking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        asked, nonce = Headers(scope=scope), secrets.token_urlsafe(16)
        packer = Packer(encoding_of(asked.get("accept-encoding", "")))
        headers = [("content-type", "text/html; charset=utf-8"), ("cache-control", "no-store"),
                   ("vary", "Accept-Encoding"), ("content-security-policy", PAGE_POLICY.format(nonce=nonce)),
                   ("content-encoding", packer.encoding), ("x-accel-buffering", "no")]  # fmt: skip
        raw = [(name.encode(), value.encode()) for name, value in headers if value != "identity"]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        first = packer.part(self.parts.opening(asked, nonce).encode())
        await send({"type": "http.response.body", "body": first, "more_body": True})
        try:
            rest = self.parts.rest(await self._gradios(scope, receive), nonce)
        except Exception as error:  # the page has begun: it can only say so itself
            log.exception("the page could not be made", exc_info=error)
            rest = _signed(_FAILED, nonce)
        await send({"type": "http.response.body", "body": await asyncio.to_thread(packer.end, rest.encode())})

    async def _gradios(self, scope: Scope, receive: Receive) -> str:
        """What Gradio has for the page, asked once. RuntimeError if it has something else.

        It is the same for all: nothing of a request is passed on that could make it another, not host (see _BEFORE),
        cookie nor query, which is read by the page's own script.
        """
        async with self._asking:
            if self._gradio is None:
                self._gradio = await self._asked(
                    {**scope, "headers": [(b"host", b"localhost")], "query_string": b""}, receive
                )
        return self._gradio

    async def _asked(self, scope: Scope, receive: Receive) -> str:
        status, body = 0, bytearray()

        async def gather(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                body.extend(message.get("body", b""))

        await self.app(scope, receive, gather)
        if status != 200:
            raise RuntimeError(f"Gradio answered for its page with {status}")
        return body.decode()
