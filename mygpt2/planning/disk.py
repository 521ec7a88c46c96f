"""What a run writes to disk: checkpoints as they rotate, and its logs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mygpt2.config.schema import RunConfig
from mygpt2.planning.memory import FLOAT, Shape, optimizer_bytes

METRIC_BYTES = 330  # of a step's line
TRACE_BYTES = 11  # of a row; 10.5 measured on a run of the tiny preset


@dataclass(frozen=True)
class DiskUse:
    """Bytes of one checkpoint, how many a finished run keeps and how many there are at most, and bytes of the logs."""

    checkpoint: int
    kept: int
    most: int
    logs: int

    @property
    def peak(self) -> int:
        return self.most * self.checkpoint + self.logs


def disk_use(config: RunConfig, parameters: int, shape: Shape) -> DiskUse:
    """`parameters` without padding, as weights are saved; the optimizer's state is saved with it."""
    c, steps = config.checkpoint, config.train.steps
    saves = -(-steps // c.interval)  # the last step's is always written
    best = int(c.keep_best and config.data.validation_fraction > 0)
    forever = steps // math.lcm(c.interval, c.keep_every) if c.keep_every else 0
    kept = min(saves, c.keep_last + best + forever)
    rows = steps * (config.train.batch_tokens // config.model.block_size)
    logs = steps * METRIC_BYTES + (rows * TRACE_BYTES if config.log.trace else 0)
    size = FLOAT * parameters + optimizer_bytes(config, shape)
    return DiskUse(size, kept, min(saves, kept + 1), logs)  # a new one is whole before an old one goes
