"""What `plan --measure` found, kept for the plans that come after it: a file per machine and shape, in the cache."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from pathlib import Path

from mygpt2.config.schema import RunConfig
from mygpt2.config.summary import vocabulary_size
from mygpt2.errors import UserError
from mygpt2.files import read_json, replace_json
from mygpt2.machine import available_cores, cache_folder
from mygpt2.planning.machine import list_gpus
from mygpt2.planning.speed import Speed
from mygpt2.planning.trial import JUST_NOW, Measured, shortened
from mygpt2.records import number


def keep(measured: Measured, config: RunConfig, *, world_size: int, device: str) -> None:
    """Writes down a measurement of this machine. UserError or OSError where the cache cannot be written."""
    path = _file(config, world_size, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    speed = measured.speed
    replace_json(path, {"schema": 1, "time": time.time(), "basis": measured.basis, "steps": measured.steps,
                        "speed": [speed.low, speed.value, speed.high], "host_bytes": measured.host_bytes,
                        "device_bytes": measured.device_bytes})  # fmt: skip


def recall(config: RunConfig, *, world_size: int, device: str, after: float = 0.0) -> Measured | None:
    """The measurement of this shape on this machine, if there is a readable one made later than `after` (epoch, s)."""
    try:
        record = read_json(_file(config, world_size, device)) or {}
    except UserError:
        return None
    when, steps, basis = number(record.get("time")), number(record.get("steps")), record.get("basis")
    figures = record.get("speed")
    speeds = [number(value) for value in figures] if isinstance(figures, list) and len(figures) == 3 else [None]
    if when is None or when <= after or not steps or not isinstance(basis, str):
        return None
    low, value, high = speeds if len(speeds) == 3 else (None, None, None)
    if not (low and value and high and 0 < low <= value <= high):
        return None
    try:
        basis = basis.replace(JUST_NOW, time.strftime("on %Y-%m-%d", time.localtime(when)))
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return None
    host, on_device = (_bytes(record, key) for key in ("host_bytes", "device_bytes"))
    return Measured(Speed(value, low, high, basis), host, on_device, int(steps), basis)


def _bytes(record: dict[str, object], key: str) -> int | None:
    size = number(record.get(key))
    return int(size) if size else None


def _file(config: RunConfig, world_size: int, device: str) -> Path:
    """Named by all that a measured step depends on; the text, the rates and the length are none of it."""
    short, _ = shortened(config, world_size, device)
    train = short.train
    of = {
        "machine": [socket.gethostname(), available_cores(), [gpu.name for gpu in list_gpus()]],
        "ranks": [world_size, device],
        "model": short.model.model_dump(exclude={"seed"}),
        "ids": vocabulary_size(config.data.tokenizer),
        "optimizer": short.optimizer.name,
        "train": [train.batch_tokens, train.micro_batch, train.precision, train.compile, train.deterministic],
    }
    name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:24]
    return cache_folder() / "measured" / f"{name}.json"
