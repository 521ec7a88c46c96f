"""What all tests share: no network beyond this machine, and the command line called in this process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

LONG = ("life", "workbench", "ripples", "evals", "train")  # folders whose files take longest


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: of two workers that take a file at a time none ends with a long one while the other idles."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """A connection to another host is a failure: tests must say the same on a machine without a network."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture
def mygpt2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`python -m mygpt2 ...` in this process, in an empty folder: mygpt2("train", "--preset", "x").err."""
    from mygpt2.__main__ import main

    monkeypatch.chdir(tmp_path)

    def call(*argv: str) -> Ended:
        code = main(argv)
        return Ended(code, *capfd.readouterr())

    return call
