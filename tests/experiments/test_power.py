"""What is promised would decide: those who follow it find what they look for nine times in ten."""

import numpy as np
import pytest

from mygpt2.experiments.estimate import quantile
from mygpt2.experiments.power import effect_found, power_of, replicates_needed, tokens_needed


def test_the_power_of_a_known_spread_is_that_of_the_noncentral_t():
    from scipy.stats import nct, t

    bound = t.ppf(0.975, 5)
    assert power_of(0.003, 0.002, 6, 0.05) == pytest.approx(1 - nct.cdf(bound, 5, 0.003 / 0.002 * 6**0.5))
    assert power_of(0.0, 0.002, 6, 0.05) == pytest.approx(0.025)


@pytest.mark.parametrize("spread", [0.001, 0.003])
def test_a_planted_difference_is_found_nine_times_in_ten_at_the_promised_number_of_replicates(spread):
    """400 who saw three replicates, ran as many as they were told, and tested at the next level of the budget."""
    from mygpt2.experiments.paired import over_replicates
    from mygpt2.experiments.spending import level

    rng, at, found, told = np.random.default_rng(5), level([False]), 0, []
    for _ in range(400):
        first = rng.normal(-0.003, spread, 3)
        needed = replicates_needed(0.003, float(first.std(ddof=1)), 3, at)
        told.append(needed or 10_000)
        found += over_replicates([*first, *rng.normal(-0.003, spread, told[-1] - 3)]).p <= at
    assert found / 400 > 0.9 - 2 * (0.09 / 400) ** 0.5
    best = next(n for n in range(2, 999) if power_of(0.003, spread, n, at) >= 0.9)
    assert best <= np.median(told) < 6 * best  # a spread seen over three replicates is hardly known


def test_more_spread_a_smaller_effect_or_a_stricter_level_need_more():
    needed = replicates_needed(0.003, 0.002, 5, 0.02)
    assert needed < replicates_needed(0.003, 0.004, 5, 0.02)
    assert needed < replicates_needed(0.002, 0.002, 5, 0.02) and needed < replicates_needed(0.003, 0.002, 5, 0.001)
    assert replicates_needed(0.0, 0.002, 5, 0.02) is None and replicates_needed(1e-9, 0.002, 5, 0.02) is None
    assert replicates_needed(0.003, 0.0, 5, 0.02) == 5
    with pytest.raises(ValueError):
        replicates_needed(0.003, 0.002, 1, 0.02)


def test_the_size_found_now_is_the_size_that_needs_no_more():
    size = effect_found(0.002, 5, 0.02)
    assert replicates_needed(size * 1.001, 0.002, 5, 0.02) == 5 < replicates_needed(size * 0.97, 0.002, 5, 0.02)
    assert effect_found(0.002, 1, 0.02) is None and effect_found(0.0, 4, 0.02) is None


def test_four_times_the_text_halves_the_error():
    needed = tokens_needed(0.002, 0.002, 1000, float("inf"), 0.05)
    assert needed == pytest.approx(1000 * (quantile(0.975, np.inf) + quantile(0.9, np.inf)) ** 2, abs=1)
    assert tokens_needed(0.001, 0.002, 1000, np.inf, 0.05) == pytest.approx(4 * needed, abs=4)
    assert tokens_needed(0.0, 0.002, 1000, np.inf, 0.05) is None
