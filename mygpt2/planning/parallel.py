"""What `train.parallel` means for a run: how its ranks share the model."""

from __future__ import annotations

from typing import NamedTuple

from mygpt2.config.batch import plan_batch
from mygpt2.config.schema import RunConfig
from mygpt2.errors import UserError
from mygpt2.format import readable
from mygpt2.planning.compute import fast_micro_batch
from mygpt2.planning.memory import rank_memory
from mygpt2.planning.notices import GPU_RESERVE

SHARDED_BYTES = 4e9  # of a checkpoint that one rank still brings together: some seconds, and memory of its host
USUAL_RANKS = 8  # of a machine with GPUs, when nobody knows


class Parallel(NamedTuple):
    """`kind` is alone, ddp, fsdp2 or hsdp; `shards` ranks share one model, `nodes` times over."""

    kind: str
    shards: int
    nodes: int
    why: str


def parallel_choice(
    config: RunConfig, vocab_size: int, *, ranks: int, local_ranks: int | None, device: str, precision: str,
    gpu_bytes: int | None,
) -> Parallel:  # fmt: skip
    """How `ranks` share the model, `local_ranks` of them on each machine. UserError where they cannot as was asked."""
    asked = config.train.parallel
    if ranks == 1:
        return Parallel("alone", 1, 1, "one rank has nobody to share with")
    if asked == "hsdp":
        local = local_ranks or min(ranks, USUAL_RANKS)
        if ranks % local:
            raise UserError(
                f"train.parallel=hsdp shares a model among the ranks of each machine, and {local} ranks per machine "
                f"do not divide {ranks}; start equally many on each, or use train.parallel=fsdp2"
            )
        return Parallel("hsdp", local, ranks // local, "as asked") if local > 1 else Parallel("ddp", 1, 1, ONE_EACH)
    if asked == "fsdp2":
        return Parallel("fsdp2", ranks, 1, "as asked")
    if asked == "ddp" or device != "cuda" or gpu_bytes is None:
        return Parallel("ddp", 1, 1, "as asked" if asked == "ddp" else "the usual way on this device")
    t, limit = config.train, fast_micro_batch(config.model, gpu_bytes)
    batch = plan_batch(t.batch_tokens, config.model.block_size, t.micro_batch, ranks, config.data.lanes, limit)
    needed = GPU_RESERVE + rank_memory(
        config, vocab_size, micro_batch=batch.micro_batch, accumulation=batch.accumulation, ranks=ranks, device=device,
        precision=precision,
    ).peak  # fmt: skip
    why = f"{readable(needed, 'B')} of {readable(gpu_bytes, 'B')} on each GPU with the whole model"
    return Parallel("ddp", 1, 1, why) if needed <= gpu_bytes else Parallel("fsdp2", ranks, 1, why)


def in_parts(config: RunConfig, size: int) -> bool:
    """Whether ranks that share a model each write their part of a checkpoint of so many bytes."""
    asked = config.checkpoint.sharded
    return asked == "on" or (asked == "auto" and size > SHARDED_BYTES)


ONE_EACH = "hsdp with one rank per machine"
