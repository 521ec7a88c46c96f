"""A run's events in a sentence each, as plain text not yet escaped; the rest is for whoever unfolds an event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mygpt2.records import number, whole
from workbench import words

Event = Mapping[str, Any]
LEFT = "; training goes on"


def sentence(event: Event) -> str:
    """What happened. An event that is not known, or that is damaged, is told by its kind and its message."""
    kind = str(event.get("kind") or "")
    try:
        found = _SENTENCES[kind](event)
    except (KeyError, TypeError, ValueError, AttributeError):
        found = ": ".join(filter(None, (kind.replace("_", " ") or "event", str(event.get("message") or ""))))
    return f"{found[:1].upper()}{found[1:]}".rstrip(".") + "."


def _step(event: Event) -> str:
    step = whole(event.get("step"))
    return "" if step is None else f" at step {step:,}"


def _of_step(event: Event) -> str:
    step = whole(event.get("step"))
    return "" if step is None else f" of step {step:,}"


def _seconds(value: Any) -> str:
    """12.345 s -> 12.3 s; below a second two digits."""
    found = number(value)
    if found is None:
        return words.NA
    if found < 0.01:
        return "less than 0.01 s"
    return f"{found:.2f} s" if found < 1 else f"{found:.1f} s" if found < 60 else words.seconds(found)


def _eval(event: Event) -> str:
    bits = (
        "" if number(event.get("bits_per_byte")) is None else f" ({words.fixed(event['bits_per_byte'])} bits per byte)"
    )
    took = "" if number(event.get("seconds")) is None else f", measured in {_seconds(event['seconds'])}"
    return f"validation loss {words.fixed(event['loss'])}{bits}{_step(event)}{took}"


def _save(event: Event) -> str:
    took = "" if number(event.get("seconds")) is None else f" in {_seconds(event['seconds'])}"
    held = number(event.get("held_seconds"))
    waited = "" if held is None else f"; training was held for {_seconds(held)}"
    deleted = [whole(step) for step in event.get("deleted") or []]
    gone = ", ".join(f"{step:,}" for step in deleted if step is not None)
    older = (
        f"; deleted the checkpoint{'s' * (len(deleted) > 1)} of step{'s' * (len(deleted) > 1)} {gone}" if gone else ""
    )
    return f"saved the checkpoint{_of_step(event)}, {words.bytes_of(event.get('bytes'))}{took}{waited}{older}"


def _resume(event: Event) -> str:
    changes = event.get("changes")
    pairs = changes.items() if isinstance(changes, dict) else ()
    changed = "; ".join(f"{key} from {before} to {now}" for key, (before, now) in pairs)
    notice = str(event.get("message") or "")
    told = "".join(f"; {part}" for part in (f"changed {changed}" if changed else "", notice) if part)
    return f"resumed from the checkpoint{_of_step(event)}{told}"


def _branch(event: Event) -> str:
    return _resume(event).replace("resumed from the checkpoint", f"branched off {event['parent']} at the checkpoint", 1)


def _passed(event: Event) -> str:
    yardstick = event["yardstick"]
    name = str(yardstick.get("of") or "the yardstick").replace("gpt2", "GPT-2")
    return f"passed {name}{_step(event)}: {words.fixed(event['loss'])} against {words.fixed(yardstick.get('loss'))}"


def _skipped(event: Event) -> str:
    step = whole(event.get("step"))
    return (
        f"the update of step {words.count(step)} was skipped: loss {words.fixed(event.get('loss'))}, "
        f"gradient norm {words.fixed(event.get('grad_norm'))}"
    )


def _hellaswag(event: Event) -> str:
    shares = [value["acc_norm"] for value in event.values() if isinstance(value, dict) and "acc_norm" in value]
    return f"HellaSwag{_step(event)}: {words.percent(shares[0] if shares else None, 2)} right"


def _crash(event: Event) -> str:
    rank = whole(event.get("rank"))
    who = "a process" if rank is None else f"rank {rank}"
    return f"{who} ended{_step(event)}: {event.get('message') or event.get('signal') or 'no reason is known'}"


_SENTENCES: Mapping[str, Callable[[Event], str]] = {
    "eval": _eval,
    "save": _save,
    "save_failed": lambda e: f"the checkpoint{_of_step(e)} was not saved: {e['reason']}{LEFT}",
    "checkpoint_broken": lambda e: f"the checkpoint {e['path']} is damaged and is not used: {e['reason']}",
    "prune_failed": lambda e: f"old checkpoints could not be deleted: {e['reason']}{LEFT}",
    "resume": _resume,
    "branch": _branch,
    "passed": _passed,
    "skipped": _skipped,
    "hellaswag": _hellaswag,
    "crash": _crash,
    "left_out": lambda e: f"{words.percent(e['share'], 2)} of the data was left out{_step(e).replace(' at', ' up to')}",
    "stop": lambda e: f"ended as {e['state']}: {e.get('message') or 'no reason is known'}",
    "alert": lambda e: str(e["message"]),
}
