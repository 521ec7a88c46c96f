"""A preview of the learning rate, from the very function that training uses."""

from __future__ import annotations

from mygpt2.config.schema import RunConfig
from mygpt2.planning.figures import Rates
from mygpt2.schedule import decay_begins, share

POINTS = 240


def preview(config: RunConfig) -> Rates:
    """At most about `POINTS` steps, evenly spread, with the corners of the schedule among them."""
    s, steps = config.schedule, config.train.steps
    stride = max(1, -(-steps // POINTS))
    decay = decay_begins(s, steps)  # where wsd and trapezoid begin to fall
    corners = {0, s.warmup_steps - 1, s.warmup_steps, decay, steps - 1}
    at = tuple(sorted({*range(0, steps, stride), *(c for c in corners if 0 <= c < steps)}))
    shares = [share(s, step, steps) for step in at]
    muon = tuple(config.optimizer.muon_lr * x for x in shares) if config.optimizer.name == "muon" else None
    basis = f"derived: schedule {s.name}"
    if s.name == "plateau":
        basis += "; it falls by what the loss does, which only the run will tell"
    return Rates(at, tuple(config.optimizer.lr * x for x in shares), muon, basis)
