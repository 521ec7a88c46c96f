"""The guard: hosts, origins, passwords."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from workbench.security import TRIES, Door, Guard, allowed_hosts, is_loopback, read_password

HOSTS = allowed_hosts("127.0.0.1", 7860)


def status(headers: dict[str, str], *, method: str = "POST", path: str = "/", door: Door | None = None) -> int:
    """What the guard answers: 200 where it lets the request through."""
    import asyncio

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
    asyncio.run(Guard(app, HOSTS, any_host=False, door=door or Door(None))(scope, receive, send))
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


def test_five_wrong_passwords_close_the_door_even_to_the_right_one() -> None:
    door = Door("correct horse")
    assert door.opens("correct horse")
    for _ in range(TRIES):
        assert not door.opens("wrong")
    assert door.locked and not door.opens("correct horse")
    assert status({"host": "localhost:7860"}, path="/login", door=door) == 429


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
