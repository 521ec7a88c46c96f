"""What happened in a run, in the few words a chart needs: validation points, saves, alerts, the yardstick passed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mygpt2.run_dir.lines import parse_lines

MAX_TEXT = 300
PROBLEMS = {
    "save_failed": "a checkpoint was not saved",
    "checkpoint_broken": "a checkpoint is damaged",
    "prune_failed": "an old checkpoint was not deleted",
    "skipped": "the step was skipped: its gradient was not finite",
}


def marks(lines: list[bytes]) -> list[dict[str, Any]]:
    """Marks from complete lines of events.jsonl.

    Each has kind (eval, passed, save, alert), attempt and step; a step of None is the attempt's newest. eval: value in
    nats per token, bits per byte, the number of documents, text the hash of the tokens, yardstick {of, loss} where the
    run knows the other model's loss on the same tokens, and of a mixture sources {name: [nats per token, bits]}.
    """
    found = [_mark(record) for record in parse_lines(lines)[0]]
    return [mark for mark in found if mark]


def alert_marks(alerts: Iterable[Any]) -> list[dict[str, Any]]:
    """Marks from the job runner's alerts (objects with step, level, text or their like)."""
    return [
        {
            "kind": "alert",
            "attempt": None,
            "step": _step(getattr(alert, "step", None)),
            "level": str(getattr(alert, "level", "")),
            "text": str(getattr(alert, "text", ""))[:MAX_TEXT],
        }
        for alert in alerts
    ]


def _mark(record: dict[str, Any]) -> dict[str, Any] | None:
    kind = record.get("kind")
    mark: dict[str, Any] = {"kind": kind, "attempt": _step(record.get("attempt")), "step": _step(record.get("step"))}
    if kind in ("eval", "passed"):
        if mark["step"] is None or not _is_loss(record.get("loss")):
            return None
        yardstick = _yardstick(record.get("yardstick"))
        text = str(record.get("token_sha256") or "")[:12]
        measured = {"value": record["loss"], "bits": _bits(record), "documents": _step(record.get("documents"))}
        sources = _sources(record.get("by_source"))
        more = {"yardstick": yardstick} if yardstick else {}
        return {**mark, **measured, "text": text, **more, **({"sources": sources} if sources else {})}
    if kind == "save":
        return mark
    if kind == "alert":
        words, level = record.get("message") or record.get("text") or "", str(record.get("level") or "error")
        return {**mark, "level": level, "text": str(words)[:MAX_TEXT]}
    if isinstance(kind, str) and kind in PROBLEMS:
        words = ": ".join(filter(None, (PROBLEMS[kind], str(record.get("reason") or ""))))
        return {**mark, "kind": "alert", "level": "warning", "text": words[:MAX_TEXT]}
    return None


def _yardstick(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict) or not _is_loss(value.get("loss")):
        return None
    return {"of": str(value.get("of") or "yardstick")[:80], "loss": value["loss"]}


def _sources(value: Any) -> dict[str, list[float | None]]:
    found = value.items() if isinstance(value, dict) else ()
    each = {str(name): one for name, one in found if isinstance(one, dict) and _is_loss(one.get("loss"))}
    return {name: [one["loss"], _bits(one)] for name, one in each.items()}


def _bits(record: dict[str, Any]) -> float | None:
    value = record.get("bits_per_byte")
    return value if _is_loss(value) else None


def _is_loss(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < float("inf")


def _step(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
