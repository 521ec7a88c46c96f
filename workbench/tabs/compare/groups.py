"""Which results may stand beside each other, in what order, and which differences are any. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.evaluations.results import Result

NORMAL_95 = 1.959964  # standard errors to either side of a 95 % interval
CHANCE = 0.25
NEARLY = 64  # bytes: the first token, which is not a target, is longer in one tokenizer than in another
METRICS = ("acc", "acc_norm")
SCORINGS = ("completion", "harness")


@dataclass(frozen=True)
class Bar:
    """One value of a chart. A quoted one was measured by somebody else, and has no error here."""

    label: str
    value: float
    stderr: float | None
    note: str = ""
    quoted: bool = False
    result: Result | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % to either side, as of a normal distribution."""
        reach = NORMAL_95 * (self.stderr or 0.0)
        return self.value - reach, self.value + reach

    @property
    def share_interval(self) -> tuple[float, float]:
        """The same of a share, which is never below 0 or above 1."""
        low, high = self.interval
        return max(0.0, low), min(1.0, high)


@dataclass(frozen=True)
class Set:
    """Results of one text, or of one set of items. `unit` is loss, bits per byte or accuracy."""

    key: str
    label: str
    results: tuple[Result, ...]
    unit: str
    notes: tuple[str, ...] = ()

    @property
    def is_text(self) -> bool:
        return self.unit != "accuracy"


def sets(results: Sequence[Result]) -> list[Set]:
    """All sets, that of the newest result first."""
    found: dict[str, list[Result]] = {}
    for result in results:
        if result.loss is not None:
            found.setdefault(f"text {result.loss.text or result.loss.token_sha256}", []).append(result)
        if result.choices is not None:
            found.setdefault(f"items {result.choices.get('items_sha256')}", []).append(result)
    made = [_text_set(key, members) if key.startswith("text") else _item_set(key, members)
            for key, members in found.items()]  # fmt: skip
    return sorted(made, key=lambda s: -max(result.time for result in s.results))


def _text_set(key: str, members: Sequence[Result]) -> Set:
    """Losses per token where all have the same tokens; bits per byte of the text where they have not."""
    losses = [result.loss for result in members if result.loss]
    hashes = {loss.token_sha256 for loss in losses}
    notes = []
    if len(hashes) > 1:
        notes.append(
            f"{len(hashes)} tokenizers: losses per token do not compare, so the chart shows bits per byte of the text"
        )
        sizes = [loss.bytes for loss in losses]
        if max(sizes) - min(sizes) > NEARLY:
            notes.append(f"the amounts of text differ: {min(sizes):,} to {max(sizes):,} bytes")
    windows = sorted({loss.window for loss in losses})
    if len(windows) > 1:
        notes.append(f"contexts differ: windows of {', '.join(map(str, windows))} tokens; a shorter one costs loss")
    if len({result.precision for result in members}) > 1:
        notes.append("precisions differ: see the table")
    label = losses[0].protocol.removeprefix("local:")
    return Set(key, label, tuple(members), "loss" if len(hashes) == 1 else "bits per byte", tuple(notes))


def _item_set(key: str, members: Sequence[Result]) -> Set:
    count = count_of(members[0].choices or {})
    return Set(key, f"HellaSwag, {count:,} items", tuple(members), "accuracy")


def bars(chosen: Set) -> list[Bar]:
    """The chart of a text, best first; quoted figures only where all results have exactly their tokens."""
    found = []
    mixed = len({result.precision for result in chosen.results}) > 1
    for result in chosen.results:
        loss = result.loss
        value = None if loss is None else loss.loss if chosen.unit == "loss" else loss.bits_per_byte
        if loss is None or value is None:
            continue
        error = None if loss.stderr is None else loss.stderr * (value / loss.loss if loss.loss else 0.0)
        label = f"{result.model} ({result.precision})" if mixed else result.model
        found.append(Bar(label, value, error, result=result))
    return sorted([*found, *quoted_bars(chosen)], key=lambda bar: bar.value)


def quoted_bars(chosen: Set) -> list[Bar]:
    """What others published for this text and these tokens, each once."""
    if chosen.unit != "loss":
        return []
    figures = [figure for result in chosen.results if result.loss for figure in result.loss.quoted]
    return [Bar(str(of), value, None, str(source), True) for of, value, source in dict.fromkeys(map(_figure, figures))]


def accuracy_bars(chosen: Set, scoring: str, metric: str) -> list[Bar]:
    """The chart of one metric of HellaSwag, best first."""
    found: list[Bar] = []
    quoted: dict[tuple[Any, ...], None] = {}
    for result in chosen.results:
        own = _part(result.choices, scoring)
        if isinstance(own.get(metric), int | float):
            error = own.get(f"{metric}_stderr")
            found.append(Bar(result.model, own[metric], error if isinstance(error, int | float) else None))
        figure = _part(_part(own, "quoted"), metric)
        if isinstance(figure.get("figure"), int | float):
            quoted[_figure(figure)] = None
    others = [Bar(str(of), value, None, str(source), True) for of, value, source in quoted]
    return sorted([*found, *others], key=lambda bar: -bar.value)


def against_best(shown: Sequence[Bar], points: bool = False) -> list[str]:
    """What each bar is against the best measured one. A difference under one standard error of it is none.

    The errors are added as those of independent results; on one text they rather go together, so this is cautious.
    `points`: values are shares, differences are told in percentage points.
    """
    best = next((bar for bar in shown if not bar.quoted), None)
    words = []
    for bar in shown:
        if best is None or bar.quoted:
            words.append("")
        elif bar is best:
            words.append("best")
        else:
            words.append(difference(bar, best, points))
    return words


def difference(bar: Bar, best: Bar, points: bool = False) -> str:
    """In the bars' unit, or in percentage points of shares."""
    scale, digits, unit = (100.0, 2, " points") if points else (1.0, 4, "")
    by = scale * (bar.value - best.value)
    if bar.stderr is None or best.stderr is None:
        return f"{by:+.{digits}f}{unit} (error not known)"
    error = scale * math.hypot(bar.stderr, best.stderr)
    if abs(by) < error or by == 0:
        return f"no difference ({abs(by):.{digits}f}{unit} is under one standard error, {error:.{digits}f})"
    return f"{by:+.{digits}f} ± {error:.{digits}f}{unit}"


def count_of(choices: Mapping[str, Any]) -> int:
    n = _part(choices, SCORINGS[0]).get("n")
    return n if isinstance(n, int) else 0


def _figure(figure: Mapping[str, Any]) -> tuple[Any, float, Any]:
    return str(figure.get("of")), float(figure["figure"]), str(figure.get("source"))


def _part(record: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    found = (record or {}).get(key)
    return found if isinstance(found, dict) else {}
