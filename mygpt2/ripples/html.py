"""A report as one HTML file: figures drawn in it, no script, nothing fetched, readable in light and in dark."""

from __future__ import annotations

from html import escape

from mygpt2.ripples.drawings import all_figures, loss
from mygpt2.ripples.plot import STYLE
from mygpt2.ripples.report import Report
from mygpt2.ripples.summary import Table, numbers, tables
from mygpt2.ripples.words import one_line

PAGE = """
:root{color-scheme:light dark;--fig-ink:#1b1f24;--fig-dim:#5b6570;--fig-paper:#fff;--card:#f4f6f8;--fig-rule:#dfe4e9;
--fig-edge:#8a94a0;--fig-1:#1463c4;--fig-2:#c2410c;--fig-3:#6b7280;--fig-good:#23692f;--fig-accent:#1463c4}
@media (prefers-color-scheme:dark){:root{--fig-ink:#e8ecf0;--fig-dim:#a2adb8;--fig-paper:#14181d;--card:#1d232a;
--fig-rule:#333c46;--fig-edge:#75808c;--fig-1:#6fb1ff;--fig-2:#ff9d5c;--fig-3:#9aa4b0;--fig-good:#7fd08b;
--fig-accent:#6fb1ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 3rem;max-width:60rem;background:var(--fig-paper);color:var(--fig-ink);
font:16px/1.55 system-ui,sans-serif}
h1{font-size:1.35rem;overflow-wrap:anywhere}h2{font-size:1.05rem;margin:2rem 0 .4rem}
.verdict{background:var(--card);border-left:4px solid var(--fig-1);padding:.9rem 1.1rem;border-radius:6px}
.dim{color:var(--fig-dim);font-size:.9rem}
.scroll{overflow-x:auto}.scroll+.fig{margin-top:1rem}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--fig-rule);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
"""


def report_html(report: Report) -> str:
    """The whole page. All text that comes from logs, data and names is escaped."""
    name = _text(report.name)
    known = Table("In numbers", ("", ""), numbers(report), frozenset())
    notes = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
    parts = [
        f"<h1>Ripples: {name}</h1>", f'<p class="verdict">{_text(report.verdict)}</p>', _table(known),
        *((loss(report), all_figures(report)) if report.can_say else ()), *map(_table, tables(report)),
        f'<h2>Notes</h2><ul class="dim">{notes}</ul>' if notes else "",
    ]  # fmt: skip
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Ripples: {name}</title>'
    policy = "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    head = f"{head}{policy}<style>{PAGE}{STYLE.read_text(encoding='utf-8')}</style>"
    body = "\n".join(filter(None, parts))
    return f'<!doctype html><html lang="en"><head>{head}</head><body>\n{body}\n</body></html>\n'


def _text(words: str) -> str:
    return escape(one_line(words))


def _table(table: Table) -> str:
    if not table.rows:
        return ""

    def row(tag: str, cells: tuple[str, ...]) -> str:
        kinds = [" class=n" if i in table.numeric else "" for i in range(len(cells))]
        return f"<tr>{''.join(f'<{tag}{k}>{_text(c)}</{tag}>' for k, c in zip(kinds, cells, strict=True))}</tr>"

    head = row("th", table.headers) if any(table.headers) else ""
    body = head + "".join(row("td", cells) for cells in table.rows)
    below = f'<p class="dim">{_text(table.below)}</p>' if table.below else ""
    return f'<h2>{_text(table.caption)}</h2><div class="scroll"><table>{body}</table></div>{below}'
