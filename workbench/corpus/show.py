"""Markup of the rows of a batch. All text of data is escaped."""

from __future__ import annotations

from mygpt2.tokenizer import Tokenizer
from workbench import html
from workbench.corpus.step import Row, Segment

DOT = " \u00b7 "


def rows(found: list[Row], tokenizer: Tokenizer) -> html.Markup:
    """Rows of a batch as text, document after document."""
    return html.join(_row(row, tokenizer) for row in found)


def _row(row: Row, tokenizer: Tokenizer) -> html.Markup:
    ids = row.ids
    figures = (
        f"slot {row.slot}",
        f"lane {row.lane}",
        f"epoch {row.epoch}",
        f"loss {row.loss:.4f}",
        f"{len(ids):,} tokens",
    )
    head = DOT.join(figures)
    body = html.join(_segment(segment, number, tokenizer) for number, segment in enumerate(row.segments))
    numbers = html.escape(" ".join(map(str, ids.tolist())))
    return html.Markup(
        f'<section class="wb-row" aria-label="{html.escape(head)}"><h3>{html.escape(head)}</h3>'
        f'<div class="wb-row-text">{body}</div>'
        f"<details><summary>the {len(ids):,} ids: all but the last are inputs, all but the first targets</summary>"
        f'<code class="wb-ids" data-slot="{row.slot}">{numbers}</code></details></section>'
    )


def _segment(segment: Segment, number: int, tokenizer: Tokenizer) -> html.Markup:
    stop = segment.start + len(segment.ids)
    ended = stop == segment.tokens
    ids = segment.ids[:-1] if ended else segment.ids
    text = visible(tokenizer.decode_bytes(ids).decode("utf-8", "surrogateescape"))
    begins = "from its beginning" if segment.start == 0 else f"from token {segment.start:,}"
    ends = "to its end" if ended else f"to token {stop - 1:,} of {segment.tokens:,}"
    place = segment.file, f"row group or part {segment.part}", f"document {segment.document}", f"{begins} {ends}"
    label = DOT.join(place)
    mark = '<b class="wb-eot" title="end of text">end of text</b>' if ended else ""
    return html.Markup(
        f'<span class="wb-seg wb-seg-{number % 2}"><span class="wb-seg-name">{html.escape(label)}</span>'
        f'<span class="wb-seg-text">{html.escape(text)}</span>{mark}</span>'
    )


def visible(text: str) -> str:
    """Text with line breaks and tabs as they are; other invisible characters, and broken ones, as escapes."""
    return "".join(c if c in "\n\t" or c.isprintable() else _escape(c) for c in text.replace("\r\n", "\n"))


def _escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c if c.isspace() else c.encode("unicode_escape").decode()
