"""Which results may stand beside each other, in what order, and which differences are any. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mygpt2.evals.clustered import clustered_error
from workbench.evaluations.results import Loss, Result

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


def sets(results: Sequence[Result], own: Sequence[Result] = ()) -> list[Set]:
    """All sets, that of the newest result first. `own`: what runs measured of themselves, where nothing else did.

    The same tokens are the same text, whatever it was called when they were measured.
    """
    measured = {(result.model, result.loss.token_sha256) for result in results if result.loss}
    added = [result for result in own if result.loss and (result.model, result.loss.token_sha256) not in measured]
    texts: list[tuple[set[str], list[Result]]] = []
    items: dict[str, list[Result]] = {}
    for result in (*results, *added):
        if result.loss is not None:
            names = {f"text {name}" for name in (result.loss.text, result.loss.token_sha256) if name}
            members = [result]
            for group in [group for group in texts if group[0] & names]:
                texts.remove(group)
                names, members = names | group[0], group[1] + members
            texts.append((names, members))
        if result.choices is not None:
            items.setdefault(f"items {result.choices.get('items_sha256')}", []).append(result)
    made = [_text_set(min(names), _newest(members)) for names, members in texts]
    made += [_item_set(key, members) for key, members in items.items()]
    return sorted(made, key=lambda s: -max(result.time for result in s.results))


def _newest(members: Sequence[Result]) -> list[Result]:
    """Of the same model on the same tokens the newest, under whatever name of the text it was measured."""
    kept: dict[tuple[Any, ...], Result] = {}
    for result in sorted(members, key=lambda result: -result.time):
        tokens = result.loss.token_sha256 if result.loss else ""
        kept.setdefault((result.model, result.weights, result.precision, tokens), result)
    return list(kept.values())


def _text_set(key: str, members: Sequence[Result]) -> Set:
    """Losses per token where all have the same tokens; bits per byte of the text where they have not."""
    losses = [result.loss for result in members if result.loss]
    hashes = {loss.token_sha256 for loss in losses}
    notes = []
    if len(hashes) > 1:
        notes.append(f"{len(hashes)} tokenizers: losses per token do not compare, bits per byte of the text do")
        sizes = [loss.bytes for loss in losses]
        if max(sizes) - min(sizes) > NEARLY:
            notes.append(f"the amounts of text differ: {min(sizes):,} to {max(sizes):,} bytes")
    windows = sorted({loss.window for loss in losses})
    if len(windows) > 1:
        notes.append(f"contexts differ: windows of {', '.join(map(str, windows))} tokens; a shorter one costs loss")
    if len({result.precision for result in members if result.precision}) > 1:
        notes.append("precisions differ: see the table")
    return Set(key, _label(losses), tuple(members), "loss" if len(hashes) == 1 else "bits per byte", tuple(notes))


def _label(losses: Sequence[Loss]) -> str:
    """What a person calls the text: the protocol's name, a path, or whose validation text it is."""
    named = [loss.protocol for loss in losses if loss.protocol != "run" and not loss.protocol.startswith("run:")]
    runs = list(dict.fromkeys(loss.text[4:] for loss in losses if loss.text.startswith("run:")))
    if named or not runs:
        return (named or [losses[0].protocol])[0].removeprefix("local:")
    more = f" and {len(runs) - 1} more" if len(runs) > 2 else f" and {runs[1]}" if len(runs) == 2 else ""
    return f"held-out text of {runs[0]}{more}"


def _item_set(key: str, members: Sequence[Result]) -> Set:
    count = count_of(members[0].choices or {})
    return Set(key, f"HellaSwag, {count:,} items", tuple(members), "accuracy")


def bars(chosen: Set) -> list[Bar]:
    """The chart of a text, best first; quoted figures only where all results have exactly their tokens."""
    found = []
    models = [result.model for result in chosen.results]
    for result in chosen.results:
        loss = result.loss
        value = None if loss is None else loss.loss if chosen.unit == "loss" else loss.bits_per_byte
        if loss is None or value is None:
            continue
        error = None if loss.stderr is None else loss.stderr * (value / loss.loss if loss.loss else 0.0)
        label = f"{result.model} ({result.precision})" if models.count(result.model) > 1 else result.model
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
    """What each bar is against the best measured one, which is called so only where no other could be.

    Where the sums of documents are not known the errors are added as those of independent results; on one text they
    rather go together, so that is cautious.
    `points`: values are shares, differences are told in percentage points.
    """
    measured = [bar for bar in shown if not bar.quoted]
    if not measured:
        return [""] * len(shown)
    best = measured[0]
    alone = all(resolved(bar, best) for bar in measured[1:])
    word = "" if len(measured) == 1 else "best" if alone else "first, but not by a clear margin"
    return ["" if bar.quoted else word if bar is best else difference(bar, best, points) for bar in shown]


def error_between(bar: Bar, best: Bar) -> float | None:
    """Standard error of a difference: document by document where both have the sums of the same ones, otherwise of
    independent results. None where one of theirs is not known."""
    paired = paired_error(bar, best)
    if paired is not None:
        return paired
    return None if bar.stderr is None or best.stderr is None else math.hypot(bar.stderr, best.stderr)


def paired_error(bar: Bar, other: Bar) -> float | None:
    """Of the difference of two models on the same tokens, clustered by document; in the bars' unit.

    Of the documents' differences, in which what makes a text hard for both cancels.
    """
    one, two = (each.result.loss if each.result else None for each in (bar, other))
    if one is None or two is None or one.token_sha256 != two.token_sha256 or one.loss == 0:
        return None
    a, b = one.documents, two.documents
    if a is None or b is None or not np.array_equal(a.targets, b.targets):
        return None
    error = clustered_error(a.nll - b.nll, a.targets)
    return None if error is None else error * bar.value / one.loss


def resolved(bar: Bar, best: Bar) -> bool:
    """Whether 95 % intervals leave no doubt that two differ."""
    error = error_between(bar, best)
    return error is not None and abs(bar.value - best.value) > NORMAL_95 * error


def difference(bar: Bar, best: Bar, points: bool = False) -> str:
    """In the bars' unit, or in percentage points of shares."""
    scale, digits, unit = (100.0, 2, " points") if points else (1.0, 4, "")
    by, error = scale * (bar.value - best.value), error_between(bar, best)
    if error is None:
        return f"{by:+.{digits}f}{unit} (error not known)"
    if abs(by) < scale * error or by == 0:
        return f"no difference ({abs(by):.{digits}f}{unit} is under one standard error, {scale * error:.{digits}f})"
    doubt = "" if resolved(bar, best) else ", not clear"
    return f"{by:+.{digits}f} ± {scale * error:.{digits}f}{unit}{doubt}"


def count_of(choices: Mapping[str, Any]) -> int:
    n = _part(choices, SCORINGS[0]).get("n")
    return n if isinstance(n, int) else 0


def _figure(figure: Mapping[str, Any]) -> tuple[Any, float, Any]:
    return str(figure.get("of")), float(figure["figure"]), str(figure.get("source"))


def _part(record: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    found = (record or {}).get(key)
    return found if isinstance(found, dict) else {}
