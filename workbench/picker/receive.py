"""The address that files are brought to: one request a file, then one that ends the batch.

    PUT    /workbench/upload/BATCH?kind=data&name=book.txt   the file itself as the body; {"name"}
    POST   /workbench/upload/BATCH?kind=data&name=my-books   the batch is complete; {"value", "name"}
    DELETE /workbench/upload/BATCH                           it was given up

A browser sends none of these for another site's page without asking first, and the guard before it refuses such pages
whatever they send. The body is streamed to the disk as it comes: no more than a megabyte of it is in memory.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mygpt2.errors import UserError
from workbench.picker.incoming import MOST_BYTES, Incoming, Part
from workbench.picker.kinds import kind_named

ADDRESS = "/workbench/upload/"
AT_ONCE = 6  # files on their way
GATHER = 1 << 20  # bytes that go to the disk together
_LENGTH = re.compile(r"\d{1,15}")


class Receiving:
    """ASGI middleware: takes uploads, passes on all else. `refused`: why nothing may be written here, "" if it may."""

    def __init__(self, app: ASGIApp, incoming: Incoming, refused: str = "") -> None:
        self.app, self._incoming, self._refused = app, incoming, refused
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(ADDRESS):
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer: Response = await self._answer(request)
        except UserError as error:
            answer = JSONResponse({"error": str(error)}, 422)
        except ClientDisconnect:
            return  # nobody is there to be told
        except OSError as error:  # such as a batch that was given up in another request while this one wrote to it
            answer = JSONResponse({"error": f"the upload was not kept: {error.strerror or error}; try again"}, 422)
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        acts = {"PUT": self._take, "POST": self._finish, "DELETE": self._drop}
        if request.method not in acts:
            return JSONResponse({"error": "send files here with PUT"}, 405, {"allow": ", ".join(acts)})
        if self._refused:
            return JSONResponse({"error": self._refused}, 403)
        if request.headers.get("x-workbench") != "upload":  # what a form of another page cannot send
            return JSONResponse({"error": "this is not the workbench's own page; load it again"}, 403)
        return await acts[request.method](request)

    async def _take(self, request: Request) -> Response:
        if self._under_way >= AT_ONCE:
            return JSONResponse({"error": f"{AT_ONCE} files are on their way already; try again in a moment"}, 429)
        self._under_way += 1
        try:
            return JSONResponse(await self._store(request))
        finally:
            self._under_way -= 1

    async def _store(self, request: Request) -> dict[str, Any]:
        kind, name = kind_named(request.query_params.get("kind")), request.query_params.get("name", "")
        size = _size(request.headers.get("content-length"))
        part = await asyncio.to_thread(self._incoming.open, _batch_of(request), kind, name, size)
        try:
            held = bytearray()
            async for chunk in request.stream():
                held += chunk
                if len(held) >= GATHER:
                    await asyncio.to_thread(part.write, bytes(held))
                    held.clear()
            return await asyncio.to_thread(_end, part, bytes(held), size)
        except BaseException:  # a client that went away and a server that ends as well: no half file stays
            part.discard()
            raise

    async def _finish(self, request: Request) -> Response:
        kind, name = kind_named(request.query_params.get("kind")), request.query_params.get("name", "")
        path = await asyncio.to_thread(self._incoming.finish, _batch_of(request), kind, name)
        return JSONResponse({"value": str(path), "name": path.name})

    async def _drop(self, request: Request) -> Response:
        await asyncio.to_thread(self._incoming.drop, _batch_of(request))
        return JSONResponse({})


def _end(part: Part, rest: bytes, size: int | None) -> dict[str, Any]:
    part.write(rest)
    return {"name": part.keep(size)}


def _batch_of(request: Request) -> str:
    return request.url.path.rpartition("/")[2]


def _size(text: str | None) -> int | None:
    """What the request says of its length; more than anybody may send counts as that."""
    if text is None:
        return None
    return int(text) if _LENGTH.fullmatch(text) else MOST_BYTES + 1
