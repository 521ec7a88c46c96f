"""The sample tab in a real Chromium: two texts that stream, stop, explain themselves, and are saved."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.workbench.accessible import violations
from tests.workbench.conftest import RunningServer, Start
from tests.workbench.tabs.sample.places import small_place

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def server(workbench_server: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningServer:
    runs, data = small_place(tmp_path_factory.mktemp("sample"))
    return workbench_server(runs, "--data-root", str(data))


def opened(page: Any, server: RunningServer, **link: str) -> Any:
    from urllib.parse import urlencode

    page.goto(f"{server.url}?{urlencode({'tab': 'sample', 'model_a': 'first', 'model_b': 'other', **link})}")
    page.wait_for_selector("#wb-sample-generate", state="visible")
    page.wait_for_function("document.querySelector('.wb-sample')")
    page.wait_for_function(
        "document.querySelector('#wb-sample-prompt textarea').value !== ''"
    )  # the link's, or offered
    return page


def generate(page: Any, until: str = "done") -> None:
    before = page.input_value("#wb-sample-id textarea, #wb-sample-id input")
    page.evaluate("document.querySelectorAll('.wb-sample').forEach((root) => { root.dataset.state = ''; })")
    page.click("#wb-sample-generate")
    page.wait_for_function(
        "before => document.querySelector('#wb-sample-id textarea, #wb-sample-id input').value !== before", arg=before
    )
    page.wait_for_selector(f'.wb-sample[data-state="{until}"]', timeout=120_000)


def tokens(page: Any, pane: int) -> list[str]:
    return page.eval_on_selector_all(  # type: ignore[no-any-return]
        f'[data-pane="{pane}"] [data-at]', "nodes => nodes.map((node) => node.getAttribute('aria-label'))"
    )


def facts(page: Any, pane: int) -> str:
    return page.locator(".wb-sample-facts").nth(pane).inner_text()  # type: ignore[no-any-return]


def settings(page: Any, **values: str) -> None:
    for name, value in values.items():
        box = page.locator(f"#wb-sample-{name.replace('_', '-')} input")
        page.wait_for_function("box => box.value !== ''", arg=box.element_handle())  # its own first value has come
        box.click()
        box.fill(value)
        box.press("Tab")
        assert box.input_value() == value


def test_the_same_twice_a_token_of_both_and_what_is_saved(server: RunningServer, browser_page: Any) -> None:
    page = opened(browser_page, server, prompt=f"Hi 😀 {EVIL}", seed="7")
    settings(page, max_new_tokens="20", temperature="1", top_k="0")
    generate(page)
    first = [tokens(page, pane) for pane in (0, 1)]
    assert first[0] and first[1] and first[0] != first[1]
    assert page.locator(".wb-sample-prompt").first.inner_text() == f"Hi 😀 {EVIL}"
    link = page.url
    assert "seed=7" in link and "model_a=first" in link and "model_b=other" in link and "prompt=Hi" in link

    total = sum(float(re.search(r", ([\d.]+) nats$", words)[1]) for words in first[0])  # type: ignore[index]
    shown = float(re.search(r"([\d.]+) nats in total", facts(page, 0))[1])  # type: ignore[index]
    assert abs(total - shown) <= 0.005 * (len(first[0]) + 1)  # each is rounded to two places
    assert "tokens/s" in facts(page, 0) and "bits per byte" in facts(page, 0)

    page.click('[data-pane="0"] [data-at="2"]')
    page.wait_for_function("document.querySelectorAll('.wb-sample-lists tbody tr').length >= 20")
    detail = page.inner_text(".wb-sample-detail")
    assert "Token 3 of first/step-00000005" in detail and "context that first/step-00000005 wrote" in detail
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.wb-sample-detail h3').textContent.startsWith('Token 2 of')")
    assert page.evaluate("document.activeElement.dataset.at") == "1"

    shown = page.evaluate("document.querySelector('.wb-sample-tip:not([hidden])').textContent")
    assert shown.endswith("token 2") and "rank " in shown, "its figures stand beside it"
    page.keyboard.press("Escape")
    assert not page.is_visible(".wb-sample-tip")

    page.locator(".wb-sample-most").first.click()
    nats = [float(words.rpartition(", ")[2].removesuffix(" nats")) for words in first[0]]
    most = int(page.evaluate("document.activeElement.dataset.at"))
    assert nats[most] == max(nats) and page.is_visible(".wb-sample-tip")
    page.wait_for_function(
        f"document.querySelector('.wb-sample-detail h3').textContent.startsWith('Token {most + 1} of')"
    )
    assert page.locator(".wb-sample-lists > div").first.locator("tr.wb-chosen").count() == 1, (
        "also where it is eleventh"
    )

    saved = {}
    for name in ("Save text", "Save JSON"):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        saved[name] = Path(download.value.path()).read_text(encoding="utf-8")
    records = json.loads(saved["Save JSON"])
    assert [len(record["ids"]) for record in records] == [len(first[0]), len(first[1])]
    assert all(len(record["tokens"]) == len(record["ids"]) for record in records)
    assert records[0]["seed"] == 7 and records[0]["total_nats"] == pytest.approx(-sum(records[0]["logprobs"]))
    assert EVIL in saved["Save text"] and records[1]["text"] in saved["Save text"]

    generate(page)
    assert [tokens(page, pane) for pane in (0, 1)] == first
    fresh = opened(page, server, prompt=f"Hi 😀 {EVIL}", seed="7", model_b="first/step-00000005")
    settings(fresh, max_new_tokens="20", temperature="1", top_k="0")
    generate(fresh)
    assert tokens(fresh, 0) == tokens(fresh, 1) == first[0]


def test_prompts_that_need_a_word_and_numbers_that_are_clamped(server: RunningServer, browser_page: Any) -> None:
    page = opened(browser_page, server)
    settings(page, temperature="-3", max_new_tokens="5", top_p="7")
    page.fill("#wb-sample-prompt textarea", "")
    generate(page)
    notice = page.inner_text("#wb-sample-notice")
    assert "Temperature -3 is outside 0 to 10; 0 is used" in notice and "Top-p 7 is outside" in notice
    assert page.input_value("#wb-sample-temperature input") == "0"
    assert "begins with end of text" in page.locator(".wb-sample-pane").first.inner_text()
    page.fill("#wb-sample-prompt textarea", "word " * 1500)
    generate(page)
    said = page.locator(".wb-sample-pane").first.inner_text()
    assert re.search(r"The prompt has \d,\d{3} tokens and the context is 48: the last 48 are used", said)
    assert len(tokens(page, 0)) == 5
    page.fill("#wb-sample-prompt textarea", "")
    page.get_by_label("Model A").fill("../../etc")
    page.keyboard.press("Enter")
    page.click("#wb-sample-generate")
    page.get_by_text("is outside the folders of this workbench").wait_for()


def test_stop_halts_within_one_token(server: RunningServer, browser_page: Any) -> None:
    page = opened(browser_page, server)
    settings(page, temperature="0", max_new_tokens="2048")
    page.fill("#wb-sample-prompt textarea", "The")
    assert not page.is_visible("#wb-sample-stop")
    page.press("#wb-sample-prompt textarea", "Control+Enter")
    page.wait_for_function("document.querySelectorAll('[data-pane] [data-at]').length > 4", timeout=120_000)
    assert not page.is_visible("#wb-sample-generate"), "it is Stop by now"
    page.focus("#wb-sample-stop")
    page.keyboard.press("Enter")
    page.wait_for_selector('.wb-sample[data-state="stopped"]')
    page.wait_for_selector("#wb-sample-generate", state="visible")
    assert page.evaluate("document.activeElement.id") == "wb-sample-generate", "whoever uses the keyboard stays"
    for state in page.locator(".wb-sample-state").all_inner_texts():
        assert re.fullmatch(r"stopped; (0 tokens|1 token) drawn after the request arrived", state)
    counts = [len(tokens(page, pane)) for pane in (0, 1)]
    assert abs(counts[0] - counts[1]) <= 1 and sum(counts) < 4096


def test_texts_are_in_the_first_screen_and_the_labels_say_what_is_loaded(
    server: RunningServer, browser_page: Any
) -> None:
    page = browser_page
    page.goto(f"{server.url}?tab=sample&runs=first")
    page.wait_for_function("document.querySelector('#wb-sample-prompt textarea')?.value")
    labels = page.eval_on_selector_all("#wb-sample-actions input", "boxes => boxes.map((box) => box.value)")
    assert labels == ["first · newest (step 5)", "other · folder"]
    settings(page, max_new_tokens="12")
    generate(page)
    for pane in page.locator(".wb-sample-text").all():
        box = pane.bounding_box()
        assert box["y"] + 100 < 900
    assert page.locator(".wb-sample-pane h3").all_inner_texts()[0].startswith("first/step-00000005 · ")


def test_a_server_that_is_away_is_said_in_one_sentence(
    workbench_server: Start, server: RunningServer, tmp_path: Path, browser_page: Any
) -> None:
    runs, data = small_place(tmp_path)
    away = workbench_server(runs, "--data-root", str(data))
    page = opened(browser_page, away, prompt="Hi")
    settings(page, max_new_tokens="5")
    generate(page)
    away.kill()
    page.click('[data-pane="0"] [data-at="1"]')
    page.locator(".wb-sample-detail", has_text="The server does not answer; try again.").wait_for()
    page.get_by_role("button", name="Save text").click()
    page.locator(".wb-sample > [role=alert]", has_text="The server does not answer; try again.").wait_for()
    page.click("#wb-sample-generate")
    page.get_by_text("Connection to the server was lost").first.wait_for()
    assert "iterable" not in page.inner_text("body") and page.is_visible("#wb-sample-generate")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_narrow_screen_the_texts_are_below_one_another_and_readable(
    server: RunningServer, new_page: Callable[..., Any], scheme: str
) -> None:
    page = opened(new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme), server, prompt="Hi")
    settings(page, max_new_tokens="30", temperature="1", top_k="0")
    generate(page)
    page.click('[data-pane="1"] [data-at="0"]')
    page.wait_for_selector(".wb-sample-lists tbody tr")
    assert "30 tokens · temperature 1 ·" in page.inner_text("#wb-sample-now").replace("\n", " ")
    tops = [page.locator(".wb-sample-pane").nth(pane).bounding_box()["y"] for pane in (0, 1)]
    assert tops[1] > tops[0] + 50
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert not violations(page)
