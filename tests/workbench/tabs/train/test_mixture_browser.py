"""A mixture from its first click to its shares: mixed by mouse and keyboard, trained through a kill, seen by source."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mygpt2.config import load_config
from mygpt2.run_dir import RunDir, state_of
from tests import forks
from tests.life import harness
from tests.workbench.accessible import violations
from tests.workbench.conftest import Start
from tests.workbench.test_life_browser import processes_of, wait_for

SMALL = ("train.steps=5000 train.batch_tokens=2048 train.micro_batch=16 model.n_layer=1 model.n_head=2 "
         "model.n_embd=32 model.block_size=64 data.tokenizer=gpt2:512 eval.interval=0 data.lanes=2 "
         "train.compile=false checkpoint.interval=20")  # fmt: skip
CURVES = """() => { const plot = document.querySelector('.wb-chart-panel-sources .js-plotly-plot');
    return plot ? new Set(plot.data.filter((one) => one.mode === 'lines').map((one) => one.line.color)).size : 0; }"""


def write_sources(folder: Path) -> None:
    dice = random.Random(1)
    for name in ("books", "web", "code"):
        (folder / name).mkdir()
        for file in range(4):
            texts = (" ".join(dice.choices(["tree", "river", name, "light", "and"], k=60)) for _ in range(120))
            lines = "".join(json.dumps({"text": f"{name} {number} {text}"}) + "\n" for number, text in enumerate(texts))
            (folder / name / f"{file}.jsonl").write_text(lines)


def losses(run: RunDir) -> dict[int, dict[str, list[float]]]:
    """By step and source, where a later attempt wins."""
    rows = [json.loads(line) for line in run.metrics_file.read_text().splitlines()]
    return {row["step"]: row["by_source"] for row in sorted(rows, key=lambda row: row["attempt"])}


def mixture(page: Any) -> list[tuple[str, float]]:
    found = page.locator(".wb-mix-one").evaluate_all(
        "rows => rows.map((row) => ['name', 'weight'].map((key) => row.querySelector(`[data-key=${key}]`).value))"
    )
    return [(name, float(weight)) for name, weight in found]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "runs"
    for folder in (tmp_path / "runs").glob("[!.]*"):
        for process in processes_of(RunDir(folder)):
            process.kill()


def test_three_sources_mixed_on_the_page_are_trained_on_and_seen_by_source(
    workbench_server: Start, runs: Path, tmp_path: Path, browser_page: Any
) -> None:
    (tmp_path / "data").mkdir()
    write_sources(tmp_path / "data")
    page = browser_page
    server = workbench_server(runs, "--slots", "cpu", "--data-root", str(tmp_path / "data"))
    page.goto(f"{server.url}?tab=train&settings={quote(SMALL)}")
    page.wait_for_function("document.querySelector('#train-command pre')?.textContent.includes('gpt2:512')")

    page.click(".wb-mix-begin")
    page.wait_for_selector(".wb-mix-hint >> text=choose its text")
    assert page.locator(".wb-mix-wrong, .wb-mix input[aria-invalid]").count() == 0 and violations(page) == []
    page.keyboard.press("Shift+Tab")
    page.wait_for_selector(".wb-mix-wrong >> text=choose its text")
    page.keyboard.press("Tab")
    page.keyboard.type("web")  # the second source's field had the focus
    page.locator("#field-processes input").fill("1")
    sources = page.locator("[data-key=source]")
    sources.first.fill("books")
    page.locator(".wb-mix-add").press("Enter")
    page.keyboard.type("../outside")
    page.wait_for_selector(".wb-mix-one.wb-mix-wrong >> text=outside the folders")
    assert page.locator("#train-start").is_disabled() and not page.locator("#field-data-source").is_visible()
    sources.last.fill("code")
    assert mixture(page) == [("books", 0.5), ("web", 0.5), ("code", 0.5)], "named after their folders"

    page.evaluate("""() => { window.later = setTimeout; // what waits for more keys waits for ever
        window.setTimeout = (work, ms, ...more) => (ms === 350 ? 0 : later(work, ms, ...more)); }""")
    page.locator("[data-key=weight]").first.fill("0.6")
    page.keyboard.press("Tab")  # whatever is pressed next finds it in the form
    page.wait_for_function("document.querySelector('#train-mix textarea, #train-mix input').value.includes('= 0.6')")
    page.evaluate("window.setTimeout = later")
    page.locator("[data-key=weight]").first.fill("0.5")

    handles = page.locator(".wb-mix-handle")
    handles.first.press("ArrowRight")
    handles.first.press("PageUp")
    box, bar = handles.last.bounding_box(), page.locator(".wb-mix-bar").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 0.12 * bar["width"], y, steps=4)
    page.mouse.up()
    weights = [weight for _, weight in mixture(page)]
    assert weights[0] == 0.66 and abs(sum(weights) - 1.5) < 1e-9 and 0.48 < weights[1] < 0.54
    assert [handles.nth(i).get_attribute("aria-valuenow") for i in (0, 1)] == ["44", str(round(100 * weights[1] / 1.5))]
    page.wait_for_function(
        f"document.querySelector('#train-command pre')?.textContent.includes('name = \"code\", source') && "
        f"document.querySelector('#train-command pre').textContent.includes('weight = {weights[1]}')"
    )
    page.wait_for_selector(".wb-mix-look >> nth=2 >> text=tokens of this run")
    assert violations(page) == []

    page.click("#train-start")
    run = RunDir(Path(wait_for(lambda: next(runs.glob("books-web-code-1/config.toml"), None), "the run")).parent)
    wait_for(lambda: list(run.checkpoints_dir.glob("step-*/MANIFEST.json")), "a checkpoint")
    paused = runs / ".workbench" / "paused"  # else the next server starts it again by itself
    paused.touch()
    server.kill()
    for process in processes_of(run):
        process.kill()
    killed = harness.last_step(run.path)
    server = workbench_server(runs, "--slots", "cpu", "--data-root", str(tmp_path / "data"))
    page.goto(f"{server.url}?tab=monitor&runs={run.name}")
    page.get_by_role("button", name="Cancel").click()
    resume = page.get_by_role("button", name="Resume")
    resume.wait_for()
    paused.unlink()
    resume.click()
    wait_for(lambda: harness.last_step(run.path) > killed, "a step after the kill")
    page.get_by_role("button", name="Stop and save").click()
    wait_for(lambda: state_of(run).state == "stopped", "its end")
    last, calm = harness.last_step(run.path), RunDir(tmp_path / "calm" / "calm")
    words = ["train", "--config", str(run.config_file), "--runs", str(calm.path.parent), "--run", calm.name]
    unbroken = forks.launch(words, tmp_path / "calm-log")
    try:
        wait_for(lambda: harness.last_step(calm.path) >= last or unbroken.poll() is not None, "as many steps")
    finally:
        unbroken.kill()
    found = losses(calm)
    assert losses(run) == {step: found[step] for step in range(1, last + 1)}, "as if nothing had happened"
    mix = load_config(None, run.config_file).data.mix
    assert [(source.name, source.weight) for source in mix] == list(zip(["books", "web", "code"], weights, strict=True))
    page.wait_for_function(f"({CURVES})() === 3")
    legend = page.locator(".wb-chart-sources").inner_text()
    assert "books 44 % promised" in legend.replace("\n", " ") and legend.count("had") == 3
    assert violations(page) == []

    page.goto(f"{server.url}?tab=data&run={run.name}&step={last}")
    table = page.locator("#wb-step-facts table")
    table.wait_for()
    cells = [row.inner_text().split("\t") for row in table.locator("tbody tr").all()]
    assert [cell[0].strip() for cell in cells] == ["books", "web", "code"] and cells[0][1] == "44.00%"
    assert sum(int(cell[3].replace(",", "")) for cell in cells) == last * 2048
