"""The chart as a Gradio component: mounted once, then kept up to date by the browser itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from workbench.charts import bundle
from workbench.charts.bands import bands_of
from workbench.charts.host import host_history, hosts
from workbench.charts.points import Runs, flops_per_token, points, table
from workbench.charts.spikes import spikes
from workbench.charts.view import MAX_RUNS, PANELS, X_AXES, read_view

ASSETS = Path(__file__).resolve().parents[2] / "ui_assets"
SCRIPTS = (
    "chart.js", "chart-feed.js", "chart-cursor.js", "chart-series.js", "chart-smooth.js",
    "chart-axes.js", "chart-look.js", "chart-curves.js", "chart-draw.js", "chart-tools.js",
    "chart-legend.js", "chart-yardstick.js", "chart-spikes.js", "chart-bands.js", "chart-plotly.js", "chart-export.js",
)  # fmt: skip
FILES = "/gradio_api/file="
EMPTY = "Choose a run to see its curves."

# What the page runs for each chart. The modules and Plotly are fetched once for all charts, when the first is mounted.
_ON_LOAD = """
const root = (window.gradio_config?.root || window.location.origin).replace(/\\/$/, "");
const address = (path) => `${root}/gradio_api/file=${path}`;
import(address(%(script)s)).then(({ mount }) =>
  mount({ element, props, server, watch, trigger, events: ["click", "select", "measure"],
    plotly: address(%(plotly)s), options: %(options)s })
).catch((error) => {
  element.querySelector(".wb-chart-status").textContent = `The chart could not be loaded: ${error.message}`;
});
"""


class LiveChart(gr.HTML):
    """Curves of up to eight runs. Every point is in the browser; only what is new travels, and the zoom stays.

    Placing it, inside a Blocks and, if it is to wait until it is looked at, inside a `gr.Tab`:

        chart = LiveChart(context, {"runs": "a,b", "smooth": "auto"})
        button.click(lambda: {"runs": ["a", "c"]}, None, chart, **QUIET)

    Its value is a view, see `read_view`: as an output a handler returns a dict with the keys to change, and whatever it
    leaves out (zoom, axes, smoothing) stays as it is; as an input a handler gets the whole view as it is on the page.
    While the chart is in a tab that nobody opened yet, the last such dict is what it will begin with, over `view`.
    Nothing else is needed of the app: the scripts and plotly.js are served by paths that the constructor declares
    with `gr.set_static_paths`, chart.css belongs to the page's stylesheets, colours are the page's `--wb-*` variables.

    url=True keeps the view, all but its runs, in the address through `window.workbench.url`; one chart per page may.
    alerts and everything else are read through `context.run(name)` and `context.jobs.alerts(name)`.

    yardstick({"runs"}) tells what is known of GPT-2 on these runs' held-out texts, see `evaluations.yardstick.known`;
    without it the chart has no button to measure it.

    Gradio events: `measure` asks to measure GPT-2, with evt._data {"run"}; `click` at a point, with evt._data {"x",
    "step", "runs": {name: loss}}; and `select` of a range, with evt._data {"range": [x0, x1] | None, "x"}. In the
    page the element itself dispatches (and they bubble) wb-chart-click and wb-chart-range with the same as `detail`,
    and wb-chart-hover with the click's or null. A chart with url=True also dispatches `wb:step` with {run, step} as
    `detail` for a click on a curve, and for Enter at the cursor of the keys: the step of the run whose curve is
    nearest. It bubbles to the document, where whoever shows a step listens.
    """

    def __init__(
        self,
        context: Runs,
        view: Mapping[str, Any] | None = None,
        *,
        url: bool = False,
        yardstick: Callable[[Any], dict[str, Any]] | None = None,
        label: str = "Curves",
        elem_id: str | None = None,
        elem_classes: list[str] | str | None = None,
        visible: bool = True,
        render: bool = True,
    ) -> None:
        gr.set_static_paths([plotly(), *(ASSETS / name for name in SCRIPTS)])
        script, *_, library = _addresses()
        options = {"url": url, "label": label, "empty": EMPTY, "view": read_view(view), "maxRuns": MAX_RUNS,
                   "yardstick": yardstick is not None, "hosts": hosts(context),
                   "panels": PANELS, "axes": X_AXES}  # fmt: skip
        super().__init__(
            value=dict(view or {}),
            label=label,
            html_template='<div class="wb-chart"><p class="wb-chart-status" role="status"></p></div>',
            js_on_load=_ON_LOAD
            % {"script": json.dumps(script), "plotly": json.dumps(library), "options": _in_script(options)},
            apply_default_css=False,
            elem_id=elem_id,
            elem_classes=elem_classes,
            visible=visible,
            render=render,
            server_functions=server_functions(context, yardstick),
        )
        self.url = url  # gr.HTML takes an attribute that is missing, and named in the script, for an event

    def preprocess(self, payload: Any) -> dict[str, Any]:  # type: ignore[override]
        """The view as it is on the page."""
        return read_view(payload if isinstance(payload, dict) else None)

    def postprocess(self, value: Any) -> dict[str, Any] | None:  # type: ignore[override]
        """The keys to change; each is checked, see `read_view`."""
        return None if value is None else read_view(value)

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}


def server_functions(context: Runs, yardstick: Callable[[Any], dict[str, Any]] | None = None) -> list[Any]:
    """What the browser may call: names and arguments are checked, nothing is changed."""

    def chart_points(request: Any) -> list[dict[str, Any]]:
        return points(context, request)

    def chart_table(request: Any) -> dict[str, Any]:
        return table(context, request)

    def chart_flops(request: Any) -> dict[str, float | None]:
        return flops_per_token(context, request)

    def chart_host(request: Any) -> dict[str, Any]:
        return host_history(context, request)

    def chart_spikes(request: Any) -> dict[str, list[dict[str, Any]]]:
        return spikes(context, request)

    def chart_bands(request: Any) -> dict[str, dict[str, Any]]:
        return bands_of(context, request)

    def chart_yardstick(request: Any) -> dict[str, Any]:
        return yardstick(request) if yardstick else {}

    return [chart_points, chart_table, chart_flops, chart_host, chart_spikes, chart_bands, chart_yardstick]


def plotly() -> Path:
    """plotly.js as the installed plotly package brings it."""
    import importlib.util

    spec = importlib.util.find_spec("plotly")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "package_data" / "plotly.min.js"


def _addresses() -> list[str]:
    """The chart's scripts, then plotly.js, as the page asks for them: new names when they change, or what is sent."""
    scripts = [ASSETS / name for name in SCRIPTS]
    library = f"{plotly()}?v={_version([plotly(), Path(bundle.__file__)])}"
    return [*(f"{path}?v={_version(scripts)}" for path in scripts), library]


def _version(files: Sequence[Path]) -> str:
    return format(max(file.stat().st_mtime_ns for file in files), "x")


def served_files() -> dict[str, Path]:
    """The chart's files by the path of their address."""
    return {FILES + address.partition("?")[0]: Path(address.partition("?")[0]) for address in _addresses()}


def announcement() -> str:
    """A Link header by which a browser fetches the chart's files while the page is still being built."""
    *scripts, library = (FILES + quote(address, safe="/?=()'!*,~@:+") for address in _addresses())
    return ", ".join(
        [*(f"<{script}>; rel=modulepreload" for script in scripts), f"<{library}>; rel=preload; as=script"]
    )


def early_script() -> str:
    """The address of the chart's first script within the page."""
    return (FILES + _addresses()[0]).removeprefix("/")


def _in_script(value: Any) -> str:
    return json.dumps(value).replace("<", "\\u003c")
