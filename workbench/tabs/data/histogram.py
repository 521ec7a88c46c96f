"""A histogram as inline SVG: no script, colours of the stylesheet, and its figures in words for who cannot see it."""

from __future__ import annotations

import numpy as np

from workbench import html

BINS = 24
WIDTH, HEIGHT, BASE = 300, 96, 78  # of the drawing, and where the bars stand


def binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """(counts, edges, whether the edges are logarithmic). Whole numbers of few values get a bar each."""
    values = values[np.isfinite(values)]
    if not len(values):
        return np.empty(0, int), np.empty(0), False
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.array([len(values)]), np.array([low - 0.5, high + 0.5]), False
    if high - low < BINS and np.all(values == np.round(values)):
        edges = np.arange(low - 0.5, high + 1)
        return np.histogram(values, edges)[0], edges, False
    logarithmic = low > 0 and high / low > 50
    edges = np.geomspace(low, high, BINS + 1) if logarithmic else np.linspace(low, high, BINS + 1)
    edges[0], edges[-1] = low, high  # geomspace may miss them by a rounding
    return np.histogram(values, edges)[0], edges, logarithmic


def drawn(name: str, values: np.ndarray) -> html.Markup:
    """One histogram with its smallest, middle and largest value."""
    counts, edges, logarithmic = binned(np.asarray(values, float))
    if not len(counts):
        return html.Markup("")
    finite = values[np.isfinite(values)]
    low, middle, high = (figure(x) for x in (finite.min(), np.median(finite), finite.max()))
    words = f"{name}: {len(finite):,} documents, from {low} to {high}, half of them up to {middle}"
    step = WIDTH / len(counts)
    bars = "".join(
        f'<rect x="{n * step:.1f}" y="{BASE - tall:.1f}" width="{max(step - 1, 0.5):.1f}" height="{tall:.1f}">'
        f"<title>{html.escape(f'{figure(edges[n])} to {figure(edges[n + 1])}: {int(count):,}')}</title></rect>"
        for n, count in enumerate(counts)
        if (tall := (BASE - 4) * count / counts.max())
    )
    scale = " (log scale)" if logarithmic else ""
    return html.Markup(
        f'<figure class="wb-hist"><figcaption>{html.escape(name + scale)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{html.escape(words)}">'
        f'<line x1="0" y1="{BASE}" x2="{WIDTH}" y2="{BASE}"/>{bars}'
        f'<text x="0" y="{HEIGHT - 4}">{html.escape(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{html.escape(f"median {middle}")}</text>'
        f'<text x="{WIDTH}" y="{HEIGHT - 4}" text-anchor="end">{html.escape(high)}</text></svg></figure>'
    )


def figure(value: float) -> str:
    """A number as short as it is still exact enough to read."""
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 1000 else f"{value:.3g}"
