"""What the tab keeps at hand, and its answers over plain values: tokens of a text, replays, comparisons."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import numpy as np

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer
from mygpt2.tokenizer.training.compare import Row
from workbench import html
from workbench.context import Context
from workbench.page import Act
from workbench.tabs.tokenizer import kinds, merges
from workbench.tabs.tokenizer.tokens import coloured, summary, tokens_of
from workbench.tabs.tokenizer.vocabulary import Vocabularies
from workbench.tokenizers import Tokenizers, tokenizer_of

HINT = '<p class="wb-tok-detail wb-muted" aria-live="polite">A click on a token finds it below.</p>'
KEPT_ROWS = 32  # comparisons of one tokenizer with one kind of prose


@dataclass
class Bench:
    """Loaded tokenizers, their vocabularies, and the prose that was last read. Made once per server."""

    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    vocabularies: Vocabularies = field(default_factory=Vocabularies)
    stories: merges.Stories = field(default_factory=merges.Stories)
    prose: dict[str, list[str]] = field(default_factory=dict)  # by source, one of them at most
    _uses: OrderedDict[tuple[str, str], np.ndarray] = field(default_factory=OrderedDict)
    _rows: OrderedDict[tuple[str, ...], list[Row]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def load(self, context: Context, text: str) -> Tokenizer:
        return self.tokenizers.get(tokenizer_of(context, text))

    def texts(self) -> tuple[str, dict[str, list[str]]]:
        """(source of the prose, texts by kind) of what is compared now."""
        source, prose = next(iter(self.prose.items()), ("", []))
        return source, kinds.texts(prose)

    def rows(self, loaded: Sequence[Tokenizer]) -> list[Row]:
        """Tokens of each kind of text by each tokenizer; counted once."""
        source, texts = self.texts()
        key = (source, *(tokenizer.fingerprint for tokenizer in loaded))
        return self._once(self._rows, key, lambda: kinds.compared(list(loaded), texts))

    def uses(self, tokenizer: Tokenizer) -> np.ndarray:
        """(ids,) int64: how often each id stands for a part of the texts that are compared."""
        source, texts = self.texts()

        def count() -> np.ndarray:
            parts = tokenizer.encode_batch([text for found in texts.values() for text in found])
            ids = np.concatenate(parts).astype(np.int64)
            return np.bincount(ids, minlength=tokenizer.vocab_size)

        return self._once(self._uses, (source, tokenizer.fingerprint), count)

    def _once(self, kept: OrderedDict[Any, Any], key: Any, make: Any) -> Any:
        with self._lock:
            if key in kept:
                return kept[key]
        made = make()
        with self._lock:
            kept[key] = made
            while len(kept) > KEPT_ROWS:
                kept.popitem(last=False)
        return made


def name_of(spec: str) -> str:
    """A tokenizer as a person calls it: its folder, or its name."""
    return str(spec).strip().rstrip("/").removesuffix("/tokenizer.json").rpartition("/")[2]


def chosen(spec: Any, beside: Sequence[Any] | None) -> list[str]:
    """The tokenizers whose tokens are shown, each once, the first one first."""
    return [str(each).strip() for each in dict.fromkeys([spec, *(beside or [])]) if str(each or "").strip()]


def look(context: Context, bench: Bench, spec: Any, beside: Sequence[Any] | None, text: Any) -> html.Markup:
    """The coloured tokens of a typed text by each tokenizer; what is wrong with one stands in its place."""
    if not str(text or ""):
        return html.empty("No text yet.", "Type or paste one above: its tokens appear as you type.")
    return html.join(_part(context, bench, each, str(text)) for each in chosen(spec, beside) or [""])


def _part(context: Context, bench: Bench, spec: str, text: str) -> html.Markup:
    try:
        found = tokenizer_of(context, spec)
        tokenizer = bench.tokenizers.get(found)
    except UserError as error:
        return html.problem(str(error))
    tokens = tokens_of(tokenizer, text)
    gpt2 = None
    if tokens.ids and spec != "gpt2":
        gpt2 = len(bench.tokenizers.get("gpt2").encode(text[: len(text) - tokens.cut]))
    head = summary(tokens, name_of(spec), tokenizer.vocab_size, gpt2)
    return html.Markup(
        f'<section class="wb-tok-part" data-spec="{html.escape(spec)}"><div class="wb-tok-top">{head}{HINT}</div>'
        f"{coloured(tokens, name_of(spec))}</section>"
    )


def compared(context: Context, bench: Bench, spec: Any, beside: Sequence[Any] | None) -> html.Markup:
    """Bytes per token of the chosen tokenizers beside GPT-2, on every kind of text."""
    try:
        names = kinds.chosen([tokenizer_of(context, each) for each in chosen(spec, beside)])
        loaded = [bench.tokenizers.get(name) for name in names]
    except UserError as error:
        return html.problem(str(error))
    return kinds.table([name_of(name) for name in names], loaded, bench.rows(loaded))


def read_prose(context: Context, bench: Bench, source: str) -> Iterator[html.Markup]:
    """What is being done: reads held-out prose of a source, once, for comparisons from then on."""
    place = context.source(source)
    if place not in bench.prose:
        found: list[str] = []
        for doing, texts in kinds.held_out_prose(place):
            found = texts
            yield html.note(doing)
        if not found:
            raise UserError(f"{source} has no held-out documents to compare on; give a larger source")
        bench.prose.clear()
        bench.prose[place] = found
    yield html.note(f"English prose: held-out documents of {source}.")


REPLAYS = {"begin": 0, "at": 0, "back": -1, "on": 1}  # acts of a replay: by how many merges it moves


def replayed(context: Context, bench: Bench, done: Act, spec: str, word: str, at: Any) -> tuple[Any, Any]:
    """A replay from its beginning, at the slider's place, or a merge from there; the slider follows, within what there
    is, but for whoever moves it."""
    told, by = bench.stories.get(bench.load(context, spec), str(word or "")), REPLAYS[done.what]
    step = 0 if done.what == "begin" else max(0, min(int(at or 0) + by, told.steps))
    stays = done.what == "at" and not done.waited
    return merges.shown(told, step), gr.skip() if stays else gr.Slider(maximum=max(1, told.steps), value=step)
