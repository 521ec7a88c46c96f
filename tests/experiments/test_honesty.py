"""What a skeptic asks first: how often is something found where nothing is, and is what is promised kept?

On logged noise; a short form of `benchmarks/judging.py simulate`.
"""

import numpy as np
import pytest

from tests.experiments import simulated
from tests.experiments.simulated import Noise, found_as_promised, loop

TIMES = 200
LEAST, MOST = 0.02, 0.08  # of false keeps and drops: 5 +- 3 %


@pytest.fixture(scope="module")
def noise():
    return Noise.logged()


def rate(ask, noise, seed):
    rng = np.random.default_rng(seed)
    return sum(ask(noise, rng) for _ in range(TIMES)) / TIMES


@pytest.mark.parametrize("ask", ["false_on_text", "false_once", "false_in_looks"])
def test_two_hundred_pairs_that_do_not_differ_are_told_apart_one_time_in_twenty(noise, ask):
    """Two models by their documents, a recipe over three replicates, and ten looks, a replicate more each time."""
    assert LEAST <= rate(getattr(simulated, ask), noise, 1) <= MOST


def test_late_training_losses_that_do_not_differ_are_told_apart_about_one_time_in_twenty(noise):
    assert (
        rate(simulated.false_in_training, noise, 2) <= 0.1
    )  # of 32 steps, and beside the verdict, which rests on the text


def test_forty_challenges_of_one_baseline_bring_a_false_verdict_to_one_loop_in_twenty(noise):
    rng = np.random.default_rng(3)
    false = [any(told != "undecided" for told in loop(noise, rng, np.zeros(40))) for _ in range(TIMES)]
    assert LEAST <= np.mean(false) <= MOST


def test_a_loop_of_forty_random_changes_half_of_them_none_keeps_at_most_two_that_are_nothing(noise):
    """In each of 100 loops; and what is really better by much is kept in most."""
    rng, good = np.random.default_rng(4), 0
    for _ in range(100):
        effects = rng.permutation(np.concatenate([np.zeros(20), rng.normal(0, 30 * noise.spread, 20)]))
        told = loop(noise, rng, effects, replicates=4)
        assert sum(word == "keep" for word, effect in zip(told, effects, strict=True) if effect == 0) <= 2
        good += sum(word == "keep" for word, effect in zip(told, effects, strict=True) if effect < 0)
    assert good > 500  # of about 1,000


def test_a_planted_difference_of_three_millinats_is_found_at_the_promised_cost(noise):
    rng = np.random.default_rng(5)
    found = [found_as_promised(noise, rng, -0.003, 0.002)[0] for _ in range(TIMES)]
    assert np.mean(found) >= 0.9 - 2 * (0.09 / TIMES) ** 0.5
