"""Files kept at hand: only those that are meant, whole under every encoding, and announced to later pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from workbench import shelf as shelves
from workbench.shelf import EAGER, Served, Shelf, shows_curves

CHART = "/gradio_api/file=/somewhere/chart.js"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "index-abc.js").write_text("let a = 1;\n" * 500)
    (tmp_path / "assets" / "index-abc.css").write_text("a { color: red }\n" * 500)
    (tmp_path / "assets" / "page.html").write_text("no script")
    (tmp_path / "secret.js").write_text("hidden")
    (tmp_path / "chart.js").write_text("chart();\n" * 500)
    return tmp_path


@pytest.fixture
def shelf(folder: Path) -> Shelf:
    return Shelf(folder / "assets", {CHART: folder / "chart.js"}, {folder / "chart.js": bytes.upper})


def browser(shelf: Shelf, early: Any = lambda query: "") -> TestClient:
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("the page")),
                            Route("/{path:path}", lambda request: PlainTextResponse("not here", 404))])  # fmt: skip
    return TestClient(Served(app, shelf, early))


NOT_THERE = ("/assets/../secret.js", "/assets/sub/x.js", "/assets/page.html", "/secret.js", "/assets/absent.js",
             "/assets/..", "/assets/", "/gradio_api/file=/etc/passwd")  # fmt: skip


@pytest.mark.parametrize("address", NOT_THERE)
def test_nothing_but_what_is_listed_is_had(shelf: Shelf, address: str) -> None:
    assert shelf.find(address) is None


@pytest.mark.parametrize("accepted, encoding", [("gzip, deflate, br, zstd", "br"), ("gzip, deflate", "gzip"),
                                                ("identity", None)])  # fmt: skip
def test_a_file_arrives_whole_under_every_encoding(shelf: Shelf, folder: Path, accepted: str, encoding: Any) -> None:
    answer = browser(shelf).get("/assets/index-abc.js", headers={"accept-encoding": accepted})
    assert answer.headers.get("content-encoding") == encoding and answer.headers["vary"] == "Accept-Encoding"
    assert answer.content == (folder / "assets" / "index-abc.js").read_bytes()  # decoded by the client
    assert answer.headers["content-type"].startswith("text/javascript")


def test_what_runs_as_a_whole_says_so_first_and_only_what_is_needed_of_it_is_sent(shelf: Shelf, folder: Path) -> None:
    assert browser(shelf).get(CHART).content == EAGER + (folder / "chart.js").read_bytes().upper()


@pytest.mark.parametrize("address, kept", [("/assets/index-abc.css", True), (f"{CHART}?v=1", True), (CHART, False)])
def test_a_browser_keeps_what_is_named_by_its_content(shelf: Shelf, address: str, kept: bool) -> None:
    assert ("immutable" in browser(shelf).get(address).headers["cache-control"]) is kept


def test_what_the_first_page_asked_for_is_announced_to_the_next(shelf: Shelf) -> None:
    page = browser(shelf, lambda query: "</chart.js>; rel=preload" if "runs" in query else "")
    assert "link" not in page.get("/").headers
    for name in ("index-abc.js", "index-abc.css"):
        page.get(f"/assets/{name}")
    modules = "</assets/index-abc.js>; rel=modulepreload, </assets/index-abc.css>; rel=preload; as=style; crossorigin"
    assert page.get("/").headers["link"] == modules
    assert page.get("/?runs=a").headers["link"] == f"{modules}, </chart.js>; rel=preload"
    assert "link" not in page.get("/other").headers and "link" not in browser(shelf, None).get("/").headers


def test_what_is_asked_for_later_is_not(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "OPENING_SECONDS", 0.0)
    page = browser(shelf)
    page.get("/")
    page.get("/assets/index-abc.js")
    assert "link" not in page.get("/").headers


QUERIES = {"tab=monitor": True, "runs=a,b": True, "tab=monitor&runs=a": True,
           "": False, "tab=train": False, "tab=compare&runs=a": False}  # fmt: skip


@pytest.mark.parametrize("query, curves", QUERIES.items())
def test_plotly_is_announced_where_curves_are_to_be_seen(query: str, curves: bool) -> None:
    assert shows_curves(query) is curves
