"""What tells a page at rest that something has changed. That it then asks is held by test_frame.py."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from mygpt2.files import replace_json
from tests.workbench.conftest import make_run
from workbench import changes
from workbench.changes import Changes, stamp


def test_the_stamp_is_another_one_for_whatever_a_page_shows(tmp_path: Path) -> None:
    seen = {stamp(tmp_path)}

    def is_new() -> bool:
        before = len(seen)
        seen.add(stamp(tmp_path))
        return len(seen) > before

    run = make_run(tmp_path, "one", 3)
    assert is_new() and not is_new()
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    assert is_new()
    replace_json(run / "status.json", {"state": "running"})
    assert is_new()
    for path in (".workbench/jobs/a.json", ".workbench/ended/a.json", ".workbench/tasks/1/task.json", "two/x"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        replace_json(tmp_path / path, {})
        assert is_new(), path
    run.rename(tmp_path / "another")
    assert is_new() and not is_new()


def asked(runs: Path, *since: str, then: Any = None) -> list[dict[str, str]]:
    """Answers to these questions, asked one after another; `then` is called while the last one waits."""

    async def ask() -> list[dict[str, str]]:
        app = Changes(PlainTextResponse("else"), runs)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            assert (await client.get("/")).text == "else"
            found = []
            for number, each in enumerate(since):
                going = asyncio.ensure_future(client.get("/changes", params={"since": each} if each else {}))
                if then and number == len(since) - 1:
                    await asyncio.sleep(0)
                    then()
                found.append((await going).json())
            return found

    return asyncio.run(ask())


def test_a_question_waits_until_there_is_something_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "EVERY_SECONDS", 0.01)
    now = stamp(tmp_path)
    first, old, new = asked(tmp_path, "", "of-yesterday", now, then=lambda: (tmp_path / "run").mkdir())
    assert first == old == {"stamp": now} and new == {"stamp": stamp(tmp_path)} != first
    monkeypatch.setattr(changes, "HOLD_SECONDS", 0.0)
    assert asked(tmp_path, stamp(tmp_path)) == [new], "without news it ends some day"


def test_a_page_that_goes_away_is_waited_for_no_longer(tmp_path: Path) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/changes", "headers": []}
    scope["query_string"] = b"since=" + stamp(tmp_path).encode()
    asyncio.run(asyncio.wait_for(Changes(PlainTextResponse(""), tmp_path)(scope, receive, send), 20))
    assert json.loads(sent[-1]["body"])
