"""The look into the source below the data fields: what it holds, what this run makes of it, and what is amiss."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.config import load_config
from mygpt2.config.data import DataConfig
from mygpt2.errors import UserError
from mygpt2.format import file_size
from mygpt2.machine import cache_folder
from workbench import forms, html
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.live import Asked, News
from workbench.survey.passes import GOOD_PASSES, Foretold, trained
from workbench.survey.sample import Survey
from workbench.survey.surveys import Look
from workbench.tabs.train import mixtures

# The settings that a look depends on, and those that say how often a run reads what was found.
SOURCE = (
    "data.source", "data.tokenizer", "data.text_column", "data.validation_fraction", "data.max_document_chars",
    "data.min_score", "data.score_column", "data.language", "data.language_column", "data.mix",
)  # fmt: skip
LENGTH = ("train.steps", "train.batch_tokens")
MANY_PASSES = 8  # of one source, from where on a number of steps is proposed; see also GOOD_PASSES
MOST_NOTES = 4
REASONS = {"not_text": "not text", "empty": "empty", "too_long": "too long (data.max_document_chars)"}
KINDS = {
    "txt": "text", "jsonl": "JSON lines", "parquet": "parquet", "arrow": "Arrow", "tar": "tar",
    "tokens": "pre-tokenized", "mixture": "different",
}  # fmt: skip


class View:
    """The live view of the look; sources that cost a connection or a harvest wait for a click."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._begun: set[str] = set()

    def __call__(self, asked: Asked, news: News) -> None:
        values = asked.get("values")
        texts = dict(zip((*SOURCE, *LENGTH), values, strict=False)) if isinstance(values, list) else {}
        if tables := forms.mixture(texts.get("data.mix")):
            self._mixture(tables, texts, news)
            return
        try:
            data = data_of(self._context, texts)
        except UserError:  # said at its field
            news.show("look", "")
            return
        costs = "" if data.source in self._begun else cost_of(data.source)
        look = self._context.surveys.ask(data, begin=not costs)
        news.busy = look is not None and look.going
        if look is not None and look.problem:  # the form is looked at once more: Start goes off
            news.set("filled", (data.source, look.problem), value=secrets.token_hex(4))
        news.show("look", shown(look, str(texts.get("data.source", "")), costs, texts))

    def _mixture(self, tables: list[dict[str, Any]], texts: Mapping[str, Any], news: News) -> None:
        """Each source of a mixture in its own place, as far as what it says by itself is sound."""
        news.show("look", "")
        tokens = mixtures.tokens_of(tables, run_tokens(texts))
        known: list[tuple[str, str]] = []
        for number, table in enumerate(tables):
            try:
                data = data_of(self._context, mixtures.texts_of(table, texts))
            except UserError:  # said at the source
                news.show(f"look-{number}", "")
                continue
            costs = "" if data.source in self._begun else cost_of(data.source)
            look = self._context.surveys.ask(data, begin=not costs)
            news.busy = news.busy or (look is not None and look.going)
            if look is not None and not look.going:
                known.append((data.source, look.problem))
            survey = look.survey if look else None
            foretold = Foretold.of(survey, data, tokens[number]) if tokens else None
            most = table.get("max_epochs")
            if survey:
                made = mixtures.found(survey, foretold, most, found_head(survey))
            else:
                unseen = shown(look, str(number), costs, texts, mixtures.named(table, number))
                made = html.join([unseen, mixtures.reads(foretold, most)])
            news.show(f"look-{number}", made)
        if known:  # the form is looked at once more: what is read too often keeps Start off
            news.set("filled", tuple(known), value=secrets.token_hex(4))

    def act(self, action: str, source: str, texts: Mapping[str, Any]) -> None:
        """A click on a button of the look: begin one, look again, or stop it. UserError for what is not allowed.

        source: of a mixture the number of one, from 0.
        """
        tables = forms.mixture(texts.get("data.mix"))
        if tables:
            chosen = next((table for number, table in enumerate(tables) if str(number) == source), None)
            if chosen is None:
                raise UserError(f"source {source[:20]!r} is not in the mixture; choose one of the {len(tables)}")
            data = data_of(self._context, mixtures.texts_of(chosen, texts))
        else:
            data = data_of(self._context, {**texts, "data.source": source})
        if action == "look-stop":
            self._context.surveys.stop(data)
        elif action in ("look", "look-again"):
            self._begun.add(data.source)
            self._context.surveys.again(data)


def data_of(context: Context, texts: Mapping[str, Any]) -> DataConfig:
    """The data settings of the form; paths resolved inside the roots. UserError where one is not sound."""
    given = {name: forms.as_text(texts[name]) for name in SOURCE if name in texts and name != "data.mix"}
    if not given.get("data.source"):
        raise UserError("no source is chosen; choose one")
    named = {name: forms.NAMING[name](context, text) if name in forms.NAMING else text for name, text in given.items()}
    return load_config("tiny", None, named).data


def cost_of(source: str) -> str:
    """Why nobody looks into this source without being asked to; "" where it lies here."""
    if source == "pydocs":
        there = (cache_folder() / "pydocs").is_dir()
        return "" if there else "It is gathered from the Python packages on this machine when it is first used."
    return "" if Path(source).is_absolute() else "It is read from Hugging Face, over the network."


def shown(look: Look | None, source: str, costs: str, texts: Mapping[str, Any], name: str = "") -> Markup:
    """The look as it stands. source: what its buttons are for, of a mixture a number; name: what that is called."""
    name = name or source
    if look is None:
        words = f"{costs} Looking into it now shows what it holds." if costs else "Not looked at yet."
        return _quiet(words, html.button("look", source, "Look into it", f"Look into {name}"))
    if look.state == "stopped":
        return _quiet("The look was stopped.", html.button("look-again", source, "Look again", f"Look into {name}"))
    if look.going:
        stop = html.button("look-stop", source, "Stop", f"Stop looking into {name}")
        return _quiet("Looking into the source …", stop)
    if look.problem:
        return html.problem(look.problem)
    return found(look.survey, texts) if look.survey else Markup("")


def _quiet(words: str, button: Markup) -> Markup:
    return Markup(f'<p class="wb-muted wb-look-line" role="status">{escape(words)} {button}</p>')


def found(survey: Survey, texts: Mapping[str, Any]) -> Markup:
    """What a source holds, what this run makes of it, what is amiss, and how its first documents begin."""
    passes, batch = passes_of(survey, texts)
    about = "" if survey.counted else "about "
    held = f"{survey.held_out:,} document{'s' * (survey.held_out != 1)}" if survey.held_out else "none"
    facts: list[tuple[str, str]] = [
        ("Documents", f"{about}{rounded(survey.documents) if about else f'{survey.documents:,}'}"),
        ("Tokens", f"about {rounded(survey.tokens)}"),
        ("Text per token", f"{survey.bytes_per_token:.2f} bytes"),
        ("Held out", f"{'' if survey.held_out <= 1 else 'about '}{held}"),
    ]
    if passes:
        facts.insert(2, ("Passes of this run", f"{passes:.2g}" if passes < 10 else f"{passes:,.0f}"))
    rows = html.join(Markup(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>") for k, v in facts)
    lines = [escape(line) for line in warnings(survey, passes, batch)]
    if steps := fewer_steps(survey, passes, batch):  # said in the first line
        button = html.button("look-steps", str(steps), f"Set {steps:,} step{'s' * (steps > 1)}", f"Set {steps:,} steps")
        lines[0] = html.join([lines[0], " ", button])
    amiss: str = html.join(Markup(f"<li>{line}</li>") for line in lines)
    amiss = f'<ul class="wb-look-amiss">{amiss}</ul>' if amiss else ""
    texts_shown = html.join(Markup(f"<li>{escape(text)}</li>") for text in survey.beginnings)
    return Markup(
        f'<section class="wb-look" aria-label="What the source holds">'
        f'<p class="wb-look-head">{escape(found_head(survey))}</p><dl>{rows}</dl>{amiss}'
        f'<ol class="wb-look-texts" aria-label="How the first documents begin">{texts_shown}</ol></section>'
    )


def found_head(survey: Survey) -> str:
    """Its files in a line."""
    head = [f"{survey.files:,} {KINDS[survey.kind]} file{'s' * (survey.files != 1)}", file_size(survey.size)]
    return " · ".join(head + ([_encodings(survey)] if survey.encodings else []))


def run_tokens(texts: Mapping[str, Any]) -> tuple[int, int] | None:
    """(tokens of the run, tokens of a batch); None while the form has no numbers."""
    try:
        steps, batch = (int(str(texts.get(name, "")).replace("_", "")) for name in LENGTH)
    except ValueError:
        return None
    return (steps * batch, batch) if steps > 0 and batch > 0 and steps * batch <= 10**18 else None


def passes_of(survey: Survey, texts: Mapping[str, Any]) -> tuple[float | None, int]:
    """(how often a run of this length reads the text, tokens of a batch); None while the form has no numbers."""
    found, once = run_tokens(texts), trained(survey)
    return (found[0] / once, found[1]) if found and once > 0 else (None, 0)


def fewer_steps(survey: Survey, passes: float | None, batch: int) -> int | None:
    """With how many steps a run reads its text as often as is good; None where it reads it no more than that."""
    if not passes or passes <= MANY_PASSES:
        return None
    return int(rounded(max(1, math.floor(GOOD_PASSES * trained(survey) / batch))).replace(",", ""))


def warnings(survey: Survey, passes: float | None, batch: int) -> list[str]:
    """What is amiss, in sentences that say what to do."""
    lines = []
    if steps := fewer_steps(survey, passes, batch):
        lines.append(
            f"This run reads every document about {passes:,.0f} times; beyond about {GOOD_PASSES} times repeated text "
            f"teaches little. Use more text, or about {steps:,} step{'s' * (steps > 1)}."
        )
    if survey.left_out:
        count = sum(survey.left_out.values())
        why = ", ".join(f"{n:,} {REASONS.get(reason, reason)}" for reason, n in sorted(survey.left_out.items()))
        lines.append(f"Left out: {count:,} of the {survey.looked:,} documents looked at ({why}).")
    for line in survey.unreadable:
        lines.append(f"Cannot be read: {line}. Repair the file, or take it out of the folder.")
    if survey.pieces:
        lines.append(f"It is one document; it is cut into {survey.pieces:,} pieces so that a part can be held out.")
    notes = [note for note in survey.notes if "too few documents" not in note]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in notes[:MOST_NOTES]]
    return lines + ([f"And {len(notes) - MOST_NOTES} more notes."] if len(notes) > MOST_NOTES else [])


def _encodings(survey: Survey) -> str:
    if len(survey.encodings) == 1:
        return next(iter(survey.encodings))
    return ", ".join(f"{count:,} {name}" for name, count in sorted(survey.encodings.items(), key=lambda e: -e[1]))


def rounded(count: int) -> str:
    """A count with the digits that an estimate has: 5,310,000."""
    if count < 1000:
        return f"{count:,}"
    unit = 10 ** (len(str(count)) - 3)
    return f"{round(count / unit) * unit:,}"
