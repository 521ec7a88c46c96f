"""The picker in a real browser: by keyboard, by search, with files dropped and cancelled; what Train makes of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.workbench.accessible import violations
from tests.workbench.conftest import Held

TEXT = "Call me Ishmael. Some years ago, never mind how long precisely. " * 400
DROP = """([selector, files]) => {
  const carried = new DataTransfer(), place = document.querySelector(selector);
  for (const [name, text] of files) carried.items.add(new File([text], name));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    place.dispatchEvent(new DragEvent(kind, { bubbles: true, cancelable: true, dataTransfer: carried }));
  }
}"""
VALUE = (
    """([selector, end]) => document.querySelector(`${selector} textarea, ${selector} input`)?.value.endsWith(end)"""
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("picked")
    for name in ("root/books/old", "root/empty", "runs", "elsewhere"):
        (folder / name).mkdir(parents=True)
    for number in range(120):
        (folder / "root" / "books" / f"book {number}.txt").write_text(f"{number} {TEXT}")
    (folder / "root" / "books" / "old" / "moby.jsonl").write_text('{"text": "x"}\n')
    (folder / "root" / "whale.txt").write_text(TEXT)
    (folder / "root" / "out").symlink_to(folder / "elsewhere")
    return folder


@pytest.fixture(scope="module")
def server(workbench_server: Any, place: Path) -> Any:
    environment = {"MYGPT2_CACHE": str(place / "cache")}
    return workbench_server(place / "runs", "--data-root", str(place / "root"), env=environment)


def rows(page: Any) -> list[str]:
    return page.locator(".wb-picks .wb-row-name").all_inner_texts()


def test_a_file_is_chosen_by_the_keyboard_alone_and_found_by_its_name(server: Any, browser_page: Any) -> None:
    page = browser_page
    page.goto(f"{server.url}?tab=data")
    page.locator("#wb-data-source .wb-pick").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-picks section")
    assert page.evaluate("document.activeElement.type") == "search" and "pydocs" in rows(page)
    assert violations(page) == []
    page.keyboard.type("moby")
    page.wait_for_function("document.querySelector('.wb-row-name')?.innerText.includes('moby.jsonl')")
    page.keyboard.press("Escape")  # takes the words back
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "wb-pick", "the focus is where it was"

    page.keyboard.press("Enter")
    page.wait_for_selector(".wb-folder-row")
    for name in ("root/", "books/"):
        page.locator(f".wb-folder-row:has-text('{name}')").focus()
        page.keyboard.press("Enter")
        page.wait_for_selector(f".wb-crumbs [aria-current]:has-text('{name[:-1]}')")
    assert rows(page)[:3] == ["old/", "book 0.txt", "book 1.txt"] and "of 121" in page.inner_text(".wb-picks-pages")
    page.get_by_role("button", name="Next", exact=True).last.click()
    page.wait_for_selector(".wb-row-name:has-text('book 119.txt')")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Backspace")
    page.wait_for_selector(".wb-crumbs [aria-current]:has-text('root')")
    assert not [name for name in rows(page) if name in ("out/", "empty/")]
    assert page.get_by_role("button", name="Use the folder books").count() == 1, "each format becomes a source of it"
    page.locator(".wb-folder-row:has-text('books/')").click()
    page.get_by_role("button", name="Use the folder old").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(VALUE, arg=["#wb-data-source", "books/old"])
    page.wait_for_selector("#wb-data-facts h3:has-text('books/old')")
    page.locator("#wb-data-source .wb-pick").click()
    page.wait_for_selector(".wb-picks h3:has-text('Recent')")
    assert rows(page)[0] == "old"


def test_a_panel_opened_again_before_its_closing_was_told_of_lists_what_can_be_chosen(
    server: Any, browser_page: Any
) -> None:
    page = browser_page
    page.goto(f"{server.url}?tab=data")
    page.locator("#wb-data-source .wb-pick").click()
    page.wait_for_selector(".wb-folder-row")
    page.evaluate(
        """() => {
          window.closed = new Promise((done) => document.querySelector(".wb-picker").addEventListener("close", done));
          document.querySelector(".wb-picker").close();  // a dialog says "close" later, in a task of its own
          document.querySelector("#wb-data-source .wb-pick").click();
        }"""
    )
    page.evaluate("window.closed")
    page.wait_for_selector(".wb-folder-row", timeout=10_000)
    assert page.evaluate("document.activeElement.type") == "search", "the focus is in the panel that is open"
    assert page.locator(".wb-picker .wb-pick-status").count() == 1, "what an upload says is told in there"
    for name in ("root/", "books/"):
        page.locator(f".wb-folder-row:has-text('{name}')").click()
        page.wait_for_selector(f".wb-crumbs [aria-current]:has-text('{name[:-1]}')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#wb-data-source .wb-pick-status", state="attached")

    waiting: list[Any] = []
    page.route("**/component_server**", lambda route: (  # the server is slow
        waiting.append(route) if "picker_list" in (route.request.post_data or "") else route.continue_()
    ))  # fmt: skip
    page.locator("#wb-data-source .wb-pick").click()
    page.keyboard.type("whale")
    page.keyboard.press("Enter")  # before there is anything that could be chosen
    page.wait_for_function("document.querySelector('.wb-picks').ariaBusy === 'true'")
    while len(waiting) < 2:
        page.wait_for_timeout(10)
    for route in reversed(waiting):
        route.continue_()
    page.unroute("**/component_server**")
    page.wait_for_function("document.activeElement.innerText?.includes('whale.txt')")
    assert page.locator(".wb-crumbs").is_hidden(), "looked for where the panel stood, not where it was left last time"


def test_files_are_brought_along_refused_and_cancelled(server: Any, browser_page: Any, place: Path) -> None:
    page, uploads = browser_page, place / "runs" / ".workbench" / "uploads"
    page.goto(f"{server.url}?tab=data")
    page.wait_for_selector("#wb-data-source .wb-pick")
    page.evaluate(DROP, ["#wb-data-source", [["../My book.txt", TEXT]]])
    page.wait_for_function(VALUE, arg=["#wb-data-source", "My-book.txt"])
    assert (uploads / "My-book.txt").read_text() == TEXT
    page.wait_for_selector("#wb-data-opened #wb-data-hist svg")
    page.evaluate(DROP, ["#wb-data-source", [["chapter 1.txt", TEXT], ["chapter 2.txt", TEXT]]])
    page.wait_for_function(VALUE, arg=["#wb-data-source", "chapter"])
    assert sorted(path.name for path in (uploads / "chapter").iterdir()) == ["chapter-1.txt", "chapter-2.txt"]

    status = page.locator("#wb-data-source .wb-pick-status")
    page.evaluate(DROP, ["#wb-data-source", [["letter.docx", TEXT]]])
    page.wait_for_function("document.querySelector('#wb-data-source .wb-bad')?.innerText.includes('.jsonl')")
    sending = Held(page, "workbench/upload/")
    page.evaluate(DROP, ["#wb-data-source", [["late.txt", TEXT]]])
    while not sending.kept:
        page.wait_for_timeout(10)
    page.locator("#wb-data-source").locator("textarea, input").first.fill("typed meanwhile")
    sending.let_go()
    status.get_by_text("Browse has it").wait_for()
    assert page.evaluate(VALUE, ["#wb-data-source", "typed meanwhile"])
    page.route("**/workbench/upload/**", lambda route: None)  # an answer that never comes
    page.evaluate(DROP, ["#wb-data-source", [["slow.txt", TEXT]]])
    status.get_by_role("button", name="Cancel").click()
    status.get_by_text("nothing was kept").wait_for()
    assert sorted(path.name for path in uploads.iterdir() if path.name[0] != ".") == [
        "My-book.txt",
        "chapter",
        "late.txt",
    ]


def test_a_file_dropped_on_trains_data_is_looked_into_and_names_the_run(server: Any, browser_page: Any) -> None:
    page = browser_page
    page.goto(f"{server.url}?tab=train")
    page.wait_for_selector("#field-data-source .wb-pick")
    page.wait_for_selector("#train-look [data-act=look], #train-look .wb-look")  # the form has been looked at
    page.evaluate(DROP, ["#train-data", [["Moby Dick.txt", TEXT]]])
    page.wait_for_function(VALUE, arg=["#field-run", "Moby-Dick-1"])
    page.wait_for_function("document.querySelector('#train-look .wb-look')?.innerText.includes('Call me Ishmael')")
    assert "1 text file" in page.inner_text("#train-look") and violations(page) == []
    page.locator("#field-data-source input").first.fill("empty")
    page.wait_for_selector("#train-look .wb-problem")
    assert page.locator("#train-start").is_disabled(), "an empty folder is refused before it is queued"
