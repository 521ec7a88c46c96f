"""A text as its tokens: what there is to say about each, and markup in which every boundary can be seen."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from mygpt2.tokenizer import Tokenizer
from workbench import html

MOST_CHARS = 20_000
COLOURS = 4
LINE_BREAK = "\u23ce"
_SIGNS = {"\n": LINE_BREAK + "\n", "\r": "\u240d", "\t": "\u21e5\t"}  # what is white but no space gets a sign


@dataclass(frozen=True)
class Tokens:
    """The ids of a text and the bytes of each."""

    ids: list[int]
    pieces: list[bytes]
    cut: int = 0  # characters that were left out

    @property
    def bytes(self) -> int:
        return sum(map(len, self.pieces))


def tokens_of(tokenizer: Tokenizer, text: str) -> Tokens:
    """The tokens of a text, of at most MOST_CHARS characters; ids as `tokenizer inspect` prints them."""
    shown = text[:MOST_CHARS]
    ids = tokenizer.encode(shown)
    pieces = [tokenizer.continuation(id, ids[:n]) for n, id in enumerate(ids)]
    return Tokens(ids, pieces, len(text) - len(shown))


def characters(piece: bytes) -> str:
    """Bytes as text; those that are not a whole character, and what cannot be seen, as escapes."""
    return "".join(map(_character, piece.decode("utf-8", "surrogateescape")))


def _character(c: str) -> str:
    if c in _SIGNS:
        return _SIGNS[c]
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    if c == " " or (c.isprintable() and unicodedata.combining(c) == 0):
        return c
    return c if unicodedata.combining(c) else c.encode("unicode_escape").decode()


def coloured(tokens: Tokens, name: str = "") -> html.Markup:
    """Every token in a box of its own above its id; colours alternate. One stop of the keyboard, arrows walk inside.

    `data-t` holds what the page shows when a token is pointed at: id and bytes.
    """
    if not tokens.ids:
        return html.empty("No text yet.", "Type or paste one above: its tokens appear as you type.")
    boxes = "".join(
        f'<span class="wb-tok wb-tok-{n % COLOURS}" data-t="{i} {piece.hex(" ")}" data-i="{i}"'
        f"{_focus(n)}>{_inside(piece)}</span>{_breaks(piece)}"
        for n, (i, piece) in enumerate(zip(tokens.ids, tokens.pieces, strict=True))
    )
    more = html.note(f"{tokens.cut:,} further characters are left out") if tokens.cut else ""
    label = html.escape(f"{len(tokens.ids)} tokens{f' of {name}' if name else ''}")
    return html.Markup(f'<div class="wb-toks wb-mono" role="group" aria-label="{label}">{boxes}</div>{more}')


def _breaks(piece: bytes) -> str:
    """A line goes on below where the text does: the box itself shows a sign only."""
    return "<br>" * piece.count(b"\n")


def _focus(number: int) -> str:
    return ' tabindex="0"' if number == 0 else ""


def _inside(piece: bytes) -> str:
    """The characters; bytes that are not a character are set apart."""
    shown = html.escape(characters(piece).replace("\n", "").replace("\t", ""))
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        return f'<i class="wb-byte">{shown}</i>'
    return shown if text else '<i class="wb-byte">no bytes</i>'


def summary(tokens: Tokens, name: str, size: int, gpt2: int | None = None) -> html.Markup:
    """Counts in one line; `gpt2`: tokens that GPT-2 takes for the same text."""
    if not tokens.ids:
        return html.Markup("")
    rest = [f"{tokens.bytes:,} bytes", f"{tokens.bytes / len(tokens.ids):.2f} bytes per token"]
    if gpt2 is not None:
        rest.append(f"GPT-2 takes {gpt2:,} ({len(tokens.ids) / gpt2 - 1:+.1%} here)" if gpt2 else "GPT-2 takes 0")
    line = html.escape(" \u00b7 ".join([f"{name}, {size:,} ids", f"{len(tokens.ids):,} tokens", *rest]))
    return html.Markup(f'<p class="wb-tok-sum" role="status">{line}</p>')
