"""A mixture in Data and in the step card: whose row each is, what each source had, and the order of one at a time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from mygpt2.config import RunConfig, to_toml
from mygpt2.data.batch import Batch, loader_state
from mygpt2.data.loader import Loader
from mygpt2.data.sources.mixture import Mixture
from mygpt2.data.trace import TraceWriter
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunWriter
from tests.data.corpus import write_jsonl, write_txt
from tests.workbench.tabs.data.data_runs import (
    batches_of,
    context_of,
    loader_of,
    parquet_folder,
    small_config,
    traced_run,
)
from workbench.corpus import step
from workbench.corpus.library import Library
from workbench.corpus.reading import Reading
from workbench.page import Act, Page
from workbench.tabs.data import acts, documents, handlers, mixture, order, source, tab
from workbench.tabs.monitor import step as card
from workbench.tabs.monitor.view import Monitor


def mixed(folder: Path) -> RunConfig:
    parquet_folder(folder / "a")
    write_jsonl(folder / "b", documents=200)
    write_txt(folder / "c", paragraphs=3000)
    weights = {"books": ("a", 2.0), "web": ("b", 1.0), "code": ("c", 1.0)}
    return small_config(
        "pydocs",
        mix=[{"name": name, "source": str(folder / place), "weight": weight}
             for name, (place, weight) in weights.items()],
    )  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> SimpleNamespace:
    context, reading = context_of(tmp_path), Reading()
    reading.library = Library(tmp_path / "cache")
    config = mixed(context.data_roots[0])
    run = traced_run(context.runs, "mixed", config, tmp_path / "cache")
    return SimpleNamespace(context=context, reading=reading, config=config, run=run, cache=tmp_path / "cache")


def put_checkpoint(run: RunDir, step: int, data: dict[str, Any]) -> None:
    """What a ledger is read from."""
    folder = run.checkpoints_dir / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"data": data, "tokenizer": {"spec": "gpt2:300"}}))


def cells_of(shown: str) -> list[list[str]]:
    """The rows of its tables, as text."""
    rows = re.findall(r"<tr>(<td.*?)</tr>", shown)
    return [[re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def _read(loader: Loader, batch: Batch | None) -> tuple[Any, list[int], list[float]]:
    """What `Loader.state` takes, after a batch."""
    assert batch is not None
    cursor, epochs = loader.read_places(loader.places(batch))
    return cursor, batch.quarantine, epochs


def names(config: RunConfig) -> list[str]:
    return [each.name for each in config.data.mix]


def test_every_row_is_the_loaders_own_and_knows_its_source(made) -> None:
    traced = made.reading.traced(made.context, made.run)
    batches = batches_of(made.config, made.cache, 3)
    for number, tokens in enumerate(batches, 1):
        batch = step.batch_of(made.run, number)
        rows = {row.slot: row for page in (1, 2) for row in step.rows_of_step(traced, number, page)[2]}
        assert np.array_equal(np.stack([rows[slot].ids for slot in sorted(rows)]), tokens)
        for line in batch.lines:
            assert all(file.startswith(f"{line.source}/") for file, _, _ in line.places) or not line.places


def test_rows_are_shown_worst_first_by_source_or_of_one_alone(made) -> None:
    batch = step.batch_of(made.run, 2)
    assert [each.name for each in batch.sources] == names(made.config)
    assert sum(each.rows for each in batch.sources) == 8 == len(batch.rows())
    for each in batch.sources:
        own = batch.rows(each.name)
        assert {line.source for line in own} == {each.name} and len(own) == each.rows
        assert each.loss == pytest.approx(np.mean([line.loss for line in own]))
        assert [line.loss for line in own] == sorted((line.loss for line in own), reverse=True)
    by_source = [line.source for line in batch.rows(step.BY_SOURCE)]
    assert by_source == sorted(by_source, key=names(made.config).index)
    with pytest.raises(UserError, match="not a source of this run; allowed: books"):
        batch.rows("other")


def test_the_step_card_has_a_button_for_each_source(made) -> None:
    ask = card.server_functions(Monitor.over(made.context))[0]
    whole = ask({"run": "mixed", "step": 2})["rows"]
    assert re.findall(r'data-order="([^"]+)"', whole) == [*names(made.config), "*"]
    assert whole.count('aria-pressed="true"') == 0 and "mean" in whole
    only = ask({"run": "mixed", "step": 2, "order": "books"})
    assert only["rows"].count("wb-step-row") == 1 + step.batch_of(made.run, 2).sources[0].rows  # wb-step-rows too
    assert 'data-order="books" aria-pressed="true"' in only["rows"]
    assert "not a source" in ask({"run": "mixed", "step": 2, "order": "x<y"})["problem"]


def test_data_shows_a_steps_rows_of_one_source_and_what_each_source_had(made) -> None:
    facts, rows, _, _, orders = handlers.batch(made.context, made.reading, 0, 0, True, "mixed", 2, 1, "web")
    assert orders.visible and orders.value == "web" and ("only web", "web") in orders.choices
    assert "those of web" in facts and "mean loss of books" in facts and "from its first checkpoint on" in facts
    assert rows.count(" · web · ") >= 1 and " · books · " not in rows


def test_the_ledger_of_the_newest_checkpoint_says_what_was_promised_and_had(made) -> None:
    with RunWriter(made.run, 1) as writer:
        writer.event("left_out", step=8, counts={}, by_source={"books": {"empty": 3, "met": 40}, "web": {"met": 9}})
    with loader_of(made.config, made.cache) as loader:
        batch = [loader.poll(30.0) for _ in range(8)][-1]
        assert batch is not None
        state = loader_state(loader.fingerprint, batch.cursor, batch.quarantine)
    put_checkpoint(made.run, 8, state)
    (made.run.checkpoints_dir / "step-00000009").mkdir()
    (made.run.checkpoints_dir / "step-00000009" / "state.json").write_text("damaged")
    manifest = made.reading.traced(made.context, made.run).opened.manifest
    shown = mixture.of_run(made.context, made.run, manifest)
    assert "at step-00000008" in shown, "the newest that can be read"
    cells = cells_of(shown)
    assert [row[0] for row in cells] == names(made.config)
    assert [row[1] for row in cells] == ["50.00%", "25.00%", "25.00%"]
    tokens = [int(row[3].replace(",", "")) for row in cells]
    assert sum(tokens) == 8 * 256 and abs(tokens[0] - 1024) <= 64
    assert [row[6] for row in cells] == ["3 empty of 40", "none of 9", "none counted"]


def test_a_source_that_left_keeps_its_passes_and_a_mixture_that_became_one_source_its_ledger(made) -> None:
    """Whichever step is looked at: the ledger is the newest checkpoint's."""
    folder, state, tables = made.context.data_roots[0], None, []
    rest = [source.model_dump(exclude_none=True) for source in made.config.data.mix[1:]]
    for number, data in enumerate((made.config, small_config("pydocs", mix=rest), small_config(folder / "c")), 1):
        with loader_of(data, made.cache, state) as loader:
            batch = [loader.poll(30.0) for _ in range(8)][-1]
            assert batch is not None
            state = loader.state(*_read(loader, batch))
            TraceWriter(made.run.trace_dir, number, 0, loader.manifest)
        put_checkpoint(made.run, 8 * number, state)
        facts = handlers.batch(made.context, made.reading, 0, 0, True, "mixed", 2, 1)[0]
        assert f"at step-{8 * number:08d}" in facts
        tables.append({row[0]: row[1:] for row in cells_of(facts)})
    first, second, third = tables
    assert float(first["books"][4]) > 0 and second["books"][4] == third["books"][4] == first["books"][4]
    assert second["books"][0] == third["web"][0] == "not any more" and third["web"][4] == second["web"][4]
    alone = third[str(folder / "c")]
    assert list(third) == [str(folder / "c"), "books", "web"] and alone[0] == "100.00%"
    assert float(alone[4]) > float(second["code"][4]) > 0
    assert sum(int(row[2].replace(",", "")) for row in third.values()) == 3 * 8 * 256
    with RunWriter(made.run, 3) as writer:
        writer.event("left_out", step=24, counts={"empty": 2, "blocks": 1}, of={"documents": 70, "blocks": 9})
    facts = handlers.batch(made.context, made.reading, 0, 0, True, "mixed", 2, 1)[0]
    assert [row[-1] for row in cells_of(facts)] == ["2 empty of 70", "none counted", "none counted"]


def test_a_run_of_one_source_has_no_table_of_sources(made) -> None:
    run = traced_run(made.context.runs, "alone", config := small_config(made.context.data_roots[0] / "c"), made.cache)
    with loader_of(config, made.cache) as loader:
        put_checkpoint(run, 8, loader.state(*_read(loader, loader.poll(30.0))))
    facts = handlers.batch(made.context, made.reading, 0, 0, True, "alone", 2, 1)[0]
    assert "has had" not in facts and "checkpoint" not in facts


def test_an_order_is_that_of_one_source_at_a_time(made) -> None:
    at = (0, False, True, "mixed", "", "", 0, 0, 0, 1)
    _, table, *_, parts = handlers.window(made.context, made.reading, *at, "web")
    assert parts.visible and parts.value == "web" and [name for name, _ in parts.choices] == names(made.config)
    assert ".jsonl" in table and "part-0.parquet" not in table
    first = handlers.window(made.context, made.reading, *at, "?")
    assert first[-1].value == "books" and "part-" in first[1]
    opened = made.reading.library.open(made.config.data, made.reading.tokenizers.get("gpt2:300"))
    with loader_of(made.config, made.cache) as loader:
        orders = [own.order for own in loader._sources]
    for name, own in zip(names(made.config), orders, strict=True):
        assert order.plan_of(opened, made.config, name).order == own, "as the loader has it"


def test_a_link_with_monitors_runs_shows_the_order_of_the_first_and_waits_if_it_is_another_sites(made) -> None:
    fields = ("mixed", "", "", 0, 0, 0, 1, "web")
    shown = acts.in_order(made.context, made.reading, Act("show"), *fields)
    assert "source web" in shown[0] and ".jsonl" in shown[1]
    waits = acts.in_order(made.context, made.reading, Act("linked"), *fields)
    assert "press Show" in waits[0] and len(waits) == len(shown)
    assert tab._asked(Page, Page.ask(runs=" mixed ,other"))[-1] == "mixed"
    for other in ({"runs": "mixed", "run": "mixed"}, {"runs": "mixed", "source": "pydocs"}):
        assert tab._asked(Page, Page.ask(**other))[-1] == gr.skip()


def test_a_folder_of_several_kinds_is_browsed_file_by_file(tmp_path: Path) -> None:
    context, reading = context_of(tmp_path), Reading()
    reading.library = Library(tmp_path / "cache")
    folder = context.data_roots[0] / "several"
    parquet_folder(folder, files=1, groups=2, rows=4)
    (folder / "a.txt").write_text("one\n\ntwo\n\nthree")
    (folder / "b.jsonl").write_text("".join(json.dumps({"text": f"line {n}"}) + "\n" for n in range(5)))
    *_, last = source.open_source(context, reading, str(folder), "text", "gpt2")
    assert "its sources" in last[3] and "parquet" in last[3]
    opened = reading.library.open(handlers.data_of(context, str(folder), "text"), reading.tokenizers.get("gpt2"))
    assert isinstance(opened.manifest, Mixture)
    for number, line in enumerate(documents.files_page(opened.manifest, 1)[1]):
        (block, *_) = documents.blocks_of_file(opened.manifest, number)
        assert documents.block_label(opened.manifest, int(block)).startswith(("part 0", "row group 0"))
        text = handlers.document(context, reading, str(folder), "text", "gpt2", number, 0, 0)
        assert line.name.partition("/")[2] in text
    shown = source.browse(context, reading, {"file": True}, str(folder), "text", "gpt2", 1, 1, 0, 1)
    assert len(shown) == 10


def test_steps_from_before_a_fork_are_those_of_the_data_of_then(made) -> None:
    folder = made.context.data_roots[0]
    write_txt(folder / "d", paragraphs=2900)
    own = [source.model_dump(exclude_none=True) for source in made.config.data.mix]
    forked = small_config("pydocs", mix=[{"name": "more", "source": str(folder / "d")}, *own[1:]])
    with loader_of(forked, made.cache) as loader:
        trace = TraceWriter(made.run.trace_dir, 2, 0, loader.manifest)
        after = [loader.poll(30.0) for _ in range(3)]
        for number, batch in enumerate(after, 7):
            assert batch is not None
            trace.add(number, batch, np.ones(len(batch.slots)))
        trace.flush()
    made.run.config_file.write_text(to_toml(forked))
    assert {line.source for line in step.batch_of(made.run, 6).lines} == {"books", "web", "code"}
    assert "more" in {line.source for number in (7, 8, 9) for line in step.batch_of(made.run, number).lines}
    for number, tokens in ((6, batches_of(made.config, made.cache, 6)[-1]), (7, after[0].tokens)):
        traced = made.reading.traced(made.context, made.run, number)
        rows = {row.slot: row for page in (1, 2) for row in step.rows_of_step(traced, number, page)[2]}
        assert np.array_equal(np.stack([rows[slot].ids for slot in sorted(rows)]), tokens) and not traced.warning
    manifest = next(path for path in made.run.trace_dir.glob("manifest-*.json"))
    text = manifest.read_text()
    secret = made.context.runs.parent / "secret.txt"
    secret.write_text("x")
    manifest.write_text(text.replace(str(folder / "a" / "part-0.parquet"), str(secret)))
    with pytest.raises(UserError, match="outside the folders"):
        made.context.traced_files(made.run)
