"""The page's document: Gradio's, with something to see at once, the page's own scripts, and no inline script but ours.

Gradio's document begins with all of the page's configuration (some 400 kB) and says nothing until its modules have
arrived, names pictures on other hosts; and calls the server by whatever Host a proxy gave.
"""

from __future__ import annotations

import asyncio
import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench import look
from workbench.html import escape
from workbench.security import PAGE_POLICY, by_link
from workbench.shelf import encoding_of, pack

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
# Whatever a proxy does to the Host or the path, the browser knows where the page came from.
_ROOT = """<script>window.gradio_config.root = new URL(".", document.baseURI).href.replace(/\\/$/, "");</script>"""


def document(text: str, asked: Headers, nonce: str) -> str:
    """Gradio's document made ours. `asked`: the headers of the request. ValueError if it is not Gradio's."""
    head, found, rest = text.partition(CONFIGURATION)
    body, style = _BODY.search(rest), _STYLE.search(rest)
    if not found or body is None or style is None or "</head>" not in rest or MODE not in rest:
        raise ValueError("the document of the installed Gradio is not the known one")
    rest = rest.replace("</head>", "", 1).replace(body[0], "", 1).replace(MODE, _ROOT + MODE, 1)
    rest = _FRAMES.sub("", rest.replace(style[0], "", 1))
    ours = f"<title>mygpt2 workbench</title>{look.icon()}"
    for name, content in (("wb-host", asked.get("host", "")), ("wb-link", "1" if by_link(asked) else "")):
        ours += f'<meta name="{name}" content="{escape(content)}">'
    ours += f"{style.expand(_STYLE_LATER)}</head>"
    page = _NOT_OURS.sub("", f"{head}{ours}{body[0]}{_opening()}{look.head()}{found}{rest}")
    return page.replace("<script", f'<script nonce="{nonce}"')  # Gradio writes "<" as \\u003c within its JSON


def _opening() -> str:
    """What stands there until the page's header does."""
    return (
        f"<style>{look.colours('#wb-opening')}"
        "#wb-opening { position: fixed; inset: 0; z-index: 99; display: grid; place-content: center;"
        " text-align: center;"
        " padding: 2rem; background: var(--wb-paper); color: var(--wb-ink); font: 16px/1.5 system-ui, sans-serif; }"
        "#wb-opening p { max-width: 40rem; } body:has(.wb-head) #wb-opening:not(.wb-stays) { display: none; }</style>"
        '<div id="wb-opening" role="status"><div><strong>mygpt2 workbench</strong><p>The page is on its way.</p></div>'
        "</div>"
    )


class Document:
    """ASGI middleware: the page as `document` makes it, compressed, under a policy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        encoding = encoding_of(asked.get("accept-encoding", ""))
        start: list[Message] = []
        body = bytearray()

        async def gather(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            if message["type"] != "http.response.body":
                await send(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            await self._send(send, start[0], bytes(body), asked, encoding)

        await self.app({**scope, "headers": plain}, receive, gather)

    async def _send(self, send: Send, start: Message, body: bytes, asked: Headers, encoding: str) -> None:
        headers = MutableHeaders(raw=start["headers"])
        nonce = secrets.token_urlsafe(16)
        if body and start["status"] == 200:
            text = document(body.decode(), asked, nonce).encode()
            body = await asyncio.to_thread(pack, text, encoding)
            headers["content-length"] = str(len(body))
            if encoding != "identity":
                headers["content-encoding"] = encoding
        headers["content-security-policy"] = PAGE_POLICY.format(nonce=nonce)
        headers["cache-control"] = "no-store"
        headers["vary"] = "Accept-Encoding"
        await send(start)
        await send({"type": "http.response.body", "body": body})
