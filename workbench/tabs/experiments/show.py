"""Experiments as markup: the list, and the chosen one with its verdict, its arms and all that is behind them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.records import number
from workbench import html, tasklist, words
from workbench.html import Markup, escape
from workbench.tabs.experiments.answer import Answer
from workbench.tabs.experiments.drawing import intervals
from workbench.tabs.experiments.experiment import Experiment
from workbench.tabs.experiments.forms import QUESTIONS
from workbench.tabs.experiments.found import settings_text
from workbench.tabs.experiments.looks import answer
from workbench.tabs.experiments.multiples import Curves, arms, multiples

NOTHING = "Here runs answer a question together: with an interval, what it cost, and what would decide it."
CHIPS = {"running": "running", "finished": "finished", "stopped": "stopped", "failed": "failed", "lost": "lost",
         "damaged": "failed"}  # fmt: skip
LEDGER_ROWS = 200


def empty(read_only: bool) -> Markup:
    """No experiment yet: the three questions, each a button that opens its form."""
    asks = html.join(_question(kind) for kind in QUESTIONS)
    below = (
        "" if not read_only else html.note("This workbench was started with --read-only; nothing can be begun here.")
    )
    return html.empty(NOTHING, Markup(f'<div class="wb-exp-asks">{asks}</div>{below}'))


def _question(kind: str) -> Markup:
    question = QUESTIONS[kind]
    return Markup(
        f'<button type="button" class="wb-exp-ask" data-ask="{kind}"><strong>{escape(question.title)}</strong>'
        f"<span>{escape(question.more)}</span></button>"
    )


def listed(found: Sequence[Experiment], chosen: str) -> Markup:
    """A line for each experiment; the chosen one is marked."""
    return Markup(f'<ul class="wb-exp-list">{html.join(_line(each, each.name == chosen) for each in found)}</ul>')


def _line(one: Experiment, chosen: bool) -> Markup:
    found = last(one)
    said: Any = found.headline if found else one.asked.told or (one.problems[0] if one.problems else "")
    if one.at_work:
        share = one.share
        told = tasklist.bar(share, f"progress of {one.name}") if share is not None else Markup("")
        state = Markup(f'<span class="wb-exp-state">{html.badge("running")}{told}</span>')
    else:
        state = html.chip(found.chip, found.tone) if found and one.standing == "finished" else _badge(one)
    current = ' aria-current="true"' if chosen else ""
    return Markup(
        f'<li data-key="{escape(one.name)}"><button type="button" data-exp="{escape(one.name)}"{current}>'
        f'<span class="wb-exp-name">{escape(one.name)}</span>{state}'
        f'<span class="wb-exp-said">{escape(said)}</span>{html.when(one.changed or None)}</button></li>'
    )


def _badge(one: Experiment) -> Markup:
    return html.chip("damaged", "bad") if one.standing == "damaged" else html.badge(CHIPS[one.standing])


def card(one: Experiment, curves: Curves, runs: Path, may: bool) -> Markup:
    """The chosen experiment. `may`: whether anything may be changed here."""
    parts = [_head(one, may), _problems(one), _progress(one), _verdict(one), _arms(one, curves), *_behind(one, runs)]
    return Markup(f'<div class="wb-exp">{html.join(part for part in parts if part)}</div>')


def last(one: Experiment) -> Answer | None:
    """What is known now; None where there is no look, or none that can be read."""
    return answer(one.kind, one.looks[-1], {**one.record, "labels": one.arms}) if one.looks else None


def _head(one: Experiment, may: bool) -> Markup:
    kind = QUESTIONS[one.kind].title if one.kind in QUESTIONS else one.kind or "experiment"
    acts = [html.item(label, act, one.name, key=act) for act, label in (
        ("json", "Save everything as JSON"), ("csv", "Save the looks as CSV"),
        ("html", "Save a report as one HTML file"),
    )]  # fmt: skip
    if may and not one.at_work:
        acts.append(html.item("Delete …", "delete", one.name, tone="bad"))
    buttons = []
    if one.runs:
        buttons.append(html.button("monitor", " ".join(one.runs[:8]), "Curves in Monitor", "Open its runs in Monitor"))
    if may and one.at_work:
        buttons.append(html.button("stop", one.name, "Stop and save", f"Stop and save {one.name}"))
    elif may and not one.at_work and one.argv and one.standing != "finished":
        buttons.append(html.button("go", one.name, "Continue", f"Continue {one.name}", "wb-small wb-small-primary"))
    return Markup(
        f'<div class="wb-exp-head"><h3>{escape(one.name)}</h3>{_badge(one)}<span class="wb-muted">{escape(kind)}</span>'
        f'<span class="wb-exp-can">{html.join(buttons)}{html.menu("More", acts, name="More of this experiment")}</span>'
        f"</div>"
    )


def _problems(one: Experiment) -> Markup:
    lines = [*one.problems]
    if one.task and not one.task.running and one.task.error and one.standing in ("failed", "lost"):
        lines.append(one.task.error)
    if one.kind == "" and not one.problems:
        lines.append("experiment.toml does not say what kind of experiment this is; its runs are shown as they are.")
    return html.problem("\n".join(lines)) if lines else Markup("")


def _doing(one: Experiment) -> str:
    if one.task and one.task.running:
        return tasklist.progress(one.task)[0]
    if one.task and one.task.state == "stopped":
        return "stopped, but a run of it is still at work: it saves first"
    return "at work from a terminal"


def _progress(one: Experiment) -> Markup:
    if not one.at_work:
        return Markup("")
    share, left = one.share, one.seconds_left
    over = sum(member.over for member in one.members)
    told = [f"{over} of {len(one.members)} runs done" if one.members else "", _doing(one)]
    if (one.task and one.task.state == "stopped") or share == 1:
        left = None  # what is left is not being done, or is no training
    elif left is None and one.asked.seconds and share is not None:
        left = (1 - share) * one.asked.seconds
    if left is not None:
        own = one.task.progress.seconds_left if one.task and one.task.progress else None
        left = max(left, own or 0.0)  # all of it takes no less than the run that is at work
        told.append(f"about {words.seconds(left)} left in all")
    bar = tasklist.bar(share, f"progress of {one.name}")
    words_of = escape(" · ".join(part for part in told if part))
    return Markup(f'<p class="wb-exp-progress" role="status">{bar}<span>{words_of}</span></p>')


def _verdict(one: Experiment) -> Markup:
    if not one.looks:
        return html.note(one.asked.told) if one.asked.told else Markup("")
    look, found = one.looks[-1], last(one)
    if found is None:
        return html.problem("The last look cannot be read; the table below has what is known of it.")
    return verdict(found, look)


def verdict(found: Answer, look: Mapping[str, Any]) -> Markup:
    """A look: in words, as numbers, drawn, and what would decide it."""
    decide = html.join(Markup(f"<li>{escape(line)}</li>") for line in found.decide)
    notices = html.join(Markup(f'<p class="wb-exp-notice">{escape(line)}</p>') for line in found.notices)
    lines = html.join(html.note(line) for line in found.lines)
    parts = [
        Markup(f'<p class="wb-verdict-words">{html.chip(found.chip, found.tone)} {escape(found.headline)}</p>'),
        html.figures(found.figures) if found.figures else "",
        intervals(found.title, found.intervals, found.sides, found.legend),
        found.drawn or "", Markup(f"<h4>{escape(found.decides)}</h4><ul>{decide}</ul>") if decide else "", notices,
        _fold("In full", lines) if lines else "", _pre("In full", found.text) if found.text else "",
        html.join([Markup('<p class="wb-muted">'), "Decided ", html.when(number(look.get("time"))), Markup("</p>")]),
    ]  # fmt: skip
    body = html.join(part for part in parts if part)
    return Markup(f'<section class="wb-verdict wb-verdict-{found.tone}" aria-label="Verdict">{body}</section>')


def _arms(one: Experiment, curves: Curves) -> Markup:
    if not one.members:
        return Markup("")
    found = last(one)
    labels, why = _labels(one) | dict(found.arms if found else {}), found.why if found else {}
    return html.join([Markup("<h3>Arms</h3>"), multiples(arms(one, labels, why), curves)])


def _labels(one: Experiment) -> dict[str, str]:
    """What an arm is, by its name, where its looks say."""
    found = {"base": "base", **one.arms}
    if "base" in one.arms:
        found["base"] += " (base)"
    for look in one.looks:
        if isinstance(look.get("variant"), str) and isinstance(look.get("told"), str):
            found[look["variant"]] = look["told"]
    return found


def _behind(one: Experiment, runs: Path) -> list[Markup]:
    """Everything the verdict rests on, each a fold."""
    return [
        _fold("Runs", _runs_table(one)) if one.members else Markup(""),
        _fold(f"Looks ({len(one.looks)})", _looks_table(one)) if one.looks else Markup(""),
        _fold(f"Ledger ({len(one.ledger) + one.lost})", _ledger_table(one)) if one.ledger or one.lost else Markup(""),
        _pre("The command", shlex.join(("python", *one.argv[1:]))) if one.argv else Markup(""),
        _fold("experiment.toml", _toml(one, runs)),
        _pre("What it said", "\n".join(one.task.log)) if one.task and one.task.log else Markup(""),
    ]


def _pre(title: str, text: str) -> Markup:
    return _fold(title, Markup(f"<pre>{escape(text)}</pre>"))


def _fold(title: str, content: Markup) -> Markup:
    key = escape(title.partition(" (")[0])
    return Markup(f'<details class="wb-fold" data-key="{key}"><summary>{escape(title)}</summary>{content}</details>')


def _toml(one: Experiment, runs: Path) -> Markup:
    try:
        return Markup(f"<pre>{escape(settings_text(one, runs))}</pre>")
    except UserError as error:
        return html.note(str(error))


def _runs_table(one: Experiment) -> Markup:
    rows = []
    for member in one.members:
        name: Any = member.run
        if member.state != "missing":
            name = html.button("monitor", member.run, member.run, f"Open {member.run} in Monitor")
        steps = f"{words.count(member.step)}{f' of {member.steps:,}' if member.steps else ''}"
        state = "not begun" if member.state == "missing" else "diverged" if member.diverged else member.state
        rows.append((name, html.badge(state), steps, words.fixed(member.loss), member.reason.partition("\n")[0]))
    return html.table(("Run", "State", "Steps", "Training loss", "Why"), rows, numeric={2, 3}, caption="Its runs",
                      keys=[member.run for member in one.members])  # fmt: skip


def _looks_table(one: Experiment) -> Markup:
    rows = []
    for look in reversed(one.looks):
        found = answer(one.kind, look)
        chip = html.chip(found.chip, found.tone) if found else html.chip("cannot be read", "bad")
        rows.append((html.when(number(look.get("time")), exact=True), chip, found.headline if found else ""))
    left = f"{one.left_out} older looks are not kept; the ledger has a line for each." if one.left_out else ""
    return html.join(
        [html.table(("When", "Verdict", "In words"), rows, caption="Latest first"), html.note(left) if left else ""]
    )


def _ledger_table(one: Experiment) -> Markup:
    rows = []
    for place, line in reversed(list(enumerate(one.ledger, 1))[-LEDGER_ROWS:]):
        level, p = number(line.get("level")), number(line.get("p"))
        rows.append((
            place, html.when(number(line.get("time")), exact=True), str(line.get("told") or line.get("variant") or ""),
            str(line.get("verdict") or ""), words.NA if p is None else f"{p:.3g}",
            words.NA if level is None else f"{level:.3g}",
        ))  # fmt: skip
    lost = f"{one.lost} damaged lines are counted and not shown." if one.lost else ""
    more = f"The latest {LEDGER_ROWS} of {len(one.ledger)} are shown." if len(one.ledger) > LEDGER_ROWS else ""
    said = " ".join(filter(None, (lost, more)))
    table = html.table(("", "When", "Variant", "Verdict", "p", "Decides at or below"), rows, numeric={0, 4, 5},
                       caption="Every question about this base; all share one chance of a false verdict")  # fmt: skip
    return html.join([table, html.note(said) if said else ""])
