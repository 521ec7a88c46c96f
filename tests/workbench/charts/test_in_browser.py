"""The chart in a real Chromium: what stays, what travels, what is drawn, and that nothing written is markup."""

import json
import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from tests.workbench.charts.made_up import Folder, new_run, write_event, write_steps

BIG = ["big-0", "big-1", "big-2", "big-3"]
STEPS = 70_000
READY = """() => { const chart = document.querySelector(".wb-chart")?.chart;
  return chart && [...chart.panels.values()].some((panel) => panel.drawn) && chart.root.dataset.draws >= 1; }"""
CHART = "document.querySelector('.wb-chart').chart"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A page with one chart, whose view comes from the address, over runs some of which are long."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    from workbench import look
    from workbench.charts import LiveChart

    folder = Folder(tmp_path_factory.mktemp("charts") / "runs")
    for seed, name in enumerate(BIG):
        write_steps(new_run(folder.runs, name), 1, STEPS, seed=seed)

    def from_address(request: gr.Request) -> dict[str, Any]:
        return dict(request.query_params)

    with gr.Blocks(analytics_enabled=False) as blocks:
        chart = LiveChart(folder, {"panels": PANELS}, url=True, elem_id="chart")
        wanted, said = gr.Textbox(label="wanted"), gr.Textbox(label="said")
        gr.Button("Ask").click(json.loads, wanted, chart)
        gr.Button("Read").click(json.dumps, chart, said)
        blocks.load(from_address, None, chart)
    blocks.launch(
        prevent_thread_lock=True, quiet=True, share=False, run_history=False, ssr_mode=False,
        css=look.css(), head=look.head(), theme=look.theme(),
    )  # fmt: skip
    yield SimpleNamespace(url=blocks.local_url, folder=folder)
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


PANELS = "loss,validation,grad_norm"
DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("runs", "minus", "range"), ""), **dict.fromkeys(("logx", "logy", "follow"), "0"),
    "x": "step", "smooth": "50", "shade": None, "panels": PANELS,
}  # fmt: skip


@pytest.fixture(scope="module")
def one_page(app: SimpleNamespace, chromium: Any) -> Iterator[Any]:
    """The page that most tests share: a chart is meant to stay while its view changes."""
    errors: list[str] = []
    page = chromium.new_page(viewport={"width": 1360, "height": 900})
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.url)
    page.wait_for_function("() => document.querySelector('.wb-chart')?.chart")
    page.evaluate("workbench.linkFollowed()")  # from here on the address may be written
    yield page
    page.close()
    assert not errors


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


def test_every_point_of_four_long_runs_is_in_the_browser_and_few_are_drawn(show):
    page = show(f"runs={','.join(BIG)}")
    wait(page, "chart.shown.length === 4 && chart.shown.every((s) => s.columns.grad_norm)")
    assert page.evaluate(f"{CHART}.shown.map((s) => s.n)") == [STEPS] * 4
    wait(page, "chart.panels.get('loss').plot.data.length === 8")
    drawn = page.evaluate(f"{CHART}.panels.get('loss').plot.data.map((trace) => trace.x.length)")
    assert all(100 < count < 6000 for count in drawn), drawn


def test_node_and_zoom_stay_while_points_arrive_and_little_travels(app, show):
    run = short_run(app, "live")
    page = show("runs=live&range=500..900")
    settled(page)
    page.evaluate(f"window.kept = {CHART}.panels.get('loss').plot; window.svg = kept.querySelector('svg')")
    sizes: list[int] = []
    page.on("response", lambda r: sizes.append(len(r.body())) if "component_server" in r.url else None)
    for first in (2001, 2021, 2041):
        write_steps(run, first, first + 19)
        page.evaluate(f"{CHART}.feed.soon(0)")
        wait(page, f"chart.shown[0].n === {first + 19}")
    wait(page, "chart.shown[0].version > 3 && !chart.drawing")
    assert page.evaluate(
        f"kept === {CHART}.panels.get('loss').plot && kept.isConnected && svg === kept.querySelector('svg')"
    )
    assert page.evaluate("kept.layout.xaxis.range") == [500, 900] == page.evaluate(f"{CHART}.view.range")
    assert sizes and max(sizes) < 5000


def test_dragging_zooms_all_panels_and_keeps_the_zoom_in_the_address(app, show, opened):
    short_run(app, "dragged")
    page = show("runs=dragged")
    page.evaluate("scrollTo(0, 0)")
    plot = page.locator(".wb-chart-panel-loss .wb-chart-plot")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 600, box["y"] + 102, steps=4)
    page.mouse.up()
    wait(page, "chart.view.range !== null")
    page.wait_for_function("() => location.search.includes('range=')")
    low, high = page.evaluate(f"{CHART}.view.range")
    assert 200 < low < high < 1500
    wait(page, f"Math.abs(chart.panels.get('grad_norm').plot.layout?.xaxis.range[0] - {low}) < 1e-6")
    again = opened(page.evaluate("location.search")[1:])
    assert again.evaluate(f"{CHART}.view.range") == pytest.approx([low, high], rel=1e-6)
    again.get_by_role("button", name="Reset zoom").click()
    wait(again, "chart.view.range === null")


def test_a_view_from_python_changes_only_what_it_names(app, show):
    short_run(app, "one")
    short_run(app, "two", seed=1)
    page = show("runs=one&range=100..200&smooth=20&logy=1")
    colour = page.evaluate(f"{CHART}.colours.get('one')")
    ask(page, runs=["one", "two"])
    wait(page, "chart.shown.length === 2")
    view = page.evaluate(f"{CHART}.view")
    assert (view["range"], view["smooth"], view["logy"]) == ([100, 200], 20, True)
    assert page.evaluate(f"{CHART}.colours.get('one')") == colour != page.evaluate(f"{CHART}.colours.get('two')")
    page.get_by_label("log x").check()
    page.wait_for_function("() => location.search.includes('logx=1')")
    page.get_by_role("button", name="Read").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('textarea, input')].some((box) => box.value.includes('\"logx\": true'))"
    )


def module(page: Any, name: str, script: str) -> Any:
    """Evaluates `script` with the exports of one of the chart's modules as `m`."""
    return page.evaluate(
        "async ([name, script]) => { const entry = performance.getEntriesByType('resource').map((e) => e.name)"
        ".find((address) => address.includes(`/${name}.js`)); const m = await import(entry);"
        " return new Function('m', script)(m); }",
        [name, script],
    )


def test_smoothing_at_a_step_is_the_same_at_every_length_and_in_every_portion(app, show):
    short_run(app, "smooth", 300)
    page = show("runs=smooth")
    result = module(page, "chart-series", """
      const n = 5000;
      const steps = Float64Array.from({length: n}, (_, i) => i + 1);
      const values = Float32Array.from(steps, (s) => Math.sin(s) + 5 / s);
      for (let i = 700; i < 750; i++) values[i] = NaN;
      const whole = m.smoothed(values, steps, 100);
      const half = m.smoothed(values, steps, 100, 2500);
      const ema = new m.Ema(m.weightOf(100)), parts = new Float64Array(n);
      for (let from = 0; from < n; from += 37) ema.extend(values, steps, from, Math.min(n, from + 37), parts);
      const same = (a, b, k) => { for (let i = 0; i < k; i++) if (!Object.is(a[i], b[i])) return i; return true; };
      let sum = 0, mass = 0;
      for (let i = 0; i < 600; i++) { sum += 0.99 ** (599 - i) * values[i]; mass += 0.99 ** (599 - i); }
      const flat = m.smoothed(new Float32Array(50).fill(2.5), steps, 100, 50);
      return [same(whole, half, 2500), same(whole, parts, n), Math.abs(whole[599] - sum / mass) < 1e-9,
              Number.isNaN(whole[720]), [...flat].every((v) => Math.abs(v - 2.5) < 1e-12), m.weightOf(0.9),
              m.weightOf(0)];
    """)  # fmt: skip
    assert result == [True, True, True, True, True, 0.9, 0]


def test_the_smoothed_curve_does_not_depend_on_the_zoom(app, show):
    short_run(app, "zoomed", 3000)
    page = show("runs=zoomed&smooth=50")
    at = f"{CHART}.shown[0].smooth('loss', 50)[1499]"
    before = page.evaluate(at)
    ask(page, range=[1400, 1600])
    wait(page, "chart.view.range !== null && chart.panels.get('loss').plot.layout.xaxis.range[0] === 1400")
    drawn = page.evaluate(
        f"(() => {{ const trace = {CHART}.panels.get('loss').plot.data[1]; return trace.y[trace.x.indexOf(1500)]; }})()"
    )
    assert before == page.evaluate(at) == drawn


def test_no_spike_is_hidden_and_few_points_are_drawn_as_they_are(app, show):
    short_run(app, "spike", 300)
    page = show("runs=spike")
    hidden = module(page, "chart-series", """
      const n = 70000, xs = Float64Array.from({length: n}, (_, i) => i + 1), ys = new Float32Array(n).fill(3);
      ys[12345] = 99; ys[54321] = -99; ys.fill(NaN, 20000, 30000);
      return [false, true].map((log) => { const e = m.envelope(xs, ys, 1, n, 800, log);
        return [e.y.includes(99), e.y.includes(-99), e.y.some(Number.isNaN), e.x.length <= 1700,
                e.x.every((x, i) => i === 0 || x >= e.x[i - 1])]; });
    """)  # fmt: skip
    assert hidden == [[True] * 5, [True] * 5]
    few = module(page, "chart-series", """
      const xs = Float64Array.from({length: 1000}, (_, i) => i), ys = Float32Array.from(xs, (x) => x % 7);
      const e = m.envelope(xs, ys, 100, 400, 800); return [e.all, e.x[0], e.x.at(-1), e.x.length];
    """)  # fmt: skip
    assert few == [True, 99, 401, 303]


def test_what_a_resume_overwrote_stays_as_a_dimmed_line_and_nulls_are_gaps(app, show):
    run = short_run(app, "resumed", 400, nulls=range(50, 60))
    write_steps(run, 301, 450, attempt=2, seed=5)
    page = show("runs=resumed&smooth=0")
    series = f"{CHART}.shown[0]"
    assert page.evaluate(f"[{series}.n, {series}.old.length, {series}.old[0].step.length]") == [450, 1, 100]
    traces = page.evaluate(f"{CHART}.panels.get('loss').plot.data.map((t) => [t.opacity ?? 1, t.x.length])")
    assert traces[0] == [0.3, 100] and traces[1] == [1, 450]
    assert page.evaluate(f"[...{series}.values('loss').slice(48, 60)].map(Number.isNaN)") == [False] + [True] * 10 + [
        False
    ]
    kinds = page.evaluate(f"{CHART}.panels.get('loss').plot.data.slice(2).map((t) => [t.marker.symbol, [...t.x]])")
    assert kinds == [["triangle-up", [301]]]


def test_the_yardstick_is_drawn_only_where_the_run_carries_one(app, show):
    yardstick = {"of": "gpt2", "loss": 3.5, "revision": "r", "stderr": 0.0}
    run = short_run(app, "measured", 300)
    write_event(run, "eval", step=100, loss=3.9, yardstick=yardstick, token_sha256="f" * 64)
    write_event(run, "eval", step=200, loss=3.4, yardstick=yardstick, token_sha256="f" * 64)
    write_event(run, "passed", step=200, loss=3.4, yardstick=yardstick)
    write_event(short_run(app, "unmeasured", 300), "eval", step=100, loss=3.9, yardstick=None)
    page = show("runs=measured")
    wait(page, "chart.panels.get('validation').drawn")
    layout = f"{CHART}.panels.get('validation').plot.layout"
    words = page.evaluate(f"{layout}.annotations.map((a) => a.text)")
    assert sorted(words) == ["gpt2: 3.5 on this text", "passed gpt2 at step 200"]
    assert page.evaluate(f"{layout}.shapes.map((s) => [s.y0, s.line.dash])") == [[3.5, "dash"]]
    page = show("runs=unmeasured")
    wait(page, "chart.panels.get('validation').drawn")
    assert page.evaluate(f"[{layout}.shapes.length, {layout}.annotations.length]") == [0, 0]


def test_minus_draws_the_difference_at_the_same_x(app, show):
    short_run(app, "left", 500, seed=1)
    short_run(app, "right", 400, seed=2)
    page = show("runs=left,right&minus=right&smooth=0")
    wait(page, "chart.shown.length === 2 && chart.panels.get('loss').plot.data.length === 1")
    found = page.evaluate(f"""(() => {{ const c = {CHART}, trace = c.panels.get('loss').plot.data[0],
      [a, b] = ['left', 'right'].map((name) => c.series.get(name).values('loss'));
      return [trace.y[trace.x.indexOf(123)] - (a[122] - b[122]), Number.isNaN(trace.y[trace.x.indexOf(401)])]; }})()""")
    assert abs(found[0]) < 1e-12 and found[1] is True


def test_the_cursor_reads_every_run_and_text_of_a_run_is_never_markup(app, show):
    run = short_run(app, "alarming", 200)
    write_event(run, "alert", level="error", step=100, message="<img src=x onerror=window.hurt=1> spike")
    short_run(app, "calm", 200, seed=3)
    page = show("runs=alarming,calm")
    wait(page, "chart.shown.length === 2 && chart.panels.get('loss').plot.data.length === 5")
    panel = page.locator(".wb-chart-panel-loss")
    panel.focus()
    page.evaluate(f"{CHART}.cursor.point({CHART}.panels.get('loss'), 100)")
    words = panel.locator(".wb-chart-tip").inner_text()
    assert "step 100" in words and "alarming" in words and "calm" in words
    assert "alert: <img src=x onerror=window.hurt=1> spike at step 100" in words
    assert page.evaluate("window.hurt") is None
    ask(page, runs=["alarming", "<img src=x onerror=window.hurt=1>", "../calm"])
    wait(page, "chart.view.runs.length === 1")
    assert page.evaluate("window.hurt") is None


def test_the_keyboard_moves_the_cursor_zooms_and_clicks(app, show):
    short_run(app, "keys", 1000)
    page = show("runs=keys")
    page.evaluate(f"window.told = []; {CHART}.root.addEventListener('wb-chart-click', (e) => told.push(e.detail))")
    page.locator(".wb-chart-panel-loss").focus()
    for key in ("ArrowRight", "ArrowRight", "Enter", "+"):
        page.keyboard.press(key)
    wait(page, "chart.view.range !== null")
    (told,) = page.evaluate("told")
    assert 500 < told["step"] < 540 and set(told["runs"]) == {"keys"}
    page.keyboard.press("0")
    wait(page, "chart.view.range === null")


def test_a_server_that_is_away_is_named_and_found_again(app, show):
    run = short_run(app, "away", 100)
    page = show("runs=away")
    page.route("**/component_server/**", lambda route: route.abort())
    page.evaluate(f"{CHART}.feed.soon(0)")
    status = page.locator(".wb-chart-status")
    status.filter(has_text="trying again").wait_for()
    page.unroute("**/component_server/**")
    write_steps(run, 101, 150)
    page.evaluate(f"{CHART}.feed.soon(0)")
    wait(page, "chart.shown[0].n === 150 && !chart.root.querySelector('.wb-chart-status').textContent")


def test_a_run_that_is_gone_says_so_and_the_others_stay(app, show):
    short_run(app, "here", 100)
    page = show("runs=here")
    ask(page, runs=["here", "nobody"])
    page.locator(".wb-chart-problem").filter(has_text="no run 'nobody'").wait_for()
    assert page.evaluate(f"{CHART}.shown.length") == 1


@pytest.mark.parametrize("kind, start", [("PNG", b"\x89PNG\r\n\x1a\n"), ("SVG", b"<svg xmlns"), ("CSV", b"run,")])
def test_what_is_on_screen_and_every_point_can_be_saved(app, show, kind, start):
    names = [f"{kind}-a".lower(), f"{kind}-b".lower()]
    for seed, name in enumerate(names):
        short_run(app, name, 150, seed=seed)
    page = show(f"runs={','.join(names)}")
    page.locator("summary", has_text="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name=kind).click()
    content = download.value.path().read_bytes()
    assert content.startswith(start) and download.value.suggested_filename == f"{'-'.join(names)}.{kind.lower()}"
    if kind == "CSV":
        assert len(content.splitlines()) == 1 + 300
    if kind == "SVG":
        assert all(name.encode() in content for name in names) and b"smoothing: 50 steps" in content


def test_shading_marks_the_same_part_of_every_period(app, show):
    short_run(app, "shaded", 1000)
    page = show("runs=shaded")
    ask(page, shade={"period": 200, "phase": 50, "share": 0.25})
    wait(page, "chart.panels.get('loss').plot.layout.shapes.length > 1")
    bands = page.evaluate(f"{CHART}.panels.get('loss').plot.layout.shapes.map((s) => [s.x0, s.x1])")
    assert [50, 100] in bands and [850, 900] in bands and [250, 300] in bands
    ask(page, shade=None)
    wait(page, "chart.panels.get('loss').plot.layout.shapes.length === 0")


@pytest.mark.parametrize("x", ["tokens", "time", "flops"])
def test_other_axes_hold_every_point_and_keep_what_is_in_sight(app, show, x):
    short_run(app, f"axis-{x}", 1000).config_file.write_text(to_toml(load_config("tiny")))
    page = show(f"runs=axis-{x}&range=200..400")
    page.get_by_label("x axis").select_option(x)
    wait(page, f"chart.view.x === '{x}' && chart.view.range !== null")
    low, high = page.evaluate(f"{CHART}.view.range")
    steps = page.evaluate(
        f"(r) => r.map((v) => {CHART}.shown[0].x('{x}').findIndex((a) => a >= v * (1 - 1e-12)) + 1)", [low, high]
    )
    assert steps == [200, 400]
    increasing = page.evaluate(
        f"(() => {{ const x = {CHART}.shown[0].x('{x}'); return x.every((v, i) => i === 0 || v > x[i - 1]); }})()"
    )
    assert increasing


def test_390_pixels_are_enough_and_dark_is_dark(app, opened):
    short_run(app, "narrow", 500)
    page = opened("runs=narrow", viewport={"width": 390, "height": 800}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wait(page, "chart.panels.get('loss').plot.layout.width <= 390")
    light = page.evaluate(f"{CHART}.theme.ink")
    page.evaluate("document.body.classList.toggle('dark')")
    wait(
        page, f"chart.theme.ink !== '{light}' && chart.panels.get('loss').plot.layout.font.color === chart.theme.muted"
    )


def test_a_panel_says_its_newest_values(app, show):
    short_run(app, "spoken", 100)
    page = show("runs=spoken")
    label = page.locator(".wb-chart-panel-loss").get_attribute("aria-label")
    value = page.evaluate(f"{CHART}.shown[0].values('loss')[99]")
    assert label is not None and label.startswith("Loss in nats per token: spoken ") and f"{value:.4g}" in label


def test_a_zoomed_range_follows_the_newest_step_when_asked(app, show):
    run = short_run(app, "followed")
    page = show("runs=followed&range=1500..2000&follow=1")
    write_steps(run, 2001, 2040)
    page.evaluate(f"{CHART}.feed.soon(0)")
    wait(page, "chart.shown[0].n === 2040")
    assert page.evaluate(f"{CHART}.view.range") == [1540, 2040]
