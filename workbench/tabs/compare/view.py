"""Results as markup. Nothing here knows of Gradio; every name is escaped by workbench.html."""

from __future__ import annotations

from collections.abc import Sequence

from workbench import html
from workbench.html import Markup, escape
from workbench.tabs.compare.groups import CHANCE, METRICS, SCORINGS, Bar, Set, accuracy_bars, against_best, bars
from workbench.words import fixed, minute


def results_view(chosen: Set | None) -> Markup:
    """A set's chart and table, or what to do while there is none."""
    if chosen is None:
        return html.empty("Nothing has been evaluated yet.", "Choose models and a text above, and press Evaluate.")
    notes = html.join(html.note(words) for words in chosen.notes)
    body = _text_view(chosen) if chosen.is_text else _accuracy_view(chosen)
    return Markup(f'<div class="wb-compare">{notes}{body}</div>')


def _text_view(chosen: Set) -> Markup:
    shown = bars(chosen)
    unit = "nats per token" if chosen.unit == "loss" else "bits per byte"
    title = f"Loss in {unit}, lower is better" if chosen.unit == "loss" else "Bits per byte, lower is better"
    return html.join([dots(title, shown), _loss_table(chosen, shown)])


def _loss_table(chosen: Set, shown: Sequence[Bar]) -> Markup:
    rows: list[tuple[object, ...]] = []
    for bar, words in zip(shown, against_best(shown), strict=True):
        result = bar.result
        if result is None or result.loss is None:
            rows.append((_quoted(bar), f"{bar.value:g}", *[""] * 8))
            continue
        loss = result.loss
        rows.append((
            result.model, _pm(loss.loss, loss.stderr), fixed(loss.perplexity, 2), fixed(loss.bits_per_byte, 4),
            words, f"{loss.tokens:,}", loss.window, result.precision, _digest(loss.token_sha256), _when(result.time),
        ))  # fmt: skip
    headers = ("model", "loss ± error", "perplexity", "bits per byte", "against the best", "tokens", "window",
               "precision", "tokens' SHA-256", "measured")  # fmt: skip
    hashes = sorted({result.loss.token_sha256 for result in chosen.results if result.loss})
    words = f"Protocol: {chosen.label}; SHA-256 of the tokens: {', '.join(hashes)}"
    return html.table(headers, rows, numeric={1, 2, 3, 5, 6}, caption=words)


def _accuracy_view(chosen: Set) -> Markup:
    charts, rows = [], []
    for scoring in SCORINGS:
        for metric in METRICS:
            shown = accuracy_bars(chosen, scoring, metric)
            if not shown:
                continue
            charts.append(columns(f"{scoring}: {metric}, higher is better", shown))
            for bar, words in zip(shown, against_best(shown, points=True), strict=True):
                label = _quoted(bar) if bar.quoted else bar.label
                low, high = bar.share_interval
                interval = "" if bar.stderr is None else f"{100 * low:.2f} to {100 * high:.2f}"
                rows.append((f"{scoring} {metric}", label, _percent(bar), interval, words))
    table = html.table(("metric", "model", "% ± error", "95 % interval", "against the best"), rows, numeric={2, 3},
                       caption=f"{chosen.label}, SHA-256 {_short(chosen.key.removeprefix('items '))}")  # fmt: skip
    return html.join([Markup(f'<div class="wb-compare-charts">{html.join(charts)}</div>'), table])


def dots(title: str, shown: Sequence[Bar]) -> Markup:
    """Points with 95 % whiskers on a common, labelled range: bars from zero would hide every difference."""
    if not shown:
        return Markup("")
    low = min(bar.interval[0] for bar in shown)
    high = max(bar.interval[1] for bar in shown)
    room = (high - low) * 0.08 or 0.05 * abs(high) or 1.0
    low, high = low - room, high + room
    return _chart(title, shown, low, high, [f"{low + (high - low) * part / 4:.4g}" for part in range(5)], False)


def columns(title: str, shown: Sequence[Bar]) -> Markup:
    """Bars from zero with 95 % whiskers, and a line at what guessing gets."""
    high = min(1.0, max(0.5, *(bar.interval[1] + 0.05 for bar in shown)))
    return _chart(title, shown, 0.0, high, [f"{25 * high * part:.0f} %" for part in range(5)], True)


def _chart(title: str, shown: Sequence[Bar], low: float, high: float, ticks: Sequence[str], filled: bool) -> Markup:
    def at(value: float) -> str:
        return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}%"

    rows = []
    for bar in shown:
        left, right = bar.interval
        kind = "wb-quoted" if bar.quoted else ""
        fill = f'<i class="wb-fill" style="width:{at(bar.value)}"></i>' if filled else ""
        chance = f'<i class="wb-chance" style="left:{at(CHANCE)}"></i>' if filled else ""
        whisker = (
            f'<i class="wb-whisker" style="left:{at(left)};width:calc({at(right)} - {at(left)})"></i>'
            if bar.stderr is not None
            else ""
        )
        who = _quoted(bar) if bar.quoted else escape(bar.label)
        value = f"{100 * bar.value:.2f} %" if filled else f"{bar.value:.4f}"
        rows.append(
            f'<div class="wb-line {kind}"><span class="wb-who">{who}</span>'
            f'<span class="wb-track">{chance}{fill}{whisker}<i class="wb-dot" style="left:{at(bar.value)}"></i></span>'
            f'<span class="wb-value">{value}</span></div>'
        )
    said = "; ".join(f"{bar.label}{' (quoted)' if bar.quoted else ''} {bar.value:.4f}" for bar in shown)
    axis = "".join(f"<span>{escape(tick)}</span>" for tick in ticks)
    known = "whiskers: 95 % interval" if any(bar.stderr is not None for bar in shown) else "errors are not known"
    legend = known + ("; dashed: chance, 25 %" if filled else "; the axis does not begin at 0")
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


def _digest(sha: str) -> Markup:
    return Markup(f'<code title="{escape(sha)}">{escape(_short(sha))}</code>')


def _short(sha: str) -> str:
    return sha[:12]


def _when(stamp: float) -> str:
    return minute(stamp) if stamp else "earlier, as yardstick"
