"""Tells an open page at once that something has changed, so that a page at rest need not ask.

A page asks /changes with the stamp it knows, and is answered when there is another one. It costs the server two looks
at each run a second, for all pages together, and nothing where none is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/changes"
EVERY_SECONDS = 1.0
HOLD_SECONDS = 25.0  # an answer without news; proxies give up on a silent one after 30 to 60 s
SHARE = 0.005  # of the time that may go into looking: a folder of thousands of runs is looked at less often


def stamp(runs: Path) -> str:
    """Another one once a run, the queue or a task of this folder has changed; and in another process.

    Status and settings of a run are replaced, which its folder's time tells; its metrics grow.
    """
    ours = runs / ".workbench"
    seen = [_seen(str(path)) for path in (runs, ours, ours / "jobs", ours / "ended", ours / "alerts.jsonl")]
    for folder, more in ((ours / "tasks", ""), (runs / "_experiments", ""), (runs, "/metrics.jsonl")):
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    seen.append(_seen(entry.path))
                    if more:
                        seen.append(_seen(entry.path + more))
    return f"{hash(tuple(seen)) & 0xFFFFFFFFFFFFFFFF:x}"


def _seen(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None  # what is not there is seen when it comes
    return found.st_mtime_ns, found.st_size, found.st_ino


class Changes:
    """ASGI middleware: GET /changes?since=STAMP is answered with {"stamp": another one}, or with the same after
    HOLD_SECONDS. Without `since` at once."""

    def __init__(self, app: ASGIApp, runs: Path) -> None:
        self.app, self._runs = app, runs
        self._stamp, self._looked, self._pause = "", 0.0, EVERY_SECONDS
        self._looking = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        since = parse_qs(scope["query_string"].decode("latin-1")).get("since", [""])[0]
        gone = asyncio.ensure_future(_left(receive))
        try:
            ends = time.monotonic() + HOLD_SECONDS
            while (now := await self._now()) == since and time.monotonic() < ends and not gone.done():
                await asyncio.wait([gone], timeout=self._pause)
        finally:
            gone.cancel()
        await JSONResponse({"stamp": now}, headers={"cache-control": "no-store"})(scope, receive, send)

    async def _now(self) -> str:
        """The stamp, looked for once for all that wait."""
        async with self._looking:
            began = time.monotonic()
            if began - self._looked >= 0.9 * self._pause:
                self._stamp = await asyncio.to_thread(stamp, self._runs)
                self._looked = time.monotonic()
                self._pause = max(EVERY_SECONDS, (self._looked - began) / SHARE)
            return self._stamp


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
