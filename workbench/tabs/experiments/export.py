"""An experiment as JSON, CSV and one HTML file, for other programs and for people without this page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments.sweep import COMPARED
from mygpt2.files import finite
from mygpt2.records import number
from workbench import html, words
from workbench.look import colours
from workbench.tabs.experiments import show
from workbench.tabs.experiments.experiment import Experiment
from workbench.tabs.experiments.looks import answer
from workbench.tabs.experiments.multiples import Curves

KINDS = ("json", "csv", "html")
COLUMNS = {
    "judge": ("time", "kind", "verdict", "base", "variant", "arm", "changes", "protocol", "speaks_of", "replicates",
              "mean", "error", "low95", "high95", "p", "level", "tokens", "headline"),
    "sweep": ("time", "look", "step", "tokens", "compares", "protocol", "level", "arm", "values", "loss", "difference",
              "low", "high", "p", "stopped", "why", "run"),
    "ladder": ("part", "run", "depth", "width", "n", "n_blocks", "tokens", "steps", "loss", "stderr", "fitted"),
}  # fmt: skip
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: var(--wb-ink); background: var(--wb-panel); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } summary { font-weight: 600; margin-top: 0.8rem; list-style: none; }
table { border-collapse: collapse; font-size: 0.85rem; } .wb-muted { color: var(--wb-muted); }
td, th { text-align: left; padding: 0.15rem 0.6rem; border-bottom: 1px solid var(--wb-line); overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wb-paper); padding: 0.5rem; font-size: 0.8rem; }
.wb-number { text-align: right; } .wb-scroll { overflow-x: auto; } button, .wb-exp-can { display: none; }
td button { display: inline; font: inherit; border: 0; padding: 0; background: none; color: inherit; }
.wb-figures { display: flex; flex-wrap: wrap; gap: 0.6rem 2rem; } .wb-figures dd { margin: 0; font-weight: 600; }
.wb-figures dt, dd.wb-figure-below { color: var(--wb-muted); font-size: 0.85rem; font-weight: 400; }
"""


def export(one: Experiment, what: str, curves: Curves, runs: Path) -> dict[str, str]:
    """{"name", "type", "text"} of a file for the browser to save. UserError for what there is not."""
    if what == "json":
        return {"name": f"{one.name}.json", "type": "application/json", "text": as_json(one)}
    if what == "csv":
        return {"name": f"{one.name}.csv", "type": "text/csv", "text": as_csv(one)}
    if what == "html":
        return {"name": f"{one.name}.html", "type": "text/html", "text": report(one, curves, runs)}
    raise UserError(f"export {what!r} is not known; allowed: {', '.join(KINDS)}")


def as_json(one: Experiment) -> str:
    """What was asked, every look and every line of the ledger as the engine wrote it, and how its runs stand."""
    record = {
        "experiment": one.name, "kind": one.kind, "settings": one.settings, "command": list(one.argv),
        "runs": [asdict(member) for member in one.members], "looks": list(one.looks), "looks_left_out": one.left_out,
        "ledger": list(one.ledger), "ledger_damaged_lines": one.lost, "problems": list(one.problems),
    }  # fmt: skip
    return json.dumps(finite(record), indent=1, ensure_ascii=False, default=str) + "\n"


def as_csv(one: Experiment) -> str:
    """A row for each question of a baseline, each arm at each look of a sweep, or each cell of a ladder; oldest first.

    What a spreadsheet takes for a formula gets an apostrophe.
    """
    rows = [{key: _cell(value) for key, value in row.items()} for row in _rows(one)]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, COLUMNS.get(one.kind, COLUMNS["judge"]), restval="", lineterminator="\n", extrasaction="ignore"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _rows(one: Experiment) -> Iterator[dict[str, Any]]:
    if one.kind == "sweep":
        for look in one.looks:
            head = {key: look.get(key) for key in COLUMNS["sweep"]}
            head |= {"time": words.moment(look.get("time")), "compares": COMPARED.get(str(look.get("compares")), "")}
            arms = look.get("arms")
            for name, arm in (arms if isinstance(arms, dict) else {}).items():
                yield {**head, **(arm if isinstance(arm, dict) else {}), "arm": name, "values": one.arms.get(name, "")}
    elif one.kind == "ladder":
        for look in one.looks[-1:]:
            for part in ("cells", "next"):
                cells = look.get(part)
                for cell in cells if isinstance(cells, list) else []:
                    yield {**(cell if isinstance(cell, dict) else {}), "part": part}
    else:
        for line in one.ledger or one.looks:
            yield _row(one.kind, line)


def _row(kind: str, line: Mapping[str, Any]) -> dict[str, Any]:
    found = answer(kind, line)
    main, pairs, horizon = (line.get(key) for key in ("validation", "replicates", "horizon_tokens"))
    main = main if isinstance(main, dict) else {}
    ends = main.get("interval95")
    low, high = ends if isinstance(ends, list) and len(ends) == 2 else ("", "")
    same = ("kind", "verdict", "base", "protocol", "speaks_of", "p", "level")
    return {
        "time": words.moment(line.get("time")), **{key: line.get(key) for key in same},
        "variant": line.get("told"), "arm": line.get("variant"),
        "changes": json.dumps(line.get("changes")), "replicates": len(pairs) if isinstance(pairs, list) else "",
        "mean": main.get("mean"), "error": main.get("error"), "low95": low, "high95": high,
        "tokens": horizon[0] if isinstance(horizon, list) and horizon and number(horizon[0]) else "",
        "headline": found.headline if found else "",
    }  # fmt: skip


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def report(one: Experiment, curves: Curves, runs: Path) -> str:
    """One file that stands alone: no script, no link to anywhere; light and dark as its reader's system is."""
    from workbench.look import asset

    body = show.card(one, curves, runs, may=False).replace("<details", "<details open")
    title = html.escape(f"Experiment {one.name}")
    style = "\n".join([colours(), asset("tab-experiments.css"), STYLE])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{style}</style>'
        f"</head><body><h1>{title}</h1>{body}</body></html>\n"
    )


def file_of(found: Sequence[Experiment], name: str, what: str, curves: Curves, runs: Path) -> dict[str, str]:
    """The file of the experiment that is named. UserError where there is none."""
    one = next((each for each in found if each.name == name), None)
    if one is None:
        raise UserError(f"there is no experiment {name[:60]!r}; choose one from the list")
    return export(one, what, curves, runs)
