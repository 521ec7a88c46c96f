"""A page with one chart in a real Chromium."""

import json
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.workbench.charts.made_up import Folder
from tests.workbench.charts.on_page import ask, settled, wait
from tests.workbench.conftest import Pages, Watched

READY = """() => { const chart = document.querySelector(".wb-chart")?.chart;
  return chart && [...chart.panels.values()].some((panel) => panel.drawn) && chart.root.dataset.draws >= 1; }"""
PANELS = "loss,validation,grad_norm"
DEFAULTS: dict[str, Any] = {
    "unit": "auto", **dict.fromkeys(("runs", "minus", "range"), ""), **dict.fromkeys(("logx", "logy", "follow"), "0"),
    "x": "step", "smooth": "50", "shade": None, "panels": PANELS,
}  # fmt: skip


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A page with one chart, whose view comes from the address."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from starlette.middleware import Middleware

    from workbench import look
    from workbench.charts import LiveChart
    from workbench.downloads import Downloads
    from workbench.shelf import Served, front

    kept, _ = front(root_path="")  # plotly.js as the workbench sends it
    folder = Folder(tmp_path_factory.mktemp("charts") / "runs")
    measured: dict[str, Any] = {}  # GPT-2's results by run, as `evaluations.yardstick` would find them

    def yardstick(request: Any) -> dict[str, Any]:
        may = {"running": False, "words": "", "problem": "", "can": True, "cost": "548 MB are fetched once."}
        return {run: {"found": measured.get(run), **may} for run in request["runs"]}

    def measure(event: gr.EventData) -> str:
        return str(event._data["run"])

    def from_address(request: gr.Request) -> dict[str, Any]:
        return dict(request.query_params)

    with gr.Blocks(analytics_enabled=False) as blocks:
        chart = LiveChart(folder, {"panels": PANELS}, url=True, elem_id="chart", yardstick=yardstick)
        wanted, said = gr.Textbox(label="wanted"), gr.Textbox(label="said")
        gr.Button("Ask").click(json.loads, wanted, chart)
        gr.Button("Read").click(json.dumps, chart, said)
        chart.measure(measure, None, said)
        blocks.load(from_address, None, chart)
    blocks.launch(
        prevent_thread_lock=True, quiet=True, share=False, run_history=False, ssr_mode=False,
        css=look.css(), head=look.head(), theme=look.theme(),
        app_kwargs={"middleware": [Middleware(Downloads, run=folder.run), Middleware(Served, shelf=kept, early=None)]},
    )  # fmt: skip
    yield SimpleNamespace(url=blocks.local_url, folder=folder, measured=measured)
    blocks.close(verbose=False)


@pytest.fixture
def opened(app: SimpleNamespace, new_page: Callable[..., Any]) -> Callable[..., Any]:
    """opened("runs=a&x=tokens", **context options) -> a new page whose chart is drawn."""

    def open_(query: str, **options: Any) -> Any:
        page = new_page(**options)
        page.goto(f"{app.url}?{query}")
        page.wait_for_function(READY)
        return page

    return open_


@pytest.fixture(scope="module")
def one_page(app: SimpleNamespace, pages: Pages) -> Iterator[Any]:
    """The page that most tests share: a chart is meant to stay while its view changes."""
    watched = Watched()
    page = pages.new(watched)
    page.goto(app.url)
    page.wait_for_function("() => document.querySelector('.wb-chart')?.chart")
    page.evaluate("workbench.linkFollowed()")  # from here on the address may be written
    yield page
    page.close()
    watched.judge()


@pytest.fixture
def show(one_page: Any) -> Callable[[str], Any]:
    """show("runs=a&x=tokens") -> the page, with its chart drawn for this view."""

    def with_view(query: str) -> Any:
        view = DEFAULTS | dict(pair.split("=") for pair in query.split("&"))
        ask(one_page, **view)
        wait(one_page, f"chart.view.runs.join() === '{view['runs']}' && chart.shown.length === chart.view.runs.length")
        settled(one_page)
        return one_page

    return with_view
