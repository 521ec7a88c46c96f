"""The guard: hosts, origins, passwords."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from mygpt2.errors import UserError
from workbench import security
from workbench.__main__ import parse
from workbench.security import CROWD, TRIES, Door, Guard, allowed_hosts, is_loopback, read_password

HOSTS = allowed_hosts("127.0.0.1", 7860)


def status(headers: dict[str, str], *, method: str = "POST", path: str = "/", **options: Any) -> int:
    """What the guard answers: 200 where it lets the request through."""
    seen: list[int] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):  # type: ignore[no-untyped-def]
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    async def receive():  # type: ignore[no-untyped-def]
        return {"type": "http.request"}

    scope = {"type": "http", "method": method, "path": path,
             "headers": [(key.encode(), value.encode()) for key, value in headers.items()]}  # fmt: skip
    asyncio.run(Guard(app, HOSTS, any_host=False, **options)(scope, receive, send))
    return seen[0]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST:7860", "[::1]:7860", "localhost"])
def test_names_of_this_machine_are_let_in(host: str) -> None:
    assert status({"host": host, "origin": f"http://{host}"}) == 200


@pytest.mark.parametrize("host", ["evil.com", "evil.com:7860", "127.0.0.1.evil.com", "127.0.0.1:9", ""])
def test_a_foreign_host_is_refused_whatever_the_method(host: str) -> None:
    assert status({"host": host}) == 400
    assert status({"host": host}, method="GET") == 400


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:9", "https://localhost:78600"])
def test_a_foreign_origin_is_refused(origin: str) -> None:
    assert status({"host": "127.0.0.1:7860", "origin": origin}) == 403


def test_a_cross_site_post_without_an_origin_is_refused() -> None:
    assert status({"host": "localhost:7860", "sec-fetch-site": "cross-site"}) == 403
    assert (
        status({"host": "localhost:7860", "sec-fetch-site": "cross-site"}, method="GET") == 200
    )  # a link from elsewhere


def test_an_origin_named_by_allow_host_is_our_own_although_a_proxy_rewrote_the_host() -> None:
    headers = {"host": "127.0.0.1:7860", "origin": "https://lab.example:8443"}
    assert status(headers, named=("Lab.example:8443",)) == 200
    assert status(headers, named=("lab.example",)) == status(headers) == 403


def test_a_name_of_allow_host_is_let_in_on_any_port_of_a_proxy() -> None:
    for host, expected in (("lab.example:8443", 200), ("lab.example.evil.com:80", 400), ("xlab.example:1", 400)):
        assert status({"host": host, "origin": f"https://{host}"}, named=("lab.example",)) == expected


def test_a_websocket_is_closed_and_never_reaches_the_app() -> None:
    sent: list[Any] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        raise AssertionError

    async def send(message):  # type: ignore[no-untyped-def]
        sent.append(message["type"])

    asyncio.run(Guard(app, HOSTS, any_host=True)({"type": "websocket", "headers": []}, send, send))  # type: ignore[arg-type]
    assert sent == ["websocket.close"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The door's time, to be set; and waiting takes none."""
    now = [1000.0]
    monkeypatch.setattr(security.time, "monotonic", lambda: now[0])
    return now


def test_five_wrong_passwords_close_the_door_to_their_address_only_and_for_a_minute(clock: list[float]) -> None:
    door = Door("correct horse")
    for _ in range(TRIES):
        assert not door.opens("wrong", "10.0.0.1")
    assert door.closed("10.0.0.1") > 0 and not door.opens("correct horse", "10.0.0.1")
    assert door.closed("::ffff:10.0.0.1") > 0  # the same one, in another spelling
    assert door.opens("correct horse", "10.0.0.2")
    clock[0] += 61
    assert door.opens("correct horse", "10.0.0.1")


def test_a_household_of_ipv6_is_one_address() -> None:
    door = Door("correct horse")
    for number in range(TRIES):
        door.opens("wrong", f"2001:db8:1:2::{number}")
    assert door.closed("2001:db8:1:2:ffff::1") > 0 and door.closed("2001:db8:1:3::1") == 0


def test_a_flood_from_many_addresses_slows_every_try_and_locks_no_right_password_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(security.asyncio, "sleep", sleep)
    door = Door("correct horse")

    async def flood() -> bool:
        for number in range(CROWD):
            assert not await door.knock("wrong", f"10.0.{number}.1")
        assert not waited and door.crowded
        return await door.knock("correct horse", "10.9.9.9")

    assert asyncio.run(flood()) and waited == [security.CROWD_SECONDS]


def test_without_a_password_nothing_opens() -> None:
    assert not Door(None).opens("") and not Door(None).has_password


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_beyond_this_machine_needs_a_password(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(UserError, match="--password-file"):
        read_password(None, host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_loopback_needs_none(host: str) -> None:
    assert read_password(None, host) is None


def test_a_password_file_must_be_readable_private_and_long_enough(tmp_path: Path) -> None:
    path = tmp_path / "password"
    with pytest.raises(UserError, match="cannot be read"):
        read_password(path, "0.0.0.0")
    path.write_text("short\n")
    os.chmod(path, 0o600)
    with pytest.raises(UserError, match="5 characters; at least 8"):
        read_password(path, "0.0.0.0")
    path.write_text("long enough\nand more\n")
    assert read_password(path, "0.0.0.0") == "long enough"
    os.chmod(path, 0o644)
    with pytest.raises(UserError, match="chmod 600"):
        read_password(path, "0.0.0.0")


@pytest.mark.parametrize("text, prefix", [("wb", "/wb"), ("/wb/", "/wb"), ("/a/b.c", "/a/b.c"), ("/", ""), ("", "")])
def test_a_root_path_is_taken_with_or_without_its_slashes(text: str, prefix: str) -> None:
    assert parse(["--root-path", text]).root_path == prefix


@pytest.mark.parametrize("text", ["https://lab.example/wb", "/wb?x", "a b", "/a//b", "<x>"])
def test_a_root_path_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="--root-path"):
        parse(["--root-path", text])
