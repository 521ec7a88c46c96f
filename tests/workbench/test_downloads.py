"""Points as a file: streamed, named after its runs, and refused in a sentence."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.workbench.charts.made_up import Folder, new_run, write_steps
from workbench.downloads import Downloads


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    async def beyond(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b"beyond"})

    for name in ("a", "b"):
        write_steps(new_run(tmp_path, name), 1, 5)
    return TestClient(Downloads(beyond, Folder(tmp_path).run))


def test_the_points_of_runs_are_one_file_that_is_named_after_them(client):
    found = client.get("/points.csv", params={"runs": "a,b,a"})
    lines = found.text.splitlines()
    assert found.status_code == 200 and len(lines) == 1 + 10 and lines[0].startswith("run,step,attempt,")
    assert found.headers["content-disposition"] == 'attachment; filename="a-b.csv"'
    assert found.headers["content-type"].startswith("text/csv") and found.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("runs", ["", "nobody", "a,nobody", "../a", "a/..", '"\r\nx: y'])
def test_runs_that_are_none_are_refused_in_a_sentence(client, runs):
    found = client.get("/points.csv", params={"runs": runs})
    assert found.status_code == 404 and found.text and "Traceback" not in found.text
    assert found.headers["content-type"].startswith("text/plain")


def test_everything_else_goes_on(client):
    assert client.get("/points").text == client.post("/points.csv").text == "beyond"
