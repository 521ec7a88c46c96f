"""A batch is divided exactly, or refused with the nearest that can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mygpt2.config import BatchPlan, plan_batch
from mygpt2.config.batch import divisors, legal_ranks
from mygpt2.errors import UserError


def refusal(*args: int | None) -> str:
    with pytest.raises(UserError) as caught:
        plan_batch(*args)  # type: ignore[arg-type]
    return str(caught.value)


def test_accumulation_follows_from_the_batch() -> None:
    assert plan_batch(524_288, 1024, 8, 2) == BatchPlan(sequences=512, per_rank=256, micro_batch=8, accumulation=32)
    assert plan_batch(524_288, 1024, 8, 8) == BatchPlan(sequences=512, per_rank=64, micro_batch=8, accumulation=8)


def test_a_batch_that_does_not_divide_names_the_nearest_that_do() -> None:
    assert refusal(500_000, 1024, 8, 2) == (
        "batch_tokens=500000 is not a multiple of 2 ranks x 8 x 1024 = 16384; nearest: 491520, 507904"
    )
    assert (
        refusal(8192, 256, None, 3) == "batch_tokens=8192 is not a multiple of 3 ranks x 256 = 768; nearest: 7680, 8448"
    )
    assert refusal(100, 256, None, 1) == "batch_tokens=100 is not a multiple of 1 rank x 256 = 256; nearest: 256"


def test_a_micro_batch_that_does_not_divide_names_those_that_do() -> None:
    assert refusal(8192, 256, 3, 1).endswith("nearest: 7680, 8448, or micro_batch 2, 4")


def test_lanes_are_divided_by_ranks_and_divide_the_batch() -> None:
    assert plan_batch(8192, 256, 4, 2, 16).accumulation == 4
    assert refusal(8192, 256, None, 4, 6).endswith("sequences and be a multiple or a divisor of 4 ranks; nearest: 4, 8")
    assert plan_batch(8192, 256, 2, 4, 2).accumulation == 4, "two ranks share a lane"


@given(
    block=st.integers(1, 64), sequences=st.integers(1, 4096), ranks=st.integers(1, 16),
    micro=st.one_of(st.none(), st.integers(1, 32)), limit=st.integers(1, 16),
)  # fmt: skip
def test_a_plan_covers_the_batch_exactly_and_a_refusal_names_legal_batches(
    block: int, sequences: int, ranks: int, micro: int | None, limit: int
) -> None:
    try:
        plan = plan_batch(sequences * block, block, micro, ranks, micro_batch_limit=limit)
    except UserError as error:
        nearest = str(error).split("nearest: ")[1].split(", or")[0]
        for tokens in map(int, nearest.split(", ")):
            plan_batch(tokens, block, micro, ranks)
        return
    assert plan.micro_batch * plan.accumulation * ranks == plan.sequences == sequences
    assert plan.per_rank == plan.micro_batch * plan.accumulation
    if micro is None:
        better = [d for d in divisors(plan.per_rank) if plan.micro_batch < d <= limit]
        assert plan.micro_batch <= limit and not better


def test_nonsense_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="positive"):
        plan_batch(8192, 256, None, 0)


def test_the_rank_count_chosen_for_a_machine_divides_the_batch() -> None:
    assert [legal_ranks(8192, 256, None, None, most) for most in (1, 2, 3, 6, 8, 12)] == [1, 2, 2, 4, 8, 8]
    assert legal_ranks(8192, 256, 16, None, 8) == 2
    assert legal_ranks(8192, 256, None, 4, 8) == 8, "two share a lane"
    assert legal_ranks(8192, 256, None, 4, 7) == 4
