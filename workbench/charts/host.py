"""How busy the machine was during the steps of a run: the supervisor's samples, placed at the steps they fall on."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.errors import UserError
from mygpt2.records import number
from mygpt2.run_dir import Follower, RunDir, parse_lines
from mygpt2.run_dir.lines import first_record, last_record
from workbench.charts.view import MAX_RUNS
from workbench.columns import fresh
from workbench.jobs.host import NAMES

KEYS = ("cpu", "memory", "gpu", "gpu_memory")
MOST_POINTS = 1500  # of one run; of more, every n-th
NEAR_SECONDS = 120.0  # between a sample and the end of the step before it: later the run was not at work


def host_history(runs: Any, request: Any) -> dict[str, dict[str, list[float | None]]]:
    """{run: {"step", "cpu", "memory", "gpu", "gpu_memory"}} of `request["runs"]`, shares from 0 to 1 or null.

    Runs without a sample are left out. `runs`: a `charts.points.Runs`.
    """
    names = request.get("runs") if isinstance(request, Mapping) else None
    found = {}
    for name in (names if isinstance(names, list) else [])[:MAX_RUNS]:
        try:
            run = runs.run(str(name))
            at, values = _during(run, _samples(runs.runs))
        except (UserError, OSError):
            continue
        if len(at):
            found[run.name] = {"step": at.tolist(), **{key: _plain(values[key]) for key in KEYS}}
    return found


def hosts(runs: Any) -> list[str]:
    """Which of KEYS this machine can sample, so that room is kept for them. `runs`: a `charts.points.Runs`."""
    gpus = any(slot.startswith("cuda") for slot in getattr(runs.jobs, "slots", ()))
    return [key for key in KEYS if gpus or not key.startswith("gpu")]


def hosts_of(run: RunDir, runs: Path) -> list[str]:
    """Which of KEYS were sampled between the first and the last step of a run, read from its ends alone."""
    first, last = first_record(run.metrics_file), last_record(run.metrics_file)
    began, ended = (number((record or {}).get("time")) for record in (first, last))
    if began is None or ended is None:
        return []
    samples = _samples(runs)
    during = (samples["time"] > began - NEAR_SECONDS) & (samples["time"] < ended + NEAR_SECONDS)
    return [key for key in KEYS if np.isfinite(samples[key][during]).any()]


def _during(run: RunDir, samples: Mapping[str, NDArray[np.float64]]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """The steps at which samples were taken, and the samples."""
    steps, times = _clock(run)
    order = np.argsort(times, kind="stable")
    steps, times = steps[order], times[order]
    if not len(times) or not len(samples["time"]):
        return np.array([]), {}
    after = np.searchsorted(times, samples["time"])  # the first step that ended later
    ended = np.minimum(after, len(times) - 1)
    at_work = (after > 0) & ((after < len(times)) | (samples["time"] - times[-1] < NEAR_SECONDS))
    at_work &= np.abs(times[ended] - samples["time"]) < NEAR_SECONDS
    chosen = np.flatnonzero(at_work)
    if len(chosen) > MOST_POINTS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST_POINTS).astype(int)]
    return steps[ended[chosen]], {key: samples[key][chosen] for key in KEYS}


def _clock(run: RunDir) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps and the times at which they ended, where those are known."""
    parts, cursor, more = [], None, True
    while more:
        found = fresh(run, cursor, ["time"])
        parts.append(found.rows)
        cursor, more = found.cursor, found.more
    steps = np.concatenate([part.step for part in parts])
    times = np.concatenate([part.values["time"] for part in parts])
    known = np.isfinite(times)
    return steps[known], times[known]


def _samples(runs: Path) -> Mapping[str, NDArray[np.float64]]:
    files = [runs / ".workbench" / name for name in NAMES]
    return _read(tuple((str(file), *_state(file)) for file in files))


@lru_cache(maxsize=4)
def _read(files: tuple[tuple[str, int, int], ...]) -> Mapping[str, NDArray[np.float64]]:
    records = [record for file, *_ in files for record in parse_lines(Follower(Path(file)).read())[0]]
    records = [record for record in records if number(record.get("time")) is not None]
    found = {key: np.array([_number(record.get(key)) for record in records], dtype=float) for key in ("time", *KEYS)}
    order = np.argsort(found["time"], kind="stable")
    return {key: values[order] for key, values in found.items()}


def _number(value: Any) -> float:
    found = number(value)
    return np.nan if found is None else found


def _plain(values: NDArray[Any]) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _state(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
