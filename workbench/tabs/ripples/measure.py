"""The comparison of a study's four runs: a process of its own, started once all of them are analysed.

    python -m workbench.tabs.ripples.measure OUT ORDER RUN REPORT [ORDER RUN REPORT ...]

The period is the one found in file order. Every run is measured at that period, whether or not its own search found
it, and held against what the file order's ripple forecasts for its order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mygpt2.cli import guarded
from mygpt2.errors import UserError
from mygpt2.files import replace_json
from mygpt2.ripples.words import amount, chance

ALPHA = 0.05
FIELDS = ("significant", "can_say", "period_steps", "period_tokens", "amplitude", "amplitude_ci", "p_value",
          "share_of_file", "between_steps", "verdict")  # fmt: skip
NAMES = {"sequential": "file order", "buffer-1k": "buffer of 1,000 documents",
         "buffer-10k": "buffer of 10,000 documents", "lanes": "lanes"}  # fmt: skip
BUFFERS = {"sequential": 0, "buffer-1k": 1_000, "buffer-10k": 10_000}  # documents; lanes leave no line


def compare(orders: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Path]) -> dict[str, Any]:
    """The table of a study, JSON-ready: what each order's report says, its amplitude at one period, the forecast."""
    lead = _lead(orders)
    period = orders[lead]["period_steps"] if lead else None
    rows = []
    for order, report in orders.items():
        row = {"order": order, "run": runs[order].name, **{field: report.get(field) for field in FIELDS}}
        rows.append(row | {"at_period": at_period(runs[order], period) if period else None,
                           "forecast": _forecast(orders[lead], order) if lead == "sequential" else None})  # fmt: skip
    found = {"schema": 1, "lead": lead, "period_steps": period, "orders": rows,
             "period_tokens": orders[lead]["period_tokens"] if lead else None}  # fmt: skip
    return found | {"verdict": verdict(found)}


def at_period(run: Path, period_steps: float) -> dict[str, float] | None:
    """Semi-amplitude of a run at a given period and its p under the run's own null; None where nothing can be said."""
    import numpy as np

    from mygpt2.ripples import read_log
    from mygpt2.ripples.candidates import regression
    from mygpt2.ripples.study import study

    done = study(read_log(run))
    if isinstance(done, str):
        return None
    cycles = np.arange(len(done.y)) * done.grid.steps_per_cell / period_steps
    p, amplitude = regression(done.y, done.transform, done.found.null, np.exp(2j * np.pi * cycles))
    return {"amplitude": amplitude, "p_value": p}


def _lead(orders: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The order whose ripple is measured everywhere: the file order, or else the clearest one; None without any."""
    clear = [order for order, report in orders.items() if report.get("significant")]
    if "sequential" in clear:
        return "sequential"
    return min(clear, key=lambda order: orders[order]["p_value"]) if clear else None


def _forecast(report: Mapping[str, Any], order: str) -> dict[str, Any] | None:
    """What the file order's ripple lets expect of another order; None where a document's length is not known."""
    from mygpt2.ripples.forecast import buffer_factor

    document = (report.get("layout") or {}).get("document_tokens")
    if not document or not report.get("period_tokens"):
        return None
    size = BUFFERS.get(order)
    factor = 0.0 if size is None else float(buffer_factor(size, report["period_tokens"] / document))
    interval = [factor * x for x in report["amplitude_ci"]]
    return {"amplitude": factor * report["amplitude"], "amplitude_ci": interval}


def verdict(found: Mapping[str, Any]) -> str:
    """The comparison in words."""
    rows = {row["order"]: row for row in found["orders"]}
    silent = [name for name, row in rows.items() if not row["can_say"]]
    if len(silent) == len(rows):
        return f"Nothing can be said of any of the orders. {next(iter(rows.values()))['verdict']}"
    lead = found["lead"]
    if lead is None:
        least = min(row["p_value"] for row in rows.values() if row["p_value"] is not None)
        return (
            f"No ripple stands out in any of the orders (the clearest has {chance(least)}). A longer run, or data "
            "whose files differ more, would show smaller ones."
        )
    first = rows[lead]
    text = (
        f"In {NAMES[lead] if lead != 'lanes' else 'lanes order'} the loss has a ripple of {_period(found)}"
        f", amplitude {amount(first['amplitude'])} nats, {chance(first['p_value'])}."
    )
    if lead != "sequential":
        text += " The file order has none that stands out, so that the data's files are not where it comes from."
    for order, row in rows.items():
        if order != lead:
            text += " " + _against(order, row, first)
    return text


def _period(found: Mapping[str, Any]) -> str:
    steps = f"{found['period_steps']:,.1f} steps"
    first = next(row for row in found["orders"] if row["order"] == found["lead"])
    share = first["share_of_file"]
    return steps + (f" ({share:.3g} of a file)" if share else "")


def _against(order: str, row: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """What one order left of the ripple, beside its forecast."""
    name = {"sequential": "File order", "lanes": "Lanes"}.get(order, f"A {NAMES[order]}")
    measured, forecast = row["at_period"], row["forecast"]
    if measured is None:
        return f"{name}: nothing can be said."
    expected = f"; forecast {forecast['amplitude'] / first['amplitude']:.0%}" if forecast and first["amplitude"] else ""
    verb = "leave" if order == "lanes" else "leaves"
    if measured["p_value"] >= ALPHA:
        return f"{name} {verb} nothing that can be told from noise ({chance(measured['p_value'])}{expected})."
    share = measured["amplitude"] / first["amplitude"] if first["amplitude"] else 0.0
    return f"{name} {verb} {share:.0%} of it ({chance(measured['p_value'])}{expected})."


def main(words: Sequence[str]) -> int:
    """Reads the reports, measures, writes OUT whole."""
    if len(words) < 4 or (len(words) - 1) % 3:
        raise UserError("give OUT and then ORDER RUN REPORT for each order")
    orders, runs = {}, {}
    for order, run, report in zip(words[1::3], words[2::3], words[3::3], strict=True):
        try:
            orders[order], runs[order] = json.loads(Path(report).read_bytes()), Path(run)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the report {report} cannot be read ({error}); measure run {Path(run).name} again"
            ) from None
    replace_json(Path(words[0]), compare(orders, runs))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
