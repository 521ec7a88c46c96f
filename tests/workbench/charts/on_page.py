"""What the tests of the chart do on its page."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from tests.workbench.charts.made_up import new_run, write_steps

CHART = "document.querySelector('.wb-chart').chart"


def settled(page: Any) -> None:
    """Waits until nothing is to be fetched or drawn."""
    wait(
        page,
        """!chart.feed.fetching && !chart.drawing && !chart.stale
      && chart.shown.every((s) => chart.feed.wantedColumns().every((name) => s.columns[name]))""",
    )


def ask(page: Any, **view: Any) -> None:
    """The view changes as a handler of a tab changes it."""
    page.get_by_label("wanted").fill(json.dumps(view))
    page.get_by_role("button", name="Ask").click()


def short_run(app: SimpleNamespace, name: str, steps: int = 2000, **more: Any) -> Any:
    run = new_run(app.folder.runs, name)
    write_steps(run, 1, steps, **more)
    return run


def wait(page: Any, condition: str) -> None:
    page.wait_for_function(f"() => {{ const chart = {CHART}; return {condition}; }}")
