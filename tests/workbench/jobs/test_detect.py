"""Which steps are worth an alert: few enough that one is read when it comes."""

import numpy as np
import pytest

from workbench.jobs.detect import QUIET_STEPS, Detector, stalled


def rows(losses, gradients=None, first=1, **more):
    gradients = [1.0] * len(losses) if gradients is None else gradients
    return [
        {"step": first + n, "loss": float(loss), "grad_norm": float(gradient), "step_ms": 100.0, "data_wait_ms": 0.0,
         "time": 1000.0 + n, **more}
        for n, (loss, gradient) in enumerate(zip(losses, gradients, strict=True))
    ]  # fmt: skip


def found(table):
    detector = Detector()
    return [(finding.kind, finding.step) for row in table for finding in detector.row(row)]


def curve(steps, seed):
    """A loss curve: a fast fall, then a slow one, with the noise of small batches."""
    rng = np.random.default_rng(seed)
    x = np.arange(steps)
    return 3.2 + 7.5 * np.exp(-x / 40) + 0.8 * np.exp(-x / 2000) + rng.normal(0, 0.08, steps)


def test_twenty_ordinary_runs_of_2000_steps_raise_nothing():
    """Normal noise passes 8 robust deviations, even if they are estimated a tenth too small, less than once in 1e12."""
    rng = np.random.default_rng(0)
    for seed in range(20):
        gradients = np.exp(rng.normal(0, 0.4, 2000))
        assert found(rows(curve(2000, seed), gradients)) == []


@pytest.mark.parametrize("height", [1.0, 3.0, 20.0])
def test_a_spike_is_found_at_its_step_and_told_once(height):
    losses = curve(1000, 1)
    losses[700:720] += height
    assert found(rows(losses)) == [("spike", 701)]


def test_a_second_spike_after_an_ordinary_stretch_is_told_again():
    losses = curve(1000, 2)
    losses[500] += 4
    losses[500 + QUIET_STEPS // 2] += 4
    losses[800] += 4
    assert found(rows(losses)) == [("spike", 501), ("spike", 801)]


def test_a_loss_that_settles_at_a_higher_level_is_told_once():
    losses = curve(1000, 3)
    losses[600:] += 2
    assert found(rows(losses)) == [("spike", 601)]


def test_a_loss_without_noise_does_not_make_a_spike_of_its_last_digit():
    assert found(rows([3.0] * 200 + [3.001] * 200)) == []


def test_a_burst_of_the_gradient_is_told_and_a_doubling_is_not():
    gradients = np.ones(300)
    gradients[150], gradients[250] = 2.0, 12.0
    assert found(rows(np.full(300, 3.0), gradients)) == [("gradient", 251)]


def test_nothing_is_said_before_there_is_anything_to_compare_with():
    assert found(rows([10, 9, 30, 8, 7], [1, 1, 500, 1, 1])) == []


def test_a_value_that_is_not_finite_is_told_once_in_a_row_and_never_enters_the_median():
    table = rows(curve(200, 4))
    for n in (100, 101):
        table[n] |= {"loss": None, "nonfinite": True}
    table[150] |= {"grad_norm": None, "nonfinite": True}
    assert found(table) == [("nonfinite", 101), ("nonfinite", 151)]


def test_rows_of_another_kind_are_passed_over():
    assert found([{}, {"step": "x"}, {"step": 3}, {"step": 4, "loss": "?", "grad_norm": [1]}]) == []


def test_the_usual_step_time_includes_waiting_for_data():
    detector = Detector()
    for row in rows([3.0] * 50, data_wait_ms=0.0):
        list(detector.row(row | {"data_wait_ms": 400.0}))
    assert detector.step_seconds == pytest.approx(0.5)


def test_a_stall_is_twenty_usual_steps_and_at_least_a_minute():
    assert not stalled("training", 59, 0.1, 0)
    assert stalled("training", 61, 0.1, 0)
    assert not stalled("training", 500, 30.0, 0)
    assert stalled("training", 601, 30.0, 0)


def test_evaluating_and_saving_may_take_as_long_as_they_take():
    assert not stalled("evaluating", 800, 0.1, 0)
    assert not stalled("evaluating", 5000, 0.1, longest=2000)
    assert stalled("saving", 901, 0.1, 0)


def test_a_run_that_diverges_is_told_within_a_few_steps():
    """A rate of 10: far beyond what guessing costs, before there are values enough for a median."""
    losses = [8.3, 9.1, 12.4, 33.0, 95.0, 210.0, 480.0, 700.0, 900.0, 1186.0]
    for vocabulary in (8192, None):
        detector = Detector(vocabulary)
        told = [f for row in rows(losses, np.linspace(1, 2, 10)) for f in detector.row(row)]
        assert [f.kind for f in told] == ["divergence"] and told[0].step <= 6
        assert "this run began at 8.3" in told[0].text and ("9.01" in told[0].text) == (vocabulary is not None)


def test_a_run_that_goes_on_from_other_weights_is_held_against_its_own_start():
    detector = Detector(50257)
    told = [f for row in rows([3.2, 3.3, 6.5, 7.0, 7.5, 8.0]) for f in detector.row(row)]
    assert [(f.kind, f.step) for f in told] == [("divergence", 5)]


def test_ordinary_beginnings_raise_nothing():
    """Losses a little above guessing at first, one bad step, and the noise of a tiny batch."""
    for losses in ([10.95, 11.2, 10.9, 10.1], [9.0, 8.5, 30.0, 8.1, 7.9], [1.4, 0.7, 2.1, 0.9, 2.4, 1.2]):
        detector = Detector(50257)
        assert [f for row in rows(losses) for f in detector.row(row)] == []
