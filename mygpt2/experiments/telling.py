"""A verdict in plain English: what was found, how sure that is, what is excluded, what would decide, what it cost."""

from __future__ import annotations

from typing import Any

from mygpt2.experiments.arms import changes_words
from mygpt2.format import duration

TITLES = {"keep": "KEEP", "drop": "DROP", "undecided": "UNDECIDED"}


def verdict_text(found: dict[str, Any]) -> str:
    """The whole verdict in lines."""
    lines = [f"{TITLES[found['verdict']]}: {headline(found)}"]
    if found["validation"]:
        lines += [_held_out(found), *_sources(found), _training(found), _excluded(found), *_deciding(found)]
    lines += [f"Note: {notice}" for notice in found["notices"]]
    lines += [_cost(found), _ledger(found)]
    return "\n".join(line for line in lines if line)


def headline(found: dict[str, Any]) -> str:
    """One sentence: which is better, and of what it speaks."""
    changed = changes_words({name: (pair[0], pair[1]) for name, pair in found["changes"].items()})
    what = f"{found['told']} against {found['base']} ({changed})"
    if found["told"] == found["base"] or found["told"].startswith(f"{found['base']} with"):
        what = f"{found['base']} with {changed}" if found["changes"] else found["told"]
    if found["reason"]:
        return f"{what}: {found['reason']}."
    kind = "these two models" if found["speaks_of"] == "two models" else "these two recipes"
    if found["verdict"] == "undecided":
        return f"{what}: which of {kind} is better is not resolved."
    word = "better" if found["verdict"] == "keep" else "worse"
    return f"{what}: of {kind} the variant is {word} by {abs(found['validation']['mean']):.4f} nats per token."


def _held_out(found: dict[str, Any]) -> str:
    v = found["validation"]
    horizon = found["horizon_tokens"]
    after = f"{horizon[1]:,}" if horizon[0] == horizon[1] else f"{horizon[0]:,} and {horizon[1]:,}"
    text = (
        f"Held-out text (protocol {found['protocol']}, {v['documents']:,} documents, {v['tokens']:,} tokens), after "
        f"{after} training tokens: variant less base {v['mean']:+.4f} nats, {_interval(v)}"
    )
    if v["over"] == "replicates":
        count = len(found["replicates"])
        return (
            f"{text}, over {count} pairs of seeds (Student's t on {count - 1}); within a pair, over documents alone, "
            f"the standard error is {v['within']:.4f}."
        )
    return f"{text}, over documents. One pair of runs speaks of these two models; more replicates speak of the recipes."


def _sources(found: dict[str, Any]) -> list[str]:
    """Each source of a mixture's text: which arm is better on it, or that it is not resolved."""
    sources = found.get("by_source") or {}
    if not sources:
        return []
    level = next((part["level"] for part in sources.values() if "level" in part), None)
    of = "none has enough documents"
    if level:
        of = f"Holm over {len(sources)} at {level:.3%}, half of this question's share, the other half is the verdict's"
    return [f"The verdict is on {_objective(found)}. By source ({of}):",
            *(f"  {name}: {_source(found, part)}" for name, part in sources.items())]  # fmt: skip


def _objective(found: dict[str, Any]) -> str:
    objective = found["objective"]
    if objective in found["by_source"]:
        return f"the source {objective} alone"
    shares = ", ".join(f"{name} {part['share']:.0%}" for name, part in found["by_source"].items())
    return f"{objective} ({shares})"


def _source(found: dict[str, Any], part: dict[str, Any]) -> str:
    size = f"{part['documents']:,} documents, {part['tokens']:,} tokens"
    only = "" if len(part["trained_by"]) != 1 else f"; only the {part['trained_by'][0]} was trained on it"
    if "unresolved" in part:
        return f"{part['mean']:+.4f} nats, not tested, as {part['unresolved']} ({size}{only})"
    low, high = part["interval95"]
    word = f"the {part['better']} is better" if part["better"] else "not resolved"
    return (
        f"{word}: {part['mean']:+.4f} nats, 95 % interval [{low:+.4f}, {high:+.4f}], adjusted p "
        f"{part['p_adjusted']:.2g} ({size}{only})"
    )


def _interval(part: dict[str, Any]) -> str:
    low, high = part["interval95"]
    words = f"95 % interval [{low:+.4f}, {high:+.4f}]"
    if part["level"] is not None and abs(part["level"] - 0.05) > 1e-9:
        low, high = part["interval"]
        words += (
            f", and [{low:+.4f}, {high:+.4f}] at the {part['level']:.3%} that is this question's share of the budget"
        )
    return words


def _training(found: dict[str, Any]) -> str:
    part = found["training"]
    if part is None:
        return f"Training losses: not compared; {found['training_why']}."
    unit = "steps of equal batches" if part["how"] == "steps" else "documents that both were trained on"
    low, high = part["interval95"]
    return (
        f"Training losses of the last quarter, over {part['count']:,} {unit}: {part['mean']:+.4f} nats, 95 % interval "
        f"[{low:+.4f}, {high:+.4f}]; beside the verdict, which rests on the held-out text."
    )


def _excluded(found: dict[str, Any]) -> str:
    better, worse = (found["excluded"][key] for key in ("better_by_more_than", "worse_by_more_than"))
    if found["verdict"] == "keep":
        return f"Excluded: that it is better by more than {better:.4f} nats, and that it is worse at all."
    if found["verdict"] == "drop":
        return f"Excluded: that it is worse by more than {worse:.4f} nats, and that it is better at all."
    return f"Excluded: that it is better by more than {better:.4f} nats, or worse by more than {worse:.4f}."


def _deciding(found: dict[str, Any]) -> list[str]:
    """What would decide; only where nothing is decided."""
    if found["verdict"] != "undecided":
        return []
    part = found["decide"]
    lines = []
    for size in part["sizes"]:
        what = "as large as the one seen" if size["what"] == "seen" else "worth finding"
        lines.append(f"A difference {what} ({size['nats']:.4f} nats) {_needs(size)}.")
    if found["speaks_of"] == "two models":
        lines.append("Of the recipes nothing can be said before there are two pairs of seeds: --replicates 2 or more.")
    return [f"What would decide, with a chance of {part['power']:.0%}, at the next question's {part['level']:.3%}:",
            *(f"  {line}" for line in lines)]  # fmt: skip


def _needs(size: dict[str, Any]) -> str:
    if "replicates" in size:
        if size["replicates"] is None:
            return "needs more replicates than anybody will run"
        if not size["further_replicates"]:
            return f"would be found with these {size['replicates']} replicates"
        time = f", about {duration(size['seconds'])}" if size["seconds"] else ""
        return (
            f"needs {size['further_replicates']} more replicates ({size['replicates']} in all: "
            f"{size['further_tokens']:,} training tokens{time})"
        )
    if size["text_tokens"] is None:
        return "needs more held-out text than anybody has"
    if not size["further_text_tokens"]:
        return "would be found between these two models with this text"
    return f"needs {size['further_text_tokens']:,} more held-out tokens between these two models"


def _cost(found: dict[str, Any]) -> str:
    part = found["cost"]
    if not part["runs"]:
        return "Cost: nothing was trained."
    runs = f"{part['runs']} run{'s' if part['runs'] > 1 else ''}"
    return f"Cost so far: {runs}, {part['tokens']:,} tokens, {duration(part['seconds'])} of training steps."


def _ledger(found: dict[str, Any]) -> str:
    part = found["ledger"]
    if found["p"] is None:
        return f"Ledger of {found['experiment']}: nothing was tested, so nothing of the error budget was spent."
    damaged = f" ({part['damaged_lines']} of them damaged lines, counted)" if part["damaged_lines"] else ""
    count = part["challengers"]
    return (
        f"Ledger of {found['experiment']}: question {part['number']}{damaged}, of {count} "
        f"variant{'s' if count != 1 else ''} so far; {part['spent']:.2%} of the {part['budget']:.0%} chance of any "
        "false verdict is spent."
    )
