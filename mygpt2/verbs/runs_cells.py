"""What `runs list` and `runs show` print of a run, as the cells of a table."""

from __future__ import annotations

from typing import Any

from mygpt2.format import duration, file_size

COLUMNS = ("run", "state", "step", "loss", "tokens/s", "left", "checkpoints")


def cells_of(row: dict[str, Any]) -> tuple[str, ...]:
    """A line of the list, in the order of COLUMNS. `row`: a run's `summary`."""
    return (
        row["run"],
        "imported" if row["imported"] else f"{row['state']}, diverged" if row["diverged"] else row["state"],
        f"{row['step']:,}" + (f"/{row['steps']:,} {row['step'] / row['steps']:.0%}" if row["steps"] else ""),
        _number(row["loss"], ".4f"),
        _number(row["tokens_per_second"], ",.0f"),
        "" if row["eta_seconds"] is None else duration(row["eta_seconds"]),
        f"{len(row['checkpoints'])}, {file_size(row['checkpoint_bytes'])}" if row["checkpoints"] else "none",
    )


def heading(row: dict[str, Any]) -> str:
    """The run and its state, each with why."""
    why = f" ({row['reason']})" if row["reason"] not in ("", row["state"]) else ""
    nothing = f", diverged: {row['diverged']}" if row["diverged"] else ""
    return f"{row['run']}: {row['state']}{why}{nothing}"


def _number(value: float | None, form: str) -> str:
    """A number as a cell; one that would need more digits than anybody reads, in powers of ten."""
    return "" if value is None else format(value, form if abs(value) < 1e12 else ".3g")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
