"""What a chart shows, as plain values: taken from a page or an address, and never trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mygpt2.run_dir.paths import NAME

MAX_RUNS = 8
UNITS = ("auto", "nats", "bits")  # of losses: auto is bits per byte where the runs have several tokenizers
LOSS = {"loss": True, "log": True}
# What a chart can show; the browser is given these tables. A panel of the column of a metric needs no more than a line.
# points: the panel whose points lie in this one too. scale: what values are multiplied by. host: of the machine
# and not of the run, see host.py; not shown where nothing is known. sources: a curve for each source of a mixture, not
# shown without one, see sources.py. more: not shown at first.
PANELS: Mapping[str, Mapping[str, Any]] = {
    "loss": {**LOSS, "title": "Loss", "column": "loss", "smooth": True, "marks": True, "points": "validation",
             "height": 340},
    "sources": {**LOSS, "title": "Loss by source", "sources": True, "smooth": True, "height": 300},
    "validation": {**LOSS, "title": "Validation loss", "more": True},
    "lr": {"title": "Learning rate", "column": "lr", "exponent": "e"},
    "grad_norm": {"title": "Gradient norm", "column": "grad_norm", "smooth": True, "log": True},
    "throughput": {"title": "Throughput", "unit": "tokens per second", "column": "tokens_per_second", "smooth": True},
    "data_wait": {"title": "Data wait", "unit": "ms per step", "column": "data_wait_ms", "smooth": True},
    "memory": {"title": "Memory", "unit": "GB", "column": "memory_bytes", "scale": 1e-9},
    "cpu": {"title": "CPU of the machine", "unit": "%", "host": "cpu", "scale": 100},
    "gpu": {"title": "GPUs of the machine", "unit": "%", "host": "gpu", "scale": 100},
    "host_memory": {"title": "Memory of the machine", "unit": "%", "host": "memory", "scale": 100, "more": True},
    "mfu": {"title": "Share of the peak", "unit": "%", "column": "mfu", "scale": 100, "smooth": True, "more": True},
}  # fmt: skip
SHOWN = tuple(name for name, panel in PANELS.items() if not panel.get("more"))
X_AXES: Mapping[str, Mapping[str, Any]] = {
    "step": {"title": "step", "name": "Steps"},
    "tokens": {"title": "tokens", "name": "Tokens"},
    "time": {"title": "training time", "name": "Training time", "columns": ["step_ms", "data_wait_ms"]},
    "flops": {"title": "training FLOPs", "name": "FLOPs"},
}
COLUMNS = tuple(dict.fromkeys(
    column
    for one in (*PANELS.values(), *X_AXES.values())
    for column in ([one["column"]] if "column" in one else one.get("columns", []))
))  # fmt: skip
SHADE_UNITS = ("step", "tokens")
MAX_SHADES = 500
MAX_SMOOTH = 100_000.0  # steps


def read_view(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The keys of a view that were given, each as the chart takes it; what cannot be read is left out.

    runs: up to eight names, as a list or "a,b". x: one of X_AXES. logx, logy, follow, band: flags. smooth: 0, "auto",
    a number of steps, or below 1 the weight of an exponential mean that is as wide. unit: one of UNITS. minus: a run
    whose curve is taken from all others; "" for none. panels: some of PANELS. range: [x0, x1], "x0..x1", or None for
    everything. shade: intervals [[a, b], ...] in steps, or {"period", "phase", "share", "unit"}; None for none. A key
    that is absent leaves the chart as it is.
    """
    found: dict[str, Any] = {}
    for key, read in _READERS.items():
        if given is not None and key in given:
            try:
                found[key] = read(given[key])
            except (TypeError, ValueError, OverflowError, KeyError):
                continue
    return found


def _words(value: Any) -> list[str]:
    parts: Iterable[Any] = value.split(",") if isinstance(value, str) else value or []
    return list(dict.fromkeys(str(part).strip() for part in parts))


def _runs(value: Any) -> list[str]:
    return [name for name in _words(value) if NAME.fullmatch(name)][:MAX_RUNS]


def _run(value: Any) -> str:
    name = str(value or "").strip()
    return name if NAME.fullmatch(name) else ""


def _one_of(allowed: Collection[str]) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return read


def _panels(value: Any) -> list[str]:
    words = _words(value)
    return [panel for panel in PANELS if panel in words] or list(SHOWN)


def _flag(value: Any) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on") if isinstance(value, str) else bool(value)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _smooth(value: Any) -> float | str:
    return "auto" if value == "auto" else min(max(_number(value), 0.0), MAX_SMOOTH)


def _pair(value: Any) -> list[float]:
    first, last = (_number(part) for part in (value.split("..") if isinstance(value, str) else value))
    if not first < last:
        raise ValueError
    return [first, last]


def _range(value: Any) -> list[float] | None:
    return None if value in (None, "", [], ()) else _pair(value)


def _shade(value: Any) -> Any:
    if not value:
        return None
    if isinstance(value, Mapping):
        period = _number(value["period"])
        if period <= 0:
            raise ValueError
        unit = _one_of(SHADE_UNITS)(value.get("unit", "step"))
        share = min(max(_number(value.get("share", 0.5)), 0.01), 0.99)
        return {"period": period, "phase": _number(value.get("phase", 0.0)), "share": share, "unit": unit}
    return [_pair(pair) for pair in list(value)[:MAX_SHADES]]


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "runs": _runs,
    "x": _one_of(X_AXES),
    "logx": _flag,
    "logy": _flag,
    "smooth": _smooth,
    "unit": _one_of(UNITS),
    "minus": _run,
    "panels": _panels,
    "range": _range,
    "follow": _flag,
    "band": _flag,
    "shade": _shade,
}
