"""What all tests share: no network beyond this machine, and the command line called in this process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Left out by `.ci/run --fast`: training processes, statistics, hundreds of damaged files.
SLOW = (
    "life/", "data/test_bad_files.py", "data/test_hostile_hub.py", "data/test_hub_faults.py", "evals/test_eval_verb.py",
    "evals/test_harness_agreement.py", "planning/test_trial.py", "ripples/test_closed_loop.py",
    "ripples/test_recurring.py", "ripples/test_search.py", "run_dir/test_damage.py", "exchange/test_export_verb.py",
    "launch/", "test_orphans.py", "tokenizer/test_train.py", "train/test_attempt.py",
    "train/test_changed_data.py", "train/test_endings.py", "train/test_resuming.py", "train/test_step.py",
    "workbench/jobs/test_life.py", "workbench/tabs/sample/", "workbench/tabs/data/test_data_step.py",
    "workbench/test_api.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if str(item.path.relative_to(here)).startswith(SLOW):
            item.add_marker("slow")


class Ended(NamedTuple):
    code: int
    out: str
    err: str


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
