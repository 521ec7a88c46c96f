"""Choosing a token: each setting does what its name says, at its edges too."""

from __future__ import annotations

import math

import pytest
import torch

from mygpt2.errors import UserError
from mygpt2.generate.sampling import Sampling, choose, distribution, keep_top_k, keep_top_p

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15]))


def kept(logits: torch.Tensor) -> list[int]:
    return logits.isfinite().nonzero()[:, 0].tolist()


@pytest.mark.parametrize(
    ("k", "ids"), [(0, [0, 1, 2, 3, 4]), (1, [1]), (3, [1, 3, 4]), (5, [0, 1, 2, 3, 4]), (999, [0, 1, 2, 3, 4])]
)
def test_top_k_keeps_the_k_likeliest_and_all_of_them_at_0_or_beyond_the_vocabulary(k: int, ids: list[int]) -> None:
    assert kept(keep_top_k(LOGITS, k)) == ids


def test_top_k_keeps_exactly_k_of_equal_logits() -> None:
    assert kept(keep_top_k(torch.zeros(7), 3)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("p", "ids"),
    [(1e-9, [1]), (0.39, [1]), (0.5, [1, 3]), (0.84, [1, 3, 4]), (0.97, [0, 1, 2, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, ids: list[int]) -> None:
    assert kept(keep_top_p(LOGITS, p)) == ids


def test_temperature_divides_the_logits_and_1_is_the_model_itself() -> None:
    assert torch.allclose(distribution(LOGITS, Sampling()), LOGITS.exp())
    assert torch.allclose(distribution(LOGITS, Sampling(temperature=0.5)), torch.softmax(LOGITS * 2, 0))


@pytest.mark.parametrize("temperature", [0.0, 1e-30])
def test_no_temperature_is_greedy_and_almost_none_nearly_so(temperature: float) -> None:
    settings = Sampling(temperature=temperature)
    assert distribution(LOGITS, settings).tolist() == [0, 1, 0, 0, 0]
    assert choose(LOGITS, settings, torch.Generator().manual_seed(0)) == 1


def test_draws_follow_the_distribution() -> None:
    """Chi-squared with 4 degrees of freedom: 23.5 is exceeded once in 10,000 correct samplers; the seed is fixed."""
    generator = torch.Generator().manual_seed(0)
    counts, n = torch.zeros(5), 4000
    for _ in range(n):
        counts[choose(LOGITS, Sampling(), generator)] += 1
    expected = LOGITS.exp() * n
    assert ((counts - expected) ** 2 / expected).sum() < 23.5


def test_drawing_moves_only_its_own_generator() -> None:
    before = torch.get_rng_state()
    choose(LOGITS, Sampling(), torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
    ],
)
def test_impossible_settings_say_what_is_allowed(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"{message} is not allowed; use"):
        Sampling(**settings)
