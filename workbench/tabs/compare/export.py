"""A set of results as CSV and JSON, for other programs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from mygpt2.files import finite
from workbench.tabs.compare.groups import METRICS, SCORINGS, Set, accuracy_bars, quoted_bars

LOSS = ("model", "kind", "protocol", "loss", "stderr", "perplexity", "bits_per_byte", "tokens", "bytes", "window",
        "precision", "token_sha256", "weights_sha256", "step", "source")  # fmt: skip
ACCURACY = ("model", "kind", "scoring", "metric", "value", "stderr", "n", "items_sha256", "source")


def rows(chosen: Set) -> list[dict[str, Any]]:
    """One row for each measured or quoted figure; `kind` says which."""
    return _loss_rows(chosen) if chosen.is_text else _accuracy_rows(chosen)


def as_csv(chosen: Set) -> str:
    """Names that a spreadsheet would take for a formula get an apostrophe before them."""
    out = io.StringIO()
    writer = csv.DictWriter(out, LOSS if chosen.is_text else ACCURACY, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows(chosen))
    return out.getvalue()


def as_json(chosen: Set) -> str:
    """The set with every result as the engine wrote it."""
    results = [result.raw for result in chosen.results]
    record = {"set": chosen.label, "unit": chosen.unit, "notes": list(chosen.notes), "rows": rows(chosen)}
    return json.dumps(finite({**record, "results": results}), indent=1, ensure_ascii=False) + "\n"


def _loss_rows(chosen: Set) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for result in chosen.results:
        if loss := result.loss:
            found.append({
                "model": result.model, "kind": "measured", "protocol": loss.protocol, "loss": loss.loss,
                "stderr": loss.stderr, "perplexity": loss.perplexity, "bits_per_byte": loss.bits_per_byte,
                "tokens": loss.tokens, "bytes": loss.bytes, "window": loss.window, "precision": result.precision,
                "token_sha256": loss.token_sha256, "weights_sha256": result.weights, "step": result.step,
            })  # fmt: skip
    found.sort(key=lambda row: row["loss"] if chosen.unit == "loss" else row["bits_per_byte"] or 0.0)
    quoted = [{"model": bar.label, "kind": "quoted", "protocol": chosen.label, "loss": bar.value, "source": bar.note}
              for bar in quoted_bars(chosen)]  # fmt: skip
    return found + quoted


def _accuracy_rows(chosen: Set) -> list[dict[str, Any]]:
    sha = chosen.key.removeprefix("items ")
    counts = {result.model: (result.choices or {}).get(SCORINGS[0], {}).get("n") for result in chosen.results}
    return [
        {"model": bar.label, "kind": "quoted" if bar.quoted else "measured", "scoring": scoring, "metric": metric,
         "value": bar.value, "stderr": bar.stderr, "n": counts.get(bar.label), "items_sha256": sha, "source": bar.note}
        for scoring in SCORINGS for metric in METRICS for bar in accuracy_bars(chosen, scoring, metric)
    ]  # fmt: skip


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
