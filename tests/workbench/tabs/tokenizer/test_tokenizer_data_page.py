"""Tokenizer and data tabs in a real browser: train, stop, start again, look, replay, use; the documents of a step."""

from __future__ import annotations

import random

import pytest

from tests.workbench.conftest import Held
from tests.workbench.tabs.data.data_runs import batches_of, parquet_folder, slow_text, small_config, traced_run

MARKUP = "<img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data root with a small text, a large one and parquet; a runs folder with one prepared run."""
    folder = tmp_path_factory.mktemp("page")
    root, runs = folder / "root", folder / "runs"
    root.mkdir()
    dice = random.Random(0)
    words = ["".join(dice.choice("abcdefgh") for _ in range(dice.randrange(2, 9))) for _ in range(300)]
    (root / "words.txt").write_text("\n\n".join(" ".join(dice.choices(words, k=60)) for _ in range(200)))
    (root / "large.txt").write_text(slow_text())
    traced_run(runs, "prepared", small_config(parquet_folder(root / "docs", groups=4, rows=6)), folder / "cache")
    return folder


@pytest.fixture(scope="module")
def server(workbench_server, place):
    environment = {"MYGPT2_CACHE": str(place / "cache")}
    return workbench_server(place / "runs", "--data-root", str(place / "root"), env=environment)


def part(page, name):
    """Opens a part of the tab, and waits for it."""
    page.get_by_role("tab", name=name, exact=True).last.click()


def field(page, name):
    return page.locator(f"#{name} textarea, #{name} input").first


def ids_of(page, selector):
    return [int(text) for text in page.locator(selector).evaluate_all("els => els.map(e => e.dataset.t.split(' ')[0])")]


def test_a_tokenizer_from_its_training_to_a_new_run(server, browser_page, place, mygpt2):
    page = browser_page
    page.goto(f"{server.url}?tab=tokenizer&text=naive na\u00efve text")
    page.wait_for_selector("#wb-tok-view .wb-tok")
    assert page.get_by_label("Text", exact=True).input_value() == "naive na\u00efve text"
    page.get_by_role("button", name="Train one").click()
    page.wait_for_function("document.activeElement?.closest('#wb-tok-name')")

    def start(source, size, name):
        field(page, "wb-tok-source").fill(source)
        field(page, "wb-tok-size").fill(str(size))
        field(page, "wb-tok-name").fill(name)
        page.wait_for_function(
            "name => document.querySelector('#wb-tok-said').innerText.includes('/' + name)", arg=name
        )
        page.click("#wb-tok-start")

    field(page, "wb-tok-name").fill("../" + MARKUP)
    page.wait_for_selector("#wb-tok-said .wb-problem")
    assert "is not allowed" in page.inner_text("#wb-tok-said") and page.locator("#wb-tok-said img").count() == 0

    start("large.txt", 60000, "big")
    page.wait_for_selector("#wb-tok-tasks .wb-going")
    page.get_by_role("button", name="Stop: big").click()
    page.wait_for_selector("#wb-tok-tasks .wb-badge.wb-stopped")
    assert not (place / "runs" / ".workbench" / "tokenizers" / "big").exists()
    page.get_by_role("button", name="Start again: big").click()
    page.wait_for_selector("#wb-tok-tasks .wb-badge.wb-running")
    page.get_by_role("button", name="Stop: big").click()
    page.wait_for_function("document.querySelectorAll('#wb-tok-tasks .wb-badge.wb-stopped').length === 2")

    start("words.txt", 300, "mine")
    page.wait_for_selector("#wb-tok-trained .wb-own")
    made = place / "runs" / ".workbench" / "tokenizers" / "mine"
    assert str(made) in page.inner_text("#wb-tok-trained")
    page.wait_for_selector("#wb-tok-tasks .wb-badge.wb-finished", state="attached")  # folded away

    page.get_by_role("button", name="Look at it: mine").click()
    page.wait_for_selector("#wb-tok-view >> text=mine, 300 ids")
    page.wait_for_selector(".wb-vocab >> text=Vocabulary of mine")
    text = f"abcd efgh {MARKUP} \U0001f642"
    page.get_by_label("Text", exact=True).fill(text)
    page.wait_for_selector(f"#wb-tok-view >> text={len(text.encode())} bytes")
    printed = mygpt2("tokenizer", "inspect", text, "--tokenizer", str(made)).out.splitlines()
    own = f'#wb-tok-view [data-spec="{made}"]'
    ids = ids_of(page, f"{own} .wb-tok")
    assert ids == [int(line.split()[0]) for line in printed[1:]]
    page.focus(f"{own} .wb-tok >> nth=0")
    page.keyboard.press("ArrowRight")
    told = page.inner_text(f"{own} .wb-tok-detail")
    assert told.startswith(f"id {ids[1]} ") and "bytes:" in told.replace("byte:", "bytes:")
    page.keyboard.press("Enter")  # to its row
    page.wait_for_selector(f'.wb-vocab tr.wb-chosen[data-row="{ids[1]}"]')
    page.click("#wb-tok-replay button >> nth=0")
    page.get_by_role("button", name="Replay", exact=True).click()
    page.wait_for_selector("#wb-merges .wb-piece")
    page.get_by_role("button", name="One merge on").click()
    page.wait_for_selector("#wb-merges .wb-new")
    assert "merge 1 of" in page.inner_text("#wb-merges")

    page.get_by_role("button", name="Use in a new run: mine").click()
    page.wait_for_function("path => document.querySelector('#wb-port-train textarea, #wb-port-train input')"
                           ".value.includes(path)", arg=str(made))  # fmt: skip
    assert page.locator("button[role=tab][aria-selected=true]").first.inner_text() == "Train"
    assert page.evaluate("window.hacked") is None


def test_the_vocabulary_is_searched_sorted_turned_and_taken_along(server, browser_page, tmp_path):
    page = browser_page
    page.goto(f"{server.url}?tab=tokenizer&text= unbelievably")
    rows = page.locator(".wb-vocab-rows tbody tr")
    page.wait_for_selector(".wb-vocab-rows tbody tr")
    assert page.inner_text(".wb-vocab-pager [role=status]") == "1\u201350 of 50,257 tokens, 50,000 merges"
    page.get_by_role("button", name="Next page of the vocabulary").click()
    page.wait_for_selector('.wb-vocab [data-row="50"]')
    page.fill(".wb-vocab input", "\u2423believ")
    page.wait_for_selector(".wb-vocab-pager >> text=found")
    assert rows.first.get_attribute("data-row") == "1975" and rows.count() == 7
    page.focus(".wb-vocab [data-first] >> nth=0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-tree .wb-part")
    assert "\u2423believed" in page.inner_text(".wb-vocab-detail")
    page.click(".wb-menu summary >> text=Download")
    with page.expect_download() as taken:
        page.get_by_role("menuitem", name="What was found, as TSV").click()
    taken.value.save_as(tmp_path / "found.tsv")
    lines = (tmp_path / "found.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 8 and lines[1].split("\t")[:3] == ["1975", " believe", b" believe".hex()]
    page.get_by_label("what is searched").select_option("bytes")
    page.fill(".wb-vocab input", "zz")
    page.get_by_text("is not a row of bytes").wait_for()
    page.fill(".wb-vocab input", "")
    page.get_by_label("order", exact=True).select_option("longest")
    page.wait_for_selector(".wb-vocab-rows tbody tr:first-child td:nth-child(4) >> text=128")
    page.evaluate(  # typed, and at once a token is clicked: the search that was to come does not turn the page away
        """() => { const box = document.querySelector(".wb-vocab input");
        box.value = "zz"; box.dispatchEvent(new Event("input", { bubbles: true }));
        document.querySelector('[data-spec="gpt2:8192"] .wb-tok').click(); }"""
    )
    page.wait_for_selector(".wb-vocab >> text=Vocabulary of gpt2:8192")
    page.wait_for_selector(".wb-vocab tr.wb-chosen")
    page.wait_for_timeout(600)  # longer than a search waits for more to be typed
    assert page.is_visible(".wb-vocab tr.wb-chosen")


def test_answers_that_come_late_are_not_shown_in_place_of_what_was_asked_for_after_them(server, browser_page):
    page, asked = browser_page, []
    page.goto(f"{server.url}?tab=tokenizer&text= unbelievably")
    page.wait_for_selector(".wb-vocab-rows tbody tr")
    page.route("**/component_server**", lambda route: (
        asked.append(route) if "vocabulary_" in (route.request.post_data or "") else route.continue_()
    ))  # fmt: skip
    page.evaluate("document.querySelectorAll('.wb-vocab [data-first]').forEach((one, at) => at < 2 && one.click())")
    while len(asked) < 2:
        page.wait_for_timeout(10)
    for route in reversed(asked):  # the second token's first
        with page.expect_event("requestfinished"):
            route.continue_()
        page.wait_for_timeout(50)
    chosen = page.locator(".wb-vocab tr.wb-chosen")
    assert chosen.count() == 1 and chosen.get_attribute("data-row") == "1"

    asked.clear()  # a file is asked for, then a search: both come
    page.click(".wb-menu summary >> text=Download")
    page.get_by_role("menuitem", name="What was found, as TSV").click()
    page.fill(".wb-vocab input", "believ")
    while len(asked) < 2:
        page.wait_for_timeout(10)
    with page.expect_download():
        for route in asked:
            route.continue_()
    page.wait_for_selector(".wb-vocab-pager >> text=found")
    page.unroute("**/component_server**")


def test_documents_of_a_source_and_exactly_the_batch_of_a_step(server, browser_page, place):
    page = browser_page
    page.goto(f"{server.url}?tab=data&run=prepared&step=3")
    page.wait_for_selector(".wb-row")
    assert "Step 3 of prepared" in page.inner_text("#wb-step-facts")
    config = small_config(place / "root" / "docs")
    batch = batches_of(config, place / "cache", 3)[2]
    shown = {}
    for number in (1, 2):
        if number == 2:
            page.click("#wb-row_page-on")
            page.wait_for_selector("#wb-step-facts >> text=page 2 of 2")
            page.wait_for_selector(".wb-ids[data-slot='0']", state="attached")
        for cell in page.locator(".wb-ids").all():
            shown[int(cell.get_attribute("data-slot"))] = [int(word) for word in cell.text_content().split()]
    assert [shown[slot] for slot in range(len(batch))] == batch.tolist()

    part(page, "Sources")
    page.get_by_role("button", name="Open docs").click()
    page.wait_for_selector("#wb-data-hist svg")
    assert field(page, "wb-data-source").input_value() == "docs"
    assert "tab=data" in page.url and "source=docs" in page.url and "run=" not in page.url
    page.locator("#wb-data-documents label").first.click()
    page.wait_for_selector("#wb-data-text pre")
    assert "<img src=x onerror=" in page.inner_text("#wb-data-text pre")
    field(page, "wb-data-part").fill("2")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=row group 2, 6 documents")

    for bad in ("../page", "/etc", MARKUP):
        field(page, "wb-data-source").fill(bad)
        page.click("#wb-data-open")
        page.wait_for_function("bad => document.querySelector('#wb-data-message .wb-problem')?.innerText.includes(bad)",
                               arg=bad)  # fmt: skip

    page.goto(f"{server.url}?tab=data&runs=prepared,other")
    page.wait_for_selector("#wb-order table")
    assert page.inner_text("#wb-order-shape").startswith("2 lanes") and "part-0.parquet" in page.inner_text("#wb-order")

    page.goto(f"{server.url}?tab=data")
    part(page, "Training order")
    field(page, "wb-order-source").fill("docs")
    page.click("#wb-order-show")
    page.wait_for_selector("#wb-order table")

    page.goto(f"{server.url}?tab=monitor")
    page.wait_for_function("window.workbench.monitor?.focus() === 'prepared'")
    page.get_by_role("tab", name="Data", exact=True).click()
    part(page, "A step of a run")
    page.wait_for_function("document.querySelector('#wb-step-run input')?.value === 'prepared'")
    page.click("#wb-step-show")
    page.wait_for_selector("#wb-step-facts >> text=of prepared")
    assert page.evaluate("window.hacked") is None


def test_in_each_part_of_data_what_was_done_last_is_shown_of_what_it_was_done_to(server, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=data&run=prepared&step=3")
    page.wait_for_selector("#wb-step-facts >> text=Step 3 of prepared")
    answers = Held(page, "queue/join")
    page.get_by_role("button", name="Step after").click()
    while not answers.kept:
        page.wait_for_timeout(10)
    field(page, "wb-step-step").fill("1")
    page.keyboard.press("Enter")
    answers.let_go()
    page.wait_for_selector("#wb-step-facts >> text=Step 1 of prepared")
    assert field(page, "wb-step-step").input_value() == "1"

    part(page, "Sources")
    field(page, "wb-data-source").fill("docs")
    page.click("#wb-data-open")
    page.wait_for_selector("#wb-data-hist svg")
    field(page, "wb-data-source").fill("nothing.txt")  # and not opened
    page.locator("#wb-data-documents label").first.click()
    page.wait_for_selector("#wb-data-text pre")
    assert "<img src=x onerror=" in page.inner_text("#wb-data-text pre"), "of the source that is open"
    answers = Held(page, "queue/join")
    page.locator("#wb-data-documents label").last.click()
    while not answers.kept:
        page.wait_for_timeout(10)
    page.click("#wb-data-open")
    answers.let_go()
    page.wait_for_selector("#wb-data-message .wb-problem")
    assert not page.locator("#wb-data-opened").is_visible()


def test_back_twice_shows_the_place_of_the_address(server, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=data&run=prepared&step=3")
    page.wait_for_selector("#wb-step-facts >> text=Step 3 of prepared")
    for name in ("Tokenizer", "Compare"):
        page.get_by_role("tab", name=name).click()
        page.wait_for_function("name => location.search.includes(`tab=${name}`)", arg=name.lower())
    answers = Held(page, "run/predict")
    page.go_back()
    while not answers.kept:
        page.wait_for_timeout(10)
    page.go_back()
    answers.let_go()
    page.wait_for_selector("#wb-step-facts", state="visible")
    assert "tab=data" in page.url


def test_what_is_typed_while_an_answer_is_under_way_is_what_the_last_answer_is_about(server, browser_page):
    page = browser_page
    page.goto(f"{server.url}?tab=data")
    part(page, "Sources")
    answers = Held(page, "run/predict", "Tokenizers split text")  # of the text that is there as the tab is opened
    page.get_by_role("tab", name="Tokenizer").click()
    page.wait_for_selector("#wb-tok-text textarea")
    while not answers.kept:
        page.wait_for_timeout(10)
    page.fill("#wb-tok-text textarea", "typed")
    page.wait_for_timeout(500)
    with page.expect_response(lambda answer: "Tokenizers split text" in (answer.request.post_data or "")):
        answers.let_go()
    page.wait_for_function("() => document.querySelector('#wb-tok-view .wb-tok-part')?.innerText.includes('typed')")
    page.wait_for_timeout(300)
    assert "Tokenizers" not in page.inner_text("#wb-tok-view")

    page.get_by_role("button", name="Replay the merges of a word").click()
    answers = Held(page, "queue/join")
    page.get_by_role("button", name="Replay", exact=True).click()
    while not answers.kept:
        page.wait_for_timeout(10)
    page.get_by_label("Word or short text").fill("abcde")
    page.keyboard.press("Enter")
    answers.let_go()
    page.wait_for_selector("#wb-merges >> text=5 bytes in")


def test_a_tokenizer_that_is_chosen_before_the_runs_own_is_offered_stays(server, browser_page, place):
    page = browser_page
    for chosen in ("", "gpt2:2048"):
        page.goto(f"{server.url}?tab=monitor&runs=prepared")
        page.wait_for_selector("#wb-monitor-head h2")
        answers = Held(page, "run/predict", "runs")
        page.get_by_role("tab", name="Tokenizer").click()
        page.wait_for_selector("#wb-tok-spec input")
        while not answers.kept:
            page.wait_for_timeout(10)
        if chosen:
            page.fill("#wb-tok-spec input", chosen)
            page.keyboard.press("Enter")
        answers.let_go()
        spec = chosen or small_config(place / "root" / "docs").data.tokenizer
        page.wait_for_selector(f".wb-tok-part[data-spec='{spec}']")
        page.wait_for_timeout(300)
        assert page.locator(".wb-tok-part").first.get_attribute("data-spec") == spec
