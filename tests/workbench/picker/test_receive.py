"""The address of uploads, behind all that guards the page: other sites, the password, read-only, lost connections."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from workbench.login import Login
from workbench.picker.incoming import Incoming
from workbench.picker.receive import ADDRESS, Receiving
from workbench.security import Door, Guard, allowed_hosts

BATCH = "0123456789abcdef" * 2
OURS = {"x-workbench": "upload"}
TEXT = b"The quick brown fox. " * 10


async def page(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("the page")(scope, receive, send)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def finished(work: Coroutine[Any, Any, None]) -> None:
    """Runs it to its end, in a thread of its own: a browser of another test may have a loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


def client(runs: Path, password: str | None = None, refused: str = "") -> TestClient:
    receiving = Receiving(page, Incoming(runs, []), refused)
    app = Guard(
        Login(receiving, Door(password), "workbench-7860", ""), allowed_hosts("127.0.0.1", 7860), any_host=False
    )
    return TestClient(app, base_url="http://127.0.0.1:7860")


def left(runs: Path) -> list[Path]:
    return [path for path in runs.rglob("*") if path.is_file()]


def test_files_arrive_whole_and_the_batch_is_chosen_by_its_path(runs: Path) -> None:
    browser = client(runs)
    address = f"{ADDRESS}{BATCH}?kind=data&name="
    answer = browser.put(f"{address}a%20b.txt", content=TEXT, headers=OURS)
    assert (answer.status_code, answer.json()) == (200, {"name": "a-b.txt"})
    answer = browser.post(f"{address}a", headers=OURS)
    path = runs / ".workbench" / "uploads" / "a-b.txt"
    assert answer.json() == {"value": str(path), "name": "a-b.txt"} and path.read_bytes() == TEXT


@pytest.mark.parametrize("headers", [
    {"origin": "http://evil.com"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"}, {"referer": "http://evil.com/x"}, {"host": "evil.com"},
])  # fmt: skip
def test_a_page_of_another_site_uploads_nothing(runs: Path, headers: dict[str, str]) -> None:
    browser = client(runs)
    for method in ("PUT", "POST", "DELETE", "OPTIONS"):
        answer = browser.request(
            method, f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=TEXT, headers={**OURS, **headers}
        )
        assert answer.status_code in (400, 403), method
        assert "access-control-allow-origin" not in answer.headers
    assert not left(runs)


def test_without_our_own_header_nothing_is_taken(runs: Path) -> None:
    browser = client(runs)
    assert browser.put(f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=TEXT).status_code == 403
    assert not left(runs)


def test_with_a_password_nobody_uploads_without_it(runs: Path) -> None:
    browser = client(runs, "a long password")
    answer = browser.put(f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=TEXT, headers=OURS)
    assert answer.status_code in (401, 403) and not left(runs)


def test_a_read_only_workbench_takes_nothing_and_says_so(runs: Path) -> None:
    browser = client(runs, refused="started with --read-only")
    answer = browser.put(f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=TEXT, headers=OURS)
    assert answer.status_code == 403 and "--read-only" in answer.json()["error"] and not left(runs)


@pytest.mark.parametrize(("query", "said"), [
    ("kind=data&name=..%2F..%2Fx.sh", "allowed: .txt"), ("kind=data&name=%00", "letters and digits"),
    ("kind=x&name=a.txt", "allowed: data"), ("", "cannot be chosen"), ("kind=data&name=%ff.docx", "allowed: .txt"),
])  # fmt: skip
def test_what_cannot_be_used_is_one_sentence(runs: Path, query: str, said: str) -> None:
    browser = client(runs)
    answer = browser.put(f"{ADDRESS}{BATCH}?{query}", content=TEXT, headers=OURS)
    assert answer.status_code == 422 and said in answer.json()["error"] and not left(runs)


def test_other_methods_and_batches_are_refused_and_other_addresses_passed_on(runs: Path) -> None:
    browser = client(runs)
    assert browser.get(f"{ADDRESS}{BATCH}").status_code == 405
    assert browser.put(f"{ADDRESS}..%2F..%2Fx?kind=data&name=a.txt", content=TEXT, headers=OURS).status_code in (
        422,
        405,
    )
    assert browser.get("/else").text == "the page"
    assert not left(runs)


def test_a_length_nobody_may_send_is_refused_at_once(runs: Path) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was asked for")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "PUT", "path": f"{ADDRESS}{BATCH}", "query_string": b"kind=data&name=a.txt",
             "headers": [(b"x-workbench", b"upload"), (b"content-length", b"9" * 30)], "scheme": "http",
             "server": ("127.0.0.1", 1)}  # fmt: skip
    finished(Receiving(page, Incoming(runs, []))(scope, receive, send))
    assert sent[0]["status"] == 422 and b"too large" in sent[1]["body"] and not left(runs)


def test_a_client_that_goes_away_leaves_nothing(runs: Path) -> None:
    messages = [{"type": "http.request", "body": TEXT, "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        raise AssertionError("nobody is there")

    scope = {"type": "http", "method": "PUT", "path": f"{ADDRESS}{BATCH}", "query_string": b"kind=data&name=a.txt",
             "headers": [(b"x-workbench", b"upload"), (b"content-length", b"1000000")], "scheme": "http",
             "server": ("127.0.0.1", 1)}  # fmt: skip
    receiving = Receiving(page, Incoming(runs, []))
    finished(receiving(scope, receive, send))
    assert not left(runs) and receiving._under_way == 0


def test_one_that_is_given_up_is_forgotten(runs: Path) -> None:
    browser = client(runs)
    browser.put(f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=TEXT, headers=OURS)
    assert len(left(runs)) == 1
    assert browser.delete(f"{ADDRESS}{BATCH}", headers=OURS).status_code == 200
    assert not left(runs)


def test_a_batch_given_up_while_a_file_of_it_arrives_is_told_in_a_sentence(runs: Path) -> None:
    browser, incoming = client(runs), Incoming(runs, [])

    def body() -> Any:
        yield TEXT
        incoming.drop(BATCH)
        yield TEXT

    answer = browser.put(f"{ADDRESS}{BATCH}?kind=data&name=a.txt", content=body(), headers=OURS)
    assert answer.status_code == 422 and "try again" in answer.json()["error"] and not left(runs)
