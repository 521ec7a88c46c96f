"""Markup of the rows of a batch. All text of data is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from mygpt2.tokenizer import Tokenizer
from workbench import html
from workbench.corpus.step import Line, Place, Row, Segment

Fields = Sequence[tuple[str, str]]
DOT = " \u00b7 "


def rows(
    found: Sequence[Row], tokenizer: Tokenizer, lines: Sequence[Line], beside: Sequence[Sequence[Fields]] = ()
) -> html.Markup:
    """Rows of a batch as text, document after document. `lines`: the same rows. `beside`: of each row, see `text`."""
    each = zip_longest(found, lines, beside, fillvalue=())
    return html.join(
        _row(row, tokenizer, line, more) for row, line, more in each if isinstance(row, Row) and isinstance(line, Line)
    )


def place(of: Place, unit: str) -> str:
    """Where a document lies, for a person."""
    file, part, document = of
    return DOT.join((file, f"{unit} {part:,}", f"document {document:,}"))


def figures(row: Row | Line) -> str:
    return DOT.join((f"slot {row.slot}", f"lane {row.lane}", f"epoch {row.epoch}"))


def text(row: Row, tokenizer: Tokenizer, unit: str, beside: Sequence[Fields] = ()) -> html.Markup:
    """A row's documents one below the other, and its ids. `beside`: what stands beside the text of each document."""
    ids = row.ids
    body = html.join(
        _segment(segment, number, tokenizer, unit, beside[number] if number < len(beside) else ())
        for number, segment in enumerate(row.segments)
    )
    numbers = html.escape(" ".join(map(str, ids.tolist())))
    return html.Markup(
        f'<div class="wb-row-text" tabindex="0" role="group" aria-label="text of the row">{body}</div>'
        f"<details><summary>the {len(ids):,} ids: all but the last are inputs, all but the first targets</summary>"
        f'<code class="wb-ids" data-slot="{row.slot}">{numbers}</code></details>'
    )


def _row(row: Row, tokenizer: Tokenizer, line: Line, beside: Sequence[Fields]) -> html.Markup:
    own = (line.source,) if line.source else ()
    head = DOT.join((f"loss {row.loss:.4f}", *own, figures(row), f"{len(row.ids):,} tokens"))
    return html.Markup(
        f'<section class="wb-row" aria-label="{html.escape(head)}"><h3>{html.escape(head)}</h3>'
        f"{text(row, tokenizer, line.unit, beside)}</section>"
    )


def _segment(segment: Segment, number: int, tokenizer: Tokenizer, unit: str, beside: Fields) -> html.Markup:
    stop = segment.start + len(segment.ids)
    ended = stop == segment.tokens
    ids = segment.ids[:-1] if ended else segment.ids
    text = visible(tokenizer.decode_bytes(ids).decode("utf-8", "surrogateescape"))
    begins = "from its beginning" if segment.start == 0 else f"from token {segment.start:,}"
    ends = "to its end" if ended else f"to token {stop - 1:,} of {segment.tokens:,}"
    label = DOT.join((place((segment.file, segment.part, segment.document), unit), f"{begins} {ends}"))
    mark = '<b class="wb-eot" title="end of text">end of text</b>' if ended else ""
    fields = html.join(
        html.Markup(f"<span><b>{html.escape(name)}</b> {html.escape(value)}</span> ") for name, value in beside
    )
    fields = html.Markup(f'<span class="wb-seg-name wb-seg-fields">{fields}</span>') if beside else fields
    return html.Markup(
        f'<span class="wb-seg wb-seg-{number % 2}"><span class="wb-seg-name">{html.escape(label)}</span>{fields}'
        f'<span class="wb-seg-text">{html.escape(text)}</span>{mark}</span>'
    )


def visible(text: str) -> str:
    """Text with line breaks and tabs as they are; other invisible characters, and broken ones, as escapes."""
    return "".join(c if c in "\n\t" or c.isprintable() else _escape(c) for c in text.replace("\r\n", "\n"))


def _escape(c: str) -> str:
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c if c.isspace() else c.encode("unicode_escape").decode()
