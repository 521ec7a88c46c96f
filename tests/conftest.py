"""What all tests share: no network beyond this machine, and the command line called in this process."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Left out by `.ci/run --fast`, beside what needs a Chromium: training processes, statistics, hundreds of damaged files.
SLOW = (
    "life/", "data/test_bad_files.py", "data/test_hostile_hub.py", "data/test_hub_faults.py", "evals/test_eval_verb.py",
    "evals/test_harness_agreement.py", "experiments/test_honesty.py", "experiments/test_killed.py",
    "planning/test_trial.py", "ripples/test_closed_loop.py",
    "ripples/test_recurring.py", "ripples/test_search.py", "run_dir/test_damage.py", "exchange/test_export_verb.py",
    "launch/", "test_orphans.py", "tokenizer/test_train.py", "train/test_attempt.py",
    "train/test_changed_data.py", "train/test_endings.py", "train/test_resuming.py", "train/test_step.py",
    "workbench/jobs/test_life.py", "workbench/tabs/sample/", "workbench/tabs/data/test_data_step.py",
    "workbench/test_api.py",
)  # fmt: skip

# What begins first: asyncio.run fails in a process that has driven a Chromium; each group of files that drive one stays
# in one worker, which starts one; what takes longest must not begin last.
LOOPS = ("workbench/test_addresses.py", "workbench/test_security.py", "workbench/test_changes.py")
BROWSERS = (
    ("workbench/test_life_browser.py", "workbench/tabs/sample/test_sample_page.py",
     "workbench/tabs/train/test_train_browser.py", "workbench/tabs/compare/test_compare_page.py",
     "workbench/tabs/tokenizer/test_tokenizer_data_page.py"),
    ("workbench/test_frame.py", "workbench/tabs/monitor/test_monitor.py", "workbench/test_live.py",
     "workbench/test_pieces.py",
     "workbench/charts/test_in_browser.py", "workbench/charts/test_used_in_browser.py",
     "workbench/tabs/ripples/test_ripples_in_browser.py"),
)  # fmt: skip
LONG = ("workbench/jobs/test_life.py", "life/", "data/test_bad_files.py", "evals/", "launch/", "planning/test_trial.py",
        "train/", "workbench/tabs/")  # fmt: skip
ORDER = (*LOOPS, *(file for group in BROWSERS for file in group), *LONG, "")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    files = {item: item.path.relative_to(here).as_posix() for item in items}
    for item, file in files.items():
        if file.startswith(SLOW) or "pages" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    place = {file: next(i for i, start in enumerate(ORDER) if file.startswith(start)) for file in files.values()}
    items.sort(key=lambda item: place[files[item]])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files in the order above; those of a group that drives a Chromium together."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((group[0] for group in BROWSERS if file.removeprefix("tests/") in group), file)

    config.option.loadscopereorder = False  # by number of tests, so that files of few and long ones came last
    return Scheduling(config, log)


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
