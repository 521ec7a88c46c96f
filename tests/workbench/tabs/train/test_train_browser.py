"""The Train tab in a real Chromium: the newcomer's click, errors at fields, presets, files, the queue.

The queue is paused, so that what is started stays queued and no test trains.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from tests.workbench.conftest import Held, RunningServer, Start, make_run

COMMAND = "document.querySelector('#train-command pre')?.textContent"
SETTLED = f"{COMMAND}?.includes('mygpt2.launch')"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("train") / "runs"
    (runs / ".workbench").mkdir(parents=True)
    (runs / ".workbench" / "paused").touch()
    return runs


@pytest.fixture(scope="module")
def server(workbench_server: Start, folder: Path) -> RunningServer:
    return workbench_server(folder, "--slots", "cpu", "--data-root", str(folder.parent))


@pytest.fixture
def page(browser_page: Any, server: RunningServer) -> Any:
    browser_page.goto(f"{server.url}?tab=train")
    browser_page.wait_for_function(SETTLED)
    return browser_page


def box(page: Any, name: str) -> Any:
    return page.locator(f"#field-{name.replace('.', '-').replace('_', '-')}").locator("textarea, input").first


def note(page: Any, name: str) -> Any:
    return page.locator(f"#note-{name.replace('.', '-').replace('_', '-')}")


def command(page: Any) -> str:
    return str(page.locator("#train-command pre").text_content())


def load(page: Any, file: Path) -> None:
    with page.expect_file_chooser() as waiting:
        page.locator("#train-load").click()
    waiting.value.set_files(file)


def wait_command(page: Any, words: str) -> None:
    page.wait_for_function(f"{COMMAND}?.includes({json.dumps(words)})")


def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (folder / ".workbench" / "jobs").glob("*.json")]
    return {job["spec"]["run"]: job for job in found}


def is_red(element: Any) -> bool:
    red, green, blue = element.evaluate("e => getComputedStyle(e).color.match(/\\d+/g).map(Number).slice(0, 3)")
    return bool(red > 140 and green < 80 and blue < 80)


def test_bad_values_are_told_at_their_fields_and_start_says_why_it_is_off(page: Any, folder: Path) -> None:
    before = {str(path) for path in folder.rglob("*")}
    start, reasons = page.locator("#train-start"), page.locator("#train-reasons")
    bad = {"train.steps": ("0", "expected a whole number from 1"), "optimizer.lr": ("x", "expected a number above 0"),
           "data.source": ("../secret", "outside the folders"), "data.tokenizer": ("gpt2:99", "cannot be used"),
           "run": ("a;touch x", "is not allowed"), "processes": ("0", "from 1 to 64")}  # fmt: skip
    good = {name: box(page, name).input_value() for name in bad}
    for name, (text, words) in bad.items():
        box(page, name).fill(text)
        note(page, name).get_by_text(words).first.wait_for()
        assert is_red(note(page, name).locator(".wb-field-problem p").first)
        assert note(page, name).bounding_box()["y"] > page.locator(f"#{_id(name)}").bounding_box()["y"], (
            "below its field"
        )
        reasons.locator(f"a[data-field='{name}']").wait_for()
        assert start.is_disabled() and page.locator("#train-welcome-start").is_enabled()
        assert page.get_by_text(words).count() == 1, "said once"
    assert reasons.locator("li").count() == len(bad), "every reason is listed"
    reasons.get_by_role("link", name="Learning rate").click()
    page.wait_for_function("document.activeElement.closest('#field-optimizer-lr')")
    for name, text in good.items():
        box(page, name).fill(text)
    page.wait_for_function(SETTLED)
    assert start.is_enabled() and not page.locator(".wb-field-problem").count()

    box(page, "train.batch_tokens").fill("8191")
    processes = int(box(page, "processes").input_value())
    near = f"{8191 // (256 * processes) * 256 * processes}, 8192"  # what is advised holds for the processes chosen
    note(page, "train.batch_tokens").get_by_text(f"nearest: {near}").wait_for()
    assert start.is_disabled() and page.locator(".wb-field-problem").count() == 1, "at the field that was changed"
    note(page, "train.batch_tokens").get_by_role("button", name="Reset Batch size").click()
    page.wait_for_function(SETTLED)
    assert box(page, "train.batch_tokens").input_value() == "8192" and start.is_enabled()
    assert {str(path) for path in folder.rglob("*")} == before, "nothing was written meanwhile"


def _id(name: str) -> str:
    return f"field-{name.replace('.', '-').replace('_', '-')}"


def test_what_it_will_take_follows_every_change(page: Any) -> None:
    estimate = page.locator("#train-line")
    estimate.get_by_text("4.27M parameters · 1.15M tokens").wait_for()
    box(page, "model.n_layer").fill("5")
    estimate.get_by_text("5.06M parameters").wait_for()
    wait_command(page, "--model.n_layer 5")
    page.locator("#train-changes").get_by_text("1 setting changed from tiny").wait_for()
    note(page, "model.n_layer").get_by_text("preset:").wait_for()
    page.locator("#train-schedule svg polyline").first.wait_for()
    page.locator("#train-changes").get_by_role("button", name="Reset all settings to the preset").click()
    estimate.get_by_text("4.27M parameters").wait_for()
    assert box(page, "model.n_layer").input_value() == "4"


def test_the_preset_that_was_chosen_last_fills_the_form_and_a_name_typed_meanwhile_stays(page: Any) -> None:
    answers = Held(page, "queue/join")
    page.locator("#field-preset input[value=gpt2]").check()
    while not answers.kept:
        page.wait_for_timeout(10)
    page.locator("#field-run").locator("input, textarea").first.fill("typed")
    page.locator("#field-preset input[value=small]").check()
    answers.let_go()
    page.wait_for_function("""() => {
        const told = document.querySelector('#train-command pre')?.textContent || '';
        return told.includes('--run typed --preset small') && !told.includes('--model');
    }""")
    assert page.locator("#field-preset input[value=small]").is_checked()


def test_a_preset_and_a_file_reach_the_folded_fields_too(page: Any, folder: Path, tmp_path: Path) -> None:
    page.locator("#field-preset input[value=small]").check()
    wait_command(page, "--preset small")
    assert "--train" not in command(page), "the preset alone, with nothing over it"
    assert box(page, "run").input_value() == "small-1"

    file = tmp_path / "mine.toml"
    file.write_text(to_toml(load_config("tiny", None, ["--optimizer.beta1", "0.8", "--model.bias", "false"])), "utf-8")
    load(page, file)
    wait_command(page, "--optimizer.beta1 0.8")
    assert "--preset tiny" in command(page) and "--model.bias false" in command(page)
    fold = page.locator("#fold-rest")
    fold.get_by_text("2 changed").wait_for()
    fold.locator("button").first.click()
    assert box(page, "optimizer.beta1").input_value() == "0.8"
    box(page, "optimizer.beta1").fill("2")
    note(page, "optimizer.beta1").get_by_text("from 0, below 1").wait_for()
    box(page, "optimizer.beta1").fill("0.8")
    page.wait_for_function(SETTLED)
    with page.expect_download() as waiting:
        page.locator("#train-save").click()
    saved = tmp_path / "saved.toml"
    waiting.value.save_as(saved)
    assert load_config(None, saved) == load_config(None, file)

    file.write_text('preset = "tiny"\n[optimizer]\nbeta2 = 7\n[schedule]\ndecay_share = "x"\n', "utf-8")
    load(page, file)
    note(page, "schedule.decay_share").get_by_text("above 0, at most 1").wait_for()  # its fold opened by itself
    note(page, "optimizer.beta2").get_by_text("from 0, below 1").wait_for()


def test_changes_of_the_form_are_answered_one_at_a_time_and_the_last_answer_is_of_the_last_change(page: Any) -> None:
    asked, answered, most = [], 0, 0

    def is_check(url: str, sent: str | None) -> bool:
        return url.split("?")[0].endswith("/run/predict") and len(json.loads(sent or "{}").get("data", ())) > 60

    def sent(request: Any) -> None:
        nonlocal most
        if is_check(request.url, request.post_data):
            asked.append(request)
            most = max(most, len(asked) - answered)

    def came(request: Any) -> None:
        nonlocal answered
        answered += request in asked

    page.on("request", sent)
    page.on("requestfinished", came)
    page.locator("#field-preset input[value=small]").check()
    wait_command(page, "--preset small")
    assert 1 <= len(asked) <= 3, "twenty fields that changed at once are one question"
    for steps in range(101, 131):  # as fast as a script can type
        box(page, "train.steps").fill(str(steps))
    wait_command(page, "--train.steps 130")
    box(page, "train.steps").fill("0")
    note(page, "train.steps").get_by_text("expected a whole number from 1").wait_for()
    assert most == 1


def test_two_clicks_from_an_empty_folder_to_a_run(page: Any, folder: Path, browser_page: Any) -> None:
    assert not [path for path in folder.iterdir() if not path.name.startswith(".")], "nothing ran before"
    assert page.locator("#field-preset input[value=tiny]").is_checked() and page.locator("#train-first").is_visible()
    page.locator("#train-first").get_by_text("4.3M-parameter").wait_for()
    shown = command(page)
    page.locator("#train-welcome-start").click()
    page.wait_for_selector('button[role="tab"][aria-selected="true"]:has-text("Monitor")')
    assert '"runs": "tiny-1"' in page.locator("#wb-port-monitor textarea").input_value()
    (job,) = jobs(folder).values()
    assert job["spec"]["run"] == "tiny-1" and job["spec"]["devices"] == ["cpu"]
    assert " ".join(job["spec"]["argv"]) == shown, "the command shown is the command executed"


def test_the_queue_is_ordered_cancelled_and_copied_from_the_page(page: Any, folder: Path) -> None:
    queue = page.locator("#train-queue")
    for name, steps in (("first", "11"), ("second", "12")):
        box(page, "run").fill(name)
        box(page, "train.steps").fill(steps)
        wait_command(page, f"--run {name} --preset tiny --train.steps {steps}")
        page.locator("#train-queue-up").click()
        queue.locator(".wb-task b", has_text=name).wait_for()
    queue.get_by_role("button", name="Move second up").click()
    page.wait_for_function(
        "(() => { const rows = [...document.querySelectorAll('#train-queue .wb-task b')].map(b => b.textContent);"
        " return rows.indexOf('second') < rows.indexOf('first'); })()"
    )
    queue.get_by_role("button", name="Copy first into the form").click()
    wait_command(page, "--run first-1 --preset tiny --train.steps 11")
    queue.get_by_role("button", name="Take first out of the queue").click()
    queue.get_by_text("cancelled").first.wait_for()
    assert "second" in jobs(folder) and "first" not in jobs(folder) and not (folder / "first").exists()


def test_a_name_typed_while_a_run_is_being_queued_stays(page: Any, folder: Path) -> None:
    box(page, "run").fill("slow")
    wait_command(page, "--run slow --preset tiny")
    kept: list[Any] = []
    page.route("**/queue/join*", lambda route: kept.append(route))
    page.locator("#train-queue-up").click()
    page.wait_for_function("document.querySelector('#train-queue-up').disabled")
    box(page, "run").fill("typed")
    wait_command(page, "--run typed --preset tiny")
    while kept:
        kept.pop().continue_()
    page.unroute("**/queue/join*")
    page.locator("#train-queue").locator(".wb-task b", has_text="slow").wait_for()
    page.get_by_text("slow is queued with the settings as they are now").wait_for()  # its answer is there
    wait_command(page, "--run typed --preset tiny")
    assert box(page, "run").input_value() == "typed" and "typed" not in jobs(folder)
    page.locator("#train-queue-up").click()  # it is on again
    page.locator("#train-queue").locator(".wb-task b", has_text="typed").wait_for()


def test_a_link_fills_the_form_and_a_stopped_run_goes_on(
    new_page: Callable[..., Any], server: RunningServer, folder: Path
) -> None:
    make_run(folder, "held", 3, state="stopped", settings=("--train.steps", "77"))
    page = new_page(viewport={"width": 390, "height": 844})
    page.goto(f"{server.url}?tab=train&from_run=held")
    wait_command(page, "--run held-1 --preset tiny --train.steps 77")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#train-resume").get_by_text("held").first.wait_for()
    page.locator("#train-resume-processes").locator("textarea, input").fill("3")
    page.get_by_role("button", name="Resume held").click()
    page.get_by_text("not a multiple of 3 ranks").first.wait_for()  # a toast says why not
    page.locator("#train-resume-processes").locator("textarea, input").fill("4")
    page.get_by_role("button", name="Resume held").click()
    page.wait_for_selector('button[role="tab"][aria-selected="true"]:has-text("Monitor")')
    assert jobs(folder)["held"]["spec"]["nproc"] == 4


def test_the_keyboard_is_at_start_within_ten_stops(page: Any) -> None:
    page.evaluate("document.activeElement.blur()")
    stops: list[str] = []
    while "train-start" not in stops and len(stops) < 30:
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.slice(0, 20)"))
    assert stops[-1] == "train-start" and len(stops) <= 10, stops


def test_the_search_finds_folded_settings_and_lets_go_of_them(page: Any) -> None:
    page.locator("#train-find").fill("beta 2")
    box(page, "optimizer.beta2").wait_for()
    page.wait_for_function("document.querySelector('.wb-search [role=status]').textContent === '1 setting'")
    assert not box(page, "train.steps").is_visible()
    page.locator("#train-find").press("Escape")
    box(page, "train.steps").wait_for()
    page.wait_for_function("!document.querySelector('#field-optimizer-beta2')?.offsetParent")


def test_the_form_is_there_after_a_reload_and_a_link_wins(
    new_page: Callable[..., Any], server: RunningServer, folder: Path
) -> None:
    make_run(folder, "other", 3, settings=("--train.steps", "66"))
    address = f"{server.url}?tab=train"

    def open_page(where: str, steps: str) -> Any:
        page = new_page()
        page.goto(where)
        page.wait_for_function(f"{COMMAND}?.includes('--train.steps {steps}')")
        return page

    one = new_page()
    one.goto(address)
    one.wait_for_function(SETTLED)
    box(one, "train.steps").fill("33")
    wait_command(one, "--train.steps 33")
    one.reload()
    wait_command(one, "--train.steps 33")
    assert box(one, "train.steps").input_value() == "33"
    two = open_page(address, "33")  # a new window begins with what was changed last
    box(two, "train.steps").fill("44")
    wait_command(two, "--train.steps 44")
    two.close()
    three = open_page(f"{address}&from_run=other", "66")
    three.wait_for_function("!location.search.includes('from_run')")
    three.reload()
    three.wait_for_function(f"{COMMAND}?.includes('--train.steps 66')")
    three.close()
    own = one.evaluate("Object.values({ ...sessionStorage }).join()")
    assert '"train.steps":"33"' in own, "each window keeps its own"
    one.locator("#train-changes").get_by_role("button", name="Reset all settings to the preset").click()
    one.wait_for_function(f"{SETTLED} && !{COMMAND}.includes('--train.steps')")
    one.reload()
    one.wait_for_function(SETTLED)
    assert box(one, "train.steps").input_value() == "140", "reset forgets"


def test_start_stays_in_sight(new_page: Callable[..., Any], server: RunningServer) -> None:
    for size in ({"width": 1360, "height": 900}, {"width": 390, "height": 844}):
        page = new_page(viewport=size)
        page.goto(f"{server.url}?tab=train")
        page.wait_for_function(SETTLED)
        page.locator("#fold-rest button").first.click()
        page.locator("#field-log-profile").scroll_into_view_if_needed()
        page.wait_for_function(
            "(() => { const { top, bottom } = document.querySelector('#train-start').getBoundingClientRect();"
            " return top >= 0 && bottom <= window.innerHeight && window.scrollY > 300; })()"
        )
