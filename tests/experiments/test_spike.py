"""Which steps stand out: none in calm runs, whatever their noise, kinks and stairs; each planted one, where it is."""

from __future__ import annotations

import numpy as np
import pytest

from mygpt2.experiments.spike import NEAR, judge, spikes
from tests.experiments.planted import descent


def found(loss, warmup=10):
    return spikes(judge(np.arange(1, len(loss) + 1), np.asarray(loss), warmup))


@pytest.mark.parametrize(("steps", "sigma"), [(140, 0.08), (140, 0.002), (2000, 0.05)])
def test_calm_runs_have_no_spike(steps, sigma):
    """Of normal noise no step of 200,000 is called a spike; at this rate one in a million would be too many."""
    dice = np.random.default_rng(1)
    runs = 60_000 // steps
    false = sum(len(found(descent(steps) + dice.normal(0, sigma, steps))) for _ in range(runs))
    assert false == 0, f"{false} false spikes in {runs} runs of {steps} steps"


def test_slow_noise_makes_no_spike():
    dice = np.random.default_rng(2)
    for _ in range(20):
        noise = dice.normal(0, 0.03, 1000)
        for at in range(1, 1000):
            noise[at] += 0.8 * noise[at - 1]
        assert found(descent(1000) + noise) == []


def test_a_rate_that_falls_in_stairs_makes_no_spike_of_the_steps_before():
    dice = np.random.default_rng(3)
    for _ in range(30):
        loss = descent(1000) + dice.normal(0, 0.03, 1000)
        loss[500:] -= 0.5
        loss[750:] -= 0.4
        assert found(loss) == []


def test_the_warm_up_and_the_first_steps_are_not_judged():
    loss = descent(200) + np.random.default_rng(4).normal(0, 0.02, 200)
    loss[5] += 9
    assert found(loss) == []
    loss[59] += 9
    assert [spike.step for spike in found(loss)] == [60]
    assert found(loss, warmup=80) == []
    judged = judge(np.arange(1, 201), loss, 10)
    assert judged.step[0] == NEAR + 1 and judged.at(5) is None and judged.at(200) is not None


def test_a_step_of_seven_deviations_is_found_with_its_height():
    dice, times = np.random.default_rng(5), 0
    for _ in range(50):
        loss = descent(300) + dice.normal(0, 0.05, 300)
        loss[200] = descent(300)[200] + 10 * 0.05
        spike = found(loss)
        times += [one.step for one in spike] == [201]
        if spike:
            assert abs(spike[0].loss - spike[0].expected - 0.5) < 0.08
    assert times >= 48


def test_steps_that_stay_up_are_one_episode_with_its_worst_step():
    loss = descent(400) + np.random.default_rng(6).normal(0, 0.02, 400)
    loss[300:304] += [1.0, 2.0, 1.5, 0.8]
    (spike,) = found(loss)
    assert (spike.first, spike.last, spike.step) == (301, 304, 302)


def test_a_loss_that_rises_and_stays_up_is_found_where_it_rises():
    loss = descent(400) + np.random.default_rng(7).normal(0, 0.02, 400)
    loss[300:] += 1.0
    (spike,) = found(loss)
    assert spike.first == 301 and spike.last <= 301 + NEAR


def test_a_loss_that_is_no_number_stands_out_and_shifts_nothing():
    loss = descent(200) + np.random.default_rng(8).normal(0, 0.02, 200)
    loss[[99, 150]] = [np.nan, np.inf]
    assert [spike.step for spike in found(loss)] == [100, 151]


@pytest.mark.parametrize("loss", [[], [4.0], [4.0] * 200, [np.nan] * 50])
def test_nothing_is_made_of_nothing(loss):
    assert [spike for spike in found(np.array(loss)) if np.isfinite(spike.loss)] == []
