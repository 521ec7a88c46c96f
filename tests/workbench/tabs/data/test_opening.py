"""Data is opened with the run that Monitor shows, unless another was chosen or asked for."""

from __future__ import annotations

import json
from typing import Any

import gradio as gr
import pytest

from tests.workbench.tabs.data.data_runs import context_of, parquet_folder, small_config, traced_run
from workbench.context import Context
from workbench.page import Page
from workbench.tabs.data.opening import SEEN, opened, refresh

STEPS = 3


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Two runs with a trace, and a folder that has none."""
    folder = tmp_path_factory.mktemp("opening")
    found, config = context_of(folder), small_config(parquet_folder(folder / "root" / "docs"))
    for name in ("one", "two"):
        traced_run(found.runs, name, config, folder / "cache", STEPS)
    (found.runs / "bare").mkdir()
    return found


class Fields:
    """What a page holds between two times that the tab is opened."""

    def __init__(self, context: Context, run: str | None = None, port: str = "") -> None:
        self.context, self.run, self.port, self.seen = context, run, port, SEEN
        self.step, self.rows = 1, "shown"

    def open(self, **address: str) -> str | None:
        self.seen, run, _, step, _, rows = opened(self.context, self.seen, self.run, self.port, json.dumps(address))
        self.run = run.get("value", self.run)
        self.step, self.rows = (self.step if _skipped(each) else each for each in (step, rows))
        return self.run


def _skipped(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type__") == "update"


@pytest.mark.parametrize("address", [{"focus": "one"}, {"runs": "one,two"}, {"runs": "two", "focus": "one"}])
def test_the_run_of_monitor_stands_there_with_its_newest_step_and_is_not_read_yet(context, address) -> None:
    page = Fields(context)
    assert page.open(**address) == "one" and page.step == STEPS
    assert f"Press Show for step {STEPS} of one" in page.rows


def test_another_run_in_monitor_is_followed_and_a_choice_stays(context: Context) -> None:
    page = Fields(context)
    page.open(focus="one")
    assert page.open(focus="two", run="one") == "two", "although the step of the one before was shown"
    page.run = "one"
    assert page.open(focus="two") == "one", "chosen by hand"
    assert Fields(context, run="one").open(focus="two") == "one"


def test_what_a_link_or_another_tab_asks_for_is_not_replaced(context: Context) -> None:
    assert Fields(context).open(focus="one", run="two", step="2") is None, "the link's run comes by the port"
    page = Fields(context, port=Page.ask(run="two", step=2))
    assert page.open(focus="one") is None
    assert page.open(focus="one") == "one", "the same request is an old one the next time"
    assert Fields(context, port=Page.ask(source="docs")).open(focus="one") == "one"


@pytest.mark.parametrize("address", [{}, {"focus": "bare"}, {"focus": "gone"}, {"focus": "../one"}, {"runs": ","}])
def test_without_a_run_that_has_a_trace_nothing_changes(context: Context, address: dict[str, str]) -> None:
    page = Fields(context)
    assert page.open(**address) is None and page.step == 1


def test_the_lists_are_sent_where_there_is_a_new_run(context: Context) -> None:
    seen, *lists = refresh(context, SEEN)
    assert seen["names"] == ["one", "two"] and [each["choices"] for each in lists] == [["one", "two"]] * 2
    assert refresh(context, seen) == gr.skip()
