"""The sources of a mixture in the form: what each says by itself, and what the run makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mygpt2.format import short
from workbench import forms
from workbench.html import Markup, escape, join
from workbench.survey.passes import GOOD_PASSES, Foretold
from workbench.survey.sample import Survey

# What a source may have in place of what `[data]` says.
OWN = ("text_column", "min_score", "score_column", "language", "language_column")


def texts_of(table: Mapping[str, Any], texts: Mapping[str, Any]) -> dict[str, Any]:
    """The data settings of one source, as texts of a form that trains on it alone."""
    own = {f"data.{key}": forms.as_text(table[key]) for key in OWN if key in table}
    return {**texts, **own, "data.mix": "", "data.source": forms.as_text(table.get("source"))}


def tokens_of(tables: Sequence[Mapping[str, Any]], run: tuple[int, int] | None) -> list[float] | None:
    """How many tokens of a run each source has; None while weights or lengths are no numbers."""
    weights = [table.get("weight", 1.0) for table in tables]
    if run is None or not all(isinstance(weight, int | float) and 0 < weight <= 1e9 for weight in weights):
        return None
    return [run[0] * weight / sum(weights) for weight in weights]


def named(table: Mapping[str, Any], number: int) -> str:
    """What a source is called; `number` from 0."""
    return forms.as_text(table.get("name")) or f"source {number + 1}"


def found(survey: Survey, foretold: Foretold | None, most: Any, head: str) -> Markup:
    """What a source holds, how often the run reads it, and what is amiss. most: its `max_epochs`."""
    about = "" if survey.counted else "about "
    held = f"{head} · {about}{survey.documents:,} documents · about {_three(survey.tokens)} tokens"
    lines = []
    if survey.left_out:
        lines.append(f"Left out: {sum(survey.left_out.values()):,} of the {survey.looked:,} documents looked at.")
    lines += [f"Cannot be read: {line}. Repair the file, or take it out of the folder." for line in survey.unreadable]
    lines += [f"{note[:1].upper()}{note[1:]}." for note in survey.notes if "too few documents" not in note]
    amiss: str = join(Markup(f"<li>{escape(line)}</li>") for line in lines)
    amiss = f'<ul class="wb-look-amiss">{amiss}</ul>' if lines else ""
    texts = join(Markup(f"<li>{escape(text)}</li>") for text in survey.beginnings)
    return Markup(
        f'<p class="wb-look-head">{escape(held)}</p>{reads(foretold, most)}{amiss}'
        f'<details class="wb-mix-texts"><summary>How its documents begin</summary><ol>{texts}</ol></details>'
    )


def reads(foretold: Foretold | None, most: Any) -> Markup:
    """What the run reads of a source, and whether that is more than is good. most: its `max_epochs`."""
    if foretold is None:
        return Markup("")
    passes = foretold.passes
    told = "" if passes is None else f"{passes:.2g}" if passes < 10 else f"{passes:,.0f}"
    told = "less than 0.01" if passes and passes < 0.01 else told
    told = f", {told} pass{'' if told == '1' else 'es'}" if told else ""
    known = f' title="{escape(foretold.basis)}"' if foretold.basis else ""
    run = f'<p class="wb-mix-run"{known}><b>{_three(foretold.tokens)}</b> tokens of this run{told}</p>'
    allowed = most if isinstance(most, int | float) else None
    if not passes or passes <= (allowed or GOOD_PASSES) or foretold.refusal(allowed):
        return Markup(run)
    words = f"Beyond {GOOD_PASSES} passes repeated text teaches little: less weight, or more text."
    return Markup(f'{run}<ul class="wb-look-amiss"><li>{escape(words)}</li></ul>')


def _three(count: float) -> str:
    """A count to three digits."""
    return short(float(f"{count:.3g}"))
