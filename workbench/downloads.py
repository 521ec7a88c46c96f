"""What a browser saves as a file while the server is still making it: the points of runs as CSV.

Through a component's answer the text of a long run would be held whole by the server, by Gradio and by the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from workbench.charts.table import table_csv
from workbench.charts.view import MAX_RUNS

PATH = "/points.csv"


class Downloads:
    """ASGI middleware: GET /points.csv?runs=A,B is every point of these runs, see `table_csv`. 404 with a sentence for
    runs that are none or cannot be read."""

    def __init__(self, app: ASGIApp, run: Callable[[str], RunDir]) -> None:
        self.app, self._run = app, run

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        query = parse_qs(scope["query_string"].decode("latin-1"))
        response = await run_in_threadpool(self._table, query.get("runs", [""])[0])
        await response(scope, receive, send)

    def _table(self, names: str) -> Response:
        try:
            runs = [self._run(name) for name in list(dict.fromkeys(names.split(",")))[:MAX_RUNS]]
            pieces = table_csv(runs)
            first = next(pieces)  # what cannot be read is told before anything is sent
        except UserError as error:
            return PlainTextResponse(str(error), 404)

        def every() -> Iterator[bytes]:
            yield first
            yield from pieces

        name = "-".join(run.name for run in runs)[:80]  # letters that a run's name may have are safe in a header
        headers = {"content-disposition": f'attachment; filename="{name}.csv"', "cache-control": "no-store"}
        return StreamingResponse(every(), media_type="text/csv; charset=utf-8", headers=headers)
