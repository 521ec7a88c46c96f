"""The tab's live view: the list, the chosen experiment, what a new one would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments import removal
from workbench import html
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.live import Asked, News
from workbench.tabs.experiments import begin, show
from workbench.tabs.experiments.act import own_runs
from workbench.tabs.experiments.experiment import Experiment
from workbench.tabs.experiments.found import Experiments
from workbench.tabs.experiments.multiples import Curves

RESTORABLE = 5  # deleted experiments that are offered


class Seen:
    """What the tab keeps between two looks of its pages."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.experiments, self.curves = Experiments(context), Curves(context)


def look(seen: Seen, asked: Asked, news: News) -> None:
    """Everything that the tab shows by itself."""
    context = seen.context
    found = seen.experiments.all()
    chosen = pick(found, str(asked.get("name") or ""))
    news.busy = any(each.at_work for each in found)
    news.tell("chosen", chosen.name if chosen else "")
    news.show("list", show.listed(found, chosen.name if chosen else "") if found else show.empty(context.read_only))
    missing = asked.get("name") and not chosen
    gone = (
        html.problem(f"There is no experiment {str(asked.get('name'))[:60]}; choose one from the list.")
        if missing
        else ""
    )
    news.show("card", show.card(chosen, seen.curves, context.runs, not context.read_only) if chosen else gone)
    news.show(
        "confirm", confirm(chosen) if chosen and asked.get("deleting") == chosen.name and not chosen.at_work else ""
    )
    news.show("deleted", deleted(context))
    _forms(context, asked, news)


def pick(found: Sequence[Experiment], name: str) -> Experiment | None:
    """The experiment that was asked for; else the first of the list."""
    if name:
        return next((each for each in found if each.name == name), None)
    return found[0] if found else None


def confirm(one: Experiment) -> Markup:
    """The question before an experiment is deleted."""
    own = own_runs(one)
    runs = "its run" if len(own) == 1 else f"its {len(own)} runs"
    buttons = [
        html.button(
            "delete-keep", one.name, f"Delete, keep {runs}" if own else "Delete", f"Delete {one.name}, keep {runs}"
        )
    ]
    if own:
        buttons.append(html.button("delete-all", one.name, f"Delete with {runs}", f"Delete {one.name} with {runs}"))
    lost = "Its ledger goes with it: what was asked of this baseline is forgotten." if one.kind == "judge" else ""
    buttons.append(html.button("keep", one.name, "Keep it", f"Keep {one.name}"))
    return Markup(
        f'<div class="wb-exp-confirm" role="group" aria-label="Delete {escape(one.name)}?"><p>Delete '
        f"{escape(one.name)}? It goes to the trash, from where it can be restored until that is emptied. "
        f"{lost}</p>{html.join(buttons)}</div>"
    )


def deleted(context: Context) -> Markup:
    """What can be brought back."""
    every = [] if context.read_only else removal.removed(context.runs)
    there = every[:RESTORABLE]
    if not there:
        return Markup("")
    lines = html.join(
        Markup(f"<li>{html.join([each.name, ' ', html.when(each.time), ' ', _restore(each)])}</li>") for each in there
    )
    return Markup(
        f'<details class="wb-fold" data-key="deleted"><summary>Deleted</summary><ul>{lines}</ul>'
        f"{html.note(f'{len(every) - RESTORABLE} more were deleted before.') if len(every) > RESTORABLE else ''}"
        f"{html.button('empty', '', 'Remove all for good', 'Remove all deleted experiments for good')}</details>"
    )


def _restore(each: removal.Removed) -> Markup:
    return html.button("restore", each.entry, "Restore", f"Restore {each.name}")


def _forms(context: Context, asked: Asked, news: News) -> None:
    """What the forms can choose from, what they begin with, and what the open one would take."""
    known = begin.choices(context)
    usual = begin.default_base(context, asked.get("ticked"))
    news.tell("choices", {"base": known, "variant": known, "protocol": begin.texts(context), "usual": usual})
    kind = str(asked.get("open") or "")
    if kind in begin.PLANS:
        given = asked.get("form")
        values = given if isinstance(given, dict) else {}
        news.show(f"cost-{kind}", cost(context, kind, {**values, "base": values.get("base") or usual}))


def cost(context: Context, kind: str, values: dict[str, Any]) -> Markup:
    """What this form would begin, what that takes, and the button that begins it; or why it cannot."""
    try:
        made = begin.plan(context, kind, values)
    except UserError as error:
        said = str(error)
        off = Markup('<button type="button" class="wb-exp-start" disabled>Start</button>')
        return html.join([off, Markup(f'<p class="wb-muted wb-exp-why">{escape(said[:1].upper() + said[1:])}</p>')])
    lines = html.join(html.note(line) for line in begin.cost_told(context, made))
    notes = html.join(Markup(f'<p class="wb-exp-notice">{escape(note)}</p>') for note in made.notes)
    start = html.button("begin", kind, "Start", f"Start: {made.told}", "wb-exp-start")
    return Markup(
        f'<div class="wb-exp-cost">{"" if context.read_only else start}<p><strong>{escape(made.told)}</strong></p>'
        f'{lines}{notes}<details class="wb-fold" data-key="command"><summary>The command</summary>'
        f"<pre>{escape(made.command)}</pre></details></div>"
    )
