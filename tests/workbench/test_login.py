"""The password page, and that nothing answers in front of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from workbench import changes, downloads
from workbench import login as login_module
from workbench.addresses import REFUSED, SERVED
from workbench.login import MOST_SESSIONS, Login, Sessions
from workbench.picker.receive import ADDRESS
from workbench.security import TRIES, Door

RIGHT = "correct horse"
PAGE = {"accept": "text/html,application/xhtml+xml"}


def guarded(password: str | None = RIGHT) -> TestClient:
    inner = Starlette(
        routes=[Route("/{path:path}", lambda request: PlainTextResponse("inside"), methods=["GET", "POST"])]
    )
    return TestClient(Login(inner, Door(password), "workbench-1"), follow_redirects=False)


@pytest.fixture
def client() -> Iterator[Any]:
    yield guarded()


def post(client: Any, password: str, user: str = "", **more: Any) -> Any:
    return client.post("/login", data={"username": user, "password": password, **more}, headers=PAGE)


def test_without_a_password_there_is_no_login() -> None:
    assert guarded(None).get("/config").text == "inside"


OURS = ("/assets/index.js", downloads.PATH, changes.PATH, f"{ADDRESS}a", "/gradio_api/file=/chart.js")


@pytest.mark.parametrize("path", [*SERVED, *(path for path in REFUSED if "log" not in path), *OURS])
def test_nothing_answers_in_front_of_the_page(client: Any, path: str) -> None:
    for method in ("GET", "POST"):
        answer = client.request(method, path)
        assert answer.status_code == 401 and "inside" not in answer.text, (method, path)


def test_the_page_has_no_script_and_its_colours_with_it(client: Any) -> None:
    answer = client.get("/", headers=PAGE)
    assert answer.status_code == 401 and "<script" not in answer.text and 'type="password"' in answer.text
    assert "script-src" not in answer.headers["content-security-policy"] and "--wb-edge:" in answer.text


@pytest.mark.parametrize("user", ["", "me", "<b>", "x" * 5000])
def test_any_user_name_with_the_password_opens_and_none_is_needed(client: Any, user: str) -> None:
    answer = post(client, RIGHT, user)
    assert answer.status_code == 303 and answer.headers["location"] == "./"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "samesite=lax" in cookie.lower() and RIGHT not in cookie
    assert client.get("/config").text == "inside"


def test_after_a_wrong_try_the_name_stays_and_the_right_password_opens(client: Any) -> None:
    answer = post(client, "wrong", 'me"><img src=x>', query="?tab=monitor")
    assert answer.status_code == 401 and "password is not right" in answer.text
    assert 'value="me&quot;&gt;' in answer.text and "<img" not in answer.text and "wrong" not in answer.text
    assert 'aria-invalid="true" aria-describedby="problem"' in answer.text and 'id="problem"' in answer.text
    assert client.get("/config").status_code == 401
    assert post(client, RIGHT, "me", query="?tab=monitor").headers["location"] == "./?tab=monitor"


@pytest.mark.parametrize("query", ["https://evil.com", "//evil.com", "?x=1\r\nset-cookie: a=b", "/../x", "\\evil.com"])
def test_a_login_leads_nowhere_but_to_the_page(client: Any, query: str) -> None:
    where = post(client, RIGHT, query=query).headers["location"]
    assert where.startswith("./") and "\n" not in where and "evil.com" not in where.partition("?")[0]


def test_a_link_is_followed_after_the_login(client: Any) -> None:
    for headers, link in (({"sec-fetch-site": "none"}, ""), ({"sec-fetch-site": "cross-site"}, "&amp;link=1")):
        page = client.get("/?tab=monitor&runs=a,b", headers=PAGE | headers).text
        assert f'name="query" value="?tab=monitor&amp;runs=a%2Cb{link}"' in page


def test_gradios_client_logs_in_by_the_same_address(client: Any) -> None:
    body = {"username": "me", "password": "wrong"}
    assert client.post("/login", data=body).status_code == 401
    assert client.post("/login", data=body | {"password": RIGHT}).json() == {"success": True}


def test_five_wrong_tries_are_told_how_long_to_wait(client: Any) -> None:
    for _ in range(TRIES):
        post(client, "wrong")
    answer = post(client, RIGHT)
    assert answer.status_code == 429 and "Wait 60 seconds" in answer.text


def test_a_form_too_large_or_of_no_text_is_a_wrong_password(client: Any) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    for body in (b"password=" + b"x" * 20_000, b"\xff\xfe", b""):
        assert client.post("/login", content=body, headers=kind).status_code == 401


def test_a_logout_needs_a_post_and_ends_this_session_only(client: Any) -> None:
    other = TestClient(client.app, follow_redirects=False)
    post(client, RIGHT), post(other, RIGHT)
    assert client.get("/logout").status_code == 405 and client.get("/config").text == "inside"
    assert client.post("/logout").status_code == 303
    assert client.get("/config").status_code == 401 and other.get("/config").text == "inside"


def test_a_forged_or_old_cookie_opens_nothing(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/config", headers={"cookie": "workbench-1=guess"}).status_code == 401
    post(client, RIGHT)
    now = login_module.time.monotonic()
    monkeypatch.setattr(login_module.time, "monotonic", lambda: now + login_module.SESSION_SECONDS + 1)
    assert client.get("/config").status_code == 401


def test_sessions_are_bounded_and_the_oldest_gives_way() -> None:
    sessions = Sessions()
    first = sessions.begin()
    later = [sessions.begin() for _ in range(MOST_SESSIONS)]
    assert not sessions.has(first) and sessions.has(later[0]) and sessions.has(later[-1])
