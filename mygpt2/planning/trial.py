"""A few real steps in processes of their own, for their speed and memory; nothing of them is left behind."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mygpt2.config.batch import plan_batch
from mygpt2.config.schema import RunConfig
from mygpt2.config.summary import GPT2_IDS, vocabulary_size
from mygpt2.config.toml import to_toml
from mygpt2.errors import UserError
from mygpt2.files import read_json
from mygpt2.machine import available_cores
from mygpt2.planning.compute import compile_choice, fast_micro_batch
from mygpt2.planning.machine import likely_precision, list_gpus
from mygpt2.planning.speed import Speed
from mygpt2.progress import ProgressFile
from mygpt2.run_dir.lines import Follower, parse_lines
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.process import kill_all
from mygpt2.run_dir.scratch import scratch

Say = Callable[[str], None]

NAME = "measure"
WARM_UP = 1  # steps: the first allocates, and tunes kernels
FEWEST, MOST = 3, 20  # steps measured, unless they are slow
LONG_ENOUGH_S, TOO_LONG_S, LIMIT_S = 8.0, 120.0, 900.0
FORWARD_PASSES = 2  # per step, at most: as in a long step the second pass adds to gradients that are there
POLL_S = 0.2
JUST_NOW = "just now"  # in the basis of what was measured; a date once it is kept


@dataclass(frozen=True)
class Measured:
    """Speed of all ranks, the first rank's resident memory, and its device's where that is not the host's."""

    speed: Speed
    host_bytes: int | None
    device_bytes: int | None
    steps: int
    basis: str


def measure(config: RunConfig, *, world_size: int, device: str, say: Say) -> Measured:
    """Trains the configuration's model for a few steps on its own ranks. UserError when the steps cannot be run.

    The processes end with this call, and by themselves after `MOST` steps should this process be killed meanwhile.
    Steps are cut to `FORWARD_PASSES` passes; nothing is evaluated, sampled or saved. A source on the hub is stood in
    for by the built-in text: the model's speed does not depend on the words.
    """
    short, notes = shortened(config, world_size, device)
    with scratch("plan") as home:
        (home / "config.toml").write_text(to_toml(short), "utf-8")
        say(f"measuring {world_size} x {device}, {short.train.batch_tokens:,} tokens per step{notes}")
        with open(home / "log", "wb") as log:
            child = subprocess.Popen(
                _command(home, world_size), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(),
                start_new_session=True,
            )  # fmt: skip
        try:
            rows, host = _watch(child, RunDir(home / "runs" / NAME), say)
        finally:
            kill_all(child)
        if len(rows) <= WARM_UP:
            raise UserError(f"--measure: no step was finished: {_reason(home / 'log')}")
    return _result(rows[WARM_UP:], host, device, notes)


def shortened(config: RunConfig, world_size: int, device: str) -> tuple[RunConfig, str]:
    """The configuration whose steps are measured, and how it differs, in words."""
    m, t, named = config.model, config.train, {"source": config.data.source, "mix": config.data.mix}
    gpu = list_gpus()[0].memory_bytes if device == "cuda" and list_gpus() else None
    whole = plan_batch(
        t.batch_tokens, m.block_size, t.micro_batch, world_size, config.data.lanes, fast_micro_batch(m, gpu)
    )
    passes = min(FORWARD_PASSES, whole.accumulation)
    notes = f", {passes} instead of {whole.accumulation} forward passes" if passes < whole.accumulation else ""
    if any(source != "pydocs" and not os.path.exists(os.path.expanduser(source)) for source in config.data.named):
        named, notes = {"source": "pydocs", "mix": []}, f"{notes}, on the built-in text"
    changes: dict[str, dict[str, Any]] = {
        "train": {"steps": WARM_UP + MOST, "compile": _compile(config, device), "device": device,
                  "micro_batch": whole.micro_batch,
                  "batch_tokens": world_size * passes * whole.micro_batch * m.block_size},
        "data": {**named, "lanes": None, "window": None, "validation_fraction": 0.0, "token_cache": False},
        "schedule": {"warmup_steps": 0},
        "eval": {"interval": 0, "yardstick": "off", "measure_yardstick": False, "hellaswag": None},
        "sample": {"interval": 0, "prompts": []},
        "checkpoint": {"interval": 10**6},
        "log": {"tensorboard": False, "wandb": False, "trackio": False, "plot_interval": 0, "trace": False,
                "profile": None},
    }  # fmt: skip
    parts = {name: getattr(config, name).model_copy(update=update) for name, update in changes.items()}
    return config.model_copy(update=parts), notes


def _compile(config: RunConfig, device: str) -> str:
    """`train.compile` as it would be for the whole run: so few steps would never be compiled."""
    ids, precision = vocabulary_size(config.data.tokenizer) or GPT2_IDS, likely_precision(config, device)[0]
    on, _ = compile_choice(config, ids, device=device, precision=precision, cores=available_cores())
    return "true" if on else "false"


def _command(home: Path, world_size: int) -> list[str]:
    train = ["--config", str(home / "config.toml"), "--run", NAME, "--runs", str(home / "runs"), "--resume", "never"]
    if world_size == 1:
        return [sys.executable, "-m", "mygpt2", "train", *train]
    return [sys.executable, "-m", "mygpt2.launch", "--nproc", str(world_size), "--max-restarts", "0", *train]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def _watch(child: subprocess.Popen[bytes], run: RunDir, say: Say) -> tuple[list[dict[str, Any]], int | None]:
    """Rows of the metrics until they are enough, and the most that the first rank had resident."""
    began, first, lines = time.monotonic(), None, Follower(run.metrics_file)
    rows: list[dict[str, Any]] = []
    host: int | None = None
    progress = ProgressFile.from_environment()
    running = True
    while running:
        running = child.poll() is None  # asked before reading, so that the last lines of a process that ended are read
        for row in parse_lines(lines.read())[0]:
            rows.append(row)
            first = first or time.monotonic()
            if progress:
                progress.update("measuring", len(rows), WARM_UP + MOST, "steps")
            say(f"step {len(rows)}: {row['tokens_per_second']:,.0f} tokens/s, {row['memory_bytes'] / 1e9:.2f} GB")
        host = max(host or 0, _resident(run) or 0) or None
        now = time.monotonic()
        if (first and _enough(len(rows) - WARM_UP, now - first)) or now - began > LIMIT_S:
            break
        if running:
            time.sleep(POLL_S)
    return rows, host


def _enough(steps: int, seconds: float) -> bool:
    if steps >= MOST or (steps >= 1 and seconds > TOO_LONG_S):
        return True
    return steps >= FEWEST and seconds > LONG_ENOUGH_S


def _resident(run: RunDir) -> int | None:
    """The highest resident memory of the first rank: the kernel's own mark on Linux, else the present figure."""
    pid = (read_json(run.rank_file(0)) or {}).get("pid")
    if not isinstance(pid, int):
        return None
    try:
        for line in Path(f"/proc/{pid}/status").read_text("ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
        return int(psutil.Process(pid).memory_info().rss)
    except (OSError, psutil.Error):
        return None


def _reason(log: Path) -> str:
    """What the processes said last, an error of theirs before anything else."""
    lines = [line.strip() for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("error: ")]
    return (errors or lines[-1:] or ["it said nothing"])[0][:300]


def _result(rows: list[dict[str, Any]], host: int | None, device: str, notes: str) -> Measured:
    speeds = [float(row["tokens_per_second"]) for row in rows]
    memory = max(int(row["memory_bytes"]) for row in rows)
    basis = f"measured: {len(rows)} step{'s' if len(rows) > 1 else ''} {JUST_NOW}{notes}"
    speed = Speed(statistics.median(speeds), min(speeds), max(speeds), basis)
    on_gpu = device == "cuda"
    return Measured(
        speed, max(host or 0, 0 if on_gpu else memory) or None, memory if on_gpu else None, len(rows), basis
    )
