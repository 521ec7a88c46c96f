"""Where tokenizers made here are put, and which ones there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.run_dir.paths import NAME
from workbench import html
from workbench.context import Context

BESIDE_RUNS = "beside the runs"
DEPTH = 3  # folders below a data root that are looked into
MOST_FOLDERS = 2000  # of all roots together: the list must be quick in a home folder as well
MOST_LISTED = 100
SMALLER = (32768, 16384, 8192, 4096, 2048)  # of GPT-2's merges, to choose from; any number can be typed
REPORT, TOKENIZER = "tokenizer_report.json", "tokenizer.json"


@dataclass(frozen=True)
class Trained:
    """A tokenizer that was learnt here, with its report's figures where they are."""

    path: Path
    report: dict[str, Any]
    time: float

    @property
    def name(self) -> str:
        return self.path.name


def own_folder(context: Context) -> Path:
    return context.runs / ".workbench" / "tokenizers"


def places(context: Context) -> list[str]:
    """What may be chosen as the place of a new tokenizer."""
    return [BESIDE_RUNS, *(str(root) for root in context.data_roots if root != context.runs)]


def new_place(context: Context, place: str, name: str) -> Path:
    """The folder of a new tokenizer. UserError for a name or place that is not allowed, or one that is taken."""
    from mygpt2.tokenizer.training.save import Place

    name, place = str(name or "").strip(), str(place or BESIDE_RUNS)
    if not NAME.fullmatch(name) or name.endswith(".json"):
        raise UserError(
            f"name {name!r} is not allowed; use 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or digit and not "
            "ending in .json"
        )
    if place not in places(context):
        raise UserError(f"place {place!r} is not one of this workbench's; allowed: {', '.join(places(context))}")
    root = own_folder(context) if place == BESIDE_RUNS else Path(place)
    out = context.path(str(root / name), "the new tokenizer's folder")  # links on the way are followed and judged
    Place.of(out)
    return out


def trained(context: Context) -> list[Trained]:
    """Tokenizers learnt here or found in the data roots, newest first."""
    found: dict[Path, Trained] = {}
    budget = iter(range(MOST_FOLDERS))
    for root in dict.fromkeys((own_folder(context), *context.data_roots)):
        for folder in _folders(root, DEPTH, budget):
            report, file = folder / REPORT, folder / TOKENIZER
            if report.is_file() and file.is_file():
                found[folder] = Trained(folder, read_json(report) or {}, file.stat().st_mtime)
    return sorted(found.values(), key=lambda t: t.time, reverse=True)[:MOST_LISTED]


def _folders(root: Path, depth: int, budget: Iterator[int]) -> Iterator[Path]:
    """Folders below a root, no links, no hidden ones, until the budget is used up."""
    try:
        entries = sorted((e for e in os.scandir(root) if e.is_dir(follow_symlinks=False)), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith((".", "_")) or next(budget, None) is None:
            continue
        yield Path(entry.path)
        if depth > 1:
            yield from _folders(Path(entry.path), depth - 1, budget)


def choices(found: list[Trained]) -> list[tuple[str, str]]:
    """(label, value) of the tokenizers to choose from: GPT-2's, and those found."""
    ours = [(f"{t.name} ({_figure(t.report.get('vocab_size')) or '?'} ids)", str(t.path)) for t in found]
    return [("gpt2 (50,257 ids)", "gpt2"), *((f"gpt2:{n} ({n:,} ids)", f"gpt2:{n}") for n in SMALLER), *ours]


def trained_list(found: list[Trained]) -> html.Markup:
    """What was learnt here, newest first, with the report's figures."""
    if not found:
        return html.empty(
            "Tokenizers that you train will appear here, to look at and to use in runs.",
            html.Markup('<button type="button" class="wb-small" data-tok-open="train">Train one</button>'),
        )
    return html.join([html.Markup('<div class="wb-owns">'), *map(_own, found), html.Markup("</div>")])


def _own(each: Trained) -> html.Markup:
    r = each.report
    size, bpt = r.get("bytes"), r.get("bytes_per_token")
    facts = [
        f"{_figure(r.get('vocab_size')) or 'n/a'} ids",
        f"{bpt:.3f} bytes per token" if isinstance(bpt, float) else "",
        f"{r['pattern']} pattern" if r.get("pattern") else "",
        f"{_figure(r.get('documents'))} documents" if isinstance(r.get("documents"), int) else "",
        f"{size / 1e6:,.1f} MB of {r.get('source')}" if isinstance(size, int) else str(r.get("source") or "n/a"),
    ]
    told = html.escape(" \u00b7 ".join(filter(None, facts)))
    return html.Markup(
        f'<div class="wb-own" data-key="{html.escape(each.path)}"><p><b>{html.escape(each.name)}</b> '
        f'<span class="wb-muted">{html.when(each.time)}</span></p>'
        f'<p class="wb-muted">{told}</p>'
        f'<p class="wb-key">{html.escape(each.path)}</p><p>{_buttons(each)}</p></div>'
    )


def _figure(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None


def _buttons(each: Trained) -> html.Markup:
    look, use = "Look at it", "Use in a new run"
    return html.join(html.button(act, str(each.path), text, f"{text}: {each.name}")
                     for act, text in (("look", look), ("use", use)))  # fmt: skip
