"""The chart in a real Chromium: what stays, what travels and what is drawn."""

from tests.workbench.charts.made_up import new_run, write_event, write_steps
from tests.workbench.charts.on_page import CHART, ask, settled, short_run, wait

BIG = ["big-0", "big-1", "big-2", "big-3"]
STEPS = 70_000


def test_every_point_of_four_long_runs_is_in_the_browser_and_few_are_drawn(app, show):
    for seed, name in enumerate(BIG):
        write_steps(new_run(app.folder.runs, name), 1, STEPS, seed=seed)
    page = show(f"runs={','.join(BIG)}")
    wait(page, "chart.shown.length === 4 && chart.shown.every((s) => s.columns.grad_norm)")
    assert page.evaluate(f"{CHART}.shown.map((s) => s.n)") == [STEPS] * 4
    wait(page, "chart.panels.get('loss').plot.data.length === 12")
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


def test_a_curve_smoothed_over_so_many_steps_does_not_depend_on_the_zoom(app, show):
    short_run(app, "zoomed", 3000)
    page = show("runs=zoomed&smooth=50")
    at = f"{CHART}.shown[0].smooth('loss', 50).y[1499]"
    before = page.evaluate(at)
    ask(page, range=[1400, 1600])
    wait(page, "chart.view.range !== null && chart.panels.get('loss').plot.layout.xaxis.range[0] === 1400")
    drawn = page.evaluate(
        f"(() => {{ const trace = {CHART}.panels.get('loss').plot.data[1]; return trace.y[trace.x.indexOf(1500)]; }})()"
    )
    assert before == page.evaluate(at) == drawn


def test_what_a_resume_overwrote_stays_as_a_dimmed_line_and_nulls_are_gaps(app, show):
    run = short_run(app, "resumed", 400, nulls=range(50, 60))
    write_steps(run, 301, 450, attempt=2, seed=5)
    page = show("runs=resumed&smooth=0")
    series = f"{CHART}.shown[0]"
    assert page.evaluate(f"[{series}.n, {series}.old.length, {series}.old[0].step.length]") == [450, 1, 100]
    traces = page.evaluate(f"{CHART}.panels.get('loss').plot.data.map((t) => [t.opacity ?? 1, t.x.length])")
    assert traces[0] == [0.45, 100] and traces[1] == [1, 450]
    assert page.evaluate(f"[...{series}.values('loss').slice(48, 60)].map(Number.isNaN)") == [False] + [True] * 10 + [
        False
    ]
    kinds = page.evaluate(f"{CHART}.panels.get('loss').plot.data.slice(2).map((t) => [t.marker.symbol, [...t.x]])")
    assert kinds == [["triangle-up", [301]], ["triangle-down", [50]]], "resumed; and where the loss was none first"


def test_the_yardstick_is_drawn_only_where_the_run_carries_one(app, show):
    yardstick = {"of": "gpt2", "loss": 3.5, "revision": "r", "stderr": 0.0}
    run = short_run(app, "measured", 300)
    write_event(run, "eval", step=100, loss=3.9, yardstick=yardstick, token_sha256="f" * 64)
    write_event(run, "eval", step=200, loss=3.4, yardstick=yardstick, token_sha256="f" * 64)
    write_event(run, "passed", step=200, loss=3.4, yardstick=yardstick)
    write_event(short_run(app, "unmeasured", 300), "eval", step=100, loss=3.9, yardstick=None)
    page = show("runs=measured")
    layout = f"{CHART}.panels.get('loss').plot.layout"
    words = page.evaluate(f"{layout}.annotations.map((a) => a.text)")
    assert sorted(words) == [
        "GPT-2 124M on this held-out text: 3.5, windows of 1,024 tokens",
        "passed GPT-2 at step 200",
    ]
    assert page.evaluate(f"{layout}.shapes.map((s) => [s.y0, s.line.dash])") == [[3.5, "dash"]]
    points = f"{CHART}.panels.get('loss').plot.data.find((t) => t.marker?.symbol === 'circle')"
    assert page.evaluate(f"(() => {{ const t = {points}; return [[...t.x], [...t.y]]; }})()") == [
        [100, 200],
        [3.9, 3.4],
    ]
    page = show("runs=unmeasured")
    wait(page, f"chart.panels.get('loss').plot.data.length && {points}.x.length === 1")
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


def test_shading_marks_the_same_part_of_every_period(app, show):
    short_run(app, "shaded", 1000)
    page = show("runs=shaded")
    ask(page, shade={"period": 200, "phase": 50, "share": 0.25})
    wait(page, "chart.panels.get('loss').plot.layout.shapes.length > 1")
    bands = page.evaluate(f"{CHART}.panels.get('loss').plot.layout.shapes.map((s) => [s.x0, s.x1])")
    assert [50, 100] in bands and [850, 900] in bands and [250, 300] in bands
    ask(page, shade=None)
    wait(page, "chart.panels.get('loss').plot.layout.shapes.length === 0")


def test_a_zoomed_range_follows_the_newest_step_when_asked(app, show):
    run = short_run(app, "followed")
    page = show("runs=followed&range=1500..2000&follow=1")
    write_steps(run, 2001, 2040)
    page.evaluate(f"{CHART}.feed.soon(0)")
    wait(page, "chart.shown[0].n === 2040")
    assert page.evaluate(f"{CHART}.view.range") == [1540, 2040]


def test_a_drag_from_before_the_first_step_and_then_a_logarithmic_axis_keeps_every_point(app, show):
    short_run(app, "logged")
    page = show("runs=logged")
    ask(page, range=[-20, 1500])
    wait(page, "chart.view.range !== null")
    page.get_by_label("log x").check()
    wait(page, "chart.view.logx && !chart.drawing")
    seen = (
        f"(() => {{ const p = {CHART}.panels.get('loss').plot; return [p.layout.xaxis.range, p.data[0].x.length]; }})()"
    )
    page.wait_for_function(f"() => {seen}[0].every(Number.isFinite)")
    (low, high), points = page.evaluate(seen)
    assert low == 0 and abs(10**high - 1500) < 1 and points > 1000
    page.locator("summary", has_text="More").click()
    page.get_by_role("button", name="Zoom in").click()
    page.keyboard.press("Escape")
    wait(page, "chart.view.range[1] < 1500")


def test_the_smoothing_follows_the_zoom_and_the_cursor_reads_both_curves(app, show):
    short_run(app, "both", 4000)
    page = show("runs=both&smooth=auto")
    output = page.locator(".wb-chart-tools output")
    output.filter(has_text="100 steps").wait_for()
    ask(page, range=[1000, 1400])
    output.filter(has_text="10 steps").wait_for()
    page.evaluate(f"{CHART}.cursor.point({CHART}.panels.get('loss'), 1200)")
    words = page.locator(".wb-chart-panel-loss .wb-chart-tip").inner_text()
    series = f"{CHART}.shown[0]"
    values = f"[{series}.values('loss')[1199], {series}.smooth('loss', 10).y[1199]]"
    raw, smooth = page.evaluate(f"{values}.map((v) => v.toPrecision(5))")
    assert f"{raw} ({smooth})" in words


def test_plotly_makes_no_kind_of_trace_ready_but_the_one_that_is_drawn(app, show):
    short_run(app, "kinds")
    assert show("runs=kinds").evaluate("Object.keys(Plotly.PlotSchema.get().traces)") == ["scatter"]


def test_what_is_drawn_first_is_seen_before_the_next_panel_is_begun(app, show):
    short_run(app, "seen")
    page = show("runs=seen")
    page.wait_for_function(f"""() => {{
      const chart = {CHART};
      if (chart.drawing || chart.stale || chart.feed.fetching) return false;
      const [react, frame] = [Plotly.react, window.requestAnimationFrame];
      Object.assign(window, {{ reacted: [], frames: [], requestAnimationFrame: (act) => frames.push(act) }});
      Plotly.react = (plot, ...more) => {{ reacted.push(plot.closest("figure")); return react(plot, ...more); }};
      window.again = () => {{ Object.assign(window, {{ requestAnimationFrame: frame }}); Plotly.react = react;
        for (const act of frames) act(); }};
      chart.zoom(0.5);
      return true;
    }}""")
    page.evaluate("""async () => {
      for (const act of frames.splice(0)) act();
      for (let turn = 0; turn < 20; turn++) await new Promise((next) => setTimeout(next, 0));
    }""")
    assert page.evaluate(f"[reacted.length, reacted[0] === {CHART}.panels.get('loss').element]") == [1, True]
    page.evaluate("again()")
    settled(page)
    ranges = (
        f"[...{CHART}.panels.values()].filter((panel) => panel.drawn).map((panel) => panel.layout.xaxis.range + '')"
    )
    assert page.evaluate(f"[{ranges}.length > 1, new Set({ranges}).size]") == [True, 1]
