"""Two models on the held-out text of a mixture, source by source: which is better on which, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench import html
from workbench.evaluations.results import Loss, Result
from workbench.html import Markup, escape
from workbench.tabs.compare.answer import Names
from workbench.tabs.compare.groups import Bar, Set, difference

MOST = 8  # models beside the best


def view(chosen: Set, shown: Sequence[Bar]) -> Markup:
    """The best model against each other one, the next open and the rest folded; nothing where no result has sources.

    Results that have none are named.
    """
    measured = [bar for bar in shown if bar.result and bar.result.loss]
    having = [bar for bar in measured if bar.result and bar.result.loss and bar.result.loss.sources]
    if not having:
        return Markup("")
    name = Names(chosen)
    without = ", ".join(name(bar.label) for bar in measured if bar not in having)
    said = f"Not known by source: {without}. Measured again, each source has a loss of its own." if without else ""
    pairs = [
        html.Markup(
            f"<details{'' if number else ' open'}><summary>{escape(name(other.label))} against "
            f"{escape(name(having[0].label))}</summary>{_table(chosen, having[0], other, name)}</details>"
        )
        for number, other in enumerate(having[1 : MOST + 1])
    ]
    alone = [_table(chosen, having[0], None, name)] if not pairs else []
    note = html.note(said) if said else ""
    return Markup(
        f'<section class="wb-by-source" aria-label="By source"><h3>By source</h3>{html.join([*alone, *pairs, note])}'
        "</section>"
    )


def _table(chosen: Set, best: Bar, other: Bar | None, name: Names) -> Markup:
    """One row a source: the losses of both, and their difference with its error, document by document where known."""
    one, two = _losses(best), _losses(other) if other else {}
    rows = []
    for place, (source, loss) in enumerate(one.items()):
        first = _bar(best, loss, chosen.unit)
        second = _bar(other, two[source], chosen.unit) if other and source in two else None
        row = [html.join([html.dot(place), source]), _pm(first), f"{loss.tokens:,}"]
        if other:
            row[2:2] = [_pm(second)]
            row.append(_told(first, second, loss, two.get(source), chosen.unit))
        rows.append(tuple(row))
    unit = "nats per token" if chosen.unit == "loss" else "bits per byte"
    headers = ["Source", name(best.label), *([name(other.label)] if other else []), "Tokens"]
    headers += [f"{name(other.label)} against {name(best.label)}"] if other else []
    numeric = {1, 2, 3} if other else {1, 2}
    return html.table(headers, rows, numeric, f"{unit} \u00b1 error on the held-out text of each source")


def _told(first: Bar | None, second: Bar | None, one: Loss, two: Loss | None, unit: str) -> str:
    if first is None or second is None or two is None:
        return "not known of both"
    if unit == "loss" and one.token_sha256 != two.token_sha256:
        return "of other documents: they do not compare"
    return difference(second, first)


def _losses(bar: Bar) -> dict[str, Loss]:
    return dict(bar.result.loss.sources) if bar.result and bar.result.loss else {}


def _bar(of: Bar, loss: Loss, unit: str) -> Bar | None:
    """One source's loss as a bar of its own, in the unit of the set."""
    value = loss.loss if unit == "loss" else loss.bits_per_byte
    if value is None or of.result is None:
        return None
    error = None if loss.stderr is None else loss.stderr * (value / loss.loss if loss.loss else 0.0)
    result: Result = replace(of.result, loss=loss)
    return Bar(of.label, value, error, result=result)


def _pm(bar: Bar | None) -> str:
    if bar is None:
        return "n/a"
    return f"{bar.value:.4f}" if bar.stderr is None else f"{bar.value:.4f} \u00b1 {bar.stderr:.4f}"
