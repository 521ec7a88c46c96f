"""What a ladder found, as text for a terminal. It reads a look of verdict.json, which holds nothing but sound JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from mygpt2.experiments.ladder_report import COUNTS
from mygpt2.experiments.rungs import Plan
from mygpt2.format import duration, short

LAW_WORDS = {"e": "E", "alpha": "alpha", "beta": "beta", "best_n_exponent": "the best N grows as compute to the power"}


def ladder_text(look: Mapping[str, Any]) -> str:
    """Cells, law, isoFLOP minima, forecasts with their scores, and what has to be said of them."""
    parts = [_protocol(look), _table(look), "\n".join(_law(look)), "\n".join(_isoflop(look))]
    parts += ["\n".join(_forecast(each, look["level"])) for each in look["forecasts"]]
    parts += ["\n".join(look["left_out"]), _spent(look["spent"])]
    return "\n\n".join(part for part in parts if part)


def plan_text(plan: Plan) -> str:
    """Sizes, budgets and runs, before anything starts."""
    rows = [*plan.rungs, *([plan.next] if plan.next else [])]
    lines = []
    for rung in rows:
        model = rung.cells[0].piece.config.model
        budgets = ", ".join(short(cell.tokens) for cell in rung.cells)
        what = "foretold first: " if rung is plan.next else ""
        lines.append(
            f"  {what}{rung.depth} x {model.n_embd}, {rung.n:,} parameters ({rung.n_blocks:,} in blocks), for "
            f"{budgets} tokens: {rung.steps:,} steps in {len(rung.pieces)} run{'s' if len(rung.pieces) > 1 else ''}"
        )
    rule = plan.file.settings.width_per_depth
    head = f"ladder {plan.file.name}: width = {rule} x layers, one recipe and one rate for all sizes"
    return "\n".join([head, *lines])


def headline(look: Mapping[str, Any]) -> str:
    """One sentence: what was foretold of the next size, and what came out."""
    own = [each for each in look["forecasts"] if each.get("score")]
    if own:
        last = own[-1]
        return f"{short(last['n'])} parameters after {short(last['tokens'])} tokens: {_foretold(last['loss'])}; " + (
            f"{last['score']['words']}"
        )
    if look["forecasts"]:
        first = look["forecasts"][0]
        return f"{short(first['n'])} parameters after {short(first['tokens'])} tokens: {_foretold(first['loss'])}"
    return "no size is foretold"


def _protocol(look: Mapping[str, Any]) -> str:
    of = look["protocol"]
    text = f"the held-out documents of {of['source']}" if of["name"] == "run" else of["name"]
    return (
        f"nats per token on {text}: {of['tokens']:,} tokens of {of['documents']:,} documents in windows of "
        f"{of['window']}, {of['precision']}, tokenizer {of['tokenizer']}; trained on {of['source']}"
    )


def _table(look: Mapping[str, Any]) -> str:
    """A row for each size, a column for each budget; measured losses."""
    cells = [*look["cells"], *look["next"]]
    budgets = sorted({cell["tokens"] for cell in cells})
    head = ["layers x width", "parameters", "in blocks", *(f"{short(tokens)} tokens" for tokens in budgets)]
    rows = [head]
    for depth in sorted({cell["depth"] for cell in cells}):
        own = [cell for cell in cells if cell["depth"] == depth]
        losses = {cell["tokens"]: f"{cell['loss']:.4f}" for cell in own}
        first = own[0]
        rows.append([
            f"{depth} x {first['width']}", f"{first['n']:,}", f"{first['n_blocks']:,}",
            *(losses.get(tokens, "") for tokens in budgets),
        ])  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    errors = [cell["stderr"] for cell in cells if cell["stderr"] is not None]
    if errors:
        lines.append(f"the text alone: a standard error of up to {max(errors):.3f}, much the same in all cells")
    return "\n".join(lines)


def _law(look: Mapping[str, Any]) -> Iterator[str]:
    for count in COUNTS:
        law = (look["law"] or {}).get(count)
        if law is None:
            continue
        numbers = [f"{words} {_told(law[name])}" for name, words in LAW_WORDS.items()]
        yield f"L = E + A / N^alpha + B / D^beta with N {law['words']}:"
        yield f"  {', '.join(numbers)} ({100 * look['level']:.0f} % intervals)"
        a, b = (short(float(f"{law[name]:.2g}")) for name in ("a", "b"))
        yield f"  A {a} and B {b} go with these exponents"
        yield f"  cells lie within {100 * law['scatter']:.2f} % of it (standard deviation)"
    for sentence in look["undecided"]:
        yield f"not decided: {sentence}"


def _isoflop(look: Mapping[str, Any]) -> Iterator[str]:
    if not look["isoflop"]:
        yield "no compute is shared by three sizes: the best size for a compute is not read from these cells"
    for one in look["isoflop"]:
        if one["best"] is None:
            yield f"at {one['compute']:.2g} FLOP {one['words']}"
        elif one["words"]:
            yield f"at {one['compute']:.2g} FLOP the best size is {short(one['best'])} parameters; {one['words']}"
        else:
            between = f"{short(one['low'])} to {'any size' if one['high'] is None else short(one['high'])}"
            yield f"at {one['compute']:.2g} FLOP the best size is {short(one['best'])} parameters ({between})"


def _forecast(one: Mapping[str, Any], level: float) -> Iterator[str]:
    loss = one["loss"]
    yield (
        f"forecast {one['name']}: {short(one['n'])} parameters ({short(one['n_blocks'])} in blocks) after "
        f"{short(one['tokens'])} tokens: {_foretold(loss)}"
    )
    digits = _digits(loss)
    if loss.get("text_low") is not None:
        low, high = (_number(loss[side], digits) for side in ("text_low", "text_high"))
        yield f"  on other text of this kind: {low} to {high}"
    if one.get("by_blocks"):
        yield f"  with N counted without embeddings: {_foretold(one['by_blocks'])}"
    yield from (f"  {note}" for note in one.get("notes", []))
    if one["after_the_fact"]:
        yield f"  made after the fact: {one['after_the_fact']}"
    if not one["sound"]:
        yield f"  {one['file']} was changed after it was made"
    elif not one["same_cells"]:
        yield f"  frozen from other measurements of the cells than those above; {one['file']} holds them"
    if one["score"]:
        yield f"  {one['score']['words']}"


def _foretold(loss: Mapping[str, Any]) -> str:
    if loss["value"] is None:
        return f"between {_number(loss['low'], 3)} and {_number(loss['high'], 3)}"
    digits = _digits(loss)
    return (
        f"{loss['value']:.{digits}f}, 80 % between {_number(loss['low'], digits)} and {_number(loss['high'], digits)}"
    )


def _told(estimate: Mapping[str, Any]) -> str:
    digits = _digits(estimate)
    low, high = (_number(estimate[side], digits) for side in ("low", "high"))
    return f"{estimate['value']:.{digits}f} ({low} to {high})"


def _digits(estimate: Mapping[str, Any]) -> int:
    """Decimals that an interval of this width leaves a meaning: its tenth at most, its hundredth at least."""
    low, high = estimate["low"], estimate["high"]
    if low is None or high is None or high <= low:
        return 4 if low == high else 0
    return min(4, max(0, 1 - math.floor(math.log10(high - low))))


def _number(value: float | None, digits: int) -> str:
    return "any value" if value is None else f"{value:.{digits}f}"


def _spent(spent: Mapping[str, Any]) -> str:
    return f"{spent['runs']} runs, {spent['tokens']:,} tokens, {duration(spent['seconds'])} in steps"
