"""What a run takes of the host: memory of a process beside the tensors on its device, and disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mygpt2.config.schema import RunConfig
from mygpt2.planning.data import bytes_per_token
from mygpt2.planning.figures import Figure
from mygpt2.planning.memory import FLOAT, Part, Shape, optimizer_bytes
from mygpt2.planning.parallel import in_parts
from mygpt2.planning.trial import Measured

PROGRAM = 650_000_000  # resident beside tensors, measured on runs of tiny and gpt2 (PyTorch 2.13 for CPUs, Linux)
HEAP_SLACK = 0.05  # of the tensors' peak: what the allocator keeps between them, measured on the same
BLOCKS_AT_ONCE = 128  # lanes x window, as in data.shape
BLOCK_TOKENS = 1_030_000  # of a row group of FineWeb-Edu; other sources have blocks of at most about that
DOCUMENT_TOKENS = 1_030
EACH = "of each rank its part"
READY_BYTES = 16_000_000  # rows that lie ready, as in data.loader


def host_parts(
    config: RunConfig, parameters: int, vocab_size: int, world_size: int, source_tokens: float | None, shards: int = 1
) -> list[Part]:
    """Copies for background saving, the loader's buffers, and the program itself, for the first rank. `shards` ranks
    share a model."""
    parts = []
    if config.checkpoint.background and config.train.steps > config.checkpoint.interval:
        size = FLOAT * parameters + optimizer_bytes(config, Shape.of(config.model, vocab_size))
        whose = "on the first rank"
        if shards > 1 and in_parts(config, size):
            size, whose = size // shards, EACH
        parts.append(Part("snapshot", "Copies for saving", size, f"derived: weights and optimizer state, {whose}"))
    parts.append(_loader(config, vocab_size, world_size, source_tokens))
    parts.append(Part("program", "The program", PROGRAM, "measured: a process on a CPU beside its tensors"))
    return parts


def rank_total(device: str, peak: int, host: list[Part], measured: Measured | None) -> Figure:
    """Resident memory of the first rank's process on the host: with the tensors where the device is the CPU."""
    if measured is not None and measured.host_bytes is not None:
        snapshot = sum(part.size for part in host if part.key == "snapshot")  # nothing is saved while measuring
        basis = measured.basis + (", and the copies for saving" if snapshot else "")
        return Figure("memory.process", "Memory of a process", measured.host_bytes + snapshot, "B", basis)
    tensors = 0 if device == "cuda" else round((1 + HEAP_SLACK) * peak)
    size = tensors + sum(part.size for part in host)
    basis = f"derived: {', '.join(part.label.lower() for part in host)}"
    if tensors:
        basis += f", and the tensors with {HEAP_SLACK:.0%} between them"
    return Figure("memory.process", "Memory of a process", size, "B", basis)


def all_ranks(one: Figure, host: list[Part], ranks: int) -> Figure:
    """Resident memory of all processes of this machine, given the first rank's, which alone makes copies for saving
    unless each saves its part."""
    snapshot = sum(part.size for part in host if part.key == "snapshot" and EACH not in part.how)
    size = (one.value or 0) + (ranks - 1) * ((one.value or 0) - snapshot)
    basis = f"derived: {ranks} process{'es' if ranks > 1 else ''}"
    basis += ", of which only the first makes copies for saving" if snapshot and ranks > 1 else ""
    return Figure("memory.processes", "Memory of all processes", size, "B", basis)


def _loader(config: RunConfig, vocab_size: int, world_size: int, source_tokens: float | None) -> Part:
    """Token blocks of the current and the next window of this rank's lanes, text being tokenized, rows ready."""
    d, width = config.data, 2 if vocab_size <= 1 << 16 else 4
    if d.order == "buffer":
        window = d.buffer_documents * DOCUMENT_TOKENS
    else:
        blocks = d.lanes * d.window if d.lanes and d.window else BLOCKS_AT_ONCE
        window = blocks * BLOCK_TOKENS
    if source_tokens:
        window = min(window, int(source_tokens))
    window *= max(1, len(d.mix))  # each source of a mixture has its own
    threads = d.threads or 2
    text = int(3 * threads * min(BLOCK_TOKENS, window / 64) * bytes_per_token(vocab_size))
    batches = d.prefetch_steps * config.train.batch_tokens * width // world_size
    size = 2 * window * width // world_size + text + min(READY_BYTES, batches) + batches
    how = f"derived: two windows of {window:,} tokens over {world_size} rank{'s' if world_size > 1 else ''}, at most"
    return Part("loader", "Buffers of the data loader", size, how)


METRIC_BYTES = 330  # of a step's line
TRACE_BYTES = 11  # of a row; 10.5 measured on a run of the tiny preset


@dataclass(frozen=True)
class DiskUse:
    """Bytes of one checkpoint, how many a finished run keeps and how many there are at most, and bytes of the logs;
    `alone`: bytes of the weights that are kept without the optimizer's state."""

    checkpoint: int
    kept: int
    most: int
    logs: int
    alone: int = 0

    @property
    def peak(self) -> int:
        return self.most * self.checkpoint + self.alone + self.logs


def disk_use(config: RunConfig, parameters: int, shape: Shape) -> DiskUse:
    """`parameters` without padding, as weights are saved; the optimizer's state is saved with it."""
    c, steps = config.checkpoint, config.train.steps
    saves = -(-steps // c.interval)  # the last step's is always written
    best = int(c.keep_best and config.data.validation_fraction > 0)
    forever = steps // math.lcm(c.interval, c.keep_every) if c.keep_every else 0
    kept = min(saves, c.keep_last + best + forever)
    rows = steps * (config.train.batch_tokens // config.model.block_size)
    # Of the log grid 1, 2, 4 ... and every N-th; the newest are whole all the same.
    grid = min(c.keep_log - 1, steps).bit_length() + steps // c.keep_log if c.keep_log else 0
    alone = max(0, grid - c.keep_last)
    logs = steps * METRIC_BYTES + (rows * TRACE_BYTES if config.log.trace else 0)
    size = FLOAT * parameters + optimizer_bytes(config, shape)
    most = min(saves, kept + 1)  # a new one is whole before an old one goes
    return DiskUse(size, kept, most, logs, alone * FLOAT * parameters)
