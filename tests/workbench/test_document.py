"""The page's document: the same whatever a request says; and the points of a link's runs are asked for early."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

from tests.workbench.conftest import Start, make_run


def _document(url: str, headers: dict[str, str]) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return re.sub(r'nonce="[^"]+"', "", answer.read().decode())


def test_the_document_is_the_same_whatever_the_query_or_a_cookie_says(workbench_server: Start, tmp_path: Path) -> None:
    server = workbench_server(tmp_path / "runs")
    first = _document(server.url, {})
    assert "window.gradio_config" in first and '"wb-monitor-chart"' in first and "could not make" not in first
    for query in ("?page=nowhere", "?deep_link=nobody", "?all_endpoints=1", "?tab=train&runs=a"):
        assert _document(server.url + query, {"Cookie": "a=b", "Accept-Language": "de"}) == first, query


def test_a_links_runs_are_asked_for_once_and_before_the_chart_is_there(
    workbench_server: Start, tmp_path: Path, browser_page: Any
) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / "runs", name, 30)
    server, page = workbench_server(tmp_path / "runs"), browser_page
    asked: list[dict[str, Any]] = []

    def note(request: Any) -> None:
        said = json.loads(request.post_data) if "component_server" in request.url else {}
        if said.get("fn_name") == "chart_points" and said["data"]["wants"][0]["cursor"] is None:
            asked.append(said)

    page.on("request", note)
    page.goto(f"{server.url}?tab=monitor&runs=one,two")
    page.wait_for_function("document.querySelector('.wb-chart')?.chart?.shown.length === 2")
    first = [said for said in asked if said["data"]["columns"] == ["loss"]]
    assert [said["data"]["wants"][0]["run"] for said in first] == ["one", "two"]
    assert {said["session_hash"] for said in first} == {"early"}
