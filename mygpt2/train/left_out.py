"""What a run leaves out of its data: counted over all ranks, told, and an alert where it is more than a thousandth.

Documents that are empty, not text or too long; blocks in quarantine; cached tokens that were damaged (made anew,
nothing is lost); lines of the run's logs for which there was no room. Documents that a filter leaves out are told by
its reason, without an alert. Held-out documents are left out on purpose and not here.
The limit on blocks in quarantine is kept here as well: over all ranks, so that it ends a run in the same step on any
number of them.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import numpy as np

from mygpt2.data.batch import Batch
from mygpt2.data.loader import Loader
from mygpt2.data.sources.manifest import check_quarantine
from mygpt2.distributed import World
from mygpt2.train.record import Recorder

ALERT_SHARE = 1e-3
NOT_HERE = ("met", "held_out")  # of what a batch counts
ENOUGH = 1000  # of a kind, from which on a share says something before the run has ended
DOCUMENTS = ("empty", "not_text", "too_long")
NAMED_BLOCKS = 20  # in an event
_WORDS = {
    "empty": "empty", "not_text": "not text", "too_long": "too long", "blocks": "blocks unreadable",
    "cache_entries": "cached blocks damaged and made anew", "log_lines": "log lines without room",
}  # fmt: skip


class LeftOut:
    """`news` is asked of every rank's batch at every step; where one of them has some, all ranks `tell` and `check`."""

    def __init__(self, world: World, recorder: Recorder, loader: Loader) -> None:
        self._world, self._recorder, self._loader = world, recorder, loader
        self._batch: Batch | None = None
        self._told: Counter[str] = Counter()  # of this rank
        self._written: dict[str, int] = {}  # of all ranks, in the newest event
        self._quarantine: dict[int, str] = {}  # of all ranks: block, reason
        self._alerted: set[str] = set()
        self._by_source: dict[str, dict[str, int]] = {}  # of all ranks, and "met": documents of a source met so far

    @property
    def quarantine(self) -> tuple[int, ...]:
        """Blocks that any rank leaves out, sorted."""
        return tuple(sorted(self._quarantine))

    def news(self, batch: Batch) -> bool:
        """Whether this rank leaves out something of another kind, another block, or twice as much as was told."""
        self._batch = batch
        now = self._counts()
        return any(count >= 2 * self._told[kind] for kind, count in now.items() if kind != "blocks") or (
            now["blocks"] > self._told["blocks"]
        )

    def tell(self, step: int, last: bool = False) -> None:
        """Add up all ranks; rank 0 writes an event where something is new. Every rank must call this."""
        self._told = self._counts()
        everywhere = [_read(part) for part in self._world.gather(_written(self._own()))]
        reasons = {int(b): why for part in reversed(everywhere) for b, why in part["blocks"].items()}
        self._quarantine = reasons
        counts: Counter[str] = sum((Counter(part["counts"]) for part in everywhere), Counter())
        of: Counter[str] = sum((Counter(part["of"]) for part in everywhere), Counter())
        if reasons:
            counts["blocks"] = len(reasons)
        of["blocks"] = len(self._loader.manifest)
        self._by_source = {
            name: dict(sum((Counter(part["by_source"][name]) for part in everywhere), Counter[str]()))
            for name in everywhere[0]["by_source"]
        }
        self._write(step, counts, of, reasons, last)

    def check(self) -> None:
        """UserError, the same on every rank, when more blocks are unreadable than the run may leave out."""
        check_quarantine(self._loader.manifest, self._loader.data.max_quarantine, self._quarantine)

    def _counts(self) -> Counter[str]:
        """What this rank leaves out; no entry where that is nothing."""
        left_out = self._batch.left_out if self._batch else Counter()
        counts = Counter({kind: count for kind, count in left_out.items() if kind not in NOT_HERE})
        counts["blocks"] = len(self._batch.quarantine) if self._batch else 0
        cache, writer = self._loader.cache, self._recorder.writer
        counts["cache_entries"] = cache.corrupt if cache else 0
        counts["log_lines"] = writer.dropped if writer else 0
        return +counts

    def _own(self) -> dict[str, Any]:
        cache, writer, batch = self._loader.cache, self._recorder.writer, self._batch
        of = {
            "documents": batch.left_out["met"] if batch else 0,
            "cache_entries": cache.corrupt + cache.hits if cache else 0,
            "log_lines": writer.lines if writer else 0,
        }
        reasons = {block: self._loader.quarantine_reasons[block] for block in (batch.quarantine if batch else ())}
        names = [part.name for part in self._loader.parts] if len(self._loader.parts) > 1 else []
        of_sources = batch.left_out_of if batch else [Counter[str]()] * len(names)
        by_source = {name: _seen(counts) for name, counts in zip(names, of_sources, strict=False)}
        return {"counts": {**self._told, "blocks": 0}, "of": of, "blocks": reasons, "by_source": by_source}

    def _write(self, step: int, counts: Counter[str], of: Counter[str], reasons: dict[int, str], last: bool) -> None:
        shares = {kind: min(1.0, n / max(1, of[_whole(kind)])) for kind, n in counts.items() if n}
        if self._world.lead and shares and dict(counts) != self._written:
            self._written = dict(counts)
            named = sorted(reasons.items(), key=lambda item: item[0])[:NAMED_BLOCKS]
            where = {self._loader.manifest.describe(block): why for block, why in named}
            self._recorder.event(
                "left_out", step=step, counts={kind: counts[kind] for kind in (*_WORDS, *_filtered(counts))},
                of=dict(of), share=max(shares.values()), blocks=where,
                **({"by_source": self._by_source} if self._by_source else {}),
            )  # fmt: skip
            self._recorder.say(f"left out of the data so far: {_sentence(counts, of)}{_places(where)}")
        for kind, share in shares.items():
            if kind not in _WORDS:
                continue
            large = last or kind == "blocks" or of[_whole(kind)] >= ENOUGH
            if self._world.lead and share > ALERT_SHARE and large and kind not in self._alerted:
                self._alerted.add(kind)
                message = f"{share:.2%} left out at step {step}: {_sentence(counts, of)}"
                self._recorder.event("alert", level="warning", about="left_out", step=step, message=message)
                self._recorder.say(f"alert: {message}")


def _seen(left_out: Counter[str]) -> dict[str, int]:
    """What was left out of a source, and how many of its documents were met."""
    return {kind: count for kind, count in left_out.items() if kind != "held_out"}


def _whole(kind: str) -> str:
    """What a kind is a share of."""
    return "documents" if kind in DOCUMENTS or kind not in _WORDS else kind


def _filtered(counts: Counter[str]) -> list[str]:
    """The reasons of filters, which are words by themselves."""
    return sorted(kind for kind in counts if kind not in _WORDS)


def _sentence(counts: Counter[str], of: Counter[str]) -> str:
    kinds = [kind for kind in (*DOCUMENTS, *_filtered(counts)) if counts[kind]]
    documents = [f"{counts[kind]:,} {_WORDS.get(kind, kind)}" for kind in kinds]
    total = sum(counts[kind] for kind in kinds)
    told = [f"{total:,} of {of['documents']:,} documents ({', '.join(documents)})"] if total else []
    others = [kind for kind in _WORDS if kind not in DOCUMENTS and counts[kind]]
    return "; ".join([*told, *(f"{counts[kind]:,} of {of[kind]:,} {_WORDS[kind]}" for kind in others)])


def _places(where: dict[str, str]) -> str:
    return "".join(f"\n    {place}: {why}" for place, why in where.items())


def _written(value: dict[str, Any]) -> np.ndarray:
    """JSON as the int64 array that ranks can exchange."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8).astype(np.int64)


def _read(array: np.ndarray) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(array.astype(np.uint8).tobytes())
    return found
