"""What a person sees of the chosen runs stays where it is; and two ticked runs are sampled side by side."""

import json

import pytest

from tests.workbench.conftest import make_run

DRAWN = "() => document.querySelector('#wb-monitor-chart .wb-chart')?.chart?.panels.get('memory').drawn"
CPU = "() => document.querySelector('#wb-monitor-chart .wb-chart').chart.panels.get('cpu').drawn"
# Of the log, from the first panel of half a width on: a late word in the head moves both.
BELOW = """() => document.getElementById("wb-monitor-panes").getBoundingClientRect().top
  - document.querySelector(".wb-chart-panel-lr").getBoundingClientRect().top"""
TOP = "(id) => document.getElementById(id).getBoundingClientRect().top + window.scrollY"


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    for name, state in (("one", "finished"), ("two", "finished"), ("three", "finished"), ("broken", "failed")):
        make_run(folder, name, 40, state=state)
    ends = [json.loads(line)["time"] for line in (folder / "one" / "metrics.jsonl").read_text().splitlines()]
    samples = [{"time": at, "cpu": 0.5} for at in ends[::5]]
    (folder / ".workbench").mkdir(exist_ok=True)
    (folder / ".workbench" / "host.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return folder


@pytest.mark.parametrize("width", [1360, 390])
def test_the_log_stays_where_it_is_when_the_machines_load_comes(workbench_server, runs, browser_page, width):
    page = browser_page
    page.set_viewport_size({"width": width, "height": 900})

    def hold(route):
        held.append(route) if "chart_host" in (route.request.post_data or "") else route.continue_()

    held = []
    page.route("**/component_server/", hold)
    page.goto(f"{workbench_server(runs).url}?tab=monitor&runs=one")
    page.wait_for_function(DRAWN)
    before = page.evaluate(BELOW)
    assert page.locator(".wb-chart-panel-cpu").is_visible() and not page.locator(".wb-chart-panel-gpu").is_visible()
    while not held:
        page.wait_for_timeout(20)
    held[0].continue_()
    page.wait_for_function(CPU)
    assert page.evaluate(BELOW) == before


def test_a_failed_runs_log_stands_before_its_chart_and_once(workbench_server, runs, browser_page):
    page = browser_page
    page.goto(f"{workbench_server(runs).url}?tab=monitor&runs=broken")
    page.wait_for_selector(".wb-trouble-log")
    page.wait_for_selector(".wb-log-line")
    assert page.evaluate(TOP, "wb-monitor-panes") < page.evaluate(TOP, "wb-monitor-chart")
    assert not page.locator(".wb-trouble .wb-log-tail").is_visible()


def test_the_ticked_two_are_sampled_side_by_side_and_one_that_is_gone_is_told(workbench_server, runs, browser_page):
    page, server = browser_page, workbench_server(runs)
    page.goto(f"{server.url}?tab=monitor&runs=one,two,three&focus=two")
    sample = page.locator("[data-ticked=sample]")
    sample.wait_for()
    assert sample.inner_text() == "Sample two" and "chosen run and the next ticked one" in sample.get_attribute("title")
    sample.click()
    for letter, name in (("a", "two"), ("b", "one")):
        page.wait_for_function(f"document.querySelector('#wb-sample-{letter} input')?.value.startsWith('{name}')")
    page.goto(f"{server.url}?tab=monitor&runs=one,three")
    page.wait_for_selector("[data-ticked=compare]")
    (runs / "three").rename(runs.parent / "elsewhere")
    page.evaluate("window.workbench.table.compare(['one', 'three'])")
    page.get_by_text("no run 'three'").wait_for()
