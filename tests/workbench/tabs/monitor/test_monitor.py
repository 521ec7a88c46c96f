"""The monitor tab in a real browser, over real run folders."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from mygpt2.files import replace_json
from mygpt2.run_dir import RunDir, RunWriter, state_of
from tests.forks import launch
from tests.workbench.accessible import violations
from tests.workbench.conftest import Held, make_run
from workbench.tabs.monitor import labels

BAD = "<img src=x onerror=alert(1)>"
LIMIT = 60_000  # milliseconds
TAGS_ARE = "(text) => document.querySelector('#wb-tags textarea, #wb-tags input').value === text"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs with text that must never become markup."""
    folder = tmp_path_factory.mktemp("monitor") / "runs"
    make_run(folder, "alpha", 40, sample=f" {BAD} tail")
    make_run(folder, "beta", 60, state="stopped", settings=("--model.seed", "7"), seed=1)
    failed = RunDir(make_run(folder, "gamma", 20, state="failed", seed=2))
    alpha = RunDir(folder / "alpha")
    lines = "".join(f"step {number} loss {5 - number / 100:.2f}\n" for number in range(200))
    alpha.log_file(0).write_text(f"{lines}{BAD} needle\n 10%\r 20%")
    labels.write_note(alpha, f"a note {BAD} about warmup", labels.note_digest(""))
    with RunWriter(alpha, 1) as writer:
        writer.sample(step=20, prompt="The", text=" earlier text", seed=1)
        writer.finish("finished", 0, "finished")
    replace_json(alpha.evals_dir / "x.json", {"model": BAD, "protocol": "run", "loss": 4.25})
    failed.log_file(0).write_text(f"Traceback: {BAD}\n")
    return folder


@pytest.fixture(scope="module")
def server(workbench_server, runs):
    return workbench_server(runs)


def go(page, server, address=""):
    page.goto(f"{server.url}?tab=monitor{address}")
    page.wait_for_selector("#wb-monitor .wb-run")
    page.wait_for_selector("#wb-monitor-head h2")


def listed(page):
    return page.locator("#wb-monitor .wb-run-name").all_inner_texts()


def address(page, key):
    return page.evaluate("key => new URL(location.href).searchParams.get(key)", key)


def open_run(page, name):
    page.locator(f'.wb-run[data-run="{name}"] button').click()


def head_is(page, name):
    page.locator("#wb-monitor-head h2", has_text=re.compile(f"^{name}$")).wait_for(timeout=LIMIT)


def until(holds, page):
    ends = time.monotonic() + LIMIT / 1000
    while not holds():
        assert time.monotonic() < ends
        page.wait_for_timeout(20)


def choose(page, item):
    """An item of the head's menu."""
    page.locator("#wb-monitor-head .wb-menu > summary").click()
    page.get_by_role("menuitem", name=item).click()


def test_list_search_sort_selection_and_address(browser_page, server):
    page = browser_page
    go(page, server)
    assert sorted(listed(page)) == ["alpha", "beta", "gamma"]
    assert "stopped" in page.locator('.wb-run[data-run="beta"]').inner_text()

    search = page.get_by_label("Search runs")
    for typed, expected in (("warmup", ["alpha"]), ("stop", ["beta"]), ("FAIL gam", ["gamma"]), ("nothing", [])):
        search.fill(typed)
        assert listed(page) == expected, typed
    search.fill("")
    page.get_by_label("Sort by").select_option("name")
    assert listed(page) == ["alpha", "beta", "gamma"]

    open_run(page, "alpha")
    head_is(page, "alpha")
    assert address(page, "runs") == "alpha"
    page.get_by_label("Show beta in the chart").check()
    page.wait_for_function("() => new URL(location.href).searchParams.get('runs') === 'alpha,beta'")
    page.locator("#wb-monitor-chart .wb-chart-runs").get_by_text("beta").first.wait_for()

    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press("]")
    head_is(page, "beta")
    assert address(page, "runs") == "alpha,beta" and address(page, "focus") == "beta"
    page.keyboard.press("]")
    head_is(page, "gamma")
    assert address(page, "runs") == "gamma" and address(page, "focus") is None
    page.keyboard.press("[")
    head_is(page, "beta")


def test_a_deep_link_shows_its_runs_and_axis(new_page, server):
    page = new_page()
    go(page, server, "&runs=beta,alpha&focus=alpha&x=tokens")
    head_is(page, "alpha")
    assert page.get_by_label("Show beta in the chart").is_checked()
    assert page.get_by_label("Show alpha in the chart").is_checked()
    assert not page.get_by_label("Show gamma in the chart").is_checked()
    page.wait_for_function("() => document.querySelector('#wb-monitor-chart select')?.value === 'tokens'")
    page.wait_for_timeout(2500)  # a tick later it is still what was asked for
    assert address(page, "runs") == "beta,alpha" and address(page, "x") == "tokens"


def test_a_new_run_appears_and_changes_no_selection(new_page, server, runs):
    page = new_page()
    go(page, server, "&runs=alpha,beta")
    head_is(page, "alpha")
    make_run(runs, "newcomer", 5)
    page.locator('.wb-run[data-run="newcomer"]').wait_for(timeout=LIMIT)
    assert address(page, "runs") == "alpha,beta" and page.get_by_label("Show alpha in the chart").is_checked()
    assert page.locator("#wb-monitor-head h2").inner_text() == "alpha"


def test_text_of_others_is_text_in_every_pane(new_page, server):
    page = new_page()
    go(page, server, "&runs=alpha")
    head_is(page, "alpha")
    log = page.locator("[data-log=text]")
    log.get_by_text("needle").wait_for(timeout=LIMIT)
    assert BAD in log.inner_text() and log.inner_text().rstrip().endswith("20%") and "10%" not in log.inner_text()
    page.get_by_label("Search the log").fill("NEEDLE")
    assert page.locator(".wb-log-line").count() == 1 and page.locator(".wb-log-line mark").inner_text() == "needle"
    page.get_by_label("Search the log").fill("")
    assert page.locator(".wb-log-line").count() == 202

    page.get_by_role("tab", name="Samples").click()
    samples = page.locator("#wb-monitor-samples")
    samples.get_by_text(f"{BAD} tail").wait_for(timeout=LIMIT)
    slider = page.locator("#wb-sample-at input[type=range]")
    slider.focus()
    slider.press("ArrowLeft")
    samples.get_by_text("earlier text").wait_for(timeout=LIMIT)
    assert "seed 1" in samples.inner_text()

    page.get_by_role("tab", name="Notes").click()
    assert page.locator("#wb-note textarea").input_value() == f"a note {BAD} about warmup"
    page.get_by_role("tab", name="Results").click()
    page.locator("#wb-monitor-results").get_by_text(BAD).wait_for(timeout=LIMIT)
    open_run(page, "gamma")
    page.locator("#wb-monitor-trouble summary").click()
    page.locator("#wb-monitor-trouble .wb-log-tail").get_by_text(f"Traceback: {BAD}").wait_for(timeout=LIMIT)
    page.get_by_role("tab", name="Events").click()
    page.locator("#wb-monitor-alerts .wb-log-tail").get_by_text(f"Traceback: {BAD}").wait_for(timeout=LIMIT)
    assert page.locator("#wb-monitor img").count() == 0


def test_settings_show_what_differs_and_exports_are_whole(new_page, server):
    page = new_page()
    go(page, server, "&runs=alpha,beta")
    head_is(page, "alpha")
    page.get_by_role("tab", name="Settings").click()
    table = page.locator("#wb-monitor-settings")
    table.get_by_text("model.seed").wait_for(timeout=LIMIT)
    assert "model.n_layer" not in table.inner_text()
    page.get_by_label("Also settings that are the same").check()
    table.get_by_text("model.n_layer").wait_for(timeout=LIMIT)

    with page.expect_download() as download:
        choose(page, "Save all points as CSV")
    text = Path(download.value.path()).read_text()
    assert download.value.suggested_filename == "alpha.csv" and len(text.splitlines()) == 41
    with page.expect_download() as download:
        choose(page, "Save a report as one HTML file")
    assert "&lt;img src=x" in Path(download.value.path()).read_text()


def test_note_tags_and_star_are_saved_in_the_run_folder(new_page, server, runs):
    page = new_page()
    go(page, server, "&runs=beta")
    head_is(page, "beta")
    page.get_by_role("tab", name="Notes").click()
    note = page.locator("#wb-note textarea")
    page.wait_for_function("() => document.querySelector('#wb-note textarea')?.disabled === false")
    note.fill("typed in the page")
    tags = page.locator("#wb-tags textarea, #wb-tags input").first
    tags.fill("one, two")
    open_run(page, "gamma")  # leaving the field saves, for the run it was typed for
    head_is(page, "gamma")
    page.locator('.wb-run[data-run="beta"] .wb-mon-tag').first.wait_for(timeout=LIMIT)
    beta = RunDir(runs / "beta")
    assert labels.read_note(beta) == "typed in the page" and labels.read_labels(beta).tags == ("one", "two")
    assert labels.read_note(RunDir(runs / "gamma")) == ""
    page.get_by_role("button", name="Mark with a star").click()
    page.get_by_text("gamma is starred").first.wait_for(timeout=LIMIT)  # a note that goes away by itself
    page.locator('.wb-run[data-run="gamma"] .wb-run-star').wait_for(timeout=LIMIT)
    assert labels.read_labels(RunDir(runs / "gamma")).star


def test_two_runs_are_taken_along_to_another_tab(new_page, server):
    page = new_page()
    go(page, server, "&runs=alpha")
    head_is(page, "alpha")
    page.get_by_label("Show beta in the chart").check()
    page.locator("#wb-monitor-head [data-press=wb-do-pair]").wait_for(state="attached", timeout=LIMIT)
    choose(page, "Compare the first two step by step")
    page.wait_for_function("() => new URL(location.href).searchParams.get('tab') === 'ripples'", timeout=LIMIT)
    page.wait_for_function("""() => {
        const box = document.querySelector('#wb-port-ripples textarea, #wb-port-ripples input');
        return /"first": "alpha", "second": "beta"/.test(box?.value);
    }""")


def test_on_a_phone_status_loss_alerts_and_stop_need_no_sideways_scroll(new_page, server):
    page = new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{server.url}?tab=monitor&runs=gamma")
    head_is(page, "gamma")
    page.locator("#wb-monitor-trouble summary").click(timeout=LIMIT)
    page.locator("#wb-monitor-trouble .wb-log-tail").wait_for(timeout=LIMIT)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#wb-monitor-head", ".wb-mon-primary", "#wb-monitor-head .wb-menu > summary", "#wb-monitor-trouble"):
        box = page.locator(part).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 390, part


def test_on_a_phone_the_runs_are_one_line_above_the_results_and_it_opens_the_list(new_page, server):
    page = new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{server.url}?tab=monitor&run=alpha")
    head_is(page, "alpha")
    chooser, rows = page.locator(".wb-runs-chooser"), page.locator("#wb-monitor .wb-run")
    assert "alpha" in chooser.inner_text() and not rows.first.is_visible()
    assert chooser.bounding_box()["height"] >= 44
    assert page.locator("#wb-monitor-head .wb-figures").bounding_box()["y"] < 422, "in the upper half of the screen"
    chooser.press("Enter")
    assert rows.first.is_visible() and violations(page) == []
    open_run(page, "beta")
    head_is(page, "beta")
    assert "beta" in chooser.inner_text() and not rows.first.is_visible()
    chooser.click()
    page.keyboard.press("Escape")
    assert not rows.first.is_visible()


@pytest.mark.parametrize("width", [1360, 390])
def test_nothing_below_the_chart_moves_when_the_points_come_and_no_other_run_is_shown_before(new_page, server, width):
    page = new_page(viewport={"width": width, "height": 900})
    page.add_init_script("""window.seen = [];
      (function look() {
        const [head, panes, none] = ["#wb-monitor-head h2", "#wb-monitor-panes", ".wb-chart-panel-loss .wb-chart-none"]
          .map((selector) => document.querySelector(selector));
        const there = panes?.offsetParent && document.querySelector(".wb-chart-panels");
        if (there) window.seen.push([Math.round(panes.getBoundingClientRect().top + scrollY), head?.textContent || "",
          none.offsetParent ? none.textContent : ""]);
        requestAnimationFrame(look);
      })();""")
    page.goto(
        f"{server.url}?tab=monitor&run=beta&panels=loss,lr,grad_norm,throughput"
    )  # those of the machine come last
    page.wait_for_function(
        "document.querySelector('#wb-monitor-chart .wb-chart')?.chart?.shown[0]?.columns.tokens_per_second",
        timeout=LIMIT,
    )
    page.wait_for_timeout(500)
    seen = page.evaluate("window.seen")
    places = [place for place, *_ in seen]
    assert max(places) - min(places) <= 2, "a pixel or so of a text's line"
    assert {head for _, head, _ in seen} <= {"", "beta"} and "Loading …" in {none for *_, none in seen}


def test_without_a_run_the_page_says_what_to_do(new_page, workbench_server, tmp_path):
    page = new_page()
    page.goto(f"{workbench_server(tmp_path / 'none').url}?tab=monitor")
    page.get_by_role("button", name="Go to Train").click(timeout=LIMIT)
    page.wait_for_function("() => new URL(location.href).searchParams.get('tab') === 'train'")


TINY = (
    "--model.n_layer", "1", "--model.n_head", "1", "--model.n_embd", "16", "--model.block_size", "64",
    "--train.batch_tokens", "256", "--train.steps", "100000", "--eval.interval", "0", "--sample.interval", "0",
    "--checkpoint.interval", "100000", "--data.validation_fraction", "0", "--data.tokenizer", "gpt2:1000",
    "--log.plot_interval", "0",
)  # fmt: skip


@pytest.fixture
def living(runs, tmp_path):
    """A real run of two ranks under torchrun's agent, as somebody starts it in a terminal."""
    text = tmp_path / "text.jsonl"
    words = "the quick brown fox jumps over the lazy dog and runs away again "
    text.write_text("".join(json.dumps({"text": f"{number} {words * 20}"}) + "\n" for number in range(300)))
    agent = launch(["train", "--preset", "tiny", "--run", "living", "--runs", str(runs), "--data.source", str(text),
                    "--data.cache_dir", str(tmp_path / "cache"), *TINY], tmp_path / "said", 2)  # fmt: skip
    run = RunDir(runs / "living")
    deadline = time.monotonic() + 180
    while not run.metrics_file.exists() or not run.metrics_file.read_bytes().count(b"\n"):
        assert agent.poll() is None and time.monotonic() < deadline, f"the run did not start:\n{agent.said()}"
        time.sleep(0.05)
    yield run
    for each in state_of(run).processes:
        each.send(signal.SIGKILL)
    if agent.poll() is None:
        agent.kill()
    agent.wait()


def test_a_run_of_two_ranks_is_killed_after_a_question_and_every_rank_is_reported(new_page, server, living):
    page = new_page()
    go(page, server, "&runs=living")
    head_is(page, "living")
    page.locator("#wb-monitor-head .wb-running").wait_for(timeout=LIMIT)
    pids = {str(process.pid) for process in state_of(living).processes}
    assert len(pids) == 2
    page.get_by_role("tab", name="Details").click()
    page.wait_for_function("n => document.querySelectorAll('#wb-monitor-details .wb-good').length === n", arg=2)
    before = page.locator("#wb-monitor-head .wb-mon-steps").inner_text()
    page.wait_for_function("text => document.querySelector('.wb-mon-steps')?.innerText !== text", arg=before)

    choose(page, "Kill …")
    page.locator("#wb-do-kill-no").click()
    page.locator("#wb-confirm-kill").wait_for(state="hidden", timeout=LIMIT)
    assert len(state_of(living).processes) == 2, "nothing happens before the question is answered"
    choose(page, "Kill …")
    page.locator("#wb-do-kill-yes").click()
    page.locator("#wb-monitor-head").get_by_text("every process is gone").click(timeout=LIMIT)
    report = page.locator("#wb-monitor-head .wb-pop[open] .wb-pop-body").inner_text()
    assert re.search(r"rank 0 \(pid \d+\): killed", report) and re.search(r"rank 1 \(pid \d+\): killed", report)
    assert state_of(living).processes == []
    page.locator(".wb-mon-primary", has_text=re.compile("Resume|Start again")).wait_for(timeout=LIMIT)


def test_a_branch_stands_below_its_parent_and_a_click_begins_another(browser_page, server, runs):
    import torch

    from mygpt2 import checkpoint
    from mygpt2.config import load_config

    page = browser_page
    state = {"config": load_config("tiny").model_dump(mode="json")}
    alpha, gamma = RunDir(runs / "alpha"), runs / "gamma"
    saved = checkpoint.write(alpha.checkpoints_dir, 4, {"w": torch.zeros(2)}, {"w/exp_avg": torch.zeros(2)}, state)
    replace_json(gamma / "branch.json", {"parent": "alpha", "step": 4, "changes": {"optimizer.lr": [0.006, BAD]}})
    try:
        go(page, server, "&runs=gamma")
        page.locator('.wb-run-below[data-run="gamma"]').wait_for(timeout=LIMIT)
        names = listed(page)
        assert names.index("gamma") == names.index("alpha") + 1
        chip = page.get_by_role("button", name="branch of alpha at step 4", exact=True)
        assert BAD in chip.get_attribute("title")
        chip.click()
        head_is(page, "alpha")
        choose(page, "Branch from here")
        place = page.locator("#field-branch textarea, #field-branch input").first
        place.wait_for(timeout=LIMIT)
        page.wait_for_function("e => e.value === 'alpha@4'", arg=place.element_handle(), timeout=LIMIT)
        assert violations(page) == []
    finally:
        (gamma / "branch.json").unlink()
        shutil.rmtree(saved)


def test_an_answer_about_tags_that_comes_late_is_not_shown_for_another_run(new_page, server, runs):
    page = new_page()
    late = Held(page, "queue/join", '"late"')
    go(page, server, "&runs=alpha")
    head_is(page, "alpha")
    page.get_by_role("tab", name="Notes").click()
    page.wait_for_function("() => document.querySelector('#wb-note textarea')?.disabled === false")
    tags = page.locator("#wb-tags textarea, #wb-tags input").first
    tags.fill("late")
    open_run(page, "gamma")
    head_is(page, "gamma")
    page.wait_for_function(TAGS_ARE, arg="", timeout=LIMIT)
    tags.fill("mine,mine")
    page.get_by_label("Search runs").focus()
    page.wait_for_function(TAGS_ARE, arg="mine", timeout=LIMIT)  # though the answer before it has not come
    late.let_go()
    page.locator('.wb-run[data-run="alpha"] .wb-mon-tag').first.wait_for(timeout=LIMIT)
    assert tags.input_value() == "mine"
    tags_of = {name: labels.read_labels(RunDir(runs / name)).tags for name in ("alpha", "gamma")}
    assert tags_of == {"alpha": ("late",), "gamma": ("mine",)}


def test_a_note_that_is_changed_while_it_is_saved_is_saved_again(new_page, server, runs):
    page = new_page()
    go(page, server, "&runs=beta")
    page.get_by_role("tab", name="Notes").click()
    page.wait_for_function("() => document.querySelector('#wb-note textarea')?.disabled === false")
    note, elsewhere = page.locator("#wb-note textarea"), page.get_by_label("Search runs")
    answers = Held(page, "queue/data")  # where the answers come
    for text in ("first", "second", "third"):
        note.fill(text)
        elsewhere.focus()
        until(lambda text=text: labels.read_note(RunDir(runs / "beta")) == text, page)
    answers.let_go()
    page.wait_for_timeout(300)
    assert note.input_value() == "third"


def test_buttons_of_the_head_are_for_the_run_that_it_shows(new_page, server, runs):
    def starred(name):
        return labels.read_labels(RunDir(runs / name)).star

    page, before = new_page(), {name: starred(name) for name in ("alpha", "gamma")}
    go(page, server, "&runs=alpha")
    head_is(page, "alpha")
    question = Held(page, "component_server/", '"focus":"gamma"')
    open_run(page, "gamma")
    until(lambda: question.kept, page)
    page.locator("#wb-monitor-head .wb-mon-star").click()
    until(lambda: starred("alpha") != before["alpha"], page)
    question.let_go()
    head_is(page, "gamma")
    page.locator("#wb-monitor-head .wb-mon-star").click()
    until(lambda: starred("gamma") != before["gamma"], page)


def test_a_run_chosen_before_the_server_has_answered_the_link_stays(new_page, server):
    page = new_page()
    link = Held(page, "run/predict", '"data":[""]')
    go(page, server, "&runs=alpha")
    until(lambda: link.kept, page)
    open_run(page, "beta")
    head_is(page, "beta")
    link.let_go()
    page.wait_for_function(
        "/alpha/.test(document.querySelector('#wb-port-monitor').querySelector('textarea, input').value)"
    )
    page.wait_for_timeout(200)
    head_is(page, "beta")
    assert address(page, "runs") == "beta"
