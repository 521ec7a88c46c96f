"""What the table of runs says of one run beside what the list does, from the ends of its files. Pure reading."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from mygpt2.checkpoint.parts import count_parts, whole_name
from mygpt2.config.schema import ModelConfig
from mygpt2.config.summary import count_parameters
from mygpt2.inside import SMALL_BYTES, open_inside
from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir, RunState, parse_lines
from mygpt2.run_dir.lines import tail_lines
from mygpt2.run_dir.liveness import read_record
from mygpt2.run_dir.settings import vocabulary_of
from workbench.jobs.reading import muon_times

EVENT_BYTES = 64 << 10  # of events.jsonl; an evaluation has some 400
ATTEMPTS = 200  # whose time is added up
METRICS = ("lr", "grad_norm", "step_ms", "data_wait_ms", "mfu", "memory_bytes", "epoch")  # of the last step
ARM = re.compile(r"(?P<group>.+)\.(?P<arm>[^.]+)\.(?P<replicate>\d{1,4})")  # of an experiment
STUDY = re.compile(r"(?P<group>study-[0-9a-z]{6,12})-[a-z0-9-]+")  # of ripples
MAX_PROTOCOL = 120  # characters


def facts(run: RunDir, state: RunState, last: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The row's further entries. `last`: the last row of metrics of the present attempt."""
    found = {key: brief(number(last.get(key))) for key in METRICS}
    lr, times = number(last.get("lr")), muon_times(run)
    return {
        **found,
        "muon_lr": brief(lr * times) if lr is not None and times else None,
        **validation(run),
        "rate": brief(number(last.get("tokens_per_second"))),
        "tokens": whole(last.get("tokens")) or whole(state.status.get("tokens")),
        "duration": duration(run, state),
        "parameters": parameters(run, settings),
        "attempt": whole(state.status.get("attempt")),
    }


def validation(run: RunDir) -> dict[str, Any]:
    """{"val", "best": nats per token, "bpb", "perplexity", "measured": what it was measured on, in words}.

    Of the latest evaluation of the run's own held-out text; `best` is of those that were measured alike.
    """
    lines = [line for line in tail_lines(run.events_file, EVENT_BYTES)[0] if b'"eval"' in line]
    records = [record for record in parse_lines(lines)[0] if record.get("kind") == "eval"]
    known = [record for record in records if number(record.get("loss")) is not None and record.get("protocol")]
    if not known:
        return {"val": None, "best": None, "bpb": None, "perplexity": None, "measured": ""}
    latest = known[-1]
    how = measured(latest)
    alike = [number(record["loss"]) or math.inf for record in known if measured(record) == how]
    return {
        "val": brief(number(latest["loss"])),
        "best": brief(min(alike)),
        "bpb": brief(number(latest.get("bits_per_byte"))),
        "perplexity": brief(number(latest.get("perplexity"))),
        "measured": how,
    }


def measured(record: Mapping[str, Any]) -> str:
    """On which text, and with how much context, a loss was measured: two losses compare where this is the same."""
    said = {"documents": "documents", "bytes": "bytes of text", "window": "tokens of context"}
    parts = [f"{value:,} {words}" for key, words in said.items() if (value := whole(record.get(key)))]
    name = "held-out text" if record.get("protocol") == "run" else str(record.get("protocol"))
    return ", ".join([name, *parts])[:MAX_PROTOCOL]


def duration(run: RunDir, state: RunState) -> float | None:
    """Seconds of work, all attempts together; of one that is at work, until its last sign of life."""
    begun, ended = number(state.status.get("started")), number((state.exit or {}).get("time"))
    ended = number(state.status.get("heartbeat")) if ended is None else ended
    if begun is None or ended is None or ended < begun:
        return None
    attempt = whole(state.status.get("attempt")) or 1
    before = sum(_attempt_seconds(run, n) for n in range(max(1, attempt - ATTEMPTS), attempt))
    return float(round(ended - begun + before))


@lru_cache(maxsize=8192)
def _attempt_seconds(run: RunDir, attempt: int) -> float:
    """Of an earlier attempt, which changes no more; 0 where it left no word of its end."""
    folder = run.attempt_dir(attempt)
    begun, ended = (
        number((read_record(run, folder / file.name) or {}).get("time")) for file in (run.command_file, run.exit_file)
    )
    return max(0.0, ended - begun) if begun is not None and ended is not None else 0.0


def parameters(run: RunDir, settings: Mapping[str, Any]) -> int | None:
    """Of the model: from its settings or, where those do not tell the vocabulary, from its newest weights."""
    own = {key.removeprefix("model."): value for key, value in settings.items() if key.startswith("model.")}
    vocabulary = vocabulary_of(run)
    if vocabulary is not None and own:
        try:
            return count_parameters(ModelConfig(**own), vocabulary)
        except ValueError:
            return None
    steps = [name for name in run.names(run.checkpoints_dir) if name.startswith("step-")]
    return _in_weights(run, steps[-1]) if steps else None


@lru_cache(maxsize=1024)
def _in_weights(run: RunDir, checkpoint: str) -> int | None:
    """Numbers in model.safetensors, or in all its parts, from their heads alone: 8 bytes of length, then JSON of names
    and shapes."""
    folder = run.checkpoints_dir / checkpoint
    names = [name for name in run.names(folder) if whole_name(name) == "model.safetensors"]
    if len(names) != max(1, count_parts(names)):
        return None
    try:
        return sum(_numbers(run, folder / name) for name in names) or None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _numbers(run: RunDir, path: Path) -> int:
    with open_inside(path, run.path) as file:
        length = int.from_bytes(file.read(8), "little")
        head = json.loads(file.read(length)) if length <= SMALL_BYTES else {}
    return sum(math.prod(tensor["shape"]) for name, tensor in head.items() if name != "__metadata__")


def group_of(name: str, marks: Mapping[str, Any]) -> str:
    """The group a run is in: the one a person gave it, else the experiment or study that its name says; "" for none."""
    given = marks.get("group")
    if isinstance(given, str) and given:
        return given[:MAX_PROTOCOL]
    match = ARM.fullmatch(name) or STUDY.fullmatch(name)
    return match["group"] if match else ""


def brief(value: float | None) -> float | None:
    """Six digits: what a table shows, and half of what JSON would need."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
