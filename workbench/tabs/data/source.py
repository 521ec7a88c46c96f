"""What the part about sources answers: a source opened, a place in it, or why not; for all components that show it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from mygpt2.config.data import DataConfig
from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.corpus.library import Opened, opening
from workbench.corpus.reading import Reading
from workbench.tabs.data import columns, documents, handlers, mixture, show
from workbench.tokenizers import tokenizer_of


def open_source(context: Context, reading: Reading, source: str, column: str, ids: str) -> Iterator[Any]:
    """Resolves the source anew, telling how far it is, and shows its first file; or says why not, above the list.

    What was shown of another source goes at once: it must not stand below the name of this one.
    """
    try:
        data = handlers.data_of(context, source, column)
        tokenizer = reading.tokenizers.get(tokenizer_of(context, ids))
        for found in opening(reading.library, data, tokenizer, fresh=True):
            if isinstance(found, Opened):
                yield (
                    "",
                    *_beside(True),
                    html.join([show.source(found.manifest, documents.facts(found)), mixture.parts(found.manifest)]),
                    *shown(found, data, 1, 0, 0, 1),
                )
            else:
                yield html.note(found), *_beside(False), "", *nothing()
    except UserError as error:
        yield html.problem(str(error)), *_beside(False), "", *nothing()


def close_source() -> tuple[Any, ...]:
    """The list of all sources again."""
    return "", *_beside(False), "", *nothing()


def _beside(opened: bool) -> tuple[Any, Any]:
    """Either the list of sources or the one that is open."""
    return gr.Column(visible=not opened), gr.Column(visible=opened)


def nothing() -> tuple[Any, ...]:
    """No place in any source, for all the components that show one."""
    return (
        gr.Radio([], value=None), gr.Row(visible=False), 1, gr.Number(0, visible=False), "", gr.Radio([], value=None),
        gr.Row(visible=False), 1, "", "",
    )  # fmt: skip


def browse(
    context: Context, reading: Reading, by: dict[str, Any], source: str, column: str, ids: str, file_page: Any,
    file: Any, part: Any, document_page: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """The same source somewhere else: `by` says which control was used, and by how much."""
    data = handlers.data_of(context, source, column)
    opened = reading.library.open(data, reading.tokenizers.get(tokenizer_of(context, ids)))
    if "file_page" in by:
        return shown(opened, data, handlers.whole(file_page, 1) + by["file_page"], None, 0, 1)
    if "file" in by or "part" in by:
        return shown(opened, data, file_page, file, 0 if "file" in by else part, 1)
    return shown(opened, data, file_page, file, part, handlers.whole(document_page, 1) + by.get("document_page", 0))


def shown(
    opened: Opened, data: DataConfig, file_page: Any, file: Any, part: Any, document_page: Any
) -> tuple[Any, ...]:
    """A place in a source, for all the components that show it. Numbers outside become the nearest ones."""
    manifest = opened.manifest
    page, lines = documents.files_page(manifest, file_page)
    chosen = min(max(handlers.whole(file, page.start), page.start), page.stop - 1)
    blocks = documents.blocks_of_file(manifest, chosen)
    files = gr.Radio([(show.file_label(line), line.number) for line in lines], value=chosen)
    head = files, gr.Row(visible=page.pages > 1), page.page
    if not len(blocks):
        return (*head, gr.Number(0, visible=False), html.note("This file is empty."), gr.Radio([], value=None),
                gr.Row(visible=False), 1, "", "")  # fmt: skip
    number = min(max(handlers.whole(part, 0), 0), len(blocks) - 1)
    block = int(blocks[number])
    at, found = documents.documents_page(opened, block, document_page, data)
    label = documents.block_label(manifest, block)
    where = f"{label}; {number + 1} of {len(blocks)} in this file; documents, page {at.page} of {at.pages}"
    radio = gr.Radio([(show.document_label(line), line.number) for line in found], value=None)
    plots = show.histograms(columns.figures_of(*opened.at(block)), f"lengths and scores of {label}")
    return (*head, gr.Number(number, visible=len(blocks) > 1, maximum=len(blocks) - 1), html.note(where), radio,
            gr.Row(visible=at.pages > 1), at.page, plots, html.note("Choose a document to read it."))  # fmt: skip
