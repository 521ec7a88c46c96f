"""A study as markup: where each order is, and at the end the table and the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mygpt2.ripples.words import amount, chance, interval, steps, tokens
from workbench import html, tasklist
from workbench.html import Markup, escape
from workbench.tabs.ripples.measure import NAMES
from workbench.tabs.ripples.studies import Part, Standing


def study_view(at: Standing | None) -> Markup:
    """All there is to see of a study."""
    if at is None:
        return html.empty(
            "Here you will see how much of a ripple each of four data orders leaves, beside what was forecast.",
            "Queue the four short runs: they differ in nothing but the order of their documents.",
        )
    parts = [_comparison(at)] if at.done else [_next(at)]
    rows = [_row(at, part) for part in at.parts]
    caption = f"Study {at.study.id}: {at.study.source}, {at.study.steps:,} steps in each order"
    parts.append(html.table(("Order", "Run", "State", "Trained", "Measured"), rows, caption=caption))
    if at.study.settings:
        own = ", ".join(f"{key}={value}" for key, value in at.study.settings.items())
        parts.append(html.note(f"Settings beside the study's own: {own}"))
    return html.join(parts)


def _row(at: Standing, part: Part) -> tuple[Any, ...]:
    name = Markup(f'<span class="wb-mono">{escape(part.run)}</span>')
    reason = Markup(f' <span class="wb-muted">{escape(part.reason)}</span>') if part.reason and not part.report else ""
    total = at.study.steps
    bar = tasklist.bar(min(part.step, total) / total, f"steps of {part.run}")
    done = html.join([bar, f" {part.step:,} of {total:,}"])
    return NAMES[part.order], name, html.join([html.badge(_known(part.state)), reason]), done, _analysis(part)


def _known(state: str) -> str:
    return "lost" if state in ("missing", "cancelled") else state


def _analysis(part: Part) -> Any:
    if part.report is not None:
        return "done"
    if part.task is None:
        return "waits for the run" if not part.trained else "comes next"
    if part.task.running:
        return "under way"
    return Markup(f'<span class="wb-bad">{escape(part.task.error or part.task.state)}</span>')


def _next(at: Standing) -> Markup:
    """One sentence about what is awaited."""
    gone = [part for part in at.parts if part.state in ("missing", "cancelled")]
    broken = [part for part in at.parts if part.task and not part.task.running] + (
        [at] if at.task and not at.task.running else []
    )
    if gone:
        return html.problem(
            f"{', '.join(part.run for part in gone)} left the queue or its folder is gone, so that this study cannot "
            "be finished. Remove it from the list and queue another."
        )
    if broken:
        return html.problem(
            "A measurement went wrong, see below. Measure that run on the first page, or remove the study."
        )
    trained = sum(part.trained for part in at.parts)
    analysed = sum(part.report is not None for part in at.parts)
    words = f"{trained} of {len(at.parts)} runs are trained, {analysed} measured."
    more = " The page may be closed: the queue, the measurements and the comparison go on without it."
    return Markup(f'<p class="wb-muted" role="status">{escape(words + more)}</p>')


def _comparison(at: Standing) -> Markup:
    try:
        assert at.comparison is not None
        found = json.loads(at.comparison.read_bytes())
        return html.join([_verdict(found), _table(found)])
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        return html.problem("The comparison of this study cannot be read; remove it from the list and queue another.")


def _verdict(found: Mapping[str, Any]) -> Markup:
    state = "found" if found["lead"] else "none"
    return Markup(
        f'<section class="wb-card wb-verdict wb-verdict-{state}" aria-label="Verdict of the study"><h3>Verdict</h3>'
        f'<p class="wb-verdict-words">{escape(found["verdict"])}</p></section>'
    )


def _table(found: Mapping[str, Any]) -> Markup:
    """Every order in a line: what its own search found, its amplitude at the common period, and the forecast."""
    rows = []
    for row in found["orders"]:
        seen = "yes" if row["significant"] else "no" if row["can_say"] else "cannot say"
        period = (
            f"{steps(row['period_steps'])} steps, {tokens(row['period_tokens'])} tokens" if row["significant"] else ""
        )
        own = f"{amount(row['amplitude'])} {interval(row['amplitude_ci'])}" if row["significant"] else ""
        there, expected = row["at_period"], row["forecast"]
        rows.append((
            NAMES[row["order"]], seen, period, own, chance(row["p_value"]) if row["can_say"] else "n/a",
            amount(there["amplitude"]) if there else "n/a", chance(there["p_value"]) if there else "n/a",
            f"{amount(expected['amplitude'])} {interval(expected['amplitude_ci'])}" if expected else "n/a",
        ))  # fmt: skip
    at = f" at {steps(found['period_steps'])} steps" if found["period_steps"] else ""
    headers = ("order", "ripple", "its period", "its amplitude (nats)", "its p", f"measured{at}", "p there", "forecast")
    return html.table(
        headers, rows, numeric={3, 4, 5, 6, 7}, caption="The orders compared; forecast from the file order"
    )
