"""Starts real training processes on a small corpus and kills them; used by the tests of a run's life."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

REPO = Path(__file__).resolve().parents[2]
WORDS = [f"{a}{b}" for a in ("lo", "win", "ba", "step", "tok") for b in ("s", "dow", "tch", "en", "ing")]

SETTINGS = {
    "model.n_layer": 2, "model.n_head": 2, "model.n_embd": 64, "model.block_size": 32, "model.dropout": 0.1,
    "data.tokenizer": "gpt2:512", "data.lanes": 4, "data.window": 2, "data.encoder": "tiktoken", "data.threads": 2,
    "data.validation_fraction": 0.05, "data.validation_tokens": 2048,
    "optimizer.name": "muon", "schedule.warmup_steps": 10, "schedule.name": "plateau",
    "schedule.plateau_window": 5, "schedule.plateau_patience": 9,
    "train.steps": 200, "train.batch_tokens": 256, "train.precision": "fp32", "train.device": "cpu",
    "eval.interval": 50, "sample.interval": 0, "sample.max_new_tokens": 4, "checkpoint.interval": 7,
    "log.plot_interval": 0,
}  # fmt: skip


def corpus(folder: Path, files: int = 3, documents: int = 240) -> Path:
    """Parquet files of made-up sentences, small enough to pass an epoch within a test run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True)
    rng = random.Random(5)
    for file in range(files):
        texts = [" ".join(rng.choices(WORDS, k=rng.randint(5, 60))) for _ in range(documents)]
        pq.write_table(pa.table({"text": texts}), folder / f"{file:03d}.parquet", row_group_size=20)
    return folder


def settings(source: Path, cache: Path, **changes: Any) -> dict[str, Any]:
    """SETTINGS for a run on `source`; keyword arguments change them, with `__` for the dot."""
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    return {**SETTINGS, "data.source": source, "data.cache_dir": cache, **changed}


def command(values: dict[str, Any], runs: Path, name: str) -> list[str]:
    """The words of `mygpt2 train`."""
    options = [word for key, value in values.items() for word in (f"--{key}", str(value))]
    return ["train", "--preset", "tiny", "--runs", str(runs), "--run", name, *options]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MYGPT2_CACHE": str(cache), "PYTHONPATH": str(REPO)}


@contextmanager
def signals() -> Iterator[None]:
    """For a run in this process: its handlers go when it has ended.

    SIGHUP begins as it does in a terminal: where the tests themselves run under nohup, a run is right to ignore it.
    """
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def losses(run_dir: Path) -> dict[int, float]:
    """The loss of each step, where a later attempt wins; every line must be whole JSON."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss"] for row in sorted(rows, key=lambda r: r["attempt"])}


def last_step(run_dir: Path) -> int:
    try:
        lines = (run_dir / "metrics.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except ValueError:
            continue
    return 0


def weights_hash(run_dir: Path) -> str:
    newest = max((run_dir / "checkpoints").glob("step-*"))
    return hashlib.sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def rank_pids(run_dir: Path) -> list[int]:
    found = []
    for file in sorted((run_dir / "ranks").glob("*.json")):
        try:
            found.append(int(json.loads(file.read_text())["pid"]))
        except (ValueError, KeyError, FileNotFoundError):
            continue
    return found


def wait_for(condition: Callable[[], bool], process: Any = None, timeout: float = 300) -> bool:
    """Polls until the condition holds or the process has ended; False for the latter."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if condition():
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.01)
    raise AssertionError("the condition did not come true in time")


def family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(processes: list[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Those still alive after that many seconds. A zombie is dead: whoever adopted it has yet to be told."""

    def lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    deadline = time.monotonic() + timeout
    while (left := [process for process in processes if lives(process)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left
