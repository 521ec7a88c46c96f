"""Markup of the data tab: files, documents, windows. All text of data is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mygpt2.data.sources.manifest import Manifest
from mygpt2.format import file_size
from workbench import html
from workbench.corpus.show import visible
from workbench.tabs.data.columns import drawn
from workbench.tabs.data.documents import DocumentLine, FileLine
from workbench.tabs.data.order import WindowPage


def source(manifest: Manifest, facts: Sequence[tuple[str, str]]) -> html.Markup:
    """The head of an open source: its name and main figures in a line, the rest folded, what is odd below."""
    notes = html.join(html.Markup(f"<p>{html.escape(note)}</p>") for note in manifest.notes)
    known = manifest.documents
    line = [manifest.kind, f"{len(manifest.files):,} file{'s' * (len(manifest.files) != 1)}", file_size(manifest.size)]
    line += [f"{known:,} documents"] if known is not None else []
    rest = html.join(
        html.Markup(f"<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>")
        for label, value in facts
        if label != "note"
    )
    return html.Markup(
        f'<div class="wb-source-head"><h3>{html.escape(manifest.source)}</h3>'
        f'<p class="wb-muted">{html.escape(" · ".join(line))}</p>'
        f'<details class="wb-card"><summary>Details</summary><dl>{rest}</dl></details></div>'
        f"{html.Markup(f'<div class=wb-source-notes>{notes}</div>') if notes else ''}"
    )


def file_label(line: FileLine) -> str:
    """One line of the list of files, as plain text."""
    held = f"{line.documents:,} documents" if line.documents is not None else f"{line.blocks:,} parts"
    return f"{line.name} · {file_size(line.size)} · {held}"


def document_label(line: DocumentLine) -> str:
    """One line of the list of documents, as plain text."""
    use = "" if line.use == "training" else f" \u00b7 {line.use}"
    return f"{line.number} \u00b7 {line.chars:,} characters{use} \u00b7 {line.preview}"


def histograms(figures: Mapping[str, np.ndarray], where: str) -> html.Markup:
    """Lengths and scores of one block."""
    found = html.join(drawn(name, values) for name, values in figures.items())
    return html.Markup(f'<div class="wb-hists" role="group" aria-label="{html.escape(where)}">{found}</div>')


def document(where: str, text: str) -> html.Markup:
    return html.Markup(
        f'<h3 class="wb-h">{html.escape(where)}</h3>'
        f'<pre class="wb-text" tabindex="0" aria-label="{html.escape(where)}">{html.escape(visible(text))}</pre>'
    )


def window(found: WindowPage, lane: int) -> html.Markup:
    """A page of a window, in training order."""
    blocks = "; ".join(found.blocks[:8]) + (f" and {len(found.blocks) - 8} more" if len(found.blocks) > 8 else "")
    rows = [(d.place, d.file, d.part, d.document, "" if d.use == "training" else d.use, d.preview) for d in found.lines]
    caption = f"lane {lane}, epoch {found.epoch}, window {found.window}; documents: {found.documents:,}; from {blocks}"
    return html.table(["place", "file", "row group or part", "document", "", "text"], rows, {0, 2, 3}, caption)
