"""The step card: a step's figures and rows, highest loss first, each row's text by a click; and what is not known."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.data.beside import fields_of
from mygpt2.run_dir import RunWriter
from tests.workbench.tabs.data.data_runs import HOSTILE, context_of, parquet_folder, small_config, traced_run
from workbench.corpus.library import Opened
from workbench.jobs import Alert
from workbench.tabs.monitor import step
from workbench.tabs.monitor.step import AT_ONCE
from workbench.tabs.monitor.view import Monitor


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(monitor, run): eight steps of eight rows whose losses rise with the slot, over parquet files with ids."""
    context = context_of(tmp_path)
    config = small_config(parquet_folder(tmp_path / "root" / "data", files=1, groups=4, rows=1))
    run = traced_run(context.runs, "r", config, tmp_path / "cache")
    with RunWriter(run, 1) as writer:
        for number in range(1, 9):
            writer.metrics(step=number, tokens=256 * number, loss=9.0 - number, lr=0.001, grad_norm=1.5)
        writer.event("eval", step=4, loss=3.25, bits_per_byte=1.5)
        writer.finish("finished", 0, "finished")
    return Monitor.over(context), run


def asked(monitor, **question):
    return step.server_functions(monitor)[0](question)


def row_text(monitor, **question):
    return step.server_functions(monitor)[1](question)


def slots(markup):
    return [int(slot) for slot in re.findall(r'wb-step-row" data-slot="(\d+)"', markup)]


def test_a_step_shows_its_figures_its_events_and_its_rows_highest_loss_first(made):
    monitor, _ = made
    card = asked(monitor, run="r", step=4)
    for said in ("5.0000", "1.500", "0.001", "1.024k", "validation loss", "3.2500, 1.5000 bits per byte"):
        assert said in card["head"], said
    assert slots(card["rows"]) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert "8 rows from" in card["rows"] and re.search(r"part-0\.parquet · row group \d · document \d+", card["rows"])
    assert (card["before"], card["after"], card["more"]) == (3, 5, 0)
    assert asked(monitor, run="r", step=1)["before"] is None and asked(monitor, run="r", step=8)["after"] is None


def test_rows_beyond_the_first_come_when_asked_for(made, monkeypatch):
    monkeypatch.setattr(step, "AT_ONCE", 3)
    monitor, _ = made
    first, then = asked(monitor, run="r", step=2), asked(monitor, run="r", step=2, **{"from": 3})
    assert (slots(first["rows"]), first["more"]) == ([7, 6, 5], 5)
    assert (slots(then["rows"]), then["more"], then["head"]) == ([4, 3, 2], 2, "")
    assert AT_ONCE > 3


def test_a_rows_text_comes_with_what_stands_beside_its_documents(made):
    monitor, _ = made
    shown = row_text(monitor, run="r", step=4, slot=7)["markup"]
    assert "tree" in shown and "<b>id</b> id-" in shown and "<b>score</b>" in shown
    assert "slot 7" in shown and 'data-slot="7"' in shown


def test_text_of_others_never_becomes_markup(made):
    monitor, _ = made
    texts = [row_text(monitor, run="r", step=n, slot=slot)["markup"] for n in range(1, 9) for slot in range(8)]
    assert any("&lt;img" in text for text in texts) and not any("<img" in text for text in texts)
    assert HOSTILE.startswith("<img")


def test_a_run_without_a_trace_says_so_and_still_shows_the_step(made):
    monitor, run = made
    for file in run.trace_dir.glob("*.parquet"):
        file.unlink()
    card = asked(monitor, run="r", step=4)
    assert "5.0000" in card["head"] and "has no trace yet" in card["rows"] and slots(card["rows"]) == []


def test_data_that_changed_or_lie_elsewhere_are_said_in_one_sentence(made, tmp_path):
    monitor, run = made
    parquet_folder(tmp_path / "root" / "data", rows=31)
    assert "was changed since the run began" in row_text(monitor, run="r", step=1, slot=0)["problem"]
    manifest = json.loads((run.trace_dir / "manifest.json").read_text())
    for file in manifest["files"]:
        file[3] = "/etc/hostname"
    (run.trace_dir / "manifest.json").write_text(json.dumps(manifest))
    card = asked(monitor, run="r", step=4)
    assert "outside the folders of this workbench" in card["rows"] and "5.0000" in card["head"]
    assert "outside the folders" in row_text(monitor, run="r", step=4, slot=0)["problem"]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"run": "../r", "step": 1}, "run name"),
        ({"run": "none", "step": 1}, "none"),
        ({"run": "r", "step": 0}, "from 1 up"),
        ({"run": "r", "step": "4; rm"}, "from 1 up"),
        ({"run": "r"}, "from 1 up"),
        (None, "run"),
    ],
)
def test_nonsense_is_answered_with_a_sentence(made, question, said):
    monitor, _ = made
    answer = step.server_functions(monitor)[0](question)
    assert set(answer) == {"problem"} and said in answer["problem"]


def test_a_step_that_was_never_trained_has_no_figures_and_says_what_the_trace_holds(made):
    monitor, _ = made
    card = asked(monitor, run="r", step=99)
    assert card["head"] == "" and "which holds 1 to 8" in card["rows"] and card["after"] is None


def test_a_resume_and_an_alert_of_the_step_are_told(made, monkeypatch):
    monitor, run = made
    with RunWriter(run, 2) as writer:
        writer.metrics(step=5, tokens=1280, loss=3.5)
    alert = Alert("r/spike/", "warning", "spike", "r", 5, 0.0, "the loss rose by 40 %")
    monkeypatch.setattr(monitor.context.jobs, "alerts", lambda name=None: [alert])
    head = asked(monitor, run="r", step=5)["head"]
    assert "attempt 2 goes on from here" in head and "the loss rose by 40 %" in head and "3.5000" in head
    assert "attempt 2" not in asked(monitor, run="r", step=6)["head"]


def test_a_loss_that_is_no_number_comes_first(made):
    monitor, run = made
    for file in run.trace_dir.glob("*.parquet"):
        table = pq.read_table(file)
        losses = table["loss"].to_numpy().copy()
        losses[table["slot"].to_numpy() == 2] = np.nan
        pq.write_table(table.set_column(5, "loss", pa.array(losses)), file)
    assert slots(asked(monitor, run="r", step=3)["rows"])[0] == 2


def test_keys_of_a_json_line_stand_beside_its_document(tmp_path):
    from mygpt2.config.data import DataConfig
    from mygpt2.data.sources.resolve import resolve

    urls = [f"https://example.org/{n}" for n in range(5)]
    lines = [{"text": f"text {n}", "score": n / 4, "url": url, "deep": {"a": 1}} for n, url in enumerate(urls)]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = DataConfig(source=str(tmp_path / "some.jsonl"))
    opened = Opened(resolve(data.source, data, cache_dir=tmp_path / "cache"), tmp_path / "cache")
    assert fields_of(opened, 0, 3) == [("url", "https://example.org/3"), ("score", "0.75")]
    assert fields_of(opened, 0, 99) == []
