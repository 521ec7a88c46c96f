"""Choosing a token: each setting does what its name says, at its edges too, and luck has no neighbours."""

from __future__ import annotations

import math
import os

import pytest
import torch
from scipy.stats import chi2

from mygpt2.errors import UserError
from mygpt2.generate.sampling import Sampling, candidates, choose, distribution, gumbel, largest, penalised

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
LOGITS = PROBABILITIES.log()[None]
FALSE_ALARM = 1e-4  # how often a chi-squared test here would fail a correct sampler, were its seeds not fixed


def kept(logits: torch.Tensor, **settings: float) -> list[int]:
    return distribution(logits, Sampling(**settings))[0].nonzero()[:, 0].tolist()


def draw(logits: torch.Tensor, sampling: Sampling, draws: int, seed: int = 0) -> torch.Tensor:
    """Ids (draws,) of one row of logits (1, V): the tokens of one sample, if its logits never changed."""
    return choose(logits.expand(draws, -1), sampling, torch.full((draws,), seed), torch.arange(draws))


def chi_squared_fits(drawn: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether counts of ids agree with probabilities (V,) and nothing impossible was drawn."""
    counts, n = torch.bincount(drawn, minlength=len(expected)).double(), len(drawn)
    possible = expected > 0
    if counts[~possible].any():
        return False
    statistic = ((counts - expected * n) ** 2 / (expected * n))[possible].sum()
    return bool(statistic < chi2.isf(FALSE_ALARM, int(possible.sum()) - 1))


@pytest.mark.parametrize(
    ("k", "ids"), [(0, [0, 1, 2, 3, 4]), (1, [1]), (3, [1, 3, 4]), (5, [0, 1, 2, 3, 4]), (999, [0, 1, 2, 3, 4])]
)
def test_top_k_keeps_the_k_likeliest_and_all_of_them_at_0_or_beyond_the_vocabulary(k: int, ids: list[int]) -> None:
    assert kept(LOGITS, top_k=k) == ids


def test_of_equal_logits_the_lower_ids_are_kept_whatever_the_row_is_beside() -> None:
    assert kept(torch.zeros(1, 7), top_k=3) == [0, 1, 2]
    edge = torch.tensor([[1.0, 0.0, 2.0, 0.0, 0.0], [5.0, 4.0, 3.0, 2.0, 1.0]])
    values, ids = largest(edge, 3)
    assert ids.tolist() == [[2, 0, 1], [0, 1, 2]] and values.tolist() == [[2, 1, 0], [5, 4, 3]]


@pytest.mark.parametrize(
    ("p", "ids"),
    [(1e-9, [1]), (0.39, [1]), (0.5, [1, 3]), (0.84, [1, 3, 4]), (0.97, [0, 1, 2, 3, 4]), (1.0, [0, 1, 2, 3, 4])],
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float, ids: list[int]) -> None:
    assert kept(LOGITS, top_p=p) == ids


def test_top_p_looks_at_as_much_of_a_large_vocabulary_as_it_needs() -> None:
    generator = torch.Generator().manual_seed(0)
    for spread in (0.0, 0.1, 1.0, 4.0):
        logits = torch.randn(2, 5000, generator=generator) * spread
        chosen = distribution(logits, Sampling(top_p=0.90013)) > 0
        for row in range(2):
            order = logits[row].sort(descending=True, stable=True).indices
            before = logits[row].double().softmax(0)[order].cumsum(0) - logits[row].double().softmax(0)[order]
            assert chosen[row].nonzero()[:, 0].tolist() == sorted(order[before < 0.90013].tolist())


@pytest.mark.parametrize(
    ("p", "ids"), [(0, [0, 1, 2, 3, 4]), (0.2, [0, 1, 3, 4]), (0.3, [1, 3, 4]), (0.9, [1]), (1, [1])]
)
def test_min_p_keeps_what_is_that_share_as_likely_as_the_likeliest(p: float, ids: list[int]) -> None:
    assert kept(LOGITS, min_p=p) == ids


def test_limits_apply_together_to_the_warmed_distribution() -> None:
    sampling = Sampling(temperature=0.5, top_k=4, top_p=0.9, min_p=0.1)
    warmed = PROBABILITIES.double() ** 2
    warmed[2] = 0  # the fifth likeliest; top-p 0.9 of the rest then keeps 1 and 3 (0.55 + 0.31 < 0.9) and 4
    warmed[0] = 0
    assert torch.allclose(distribution(LOGITS, sampling)[0], warmed / warmed.sum(), atol=1e-6)


def test_temperature_divides_the_logits_and_1_is_the_model_itself() -> None:
    assert torch.allclose(distribution(LOGITS, Sampling())[0], PROBABILITIES.double(), atol=1e-7)
    warmed = torch.softmax(LOGITS.double() * 2, 1)
    assert torch.allclose(distribution(LOGITS, Sampling(temperature=0.5)), warmed)


@pytest.mark.parametrize("temperature", [0.0, 1e-30, 5e-324])
def test_no_temperature_is_greedy_and_almost_none_nearly_so(temperature: float) -> None:
    settings = Sampling(temperature=temperature)
    assert distribution(LOGITS, settings).tolist() == [[0, 1, 0, 0, 0]]
    assert draw(LOGITS, settings, 20).tolist() == [1] * 20


def test_the_repetition_penalty_lowers_what_was_there_on_either_side_of_zero() -> None:
    logits, seen = torch.tensor([[2.0, -2.0, 1.0, -1.0]]), torch.tensor([[True, True, False, False]])
    assert penalised(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0, -1.0]]
    assert torch.equal(penalised(logits, seen, 1.0), logits.double())


@pytest.mark.parametrize(
    "settings",
    [{}, {"top_k": 8}, {"top_p": 0.8}, {"min_p": 0.2}, {"temperature": 0.7, "top_k": 12, "top_p": 0.9}],
    ids=str,
)
def test_draws_follow_the_distribution(settings: dict) -> None:
    """Chi-squared at a false alarm rate of one in 10,000 for each setting, within one sample and over seeds."""
    logits = torch.randn(1, 24, generator=torch.Generator().manual_seed(5)) * 1.5
    sampling, n = Sampling(**settings), 20_000
    expected = distribution(logits, sampling)[0]
    assert chi_squared_fits(draw(logits, sampling, n, seed=7), expected)
    over_seeds = choose(logits.expand(n, -1), sampling, torch.arange(n), torch.zeros(n, dtype=torch.int64))
    assert chi_squared_fits(over_seeds, expected)
    assert not chi_squared_fits(draw(logits, Sampling(temperature=0.9), n), expected)  # the test can tell


def test_draws_of_one_sample_are_independent_of_each_other_and_of_the_next_seed() -> None:
    """Pairs of draws (of neighbouring places, of neighbouring seeds) follow the product: chi-squared as above."""
    logits, n = LOGITS, 20_000
    a, b = draw(logits, Sampling(), n, seed=3), draw(logits, Sampling(), n, seed=4)
    product = (PROBABILITIES.double()[:, None] * PROBABILITIES.double()).flatten()
    assert chi_squared_fits(a[::2] * 5 + a[1::2], product)
    assert chi_squared_fits(a * 5 + b, product)


def test_noise_is_a_function_of_seed_place_and_id_alone() -> None:
    before = torch.get_rng_state()
    whole = gumbel(torch.tensor([[1], [2**62]]), torch.tensor([[0], [9]]), torch.arange(50).expand(2, 50))
    part = gumbel(torch.tensor([[2**62]]), torch.tensor([[9]]), torch.tensor([[31, 4]]))
    assert part.tolist() == [[whole[1, 31].item(), whole[1, 4].item()]] and len(set(whole.flatten().tolist())) == 100
    assert torch.equal(before, torch.get_rng_state())


def test_a_row_is_drawn_as_it_would_be_alone() -> None:
    logits = torch.randn(6, 3000, generator=torch.Generator().manual_seed(1))
    seeds, places = torch.arange(6), torch.arange(6) * 3
    for settings in ({}, {"top_k": 40}, {"top_p": 0.3}, {"top_p": 0.95, "min_p": 0.01}):
        together = choose(logits, Sampling(**settings), seeds, places)
        alone = [choose(logits[i : i + 1], Sampling(**settings), seeds[i : i + 1], places[i : i + 1]) for i in range(6)]
        assert torch.equal(together, torch.cat(alone))


def test_no_settings_crash_or_draw_what_is_not_there() -> None:
    """Random settings and logits, extremes among them; 10,000 of them with MYGPT2_FULL=1."""
    generator = torch.Generator().manual_seed(0)

    def uniform() -> float:
        return torch.rand((), generator=generator).item()

    for number in range(10_000 if os.environ.get("MYGPT2_FULL") else 2_000):
        size = 50_257 if number % 50 == 0 else 1 + int(uniform() * 300)
        sampling = Sampling(
            temperature=[0.0, 1e-300, 1e30, uniform(), uniform() * 3][int(uniform() * 5)],
            top_k=[0, 1, size, 10**9, int(uniform() * size)][int(uniform() * 5)],
            top_p=[1.0, 1e-300, max(uniform(), 1e-9)][int(uniform() * 3)],
            min_p=[0.0, 1.0, uniform()][int(uniform() * 3)],
            repetition_penalty=[1.0, 1e-9, 100.0, 0.5 + uniform()][int(uniform() * 4)],
        )
        logits = torch.randn(2, size, generator=generator) * 10 ** (uniform() * 40 - 5)
        logits = [logits, logits.round(), torch.zeros(2, size)][int(uniform() * 3)].clamp(-3e38, 3e38)
        seen = torch.rand(2, size, generator=generator) < 0.5
        wanted = penalised(logits, seen, sampling.repetition_penalty)
        seeds = torch.tensor([0, 2**63 - 1])
        drawn = choose(wanted, sampling, seeds, torch.tensor([number, 0]))
        assert ((drawn >= 0) & (drawn < size)).all(), sampling
        scores, ids = candidates(wanted, sampling)
        assert torch.equal(scores.amax(1), torch.zeros(2).double()), sampling
        assert (scores[ids == drawn[:, None]] > float("-inf")).all(), sampling
        if sampling.temperature == 0:
            assert torch.equal(drawn, wanted.argmax(1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": math.inf}, "temperature=inf"),
        ({"top_k": -1}, "top_k=-1"),
        ({"top_k": 1.5}, "top_k=1.5"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.1}, "top_p=1.1"),
        ({"top_p": math.nan}, "top_p=nan"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"repetition_penalty": math.inf}, "repetition_penalty=inf"),
    ],
)
def test_impossible_settings_say_what_is_allowed(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=f"{message} is not allowed; use") as caught:
        Sampling(**settings)
    assert "\n" not in str(caught.value)
