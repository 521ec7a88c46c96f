"""The learning rate: first, peak, last, and a plateau that survives a restart."""

import itertools
import math

import pytest

from mygpt2.config.schema import ScheduleConfig
from mygpt2.schedule import Schedule, lr_scale

DECAYING = ["cosine", "linear", "wsd", "trapezoid"]


def config(**fields):
    return ScheduleConfig(**{"warmup_steps": 10, "min_lr_ratio": 0.1, "decay_share": 0.25, **fields})


@pytest.mark.parametrize("name", [*DECAYING, "constant", "plateau"])
def test_first_step_learns_and_warmup_ends_at_the_peak(name):
    c = config(name=name)
    assert lr_scale(c, 0, 100) == pytest.approx(0.1)
    assert lr_scale(c, 9, 100) == 1.0
    assert [lr_scale(c, s, 100) for s in range(10)] == sorted(lr_scale(c, s, 100) for s in range(10))


@pytest.mark.parametrize("name", DECAYING)
@pytest.mark.parametrize("shape", ["linear", "cosine", "sqrt"])
def test_last_step_is_exactly_at_the_end_of_the_schedule(name, shape):
    assert lr_scale(config(name=name, decay_shape=shape), 99, 100) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["wsd", "trapezoid"])
@pytest.mark.parametrize("steps", [2, 3, 10, 49])
def test_a_decay_shorter_than_a_step_still_ends_at_the_end_of_the_schedule(name, steps):
    c = config(name=name, decay_share=0.01, warmup_steps=1)
    assert lr_scale(c, steps - 1, steps) == pytest.approx(0.1)
    assert lr_scale(c, steps - 2, steps) == 1.0


@pytest.mark.parametrize("name", DECAYING)
def test_rate_never_rises_after_the_warmup(name):
    rates = [lr_scale(config(name=name), s, 400) for s in range(9, 400)]
    assert all(a >= b for a, b in itertools.pairwise(rates))


def test_wsd_stays_at_the_peak_until_its_last_share():
    c = config(name="wsd")
    assert lr_scale(c, 74, 100) == 1.0
    assert lr_scale(c, 75, 100) < 1.0


def test_cosine_is_halfway_in_the_middle():
    c = config(name="cosine", min_lr_ratio=0.0, warmup_steps=0)
    assert lr_scale(c, 50, 101) == pytest.approx(0.5)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", DECAYING)
def test_shortest_runs_have_a_positive_finite_rate(name, steps):
    c = config(name=name, warmup_steps=0, min_lr_ratio=0.1)
    assert all(0 < lr_scale(c, s, steps) <= 1 for s in range(steps))


def test_plateau_lowers_the_rate_when_the_window_has_no_new_minimum_and_not_before():
    c = config(name="plateau", plateau_window=4, plateau_patience=5, plateau_factor=0.5, warmup_steps=0)
    schedule = Schedule(c, 1000)
    for step in range(50):
        schedule.observe(5.0 - 0.01 * step)
    assert schedule.lr_scale(50) == 1.0
    for _ in range(7):
        schedule.observe(4.6)
    assert schedule.lr_scale(57) == 0.5
    for _ in range(500):
        schedule.observe(4.6)
    assert schedule.lr_scale(600) == c.min_lr_ratio


def test_plateau_continues_exactly_from_its_saved_state():
    c = config(name="plateau", plateau_window=5, plateau_patience=3, plateau_factor=0.7, warmup_steps=0)
    losses = [4 + math.sin(i * 1.7) for i in range(80)]
    whole, first, second = Schedule(c, 99), Schedule(c, 99), Schedule(c, 99)
    for loss in losses:
        whole.observe(loss)
    for loss in losses[:33]:
        first.observe(loss)
    second.load_state_dict(first.state_dict())
    for loss in losses[33:]:
        second.observe(loss)
    assert second.state_dict() == whole.state_dict()
    assert whole.lr_scale(80) < 1.0
