"""Looking into a source: pages, lengths, scores, training order; bounded work, refused paths, text as text."""

from __future__ import annotations

import gzip
from itertools import pairwise

import gradio as gr
import numpy as np
import pytest

from mygpt2.config.data import DataConfig
from mygpt2.data.trace import place_of
from mygpt2.errors import UserError
from tests.data.corpus import write_jsonl, write_tokens, write_txt
from tests.data.hub_data import REPO, SOURCE, fineweb_edu
from tests.fake_hub import FakeHub
from tests.workbench.tabs.data.data_runs import (
    HOSTILE,
    context_of,
    document,
    loader_of,
    parquet_folder,
    small_config,
    traced_run,
)
from workbench.corpus.library import Library, Opened, opening
from workbench.corpus.pages import page_of
from workbench.corpus.reading import Reading
from workbench.page import Act, Page
from workbench.tabs.data import acts, columns, documents, handlers, order, show, tab
from workbench.tabs.data import source as source_of
from workbench.tabs.data.opening import runs_with_a_trace
from workbench.tokenizers import Tokenizers


def open_source(path, tmp_path, **settings) -> Opened:
    return Library(tmp_path / "cache").open(DataConfig(source=str(path), **settings))


def test_files_blocks_and_documents_of_parquet_by_pages(tmp_path):
    opened = open_source(parquet_folder(tmp_path / "d", files=45, groups=2, rows=30), tmp_path)
    page, lines = documents.files_page(opened.manifest, 3)
    assert (page.page, page.pages, len(lines)) == (3, 3, 5)
    assert (lines[0].number, lines[0].blocks, lines[0].documents) == (40, 2, 60)
    block = int(documents.blocks_of_file(opened.manifest, 1)[1])
    page, found = documents.documents_page(opened, block, 2, DataConfig())
    assert (page.page, page.pages, [line.number for line in found]) == (2, 2, list(range(20, 30)))
    assert found[0].preview.startswith("Document ") and found[0].chars == len(opened.read(block)[20])
    assert "30 documents" in documents.block_label(opened.manifest, block)


def test_a_click_reads_one_block_and_the_next_page_none(tmp_path):
    opened = open_source(parquet_folder(tmp_path / "d"), tmp_path)
    read = []
    inner = opened._reader.read
    opened._reader.read = lambda block: (read.append(block), inner(block))[1]
    source_of.shown(opened, DataConfig(), 1, 1, 2, 1)
    assert read == [8]
    source_of.shown(opened, DataConfig(), 1, 1, 2, 2)
    documents.whole_document(opened, 8, 3)
    assert read == [8]


@pytest.mark.parametrize(
    ("write", "kind", "tokenizer"),
    [(write_jsonl, "jsonl", "gpt2"), (write_txt, "txt", "gpt2"), (write_tokens, "tokens", "gpt2:257")],
)
def test_other_formats_show_the_same_way(write, kind, tokenizer, tmp_path):
    source = write(tmp_path / "d")
    opened = Library(tmp_path / "cache").open(DataConfig(source=str(source)), Tokenizers().get(tokenizer))
    assert opened.manifest.kind == kind
    for file in range(len(documents.files_page(opened.manifest, 1)[1])):
        blocks = documents.blocks_of_file(opened.manifest, file)
        where, text = documents.whole_document(opened, int(blocks[0]), 0)
        assert "document 0" in where and text == opened.as_text(opened.read(int(blocks[0]))[0])
        assert kind == "tokens" or text.startswith("<0")
    assert dict(documents.facts(opened))["format"] == kind


def test_scores_beside_the_text_and_their_histogram(tmp_path):
    opened = open_source(parquet_folder(tmp_path / "d"), tmp_path)
    found = columns.figures_of(opened, 3)
    assert list(found) == ["characters", "score", "int_score"]
    assert found["score"].tolist() == [n % 7 / 2 for n in range(90, 120)]
    drawn = show.histograms(found, "lengths")
    assert drawn.count("<svg") == 3 and 'aria-label="int_score: 30 documents, from 0 to 4' in drawn


def test_jsonl_numbers_are_scores_too(tmp_path):
    opened = open_source(write_jsonl(tmp_path / "d", files=1, documents=50), tmp_path)
    found = columns.figures_of(opened, 0)
    assert list(found) == ["characters", "n"] and found["n"][:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "values", [[1, 2, 2, 3], [5.0] * 9, [1, 10, 100, 5000], np.geomspace(1e-3, 1e3, 77), [np.nan, 2.0], [0, 1e9]]
)
def test_every_value_is_in_a_bar(values):
    values = np.asarray(values, float)
    counts, edges, _ = columns.binned(values)
    assert counts.sum() == np.isfinite(values).sum() and len(edges) == len(counts) + 1


def test_nothing_to_draw_is_no_picture():
    assert columns.drawn("x", np.array([np.nan])) == ""


def test_what_training_does_with_a_document_is_said():
    data = DataConfig(validation_fraction=0.5, max_document_chars=100)
    uses = [documents.use_of(text, data) for text in (None, " ", "x" * 101, "lone \ud800", "a text")]
    assert uses[:4] == ["left out: not text", "left out: empty", "left out: too long", "left out: not text"]
    assert {documents.use_of(f"text {n}", data) for n in range(40)} == {"training", "validation"}


def test_markup_in_documents_is_shown_as_text(tmp_path):
    opened = open_source(parquet_folder(tmp_path / "d"), tmp_path)
    where, text = documents.whole_document(opened, 0, 0)
    assert text.startswith(HOSTILE)
    assert "&lt;img src=x onerror=" in show.document(where, text) and "<img" not in show.document(where, text)


@pytest.mark.parametrize("page", [None, -3, 10**30, float("nan"), "x", 2.5, float("inf")])
def test_any_page_number_gives_a_page_that_exists(page):
    assert 1 <= page_of(45, page, 20).page <= 3


@pytest.mark.parametrize("text", ["../secret", "/etc", "link", "~/x", "root/../../x", "\0"])
def test_paths_outside_the_roots_are_refused_with_the_reason(text, tmp_path):
    context = context_of(tmp_path)
    (tmp_path / "secret").mkdir()
    (context.data_roots[0] / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="allowed"):
        handlers.data_of(context, text, "text")


@pytest.mark.parametrize("text", ["owner/name", "fineweb-edu/../owner"])
def test_a_name_of_the_hub_that_is_a_folder_here_is_a_path_and_refused(text, tmp_path, monkeypatch):
    context = context_of(tmp_path)
    for folder in ("owner/name", "fineweb-edu"):
        (tmp_path / "elsewhere" / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"roots|allowed"):
        handlers.data_of(context, text, "text")


def test_a_large_compressed_file_is_not_unpacked_for_a_look(tmp_path, monkeypatch):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 100))
    monkeypatch.setattr("workbench.corpus.library.MOST_COMPRESSED", 20)
    with pytest.raises(UserError, match="unpack it"):
        open_source(tmp_path / "d", tmp_path).read(0)


def test_a_damaged_file_is_one_sentence(tmp_path):
    source = parquet_folder(tmp_path / "d", files=1)
    opened = open_source(source, tmp_path)
    (source / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="was changed since"):
        opened.read(0)


def test_a_source_of_the_hub_is_shown_from_its_footers(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with FakeHub({REPO: fineweb_edu()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        opened = open_source(SOURCE, tmp_path)
        before = hub.count("cdn")
        found = source_of.shown(opened, DataConfig(source=SOURCE), 1, 2, 5, 1)
        assert "row group 5" in found[4] and "token_count" in found[8] and "score" in found[8]
        assert hub.count("cdn") - before == 3  # the text and two columns of one row group
        opened.close()


def test_opening_tells_what_it_does_and_ends_with_the_source(tmp_path):
    data = DataConfig(source=str(parquet_folder(tmp_path / "d")))
    *told, found = opening(Library(tmp_path / "cache"), data, None, fresh=False)
    assert isinstance(found, Opened) and all(isinstance(line, str) for line in told)
    with pytest.raises(UserError, match="does not exist"):
        list(opening(Library(tmp_path / "cache"), DataConfig(source=str(tmp_path / "no")), None, fresh=False))


@pytest.mark.parametrize("settings", [{}, {"order": "sequential"}, {"window": 4}])
def test_the_training_order_shown_is_the_order_of_the_batches(settings, tmp_path):
    config = small_config(parquet_folder(tmp_path / "d", groups=8, rows=10), **settings)
    following: dict[int, set[tuple[tuple[int, int], ...]]] = {0: set(), 1: set()}  # by lane, what lies side by side
    with loader_of(config, tmp_path / "cache") as loader:
        for _ in range(30):
            batch = loader.poll(30.0)
            for lane, row in zip(batch.lanes.tolist(), batch.provenance, strict=True):
                following[lane].update(pairwise(row))
    opened = Library(tmp_path / "cache").open(config.data, Tokenizers().get(config.data.tokenizer))
    plan = order.plan_of(opened, config)
    for lane, pairs in following.items():
        shown, at = [], (0, 0)
        while at[0] < 2:
            page = order.window_page(plan, lane, *at, 1)
            for number in range(1, page.page.pages + 1):
                shown += [x for x in order.window_page(plan, lane, *at, number).lines if x.use == "training"]
            at = page.following
        places = [place_of(opened.manifest, *place) for pair in pairs for place in pair]
        assert set(zip(places[::2], places[1::2], strict=True)) <= set(
            pairwise((x.file, x.part, x.document) for x in shown)
        )
        assert len(pairs) > 20


@pytest.mark.parametrize(("lane", "epoch", "window"), [(2, 0, 0), (-1, 0, 0), (0, -1, 0), (0, 0, 10**6)])
def test_places_that_do_not_exist_in_the_order_are_refused(lane, epoch, window, tmp_path):
    config = small_config(parquet_folder(tmp_path / "d"))
    plan = order.plan_of(open_source(config.data.source, tmp_path), config)
    with pytest.raises(UserError):
        order.window_page(plan, lane, epoch, window, 1)


def test_the_tabs_handlers_over_a_run(tmp_path, monkeypatch):
    context, reading = context_of(tmp_path), Reading()
    reading.library = Library(tmp_path / "cache")
    config = small_config(parquet_folder(context.data_roots[0] / "d"))
    traced_run(context.runs, "first", config, tmp_path / "cache")
    assert runs_with_a_trace(context) == ["first"]
    facts, rows, page, at, _ = handlers.batch(context, reading, 1, 0, False, "first", 2, 1)
    assert "Step 2 of first" in facts and "page 2 of 2" in facts and page == 2 and at == 2
    assert rows.count('class="wb-row"') == 4
    assert handlers.batch(context, reading, 0, 1, True, "first", 2, 2)[2:4] == (1, 3)
    note, table, epoch, window, page, _ = handlers.window(context, reading, 0, True, False, "first", "", "", 0, 0, 0, 1)
    assert (epoch, window, page) == (1, 0, 1) and "2 lanes" in note and "part-" in table
    typed = acts.in_step(context, reading, Act("show"), "first", 2, 1, "")
    assert typed[2:4] == (gr.skip(), gr.skip()), "what the fields hold is not set: more may have been typed since"
    assert acts.in_step(context, reading, Act("show", waited=True), "first", 2, 1, "")[2:4] == (1, 2)
    assert acts.in_step(context, reading, Act("after"), "first", 2, 2, "")[2:4] == (1, 3)
    following = acts.in_order(context, reading, Act("next"), "first", "", "", 0, 0, 0, 1, "")
    assert following[2:5] == (1, gr.skip(), gr.skip())
    with pytest.raises(UserError, match="not allowed"):
        handlers.batch(context, reading, 0, 0, True, "../first", 2, 1)
    with pytest.raises(UserError, match="no run is chosen"):
        handlers.batch(context, reading, 0, 0, True, None, 2, 1)


def test_a_request_for_a_step_opens_the_step_part_and_one_for_a_source_the_other():
    page = type("P", (), {"request": staticmethod(Page.request)})
    parts, _, run, step, _ = tab._asked(page, Page.ask(run="a", step="7"))
    assert (parts.selected, run, step) == ("step", "a", 7)
    parts, source, *_ = tab._asked(page, Page.ask(source="pydocs"))
    assert (parts.selected, source) == ("source", "pydocs")
    parts, *_, order = tab._asked(page, Page.ask(runs="b,c"))
    assert (parts.selected, order) == ("order", "b")


def test_documents_can_be_told_apart():
    assert len({document(n) for n in range(400)}) == 400


@pytest.mark.parametrize("other", ["/etc", "nothing.txt", "empty"])
def test_nothing_of_an_earlier_source_stands_below_the_error_of_another(other, tmp_path, monkeypatch):
    """The files, histograms and texts of the source before it stayed, below the name of one that cannot be opened."""
    context, reading = context_of(tmp_path), Reading()
    monkeypatch.setattr(reading, "library", Library(tmp_path / "cache"))
    source = parquet_folder(context.data_roots[0] / "d")
    (context.data_roots[0] / "empty").mkdir()
    *_, shown = source_of.open_source(context, reading, str(source), "text", "gpt2")
    *_, failed = source_of.open_source(context, reading, other, "text", "gpt2")
    assert "wb-problem" in failed[0] and len(failed) == len(shown) == 14
    library, opened, facts, file, _, _, _, where, radio, _, _, plots, text = failed[1:]
    assert library.visible and not opened.visible and not file.choices and not radio.choices
    assert [str(each) for each in (facts, where, plots, text)] == [""] * 4
    assert not shown[1].visible and shown[2].visible and "part-0.parquet" in shown[4].choices[0][0]
