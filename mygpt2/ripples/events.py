"""TensorBoard event files, where the `tensorboard` package is installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mygpt2.errors import UserError


def read_events_file(path: Path) -> dict[str, np.ndarray]:
    """Every scalar of an event file as columns on one step axis, at full resolution. UserError without the package."""
    try:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    except ImportError:
        raise UserError(
            f"{path.name} is an event file, which needs the tensorboard package; install it (pip install "
            "'mygpt2[trackers]'), or give the CSV or JSON that TensorBoard exports"
        ) from None
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    series = {}
    for tag in events.Tags()["scalars"]:
        points = events.Scalars(tag)
        series[tag] = dict(zip((p.step for p in points), (p.value for p in points), strict=True))
    for tag in events.Tags()["tensors"]:  # newer writers store a scalar as a tensor
        points = events.Tensors(tag)
        if all(len(p.tensor_proto.float_val) == 1 for p in points):
            series[tag] = {p.step: p.tensor_proto.float_val[0] for p in points}
    steps = sorted({step for values in series.values() for step in values})
    columns = {tag: np.array([values.get(step, np.nan) for step in steps]) for tag, values in series.items()}
    return {"step": np.array(steps, np.float64), **columns}
