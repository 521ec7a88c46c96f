"""Results on disk, as `mygpt2 eval` wrote them for runs and for the workbench; each is read again when it changes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.files import read_json
from mygpt2.records import number
from mygpt2.run_dir import list_runs

LARGEST = 1 << 20  # bytes of a result; the engine's have some kilobytes


@dataclass(frozen=True)
class Documents:
    """The sums of each document: nats, and the targets they are of; both (documents,) in float64."""

    nll: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Loss:
    """A loss on a text. `text` says which text it is, whatever its tokens; "" where only the tokens say so."""

    protocol: str
    text: str
    token_sha256: str
    loss: float
    stderr: float | None
    perplexity: float | None
    bits_per_byte: float | None
    tokens: int
    bytes: int
    window: int
    quoted: tuple[Mapping[str, Any], ...] = ()
    documents: Documents | None = field(default=None, repr=False, compare=False)
    sources: Mapping[str, Loss] = field(default_factory=dict)  # of a mixture's held-out text, each source by itself


@dataclass(frozen=True)
class Result:
    """One evaluated model. `choices` is HellaSwag's record as the engine wrote it, or None."""

    model: str
    weights: str
    step: int | None
    precision: str
    time: float
    file: Path
    loss: Loss | None = None
    choices: Mapping[str, Any] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)


class Results:
    """All results of a folder of runs. Files that have not changed are not read again."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._known: dict[Path, tuple[tuple[int, int], list[Result]]] = {}

    def read(self) -> list[Result]:
        """Newest first; of the same measurement of the same model only the newest."""
        now: dict[Path, tuple[tuple[int, int], list[Result]]] = {}
        for path in self._files():
            try:
                stat = path.lstat()
            except OSError:
                continue
            state = (stat.st_mtime_ns, stat.st_size)
            known = self._known.get(path)
            fresh = known is None or known[0] != state
            now[path] = (state, parse(path, stat.st_mtime)) if fresh or known is None else known
        self._known = now
        found = sorted((r for _, results in now.values() for r in results), key=lambda r: -r.time)
        kept: dict[tuple[Any, ...], Result] = {}
        for result in found:
            kept.setdefault(_measurement(result), result)
        return list(kept.values())

    def _files(self) -> Iterator[Path]:
        folders = [run.evals_dir for run in list_runs(self._runs)]
        for folder in [*folders, self._runs / ".workbench" / "evals"]:
            try:
                with os.scandir(folder) as entries:
                    names = [e.name for e in entries if e.name.endswith(".json") and not e.name.startswith(".")]
            except OSError:
                continue
            yield from (folder / name for name in names)


def parse(path: Path, time: float) -> list[Result]:
    """The results of one file: the model's own and, beside it, the yardstick's on the same tokens. [] if damaged."""
    record = read_json(path, path.parent.parent, most=LARGEST)
    if record is None:
        return []
    details, choices = _dict(record.get("details")), _dict(record.get("hellaswag")) or None
    loss = loss_of(record, record)
    if loss is None and choices is None:
        return []
    own = Result(
        str(record.get("model", path.stem)), str(details.get("weights_sha256", "")), _whole(details.get("step")),
        str(record.get("precision", "")), time, path, loss, choices, record,
    )  # fmt: skip
    beside = record.get("yardstick")
    if loss is None or not isinstance(beside, dict):
        return [own]
    other = loss_of(record, beside)
    name, weights = str(beside.get("name", beside.get("of"))), str(beside.get("weights_sha256", ""))
    if other is None or weights == own.weights or other.token_sha256 != loss.token_sha256:
        return [own]
    return [own, Result(name, weights, None, str(beside.get("precision", "")), 0.0, path, other, None, beside)]


def loss_of(record: Mapping[str, Any], numbers: Mapping[str, Any]) -> Loss | None:
    """A loss from its numbers, on the text that the record says; None where it is not one."""
    loss = number(numbers.get("loss"))
    if loss is None or not isinstance(record.get("protocol"), str):
        return None
    quoted = record["quoted"] if isinstance(record.get("quoted"), list) else []
    whole = Loss(
        protocol=record["protocol"],
        text=_text(record),
        token_sha256=str(numbers.get("token_sha256", "")),
        loss=loss,
        stderr=number(numbers.get("stderr")),
        perplexity=number(numbers.get("perplexity")),
        bits_per_byte=number(numbers.get("bits_per_byte")),
        tokens=_whole(numbers.get("tokens")) or 0,
        bytes=_whole(numbers.get("bytes")) or 0,
        window=_whole(numbers.get("window")) or 0,
        documents=_documents(numbers.get("by_document")),
        quoted=tuple(
            q for q in (quoted if isinstance(quoted, list) else []) if number(_dict(q).get("figure")) is not None
        ),
    )
    return replace(whole, sources=_sources(whole, _dict(numbers.get("by_source"))))


def _sources(whole: Loss, found: Mapping[str, Any]) -> dict[str, Loss]:
    """The losses by source; the sums by document are those of the whole, source after source."""
    counts = [_whole(_dict(one).get("documents")) or 0 for one in found.values()]
    known = whole.documents if whole.documents and sum(counts) == len(whole.documents.nll) else None
    made, start = dict[str, Loss](), 0
    for (name, given), count in zip(found.items(), counts, strict=True):
        one, stop = _dict(given), start + count
        documents = Documents(known.nll[start:stop], known.targets[start:stop]) if known and count > 1 else None
        start = stop
        if (loss := number(one.get("loss"))) is not None:
            made[name] = replace(
                whole, token_sha256=str(one.get("token_sha256", "")), loss=loss, stderr=number(one.get("stderr")),
                perplexity=None, bits_per_byte=number(one.get("bits_per_byte")), tokens=_whole(one.get("tokens")) or 0,
                bytes=_whole(one.get("bytes")) or 0, quoted=(), documents=documents,
            )  # fmt: skip
    return made


def _documents(found: Any) -> Documents | None:
    try:
        nll, targets = (np.asarray(_dict(found)[key], dtype=np.float64) for key in ("nll", "targets"))
    except (KeyError, TypeError, ValueError):
        return None
    whole = nll.ndim == 1 and nll.shape == targets.shape and len(nll) > 1 and bool(np.isfinite([nll, targets]).all())
    return Documents(nll, targets) if whole and targets.min() >= 0 and targets.sum() > 0 else None


def _text(record: Mapping[str, Any]) -> str:
    """The same for the same text in any tokens: where it came from, or whose held-out set it is."""
    protocol, origin = str(record["protocol"]), record.get("text")
    if isinstance(origin, dict) and origin:
        return json.dumps(["local" if protocol.startswith("local:") else protocol, origin], sort_keys=True)
    run = _dict(record.get("details")).get("run")
    if protocol == "run" and isinstance(run, str):
        return f"run:{Path(run).name}"
    return protocol if protocol.startswith("run:") else ""


def _measurement(result: Result) -> tuple[Any, ...]:
    text = (result.loss.text, result.loss.token_sha256) if result.loss else None
    items = result.choices.get("items_sha256") if result.choices else None
    return (result.model, result.weights, result.precision, text, items)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int | None:
    found = number(value)
    return None if found is None else int(found)
