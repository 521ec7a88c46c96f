"""Results as markup. Nothing here knows of Gradio; every name is escaped by workbench.html."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from workbench import html
from workbench.evaluations.results import Result
from workbench.html import Markup, escape
from workbench.tabs.compare import by_source
from workbench.tabs.compare.answer import Names, answer
from workbench.tabs.compare.groups import CHANCE, METRICS, SCORINGS, Bar, Set, accuracy_bars, against_best, bars
from workbench.words import fixed

FAR = 1.0  # of the lowest value above it: what is farther off is not drawn to scale
NOTHING = "Here you will see which model is best on a text, by how much, and whether that can be trusted."


def results_view(chosen: Set | None, missing: Sequence[str] = ()) -> Markup:
    """A set's answer, chart and table, or what will be here. `missing`: runs that are not measured on its text."""
    if chosen is None:
        return html.empty(
            NOTHING, "Choose models and a text, and press Measure. A run appears by itself once it has validated."
        )
    notes = html.note(f"{'; '.join(chosen.notes)}.") if chosen.notes else ""
    body = _text_view(chosen) if chosen.is_text else _accuracy_view(chosen)
    return Markup(f'<div class="wb-compare">{_answer_view(chosen, missing)}{notes}{body}</div>')


def _answer_view(chosen: Set, missing: Sequence[str]) -> Markup:
    found = answer(chosen)
    more = [escape(found.more)]
    if found.again:
        more.append(html.button("measure", here(chosen, found.again), "Measure both here",
                                f"Measure {' and '.join(found.again)} here"))  # fmt: skip
    if found.pair:
        first, second = found.pair
        more.append(html.button("pair", f"{first} {second}", "Compare step against step",
                                f"Compare {first} and {second} step against step"))  # fmt: skip
    lines = [Markup(f'<p class="wb-muted">{Markup(" ").join(more)}</p>')] if found.more else []
    if missing:
        one = "it" if len(missing) == 1 else "them"
        label = f"Measure {', '.join(missing)} here"
        measure = html.button("measure", here(chosen, missing), f"Measure {one} here", label)
        names = escape(", ".join(missing))
        lines.append(Markup(f'<p class="wb-muted">Not measured on this text: {names}. {measure}</p>'))
    chip = html.chip(found.chip, found.tone)
    return Markup(
        f'<section class="wb-verdict wb-verdict-{found.tone}" aria-label="Answer"><p class="wb-verdict-words">{chip} '
        f"{escape(found.words)}</p>{html.join(lines)}</section>"
    )


def here(chosen: Set, models: Sequence[str]) -> str:
    """Models to be measured, and on which set's text: another one may have been chosen by the time of the click."""
    return "\n".join((chosen.key, *models))


def _text_view(chosen: Set) -> Markup:
    shown = bars(chosen)
    unit = "nats per token" if chosen.unit == "loss" else "bits per byte"
    title = f"Loss in {unit}, lower is better" if chosen.unit == "loss" else "Bits per byte, lower is better"
    return html.join([dots(title, shown, Names(chosen)), _loss_table(chosen, shown), by_source.view(chosen, shown)])


def _loss_table(chosen: Set, shown: Sequence[Bar]) -> Markup:
    """What is the same of all stands in the caption, what differs in a column; the unit that compares comes first."""
    losses = [result.loss for result in chosen.results if result.loss]
    kinds: dict[str, set[object]] = {
        "tokens": {f"{loss.tokens:,}" for loss in losses}, "window": {loss.window for loss in losses},
        "precision": {result.precision or "n/a" for result in chosen.results},
    }  # fmt: skip
    differ = [kind for kind, values in kinds.items() if len(values) > 1]
    name, by_token = Names(chosen), chosen.unit == "loss"
    rows: list[tuple[object, ...]] = []
    for bar, words in zip(shown, against_best(shown), strict=True):
        result = bar.result
        if result is None or result.loss is None:
            rows.append((_quoted(bar), f"{bar.value:g}", *[""] * (4 + len(differ))))
            continue
        loss = result.loss
        other = fixed(loss.bits_per_byte if by_token else loss.loss, 4)
        own = {"tokens": f"{loss.tokens:,}", "window": loss.window, "precision": result.precision}
        rows.append((
            _named(name(result.model), result), _pm(bar.value, bar.stderr), other, fixed(loss.perplexity, 2), words,
            _when(result), *(own[kind] for kind in differ),
        ))  # fmt: skip
    units = ("Nats per token", "Bits per byte")
    first, second = units if by_token else units[::-1]
    headers = ("Model", f"{first} ± error", second, "Perplexity", "Against the best", "Measured",
               *(kind.capitalize() for kind in differ))  # fmt: skip
    same = [f"{kind} {next(iter(values))}" for kind, values in kinds.items() if len(values) == 1]
    hashes = sorted({loss.token_sha256[:12] for loss in losses})
    caption = "; ".join([chosen.label, *same, f"tokens' SHA-256 {', '.join(hashes)}"])
    numeric = {1, 2, 3, *(6 + i for i, kind in enumerate(differ) if kind != "precision")}
    return html.table(headers, rows, numeric=numeric, caption=caption)


def _named(name: str, result: Result) -> Markup:
    step = f' <small class="wb-muted">step {result.step:,}</small>' if result.step is not None else ""
    return Markup(f"{escape(name)}{step if ' at step ' not in name else ''}")


def _accuracy_view(chosen: Set) -> Markup:
    charts, rows, name = [], [], Names(chosen)
    for scoring in SCORINGS:
        for metric in METRICS:
            shown = accuracy_bars(chosen, scoring, metric)
            if not shown:
                continue
            charts.append(columns(f"{scoring}: {metric}, higher is better", shown, name))
            for bar, words in zip(shown, against_best(shown, points=True), strict=True):
                label = _quoted(bar) if bar.quoted else name(bar.label)
                low, high = bar.share_interval
                interval = "" if bar.stderr is None else f"{100 * low:.2f} to {100 * high:.2f}"
                rows.append((f"{scoring} {metric}", label, _percent(bar), interval, words))
    table = html.table(("Metric", "Model", "% ± error", "95 % interval", "Against the best"), rows, numeric={2, 3},
                       caption=f"{chosen.label}, SHA-256 {_short(chosen.key.removeprefix('items '))}")  # fmt: skip
    return html.join([Markup(f'<div class="wb-compare-charts">{html.join(charts)}</div>'), table])


def dots(title: str, shown: Sequence[Bar], name: Callable[[str], str] = str) -> Markup:
    """Points with 95 % whiskers on a common, labelled range: bars from zero would hide every difference.

    One that is far away, as of a run that diverged, would do so too: it stands at the edge, with an arrow.
    """
    if not shown:
        return Markup("")
    low, least = min(bar.interval[0] for bar in shown), min(bar.value for bar in shown)
    near = [bar for bar in shown if bar.value <= least + FAR * abs(least)]
    high = max(bar.interval[1] for bar in near)
    room = (high - low) * 0.08 or 0.05 * abs(high) or 1.0
    low, high = low - room, high + room
    steps = [low + (high - low) * part / 4 for part in range(5)]
    places = _places(steps)
    ticks = [f"{step:.{places}f}" for step in steps]
    return _chart(title, shown, low, high, ticks, False, name)


def _places(steps: Sequence[float]) -> int:
    """Decimals of all labels of an axis: four digits of the largest, and two of what lies between them."""
    largest, between = max(map(abs, steps)), abs(steps[1] - steps[0])
    return max(0, 3 - _decade(largest), 1 - _decade(between))


def _decade(value: float) -> int:
    return math.floor(math.log10(value)) if value > 0 else 0


def columns(title: str, shown: Sequence[Bar], name: Callable[[str], str] = str) -> Markup:
    """Bars from zero with 95 % whiskers, and a line at what guessing gets."""
    high = min(1.0, max(0.5, *(bar.interval[1] + 0.05 for bar in shown)))
    return _chart(title, shown, 0.0, high, [f"{25 * high * part:.0f} %" for part in range(5)], True, name)


def _chart(
    title: str, shown: Sequence[Bar], low: float, high: float, ticks: Sequence[str], filled: bool,
    name: Callable[[str], str],
) -> Markup:  # fmt: skip
    def at(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"

    rows = []
    for bar in shown:
        left, right = bar.interval
        kind = "wb-quoted" if bar.quoted else "wb-off" if bar.value > high else ""
        fill = f'<i class="wb-fill" style="width:{at(bar.value)}"></i>' if filled else ""
        chance = f'<i class="wb-chance" style="left:{at(CHANCE)}"></i>' if filled else ""
        whisker = (
            f'<i class="wb-whisker" style="left:{at(left)};width:calc({at(right)} - {at(left)})"></i>'
            if bar.stderr is not None and kind != "wb-off"
            else ""
        )
        who = _quoted(bar) if bar.quoted else escape(name(bar.label))
        value = f"{100 * bar.value:.2f} %" if filled else f"{bar.value:.4f}" if bar.value < 1e6 else f"{bar.value:.3g}"
        rows.append(
            f'<div class="wb-line {kind}"><span class="wb-who">{who}</span>'
            f'<span class="wb-track">{chance}{fill}{whisker}<i class="wb-dot" style="left:{at(bar.value)}"></i></span>'
            f'<span class="wb-value">{value}</span></div>'
        )
    said = "; ".join(f"{name(bar.label)}{' (quoted)' if bar.quoted else ''} {bar.value:.4g}" for bar in shown)
    axis = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    known = "whiskers: 95 % interval" if any(bar.stderr is not None for bar in shown) else "errors are not known"
    legend = known + ("; dashed: chance, 25 %" if filled else "; the axis does not begin at 0")
    legend += "; an arrow: beyond the axis" if not filled and any(bar.value > high for bar in shown) else ""
    return Markup(
        f'<figure class="wb-chart-lines" role="img" aria-label="{escape(title)}: {escape(said)}">'
        f"<figcaption>{escape(title)}</figcaption>{''.join(rows)}"
        f'<div class="wb-line wb-axis"><span></span><span class="wb-ticks">{axis}</span><span></span></div>'
        f'<p class="wb-muted">{legend}</p></figure>'
    )


def _quoted(bar: Bar) -> Markup:
    return Markup(
        f'{escape(bar.label)} <span class="wb-quoted-word" title="{escape(bar.note)}">quoted, not measured</span>'
    )


def _percent(bar: Bar) -> str:
    error = "" if bar.stderr is None else f" ± {100 * bar.stderr:.2f}"
    return f"{100 * bar.value:.2f}{error}"


def _pm(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"


def _short(sha: str) -> str:
    return sha[:12]


def _when(result: Result) -> Markup:
    if not result.time:
        return Markup("earlier, as yardstick")
    return html.join(["" if result.weights else "in training, ", html.when(result.time)])
