"""Every address that the installed Gradio registers, judged; and what a link, a file or a proxy gets out of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.workbench.conftest import make_run
from workbench.addresses import AT_ONCE, REFUSED, SERVED, Turns, serves
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.server import Options, _uploads, application, page, running

PORT, PREFIX = 7860, "/wb"
HERE = f"http://127.0.0.1:{PORT}"


def registered(routes: Any, prefix: str = "") -> Iterator[tuple[str, frozenset[str]]]:
    """Path template and methods of each route, in whatever it is wrapped."""
    for route in routes:
        methods, path = getattr(route, "methods", None), getattr(route, "path", "")
        if methods:
            yield prefix + path, frozenset(methods)
            continue
        inner = getattr(route, "original_router", route)
        assert hasattr(inner, "routes"), f"a kind of route that nobody judged: {route!r}"
        yield from registered(inner.routes, prefix + path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs").resolve()
    make_run(runs, "one", 5)
    return runs


@pytest.fixture(scope="module")
def context(runs: Path) -> Context:
    return Context(runs, (runs,), Jobs(runs, ["cpu"]))


@pytest.fixture(scope="module")
def blocks(context: Context) -> Any:
    return page(context)


@pytest.fixture(scope="module", params=["", PREFIX], ids=["at the root", "under a prefix"])
def client(request: pytest.FixtureRequest, blocks: Any, runs: Path, context: Context) -> Iterator[Any]:
    app = application(blocks, Options(runs, (runs,), root_path=request.param), PORT, context)
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client


def test_every_address_of_the_installed_gradio_is_judged() -> None:
    import gradio as gr
    from gradio.routes import App

    with gr.Blocks() as empty:
        gr.HTML("")
    found = dict.fromkeys(SERVED, frozenset[str]()) | dict.fromkeys(REFUSED, frozenset[str]())
    judged = set(found)
    for path, methods in registered(App.create_app(empty).routes):
        found[path] = found.get(path, frozenset()) | methods
    assert set(found) == judged, "judge what is new in workbench/addresses.py"
    assert not set(SERVED) & set(REFUSED)
    gone = [path for path, methods in found.items() if not methods]
    assert not gone, f"no longer registered: {gone}"
    for path, (methods, _) in SERVED.items():
        assert set(methods) <= found[path], path


FILLED = {"{url_path:path}": "http://127.0.0.1:1/x", "{path_or_url:path}": "http://127.0.0.1:1/x",
          "{path:path}": "x.js", "{api_name}": "list_runs", "{event_id}": "abc", "{session_hash}": "abc"}  # fmt: skip


def address(template: str) -> str:
    for name, value in FILLED.items():
        template = template.replace(name, value)
    return template


@pytest.mark.parametrize("template", REFUSED)
def test_a_refused_address_is_not_there_by_any_method_nor_under_the_prefix(client: Any, template: str) -> None:
    if template in ("/login", "/login/", "/logout"):  # without a password the own ones are not there either
        assert client.get(template).status_code == 404
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for prefix in ("", PREFIX):
            answer = client.request(method, prefix + address(template))
            assert answer.status_code == 404 and "gradio" not in answer.text.lower(), (method, template)


@pytest.mark.parametrize("path", ["/gradio_api/file=/etc/passwd", "/gradio_api/file%3Dhttp://127.0.0.1:1/x",
                                  "/gradio_api/file/etc/passwd", "/gradio_api/proxy=http://127.0.0.1:1/x",
                                  "//gradio_api/file=http://127.0.0.1:1/x", "/wb/wb/gradio_api/file=/etc/passwd",
                                  "/assets/../../../../../../etc/passwd", "/assets/%2e%2e/%2e%2e/index.html",
                                  "/%0A", "/assets%0A/x.js", "/gradio_api/file=http:/127.0.0.1:1/x"])  # fmt: skip
def test_no_spelling_of_a_file_or_a_proxy_gets_through(client: Any, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (403, 404) and "root:" not in answer.text


def test_what_is_served_is_no_document_and_the_page_has_a_nonce_and_no_foreign_source(client: Any) -> None:
    for path in ("/theme.css", "/config", "/static/img/logo.svg", "/nothing"):
        headers = client.get(path).headers
        assert "sandbox" in headers["content-security-policy"], path
        assert headers["x-content-type-options"] == "nosniff", path
    first, second = client.get("/"), client.get("/")
    policy = first.headers["content-security-policy"]
    assert policy != second.headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["connect-src"] == "'self'" and directives["object-src"] == "'none'"
    assert directives["frame-ancestors"] == "'none'" and directives["base-uri"] == "'self'"
    assert "'unsafe-inline'" not in directives["script-src"] and "blob:" not in directives["script-src"]
    nonce = directives["script-src"].partition("'nonce-")[2].partition("'")[0]
    scripts = first.text.count("<script")
    assert scripts > 3 and first.text.count(f'<script nonce="{nonce}"') == scripts
    assert "https://raw.githubusercontent.com" not in first.text and "manifest.json" not in first.text
    assert "iframeResizer.contentWindow" not in first.text


def test_only_uploads_may_be_sent_as_forms(client: Any) -> None:
    for path in ("/gradio_api/component_server/", "/gradio_api/run/predict", "/gradio_api/queue/join"):
        assert client.post(path, files={"files": b"x"}).status_code == 404
    assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 200


CROSS = ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "http://evil.com"},
         {"origin": "null"}, {"referer": "http://evil.com/page"})  # fmt: skip


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_another_sites_page_gets_nothing_but_the_page_and_its_assets(client: Any, headers: dict[str, str]) -> None:
    for template, (methods, _) in SERVED.items():
        for method in methods:
            open_ = template in ("/", "/assets/{path:path}", "/static/{path:path}") and "origin" not in headers
            answer = client.request(method, address(template), headers=headers)
            assert (answer.status_code != 403) is open_, (method, template)


def test_a_link_may_open_the_page_and_a_frame_may_not(client: Any) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    answer = client.get("/?tab=data", headers=link)
    assert answer.status_code == 200 and answer.headers["x-frame-options"] == "DENY"


def test_a_rebound_name_gets_a_sentence_and_nothing_else(client: Any) -> None:
    for path in ("/", "/config", "/gradio_api/info", "/assets/x.js"):
        answer = client.get(path, headers={"host": "evil.com:7860"})
        assert answer.status_code == 400 and "--allow-host" in answer.text and "<" not in answer.text


def test_the_only_server_functions_of_the_page_are_our_own(blocks: Any) -> None:
    found = {}
    for block in blocks.blocks.values():
        for name in dir(type(block)):
            if getattr(getattr(type(block), name, None), "_is_server_fn", False):
                found[type(block).__name__, name] = block
    assert not found
    functions = {name for block in blocks.blocks.values() for name, value in vars(block).items()
                 if getattr(value, "_is_server_fn", False)}  # fmt: skip
    assert {"chart_points", "chart_table"} <= functions


def test_a_file_that_names_an_address_does_not_make_the_server_fetch_it(
    client: Any, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample that looks like one of Gradio's files: Gradio would download it on the way out."""
    import safehttpx

    fetched: list[str] = []
    monkeypatch.setattr(safehttpx, "get", lambda url, *rest, **more: fetched.append(url))
    forged = {"step": 5, "text": {"path": "http://example.org/x", "meta": {"_type": "gradio.FileData"}}}
    with (runs / "one" / "samples.jsonl").open("a") as file:
        file.write(json.dumps(forged) + "\n")
    answer = client.post("/gradio_api/run/samples", json={"data": ["one", 0]})
    assert not fetched and answer.status_code in (200, 500)


@pytest.mark.parametrize("path", ["{0}/secret.toml", "{1}/../{0}/secret.toml", "/dev/zero"])
def test_a_request_that_names_a_file_nobody_uploaded_is_refused(
    client: Any, blocks: Any, tmp_path: Path, path: str
) -> None:
    """An upload is told to a handler by its path; any other path would be copied into the cache, and read."""
    from gradio.utils import get_upload_folder

    (tmp_path / "secret.toml").write_text("[train]\nsteps = 77123\n")
    before = set(Path(get_upload_folder()).rglob("*"))
    forged = {"path": path.format(tmp_path, get_upload_folder()), "meta": {"_type": "gradio.FileData"}}
    for number, button in ((number, function) for number, function in blocks.fns.items() if _takes_a_file(function)):
        rest = [None] * (len(button.inputs) - 1)
        body = {"data": [forged, *rest], "fn_index": number, "session_hash": "a"}
        answer = client.post("/gradio_api/run/predict", json=body)
        assert answer.status_code >= 400 and "77123" not in answer.text
    assert client.post("/gradio_api/run/configuration", json={"data": [forged]}).status_code == 500
    assert set(Path(get_upload_folder()).rglob("*")) == before


def _takes_a_file(function: Any) -> bool:
    return bool(function.inputs) and type(function.inputs[0]).__name__ == "UploadButton"


def test_serves_judges_whole_paths() -> None:
    assert serves("GET", "/") and not serves("POST", "/") and not serves("GET", "/x") and not serves("GET", "/\n")


def test_uploads_go_when_the_server_ends_and_after_an_hour(blocks: Any, runs: Path, context: Context) -> None:
    app = application(blocks, Options(runs, (runs,)), PORT, context)
    with TestClient(app, base_url=HERE) as client:
        (path,) = client.post("/gradio_api/upload", files={"files": ("log.csv", b"x")}).json()
        assert Path(path).is_file()
    assert not Path(path).exists() and blocks.delete_cache == (600, 3600)


def test_the_folder_for_uploads_cannot_be_made_before_by_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    names = (f"workbench-{os.getpid()}-alive", "workbench-notes", "workbench-99999999-link")
    kept = [tmp_path / name for name in names]
    gone = tmp_path / "workbench-99999999-killed"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    for path in (*kept, gone):
        path.symlink_to(tmp_path / "elsewhere") if path.name.endswith("link") else path.mkdir()
    first, second = Path(_uploads()), Path(_uploads())
    assert first != second and first.stat().st_mode & 0o777 == 0o700
    assert not gone.exists() and all(path.exists() for path in kept) and (tmp_path / "elsewhere" / "file").exists()


def test_calls_of_the_api_take_turns_and_the_page_waits_for_none_of_them() -> None:
    at_work, most, gate = 0, 0, asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal at_work, most
        at_work, most = at_work + 1, max(most, at_work + 1)
        await gate.wait()
        at_work -= 1

    async def page_app(scope: Any, receive: Any, send: Any) -> None:
        gate.set()

    async def crowd() -> None:
        turns = Turns(app, ["metrics"])
        call = {"type": "http", "path": "/gradio_api/run/metrics"}
        calls = [asyncio.create_task(turns(call, None, None)) for _ in range(10)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        turns.app = page_app
        await turns({"type": "http", "path": "/gradio_api/run/predict"}, None, None)  # type: ignore[arg-type]
        turns.app = app
        await asyncio.gather(*calls)

    asyncio.run(crowd())
    assert most == AT_ONCE and at_work == 0


def test_a_server_answers_once_it_has_started_however_long_that_takes() -> None:
    started, waiting = threading.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await PlainTextResponse("here")(scope, receive, send)
            return
        await receive()
        waiting.set()
        await asyncio.to_thread(started.wait)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    listening = socket.create_server(("127.0.0.1", 0))
    answers: list[str] = []

    def ask() -> None:
        with running(app, listening):
            answers.append(httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}/", trust_env=False).text)

    asking = threading.Thread(target=ask)
    asking.start()
    assert waiting.wait(60) and not answers and asking.is_alive()
    started.set()
    asking.join(60)
    assert answers == ["here"]


def test_no_answer_waits_until_its_head_was_acknowledged() -> None:
    found: list[int] = []

    def told(request: Request) -> PlainTextResponse:
        ends = request.scope["server"], request.scope["client"]
        ours = [each.fd for each in psutil.Process().net_connections("tcp") if (each.laddr, each.raddr) == ends]
        with socket.socket(fileno=os.dup(ours[0])) as connection:
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        return PlainTextResponse("here")

    listening = socket.create_server(("127.0.0.1", 0))
    with running(Starlette(routes=[Route("/", told)]), listening):
        httpx.get(f"http://127.0.0.1:{listening.getsockname()[1]}/", trust_env=False)
    assert len(found) == 1 and found[0] != 0


def test_a_server_that_cannot_start_says_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    listening = socket.create_server(("127.0.0.1", 0))
    with pytest.raises(RuntimeError, match="ended while it started"), running(app, listening):
        pass
