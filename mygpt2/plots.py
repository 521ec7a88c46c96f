"""Figures of a run folder, as files. Made of Figure objects: no window system, no shared state."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from mygpt2.files import replace_file
from mygpt2.format import short
from mygpt2.run_dir.metrics import Metrics, read_events, read_metrics
from mygpt2.run_dir.paths import RunDir

RAW, SMOOTH, VALIDATION, OVERWRITTEN = "#9db4d3", "#1f4e8c", "#c8501e", "#cccccc"
INCHES, DOTS_PER_INCH = (9.0, 5.2), 120
MAX_RAW_POINTS = 20_000  # far more than pixels; beyond it every n-th is drawn under the smooth line

Points = tuple[NDArray[np.float64], NDArray[np.float64]]


def draw_loss_plot(run: RunDir) -> Path | None:
    """Draws loss_plot.png anew from metrics.jsonl and events.jsonl, replacing the old picture in one step.

    None if there is no loss to draw yet, or if the disk has no room: a picture is not worth a run.
    """
    metrics = read_metrics(run)
    if not np.isfinite(metrics["loss"]).any():
        return None
    picture = io.BytesIO()
    figure = loss_figure(run.name, metrics, validation_points(read_events(run, ["eval"])))
    FigureCanvasAgg(figure).print_png(picture)
    try:
        replace_file(run.plot_file, picture.getvalue())
    except OSError:
        return None
    return run.plot_file


def loss_figure(title: str, metrics: Metrics, validation: Points) -> Figure:
    """Training loss (every step thin, smoothed on top) and validation losses over steps, with tokens above."""
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    step, loss = _finite(metrics["step"], metrics["loss"])
    stride = -(-len(step) // MAX_RAW_POINTS)
    old_step, old_loss = _finite(metrics.overwritten["step"], metrics.overwritten["loss"])
    if len(old_step):
        axes.plot(old_step, old_loss, ".", color=OVERWRITTEN, markersize=1.5, label="overwritten by a resume", zorder=1)
    axes.plot(step[::stride], loss[::stride], color=RAW, linewidth=0.6, label="training, every step", zorder=2)
    axes.plot(step, smooth(loss), color=SMOOTH, linewidth=1.6, label="training, smoothed", zorder=3)
    if len(validation[0]):
        axes.plot(*validation, "o-", color=VALIDATION, markersize=4, linewidth=1, label="validation", zorder=4)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(title, fontsize=11)
    axes.grid(True, which="both", linewidth=0.4, alpha=0.35)
    axes.legend(frameon=False, fontsize=8, loc="upper right")
    _scale(axes, step, np.concatenate([loss, validation[1]]))
    _tokens_on_top(axes, metrics)
    return figure


def _scale(axes: Axes, step: NDArray[np.float64], loss: NDArray[np.float64]) -> None:
    """Log axes with plain numbers: x where the run spans a decade, y always, for losses are positive."""
    if step[-1] >= 10 * max(step[0], 1):
        axes.set_xscale("log")
        axes.set_xlim(max(step[0], 1), step[-1] * 1.05)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if loss.min() > 0:
        axes.set_yscale("log")
        few = loss.max() < 10 * loss.min()  # within a decade a log axis would carry no labels of its own
        axes.yaxis.set_major_locator(MaxNLocator(8) if few else LogLocator(subs=(1, 2, 3, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _tokens_on_top(axes: Axes, metrics: Metrics) -> None:
    """A second x axis in tokens, where every step had the same batch, so that the two are proportional."""
    step, tokens = _finite(metrics["step"], metrics["tokens"])
    if not len(step) or step[-1] <= 0 or tokens[-1] <= 0:
        return
    per_step = tokens[-1] / step[-1]
    if np.abs(tokens - step * per_step).max() > 0.02 * tokens[-1]:
        return  # the batch was changed on the way: no one axis tells the tokens of every step
    top = axes.secondary_xaxis("top", functions=(lambda x: x * per_step, lambda x: x / per_step))
    top.set_xlabel("tokens")
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred mean over 8 % of the steps before and after, at most 1 % of all (or 10): it does not lag.

    The window grows with the step because the axis is logarithmic: the first, steep steps stay as they are.
    """
    at = np.arange(len(values))
    reach = np.minimum(at * 0.08, max(10.0, len(values) / 100)).astype(np.int64)
    low, high = at - reach, np.minimum(at + reach + 1, len(values))
    total = np.concatenate([[0.0], np.cumsum(values)])
    return (total[high] - total[low]) / (high - low)


def validation_points(evals: list[dict[str, Any]]) -> Points:
    """(steps, losses) of eval events, ascending; of one step the last event counts."""
    found = {
        event["step"]: event["loss"]
        for event in evals
        if isinstance(event.get("step"), int) and isinstance(event.get("loss"), int | float)
    }
    steps = sorted(found)
    return _finite(np.array(steps, dtype=np.float64), np.array([found[step] for step in steps], dtype=np.float64))


def _finite(x: NDArray[Any], y: NDArray[Any]) -> Points:
    keep = np.isfinite(y)
    return x[keep].astype(np.float64), y[keep].astype(np.float64)
