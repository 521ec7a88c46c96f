"""The chart under a hand in a real Chromium: mouse, keys, files, narrow and dark; nothing written is markup."""

import pytest

from mygpt2.config import load_config, to_toml
from tests.workbench.charts.made_up import write_event, write_steps
from tests.workbench.charts.on_page import CHART, ask, short_run, wait


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
    again = opened("runs=dragged&" + page.evaluate("location.search")[1:])  # which runs is the page's to say
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


def test_the_cursor_reads_every_run_and_text_of_a_run_is_never_markup(app, show):
    run = short_run(app, "alarming", 200)
    write_event(run, "alert", level="error", step=100, message="<img src=x onerror=window.hurt=1> spike")
    short_run(app, "calm", 200, seed=3)
    page = show("runs=alarming,calm")
    wait(page, "chart.shown.length === 2 && chart.panels.get('loss').plot.data.length === 7")
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


PLACE = """(name) => {
  const chart = document.querySelector('.wb-chart').chart, { plot } = chart.panels.get('loss');
  const { left, top } = plot.getBoundingClientRect(), { margin, xaxis, yaxis } = plot._fullLayout;
  return [left + margin.l + xaxis.d2p(30), top + margin.t + yaxis.d2p(chart.series.get(name).values('loss')[29])];
}"""
STEPS = "window.steps = []; document.addEventListener('wb:step', (e) => steps.push(e.detail))"


def test_a_click_and_enter_open_the_step_of_the_nearest_curve(app, show):
    short_run(app, "high", 40)
    short_run(app, "low", 40, seed=5)
    page = show("runs=high,low&smooth=0")
    page.evaluate(STEPS)
    page.evaluate("scrollTo(0, 0)")
    for run in ("high", "low"):
        x, y = page.evaluate(PLACE, run)
        page.mouse.click(x, y)
    page.locator(".wb-chart-panel-loss").focus()
    for key in ("Home", "ArrowRight", "Enter", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    clicked, again, one, other = page.evaluate("steps")
    assert [clicked, again] == [{"run": "high", "step": 30}, {"run": "low", "step": 30}]
    assert one["step"] == other["step"] == 2 and {one["run"], other["run"]} == {"high", "low"}
    assert "step 2" in page.locator(".wb-chart-heard").inner_text()


def test_gpt2_is_measured_by_a_button_that_says_first_what_it_takes(app, show):
    evaluated = {"step": 100, "loss": 4.0, "bits_per_byte": 2.0, "documents": 7, "token_sha256": "f" * 64}
    write_event(short_run(app, "asking", 100), "eval", **evaluated)
    page = show("runs=asking")
    page.get_by_text("Measure GPT-2 on this text").click()
    page.get_by_text("548 MB are fetched once.").wait_for()
    page.get_by_role("button", name="Measure", exact=True).click()
    page.wait_for_function("() => [...document.querySelectorAll('textarea, input')].some((b) => b.value === 'asking')")
    app.measured["asking"] = {"of": "GPT-2 124M", "loss": 3.0, "bits": 1.5, "window": 1024, "same": False, "text": "t"}
    lines = "chart.panels.get('loss').plot.layout.annotations.map((a) => a.text).join()"
    wait(page, f"{lines}.startsWith('GPT-2 124M on this held-out text: 3 per token of this run')")
    assert not page.get_by_text("Measure GPT-2").is_visible()
    page.get_by_label("loss in", exact=True).select_option("bits")
    wait(page, f"{lines}.includes(': 1.5,') && chart.panels.get('loss').unit.textContent === 'bits per byte'")
    page.wait_for_function("() => location.search.includes('unit=bits')")


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
