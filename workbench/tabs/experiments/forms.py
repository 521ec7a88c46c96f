"""The three questions as one piece of markup: plain fields, read by the tab's script and checked again by the server.

Components of Gradio's would be some thirty more of them, through all of which it walks for most of what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench import html
from workbench.html import Markup, escape

Kind = Literal["number", "text", "lines", "choice"]


@dataclass(frozen=True)
class Field:
    """One field of a question. `choices`: (label, value), before those that the live view tells; `more`: folded."""

    name: str
    label: str
    info: str = ""
    kind: Kind = "text"
    value: str = ""
    placeholder: str = ""
    choices: Sequence[tuple[str, str]] = ()
    more: bool = False


@dataclass(frozen=True)
class Question:
    """A question with its form. `short` is what Monitor's menu calls it."""

    title: str
    more: str
    short: str
    fields: Sequence[Field]


BASE = Field("base", "Base", "a run, or a preset", "choice")
PROTOCOL = Field("protocol", "Text", "that all are scored on", "choice", "run", more=True)
SAME = ("the same, with the changes below", "")
AXES = [
    ("the learning rate", ""), ("learning rate of AdamW", "optimizer.lr"),
    ("learning rate of Muon", "optimizer.muon_lr"), ("weight decay", "optimizer.weight_decay"),
    ("beta 2", "optimizer.beta2"), ("share of the decay", "schedule.decay_share"),
    ("steps of warm-up", "schedule.warmup_steps"),
]  # fmt: skip
QUESTIONS: dict[str, Question] = {
    "sweep": Question(
        "Would another rate be better?", "Five values around the one it had; losers stop early, the rest go on.",
        "Would another rate be better?",
        (
            BASE, Field("axis", "Setting", "that the arms differ in", "choice", choices=AXES),
            Field("values", "Values", "empty: five around the base's", placeholder="0.001, 0.003, 0.01"),
            Field("steps", "Steps of each arm", "empty: as the base has them", "number"),
            Field("looks", "Looks", "at which losers stop", "choice", "3", choices=[("3", "3"), ("2", "2")], more=True),
            Field("replicates", "Pairs of seeds", "1 speaks of these models", "number", "1", more=True),
            Field("margin", "Margin", "nats; who is worse by less goes on", value="0.002", more=True),
            PROTOCOL, Field("name", "Name", "empty: one that is free", more=True),
        ),
    ),
    "judge": Question(
        "Is this better than …?",
        "Two recipes on equal batches, over pairs of seeds: keep, drop or undecided.", "Is something better than it?",
        (
            BASE, Field("variant", "Against", "a run, a preset, or the base changed", "choice", choices=[SAME]),
            Field("changes", "Changed settings", "one on a line", "lines", placeholder="optimizer.lr = 0.003"),
            Field("replicates", "Pairs of seeds", "1 speaks of two models, more of the recipes", "number", "3"),
            PROTOCOL, Field("source", "Source", "of mixtures; empty: all of them together", more=True),
            Field("steps", "Steps of each run", "empty: as the base has them", "number", more=True),
        ),
    ),
    "ladder": Question(
        "What would the next size give?", "Small sizes are fitted; the next one is foretold, then trained and scored.",
        "What would the next size give?",
        (
            Field("base", "Recipe", "of a run, or of a preset", "choice"),
            Field("depths", "Sizes", "layers; width is 64 times that", value="1, 2, 3, 4"),
            Field("tokens", "Budgets", "tokens that each is trained on", value="400k, 800k, 1.6M, 3.2M"),
            Field("next", "Next size", "layers; 0: none", value="5"),
            PROTOCOL, Field("foretell", "Foretold as well", "PRESET@TOKENS", value="gpt2@10B", more=True),
            Field("name", "Name", "empty: one that is free", more=True),
        ),
    ),
}  # fmt: skip


def forms() -> Markup:
    """All questions, each a fold with its form; the first is open."""
    found = (_question(kind, question, place == 0) for place, (kind, question) in enumerate(QUESTIONS.items()))
    return Markup(f'<div class="wb-exp-forms"><h3>Begin an experiment</h3>{html.join(found)}</div>')


def _question(kind: str, question: Question, first: bool) -> Markup:
    usual = html.join(_field(kind, field) for field in question.fields if not field.more)
    rare = html.join(_field(kind, field) for field in question.fields if field.more)
    folded = f'<details class="wb-exp-rare"><summary>More</summary>{rare}</details>' if rare else ""
    return Markup(
        f'<details class="wb-exp-form" data-kind="{kind}" id="wb-exp-form-{kind}"{" open" if first else ""}>'
        f"<summary>{escape(question.title)}</summary>{html.note(question.more)}{usual}{folded}"
        f'<div data-live="experiments.cost-{kind}"></div></details>'
    )


def _field(kind: str, field: Field) -> Markup:
    id = f"wb-exp-{kind}-{field.name}"
    same = f'id="{id}" data-field="{field.name}" autocomplete="off"'
    info = f'<small id="{id}-info">{escape(field.info)}</small>' if field.info else ""
    same += f' aria-describedby="{id}-info"' if info else ""
    if field.kind == "choice":
        listed = html.join(
            Markup(f'<option value="{escape(v)}">{escape(label)}</option>') for label, v in field.choices
        )
        box = f'<select {same} data-usual="{escape(field.value)}">{listed}</select>'
    elif field.kind == "lines":
        box = f'<textarea {same} rows="2" placeholder="{escape(field.placeholder)}"></textarea>'
    else:
        number = ' type="number" min="1" step="1"' if field.kind == "number" else ' type="text"'
        box = f'<input {same}{number} value="{escape(field.value)}" placeholder="{escape(field.placeholder)}">'
    return Markup(f'<label for="{id}">{escape(field.label)}{info}</label>{box}')
