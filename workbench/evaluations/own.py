"""What runs measured of themselves while they trained: the last validation of each, as a result beside the others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mygpt2.run_dir import RunDir
from mygpt2.run_dir.lines import parse_lines, portions
from mygpt2.run_dir.marks import current_runs
from workbench.evaluations.results import Result, loss_of


class OwnResults:
    """Of all runs of a folder but the archived ones. A file that has not changed is not read again."""

    def __init__(self, runs: Path) -> None:
        self._runs = runs
        self._known: dict[Path, tuple[tuple[int, int], list[Result]]] = {}

    def read(self) -> list[Result]:
        """The last validation of each run and, where it knows it, the yardstick's on the same tokens."""
        now: dict[Path, tuple[tuple[int, int], list[Result]]] = {}
        for run in current_runs(self._runs):
            try:
                stat = run.events_file.lstat()
            except OSError:
                continue
            state, known = (stat.st_mtime_ns, stat.st_size), self._known.get(run.events_file)
            now[run.events_file] = known if known and known[0] == state else (state, last_validation(run))
        self._known = now
        return [result for _, results in now.values() for result in results]


def last_validation(run: RunDir) -> list[Result]:
    """Of the newest attempt's newest step; [] before the first, and for events that cannot be read."""
    newest: Mapping[str, Any] | None = None
    for lines in portions(run.events_file):
        for record in parse_lines([line for line in lines if b'"eval"' in line])[0]:
            if record.get("kind") == "eval" and record.get("protocol") == "run":
                newest = record
    if newest is None or not newest.get("token_sha256"):
        return []
    record = {**newest, "details": {"run": run.name}, "text": {}}
    loss, step = loss_of(record, record), newest.get("step")
    if loss is None or not isinstance(step, int):
        return []
    time = newest.get("time")
    at = float(time) if isinstance(time, int | float) else 0.0
    own = Result(f"{run.name}/step-{step:08d}", "", step, str(newest.get("precision", "")), at, run.events_file, loss,
                 None, newest)  # fmt: skip
    beside = newest.get("yardstick")
    if not isinstance(beside, dict) or not isinstance(beside.get("loss"), int | float):
        return [own]
    same = {key: newest.get(key) for key in ("tokens", "bytes", "window", "token_sha256")}
    nats, size = float(beside["loss"]), loss.bytes
    more = {"perplexity": math.exp(min(nats, 700.0)),
            "bits_per_byte": nats * loss.tokens / math.log(2) / size if size else None}  # fmt: skip
    other = loss_of(record, {**same, **more, **beside})
    name = str(beside.get("of"))
    return [own] if other is None else [own, Result(name, "", None, "", 0.0, run.events_file, other, None, beside)]
