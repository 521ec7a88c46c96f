"""One error budget, however often and in whatever order a baseline is asked."""

import numpy as np
import pytest

from mygpt2.experiments.spending import holm, holm_adjusted, level, planned, weight


def test_the_shares_of_all_tests_add_up_to_the_budget_and_the_first_has_the_most():
    shares = [weight(n) for n in range(1, 200_001)]
    assert 0.999 < sum(shares) < 1 and shares == sorted(shares, reverse=True)
    assert [round(level([False] * n), 6) for n in (0, 1, 39)] == [0.021875, 0.007216, 0.00006]


def test_a_test_that_decides_hands_its_level_on_to_the_next_and_to_no_other():
    first = level([])
    assert level([True]) == pytest.approx(0.05 * weight(2) + first)
    assert level([True, False]) == pytest.approx(0.05 * weight(3))
    assert level([True, True]) == pytest.approx(0.05 * weight(3) + 0.05 * weight(2) + first)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_any_false_verdict_among_forty_is_within_the_budget_however_the_tests_depend(correlation):
    """4,000 rows of forty tests of nothing, which share a part, as challengers of one baseline share its runs."""
    from scipy.special import ndtr

    rng = np.random.default_rng(1)
    z = np.sqrt(correlation) * rng.normal(size=(4000, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(4000, 40))
    p = 2 * ndtr(-np.abs(z))
    levels = np.array([level([False] * n) for n in range(40)])
    rate = (p <= levels).any(axis=1).mean()
    assert rate < 0.05 + 3 * (0.05 * 0.95 / 4000) ** 0.5
    assert rate > 0.02  # and spends it: a level of nothing would pass the line above
    assert (p <= 0.05).any(axis=1).mean() > 0.1  # without a budget


def test_planned_looks_spend_the_whole_budget_and_no_more():
    for looks in (1, 2, 3, 10):
        shares = planned(0.05, looks)
        assert len(shares) == looks and sum(shares) == pytest.approx(0.05) and shares == sorted(shares, reverse=True)
    with pytest.raises(ValueError):
        planned(0.05, 0)


def test_holm_is_as_published_and_more_than_bonferroni():
    p = [0.011, 0.04, 0.001, 0.02, 0.3]  # bounds 0.05 / 5, / 4, / 3, / 2, / 1 in the order of p
    assert holm(p, 0.05) == [True, False, True, False, False]
    assert holm_adjusted(p) == pytest.approx([0.044, 0.08, 0.005, 0.06, 0.3])
    assert holm([0.02, 0.04], 0.05) == [True, True] and holm([], 0.05) == []
