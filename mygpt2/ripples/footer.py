"""A forecast before training, from parquet footers alone: how the row groups differ along the files.

A footer tells of each row group the size of its text before and after compression, and the lowest and highest value of
other columns. How far text compresses is the nearest to a loss that can be had without reading it: a share of it more
or less is taken for the same share of the loss. That is a guess, and says so; the periods and what each order would
leave of them follow from the layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from mygpt2.data.sources.manifest import Manifest, SourceFile
from mygpt2.errors import UserError
from mygpt2.ripples.forecast import Profile, forecast
from mygpt2.ripples.layout import Layout
from mygpt2.ripples.log import Floats
from mygpt2.ripples.search import law_of, search
from mygpt2.ripples.spectrum import Transform, fit_line
from mygpt2.ripples.words import chance, megabytes, size

LOSS = 3.3  # nats per token, what a small model reaches on web text
BYTES_PER_TOKEN = 4.6  # of GPT-2 on English prose
FEWEST_GROUPS = 24
CLEAR = 0.05  # chance below which a period is called one
TESTED = ("dump", "score", "language_score", "token_count", "date")


@dataclass(frozen=True)
class Groups:
    """Per row group, in the order of the files: its file, rows, bytes of text, and values by property (n,)."""

    file: np.ndarray
    rows: Floats
    text_bytes: Floats
    values: dict[str, Floats]


def read_groups(manifest: Manifest, footer: Any) -> Groups:
    """The row groups of a parquet source by their footers; `footer(file)` gives a file's. UserError for other kinds."""
    if manifest.kind != "parquet":
        raise UserError(
            f"--forecast reads parquet footers; {manifest.source} is {manifest.kind}; give a parquet source"
        )
    rows = [row for file in manifest.files for row in _of_file(footer(file), manifest.text_column)]
    counts = [footer(file).num_row_groups for file in manifest.files]
    names = dict.fromkeys(name for row in rows for name in row)
    table = {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names}
    file = np.repeat(np.arange(len(counts)), counts)
    return Groups(file, table.pop("rows"), table.pop("bytes"), table)


def local_footer(file: SourceFile) -> pq.FileMetaData:
    """The footer of a file on this machine."""
    return pq.read_metadata(file.location)


def _of_file(metadata: pq.FileMetaData, text_column: str) -> Iterator[dict[str, float]]:
    words: dict[str, dict[Any, int]] = {}
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        found: dict[str, float] = {"rows": float(group.num_rows)}
        for i in range(group.num_columns):
            column = group.column(i)
            name = column.path_in_schema
            if name == text_column and column.total_uncompressed_size:
                found["bytes"] = float(column.total_uncompressed_size)
                found["compressibility"] = column.total_compressed_size / column.total_uncompressed_size
                found["length"] = float(np.log(max(1.0, column.total_uncompressed_size / max(1, group.num_rows))))
            elif name in TESTED and column.statistics is not None and column.statistics.has_min_max:
                found[name] = _middle(column.statistics.min, column.statistics.max, words.setdefault(name, {}))
        yield found


def _middle(low: Any, high: Any, words: dict[Any, int]) -> float:
    """The middle of the range; of words their running number, in order of appearance."""
    if isinstance(low, int | float) and isinstance(high, int | float):
        return (float(low) + float(high)) / 2
    return float(words.setdefault(low, len(words)))


def footer_forecast(manifest: Manifest, groups: Groups) -> dict[str, Any]:
    """The forecast, JSON-ready: periods by property with their chance, and amplitudes by order in nats, a guess."""
    tokens = groups.text_bytes / BYTES_PER_TOKEN
    documents = float(np.nansum(groups.rows))
    layout = Layout(
        file_tokens=float(np.nansum(tokens)) / len(manifest.files), files=len(manifest.files),
        document_tokens=float(np.nansum(tokens)) / max(1.0, documents),
        row_group_tokens=float(np.nanmean(tokens)), order="sequential",
    )  # fmt: skip
    found = [_periodic(name, values, layout) for name, values in groups.values.items() if _varies(values)]
    report: dict[str, Any] = {
        "row_groups": len(groups.rows), "documents": documents, "tokens": float(np.nansum(tokens)),
        "properties": found, "forecast": [], "guess": True,
    }  # fmt: skip
    ratio = groups.values.get("compressibility")
    if ratio is not None and _varies(ratio):
        _in_nats(report, ratio / np.nanmean(ratio) * LOSS, layout)
    return report


def _varies(values: Floats) -> bool:
    known = values[np.isfinite(values)]
    return len(known) >= FEWEST_GROUPS and float(np.ptp(known)) > 1e-9 * max(1.0, float(np.abs(known).max()))


def _periodic(name: str, values: Floats, layout: Layout) -> dict[str, Any]:
    """The clearest period of a property along the row groups."""
    weight = np.isfinite(values).astype(float)
    y = np.where(weight > 0, values, 0.0)
    y = np.where(weight > 0, y - weight @ y / weight.sum(), 0.0)
    transform = Transform(weight)
    best = search(transform, y)
    p = law_of(transform, best.null.power, None).chance(best.score)
    group = layout.row_group_tokens or 0.0
    period = group / best.frequency
    line = fit_line(y, weight, best.frequency)
    explained = float(np.var(line.at(np.arange(len(y)))) / np.var(y[weight > 0]))
    share = period / layout.file_tokens if layout.file_tokens else None
    return {
        "name": name,
        "p_value": p,
        "period_tokens": period,
        "share_of_file": share,
        "explains": min(1.0, explained),
    }


def _in_nats(report: dict[str, Any], guess: Floats, layout: Layout) -> None:
    """Amplitudes of the clearest period of compressibility, and how row groups differ, in guessed nats."""
    weight = np.isfinite(guess).astype(float)
    y = np.where(weight > 0, guess, 0.0)
    found = next(item for item in report["properties"] if item["name"] == "compressibility")
    group = layout.row_group_tokens or 1.0
    line = fit_line(y, weight, group / found["period_tokens"])
    profile = Profile(found["period_tokens"], line.coefficients, (line.amplitude, line.amplitude))
    report["between_groups"] = float(np.nanstd(guess))
    if found["p_value"] < CLEAR:
        report["forecast"] = [{**row, "amplitude_ci": None} for row in forecast(profile, layout)[1:]]


def forecast_lines(report: dict[str, Any]) -> Iterator[str]:
    """The forecast as text."""
    counts = f"{report['row_groups']:,} row groups, {report['documents']:,.0f} documents"
    yield f"from the footers of {counts}; no text was read"
    if not report["properties"]:
        yield f"fewer than {FEWEST_GROUPS} row groups, or all alike: no ripple can be foretold"
    for item in sorted(report["properties"], key=lambda item: item["p_value"]):
        what = f"{size(item['period_tokens'])}, {item['share_of_file']:.3f} of a file" if item["share_of_file"] else ""
        word = "repeats every" if item["p_value"] < CLEAR else "no clear period; the best is"
        yield f"{item['name']:<16} {word} {what} ({chance(item['p_value'])})"
    if "between_groups" in report:
        yield (
            f"row groups differ by {report['between_groups']:.3f} nats, guessing that a text's loss follows its "
            f"compressibility; in file order that comes again at every pass of {size(report['tokens'])}"
        )
    if report["forecast"]:
        yield "what each order would leave of the period of compressibility, by the same guess:"
    for row in report["forecast"]:
        amplitude = f"{row['amplitude']:.4f} nats" if row["periodic"] else "no line"
        yield f"  {row['order']:<34} {amplitude:>12} {megabytes(row['memory_bytes']):>10} MB  {row['note']}"
