"""Scripts and styles that do not change while the server runs: compressed once, kept at hand, announced with the page.

Gradio compresses a file anew for every page that asks for it (plotly.js has 4.8 MB) and lets no browser keep it; and a
page asks for plotly.js only when the first chart is mounted, at the end of all else.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BROTLI_QUALITY = 5  # beyond it plotly.js takes seconds
NAME = re.compile(r"[\w.-]+\.(js|css)")
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}
KEEP = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
OPENING_SECONDS, MOST = 5.0, 120  # of the first page, and of files in a Link header
# Chromium then compiles every function beside the page while the file arrives, and not one by one while it runs, which
# saves the page's thread 0.1 to 0.3 s. Other browsers see a comment.
EAGER = b"//# allFunctionsCalledOnLoad\n"


class Shelf:
    """Files by the path of their address. Only what is listed, or lies in the folder `assets`, can be had.

    `assets`: the folder behind /assets/, whose names change with their content. `files`: other addresses. `eager`:
    scripts that run as a whole as soon as they are there, and what of each is sent. Usable from any thread; one per
    server.
    """

    def __init__(
        self, assets: Path | None, files: Mapping[str, Path], eager: Mapping[Path, Callable[[bytes], bytes]] = {}
    ) -> None:
        self._assets, self._files, self._eager = assets, dict(files), dict(eager)
        self._packed: dict[tuple[Path, str], bytes] = {}
        self._opened: float | None = None
        self._asked: dict[str, None] = {}

    def find(self, address: str) -> Path | None:
        """The file behind an address's path, or None."""
        if address in self._files:
            return self._files[address]
        folder, _, name = address.rpartition("/")
        if self._assets is None or folder != "/assets" or not NAME.fullmatch(name):
            return None
        path = self._assets / name
        return path if path.is_file() else None

    def packed(self, path: Path, encoding: str) -> bytes:
        """A file's content under a content encoding: br, gzip or identity. OSError if it cannot be read."""
        key = (path, encoding)
        if key not in self._packed:
            content, sent = path.read_bytes(), self._eager.get(path)
            self._packed[key] = pack(EAGER + sent(content) if sent else content, encoding)
        return self._packed[key]

    def opening(self) -> str:
        """A page opens: the Link header of what the first one asked for while it opened, "" for the first itself.

        A browser learns of a page's modules one after another, each from the one before; all later pages get the list.
        """
        if self._opened is None:
            self._opened = time.monotonic()
        return ", ".join(_link(address) for address in list(self._asked))

    def asked(self, address: str) -> None:
        """Remembers a module or style sheet that the first page asked for, within OPENING_SECONDS."""
        if self._opened is not None and time.monotonic() - self._opened < OPENING_SECONDS and len(self._asked) < MOST:
            self._asked.setdefault(address)

    def is_packed(self, path: Path, encoding: str) -> bool:
        return (path, encoding) in self._packed

    def prepare(self, addresses: Iterable[str]) -> None:
        """Packs these files beside the server, so that the first page need not wait for it."""
        paths = [path for address in addresses if (path := self.find(address))]

        def pack() -> None:
            for path in paths:
                self.packed(path, "br")

        threading.Thread(target=pack, daemon=True, name="shelf").start()


class Served:
    """ASGI middleware: what is on the shelf comes from there, and the page says which files it will need.

    `early`: from the query of a page's address to what else its Link header says; None: no such header at all.
    """

    def __init__(self, app: ASGIApp, shelf: Shelf, early: Callable[[str], str] | None) -> None:
        self.app, self.shelf, self.early = app, shelf, early

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        path = self.shelf.find(scope["path"])
        if path is not None:
            if scope["path"].startswith("/assets/"):
                self.shelf.asked(scope["path"])
            await (await self._answer(scope, path))(scope, receive, send)
            return
        links = self._links(scope) if scope["path"] == "/" and self.early else ""
        await self.app(scope, receive, _announcing(send, links) if links else send)

    def _links(self, scope: Scope) -> str:
        curves = self.early(scope["query_string"].decode("latin-1")) if self.early else ""
        return ", ".join(filter(None, (self.shelf.opening(), curves)))

    async def _answer(self, scope: Scope, path: Path) -> Response:
        headers = Headers(scope=scope)
        encoding = encoding_of(headers.get("accept-encoding", ""))
        if not self.shelf.is_packed(path, encoding):
            await asyncio.to_thread(self.shelf.packed, path, encoding)
        named_by_content = scope["path"].startswith("/assets/") or scope["query_string"].startswith(b"v=")
        answer = Response(self.shelf.packed(path, encoding), media_type=TYPES[path.suffix])
        answer.headers["cache-control"] = KEEP if named_by_content else ASK_AGAIN
        answer.headers["vary"] = "Accept-Encoding"
        if encoding != "identity":
            answer.headers["content-encoding"] = encoding  # Gradio's own compression passes over whatever names one
        return answer


def front(*, root_path: str) -> tuple[Shelf, Callable[[str], str] | None]:
    """The workbench's shelf, being filled, and what its page announces.

    Under a proxy's prefix a Link would have to name it, so there is none.
    """
    import gradio

    from workbench.charts.bundle import lean
    from workbench.charts.component import announcement, plotly, served_files

    assets = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
    files = served_files()
    shelf = Shelf(assets if assets.is_dir() else None, files, {plotly(): lean})
    shelf.prepare(files)
    links = announcement()
    return shelf, None if root_path else lambda query: links if shows_curves(query) else ""


def shows_curves(query: str) -> bool:
    """Whether a page with this query begins with the monitor, for all that the query tells."""
    asked = dict(parse_qsl(query))
    return asked.get("tab", "monitor" if asked.get("runs") else "") == "monitor"


def _link(address: str) -> str:
    return f"<{address}>; rel=" + ("modulepreload" if address.endswith(".js") else "preload; as=style; crossorigin")


def _announcing(send: Send, links: str) -> Send:
    async def with_links(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            message.setdefault("headers", []).append((b"link", links.encode("latin-1")))
        await send(message)

    return with_links


def encoding_of(accepted: str) -> str:
    """The best of those a browser accepts; browsers take brotli over https and from this machine only."""
    names = {part.partition(";")[0].strip() for part in accepted.lower().split(",")}
    return next((name for name in ("br", "gzip") if name in names), "identity")


def pack(content: bytes, encoding: str) -> bytes:
    """Content under a content encoding: br, gzip or identity."""
    if encoding == "br":
        import brotli

        packed: bytes = brotli.compress(content, mode=brotli.MODE_TEXT, quality=BROTLI_QUALITY)
        return packed
    return gzip.compress(content, 6) if encoding == "gzip" else content


class Packer:
    """Content under a content encoding, part by part: what was given can be read as soon as it has arrived."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        if encoding == "br":
            import brotli

            self._brotli = brotli.Compressor(mode=brotli.MODE_TEXT, quality=BROTLI_QUALITY)
        self._gzip = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)

    def part(self, content: bytes) -> bytes:
        if self.encoding == "br":
            return bytes(self._brotli.process(content) + self._brotli.flush())
        return (
            self._gzip.compress(content) + self._gzip.flush(zlib.Z_SYNC_FLUSH) if self.encoding == "gzip" else content
        )

    def end(self, content: bytes) -> bytes:
        """The last part."""
        if self.encoding == "br":
            return bytes(self._brotli.process(content) + self._brotli.finish())
        return self._gzip.compress(content) + self._gzip.flush() if self.encoding == "gzip" else content
