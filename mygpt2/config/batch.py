"""Batch arithmetic: from a global batch in tokens to what each rank does. Pure functions of integers.

One step trains on G = batch_tokens / block_size sequences. Each of R ranks takes G / R of them, in
A = G / (R x micro_batch) forward passes. R and micro_batch change the work's division, never the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from mygpt2.errors import UserError


@dataclass(frozen=True)
class BatchPlan:
    """How one step's sequences are divided: sequences = ranks x accumulation x micro_batch."""

    sequences: int
    per_rank: int
    micro_batch: int
    accumulation: int


def plan_batch(
    batch_tokens: int,
    block_size: int,
    micro_batch: int | None,
    ranks: int,
    lanes: int | None = None,
    micro_batch_limit: int = 8,
) -> BatchPlan:
    """Divide a global batch among ranks and forward passes.

    With `micro_batch` unset it becomes the largest divisor of a rank's share that is at most `micro_batch_limit`.
    Raises UserError, with the nearest legal values, when something does not divide.
    """
    if min(batch_tokens, block_size, ranks, micro_batch or 1, lanes or 1, micro_batch_limit) < 1:
        raise ValueError("batch arithmetic needs positive numbers")
    problem = batch_problem(batch_tokens, block_size, micro_batch, ranks) or lanes_problem(
        batch_tokens // block_size, lanes, ranks
    )
    if problem:
        raise UserError(problem)
    sequences = batch_tokens // block_size
    per_rank = sequences // ranks
    micro = micro_batch or max(d for d in divisors(per_rank) if d <= micro_batch_limit)
    return BatchPlan(sequences, per_rank, micro, per_rank // micro)


def batch_problem(batch_tokens: int, block_size: int, micro_batch: int | None, ranks: int) -> str | None:
    """Why the batch cannot be divided, with the nearest batches that can; None when it can."""
    unit = ranks * (micro_batch or 1) * block_size
    if batch_tokens % unit == 0:
        return None
    factors = [f"{ranks} rank{'s' if ranks > 1 else ''}"]
    factors += [str(micro_batch)] if micro_batch else []
    product = " x ".join([*factors, str(block_size)])
    near = ", ".join(str(n) for n in nearest_multiples(batch_tokens, unit))
    problem = f"batch_tokens={batch_tokens} is not a multiple of {product} = {unit}; nearest: {near}"
    if micro_batch and batch_tokens % (ranks * block_size) == 0:
        fitting = around(divisors(batch_tokens // (ranks * block_size)), micro_batch)
        problem += f", or micro_batch {', '.join(str(n) for n in fitting)}"
    return problem


def lanes_problem(sequences: int, lanes: int | None, ranks: int) -> str | None:
    """Why the document streams do not fit the batch and the ranks; None when they do.

    A rank has whole lanes, or where there are more ranks than lanes, whole numbers of ranks share the rows of one.
    """
    if lanes is None or (sequences % lanes == 0 and divides(lanes, ranks)):
        return None
    legal = [d for d in divisors(sequences) if divides(d, ranks)]
    near = ", ".join(str(n) for n in around(legal, lanes))
    return (
        f"data.lanes={lanes} must divide the batch's {sequences} sequences and be a multiple or a divisor of "
        f"{ranks} rank{'s' if ranks > 1 else ''}; nearest: {near}"
    )


def divides(lanes: int, ranks: int) -> bool:
    """Whether lanes can be dealt to ranks: each rank has as many whole ones, or each lane as many ranks."""
    return lanes % ranks == 0 or ranks % lanes == 0


def legal_ranks(
    batch_tokens: int, block_size: int, micro_batch: int | None, lanes: int | None, most: int, step: int = 1
) -> int:
    """The largest rank count up to `most`, a multiple of `step` (the nodes), that divides the batch; else `step`."""
    return next(
        (
            ranks
            for ranks in range(most, 0, -step)
            if not batch_problem(batch_tokens, block_size, micro_batch, ranks)
            and not lanes_problem(batch_tokens // block_size, lanes, ranks)
        ),
        step,
    )


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending."""
    small = [d for d in range(1, int(n**0.5) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def nearest_multiples(value: int, unit: int) -> list[int]:
    """The positive multiples of `unit` just below and just above `value`."""
    below = value // unit * unit
    return [n for n in (below, below + unit) if n > 0]


def around(legal: list[int], value: int) -> list[int]:
    """The largest legal value below and the smallest above `value`, where they exist."""
    below = [n for n in legal if n < value]
    above = [n for n in legal if n > value]
    return [*below[-1:], *above[:1]]
