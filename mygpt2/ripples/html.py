"""A report as one HTML file: figures drawn in it, no script, nothing fetched, readable in light and in dark."""

from __future__ import annotations

from html import escape
from itertools import pairwise
from typing import Any

from mygpt2.ripples.svg import Chart, extent
from mygpt2.ripples.text import shown
from mygpt2.ripples.verdict import chance, megabytes, size

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--dim:#5b6570;--paper:#fff;--card:#f4f6f8;--rule:#dfe4e9;--a:#1463c4;
--b:#c2410c;--c:#8a94a0}
@media (prefers-color-scheme:dark){:root{--ink:#e8ecf0;--dim:#a2adb8;--paper:#14181d;--card:#1d232a;--rule:#333c46;
--a:#6fb1ff;--b:#ff9d5c;--c:#75808c}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,sans-serif}
h1{font-size:1.35rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2rem 0 .4rem}
.verdict{background:var(--card);border-left:4px solid var(--a);padding:.9rem 1.1rem;border-radius:6px}
.dim,figcaption{color:var(--dim);font-size:.9rem}
figure{margin:0;overflow-x:auto}svg{width:100%;min-width:34rem;height:auto;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg text{fill:var(--dim);font:12px system-ui,sans-serif}svg path{fill:none}
.grid{stroke:var(--rule)}.one{stroke:var(--a);stroke-width:1.3}.two{stroke:var(--b);stroke-width:1.6}
.three{stroke:var(--c);stroke-width:1.3;stroke-dasharray:4 3}.bar{stroke-width:1}
.mark{stroke:var(--b);stroke-dasharray:3 3}
circle.one{fill:var(--a)}.cell{fill:var(--a)}
"""


def report_html(report: dict[str, Any]) -> str:
    """The whole page. All text that comes from logs, data and names is escaped."""
    name = escape(shown(report["name"]))
    parts = [
        f"<h1>Ripples: {name}</h1>",
        f'<p class="verdict">{escape(shown(report["verdict"]))}</p>',
        *(_figures(report) if report["can_say"] else []),
        _candidates(report), _forecast(report), _attribution(report), _notes(report),
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Ripples: {name}</title>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    body = "\n".join(part for part in parts if part)
    head = f"{head}{policy}<style>{STYLE}</style>"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _figure(title: str, drawing: str, caption: str) -> str:
    return f"<h2>{escape(title)}</h2><figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _figures(report: dict[str, Any]) -> list[str]:
    drawn = report["figures"]
    found = [_residual(drawn), _periodogram(report, drawn["periodogram"])]
    if drawn["sliding"]["amplitude"]:
        found.append(_sliding(drawn["sliding"]))
    found.append(_autocorrelation(report, drawn["autocorrelation"]))
    if report["significant"]:
        found.append(_folded(drawn["folded"]))
    if drawn.get("by_place_in_file"):
        found.append(_by_place(drawn["by_place_in_file"]))
    if drawn.get("forecast"):
        found.append(_curve(report, drawn["forecast"]))
    return found


def _residual(drawn: dict[str, Any]) -> str:
    data = drawn["residual"]
    chart = Chart("step", "nats", extent(data["step"], margin=0), extent(data["value"]), title="residual loss")
    chart.line(data["step"], data["value"], "one")
    return _figure("Loss without its descent", chart.svg(), "The highest and lowest of each stretch are drawn.")


def _periodogram(report: dict[str, Any], data: dict[str, Any]) -> str:
    high = extent(data["amplitude"], data["level"])[1]
    x = (min(data["period_steps"]), max(data["period_steps"]))
    chart = Chart("period in steps", "semi-amplitude, nats", x, (0.0, high), log_x=True, title="periodogram")
    chart.line(data["period_steps"], data["null"], "three")
    chart.line(data["period_steps"], data["level"], "two")
    chart.line(data["period_steps"], data["amplitude"], "one")
    if report["significant"]:
        chart.vertical(report["period_steps"], f"{report['period_steps']:.4g} steps")
    text = "Blue: the log. Dashed: noise alone, in the mean. Orange: what noise exceeds somewhere in one run of twenty."
    return _figure("Periodogram", chart.svg(), text)


def _sliding(data: dict[str, Any]) -> str:
    edges, windows = data["period_steps"], data["window_steps"]
    hops = [(a, b) for (a, _), (b, _) in pairwise(windows)] + [windows[-1]]
    half = (windows[0][1] - windows[0][0]) / 2
    spans = [(a + half, (b if i < len(hops) - 1 else a + half / 2) + half) for i, (a, b) in enumerate(hops)]
    x = (spans[0][0], spans[-1][1])
    y = (edges[0], edges[-1])
    chart = Chart("step (middle of the window)", "period in steps", x, y, log_y=True, title="by time")
    chart.cells(spans, edges, data["amplitude"])
    said = "The stronger the colour, the larger the amplitude at that period."
    return _figure("Spectrum in sliding windows", chart.svg(), said)


def _autocorrelation(report: dict[str, Any], data: dict[str, Any]) -> str:
    y = extent(data["value"], data["without_line"])
    chart = Chart("lag in steps", "correlation", extent(data["lag_steps"], margin=0), y, title="autocorrelation")
    chart.line(data["lag_steps"], data["value"], "one")
    if report["significant"] and not report["between_steps"]:
        chart.line(data["lag_steps"], data["without_line"], "two")
    again = report["repetition"]
    if again and again["found"]:
        chart.vertical(again["lag_steps"], "one pass")
    return _figure("Autocorrelation", chart.svg(), "Blue: the residual. Orange: without a ripple that lasts.")


def _folded(data: dict[str, Any]) -> str:
    chart = Chart("phase of the period", "nats", (0.0, 1.0), extent(data["mean"], data["fit"]), title="folded loss")
    chart.line(data["fit_phase"], data["fit"], "two")
    chart.points(data["phase"], data["mean"], data["error"], "one")
    return _figure("Loss folded at the period", chart.svg(), "Means with two standard errors, and the line.")


def _by_place(data: dict[str, Any]) -> str:
    under = data.get("under_buffer", {})
    chart = Chart(
        "place in the file", "nats", (0.0, 1.0), extent(data["mean"], *under.values()), title="place in the file"
    )
    chart.points(data["place"], data["mean"], data["error"], "one")
    for style, (_, values) in zip(("two", "three"), under.items(), strict=False):
        chart.line(data["place"], values, style)
    said = f"Rows' losses by place in their file. Orange, dashed: as buffers of {' and '.join(under)} would leave it."
    return _figure("Loss by place in the file", chart.svg(), said if under else "Rows' losses by place in their file.")


def _curve(report: dict[str, Any], data: dict[str, Any]) -> str:
    x = [b / 1e6 for b in data["memory_bytes"]]
    chart = Chart("memory of the buffer, MB", "semi-amplitude, nats", (x[0], x[-1]), (0, extent(data["amplitude"])[1]),
                  log_x=True, title="forecast")  # fmt: skip
    chart.line(x, data["amplitude"], "one")
    held = report["layout"]["buffer_documents"]
    if held:
        scale = data["memory_bytes"][0] / data["buffer_documents"][0]
        chart.vertical(held * scale / 1e6, f"{held:,} documents")
    return _figure(
        "What a shuffle buffer leaves", chart.svg(), "1/sqrt(1 + (2 pi B / P)^2), B documents of 16-bit tokens."
    )


def _table(title: str, head: list[str], rows: list[list[str]], numbers: set[int]) -> str:
    def cells(tag: str, row: list[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<h2>{escape(title)}</h2><div class="scroll"><table><tr>{cells("th", head)}</tr>{body}</table></div>'


def _candidates(report: dict[str, Any]) -> str:
    rows = []
    for c in report["candidates"]:
        steps = f"{c['period_steps']:.5g} steps" if c["period_steps"] else ""
        period = size(c["period_tokens"]) if c["period_tokens"] else steps
        said = chance(c["p_value"]) if c["p_value"] is not None else c["reason"]
        nats, ratio = (f"{c[key]:.{n}f}" if c[key] is not None else "" for key, n in (("amplitude", 4), ("ratio", 3)))
        rows.append([c["name"], period, said, nats, ratio, "fits" if c["fits"] else ""])
    head = ["candidate", "period", "chance", "nats", "found / this", ""]
    return _table("Known periods", head, rows, {1, 3, 4}) if rows else ""


def _forecast(report: dict[str, Any]) -> str:
    rows = [
        [r["order"], f"{r['amplitude']:.5f}" if r["periodic"] else "none",
         megabytes(r["memory_bytes"]), r["note"]]
        for r in report["forecast"]
    ]  # fmt: skip
    return _table("What another order would leave", ["order", "nats", "MB", ""], rows, {1, 2}) if rows else ""


def _attribution(report: dict[str, Any]) -> str:
    found = report["attribution"]
    if not found:
        return ""
    rows = [[p["name"], f"{p['partial_r2']:.4f}", chance(p["p_value"])] for p in found["properties"]]
    return _table("What a row's documents explain", ["property", "partial R2", "chance"], rows, {1})


def _notes(report: dict[str, Any]) -> str:
    if not report["notes"]:
        return ""
    items = "".join(f"<li>{escape(shown(note))}</li>" for note in report["notes"])
    return f'<h2>Notes</h2><ul class="dim">{items}</ul>'
