"""Pulses, data that is read again, rates lowered in steps: a small form of `benchmarks/ripples.py events`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mygpt2.ripples import Layout, analyse
from mygpt2.ripples.html import report_html
from mygpt2.ripples.study import study
from mygpt2.ripples.text import report_text
from tests.ripples.made import descent, log_of, noise, wave


def pulsed(steps: int, period: int, height: float, width: int = 1, first: int = 17, seed: int = 1) -> np.ndarray:
    t = np.arange(steps)
    return descent(steps) + noise(steps, seed) + height * ((t - first) % period < width)


@pytest.mark.parametrize(("period", "height", "width", "cause"), [
    (50, 0.25, 1, "the evaluation interval"), (64, 0.25, 1, "the saving interval"), (64, 0.25, 1, None),
    (100, -0.25, 2, "the saving interval"), (100, -0.25, 2, None), (128, 0.15, 5, "the evaluation interval"),
    (128, 0.15, 5, None), (190, 0.25, 1, "the evaluation interval"), (190, 0.25, 1, "the saving interval"),
])  # fmt: skip
def test_pulses_are_named_with_their_period_and_what_is_done_so_often(period, height, width, cause) -> None:
    other = 3 * period // 2
    layout = {
        "the evaluation interval": Layout(eval_interval=period, save_interval=other),
        "the saving interval": Layout(eval_interval=other, save_interval=period),
        None: Layout(eval_interval=other),
    }[cause]
    report = analyse(log_of(pulsed(3000, period, height, width, seed=period), layout=layout, warmup=0))
    found = report.pulses
    assert report.significant and report.period_steps == pytest.approx(period, rel=1e-3)
    assert found["kind"] == "pulse" and found["main"] and found["cause"] == cause
    assert found["height"] == pytest.approx(height, abs=0.04) and found["width_steps"] == width
    assert found["first_step"] == 17 + 1
    assert [c["name"] for c in report.candidates if c["fits"]] == ([cause] if cause else [])
    assert f"every {period} steps" in report.verdict and "Pulses of" in report.verdict
    assert not (report.repetition or {"found": False})["found"] and "read again" not in report.verdict
    assert not report.forecast and "data.order" not in report.verdict
    json.dumps(report.to_json(), allow_nan=False)
    assert "Pulses of" in report_text(report).replace("\n", " ") and "Pulses of" in report_html(report)


def test_an_interval_at_which_both_is_done_names_both() -> None:
    report = analyse(log_of(pulsed(3000, 100, 0.25), layout=Layout(eval_interval=100, save_interval=100)))
    assert report.pulses["cause"] == "the evaluation interval and the saving interval"


def test_a_ripple_beneath_pulses_is_found_and_both_are_told() -> None:
    n = 4000
    report = analyse(log_of(pulsed(n, 100, 0.25) + wave(n, 137.3, 0.06), layout=Layout(eval_interval=100)))
    assert report.significant and report.period_steps == pytest.approx(137.3, rel=0.005)
    assert report.amplitude == pytest.approx(0.06, rel=0.2)
    assert report.pulses["period_steps"] == 100 and not report.pulses["main"]
    assert "Pulses of" in report.verdict and "That is the evaluation interval" in report.verdict


def test_two_waves_and_drifting_waves_are_no_pulses() -> None:
    n, t = 3000, np.arange(3000)
    two = wave(n, 73.0, 0.05) + wave(n, 31.7, 0.05)
    drifting = 0.08 * np.sin(2 * np.pi * (t / 60 + 0.3 * (t / n) ** 2 * n / 60))
    for seed, made in enumerate((two, drifting, wave(n, 41.0, 0.05))):
        report = analyse(log_of(descent(n) + noise(n, 70 + seed) + made))
        assert report.significant and report.pulses is None


def read_again(steps: int, length: int, share: float, seed: int, memory: float = 0.5) -> np.ndarray:
    """A loss of which `share` of the noise comes from batches that return after `length` steps."""
    batches = np.tile(noise(length, seed, sd=1.0, memory=memory), -(-steps // length))[:steps]
    own = noise(steps, seed + 1, sd=1.0, memory=memory)
    return descent(steps) + 0.05 * (np.sqrt(share) * batches + np.sqrt(1 - share) * own)


@pytest.mark.parametrize(("passes", "share"), [(1.4, 0.5), (2.0, 0.4), (2.6, 0.4), (5.5, 0.4), (7.0, 0.8)])
def test_data_that_is_read_again_is_found_at_a_pass_that_nobody_told(passes: float, share: float) -> None:
    steps = 3000
    length = int(steps / passes)
    report = analyse(log_of(read_again(steps, length, share, seed=int(10 * passes)), warmup=0))
    again = report.repetition
    assert again["found"] and again["lag_steps"] == pytest.approx(length, abs=1.5)
    assert again["correlation"] == pytest.approx(share, abs=0.12)
    assert "read again" in report.verdict


def test_a_pass_that_is_no_whole_number_of_steps_is_found() -> None:
    """Each batch then shares one half with one of the pass before, and one half with the next."""
    fine = read_again(6000, 2001, 0.9, seed=3, memory=0.0) - descent(6000)
    report = analyse(log_of(descent(3000) + fine.reshape(3000, 2).mean(1), warmup=0))
    assert report.repetition["found"] and report.repetition["lag_steps"] == pytest.approx(1000.5, abs=1)


def test_a_few_steps_that_are_read_again_and_again_are_a_period_and_told_as_such() -> None:
    report = analyse(log_of(read_again(3000, 150, 0.5, seed=8)))
    assert report.significant and report.period_steps == pytest.approx(150, rel=1e-3)
    assert report.pulses["kind"] == "again" and report.repetition["found"]
    assert "read again" in report.verdict


@pytest.mark.parametrize("case", ["noise", "red noise", "wave", "drifting wave", "saw", "decaying pulses", "spikes"])
def test_nothing_else_is_taken_for_data_that_is_read_again(case: str) -> None:
    n, t = 3000, np.arange(3000)
    made = {
        "noise": noise(n, 21, memory=0.0), "red noise": noise(n, 22, memory=0.9),
        "wave": noise(n, 23) + wave(n, 211.0, 0.05),
        "drifting wave": noise(n, 24) + 0.08 * np.sin(2 * np.pi * (t / 60 + 0.3 * (t / n) ** 2 * n / 60)),
        "saw": noise(n, 25) + 0.1 * (t / 170 % 1 - 0.5),
        "decaying pulses": noise(n, 26) + 0.3 * np.exp(-(t % 230) / 10),
        "spikes": noise(n, 27) + np.isin(t, [700, 1300, 1900, 2500]),
    }[case]  # fmt: skip
    report = analyse(log_of(descent(n) + made))
    again = report.repetition
    assert again is not None and not again["found"] and "read again" not in report.verdict
    first, last = again["lags_steps"]
    assert first <= n / 7 and last >= 0.85 * n and 0.15 <= again["limit"] < 0.2
    assert "no sign of it at any lag" in report_text(report)


def test_a_rate_that_is_lowered_in_even_steps_is_a_ripple_no_more_often_than_noise_is() -> None:
    """Eight stairs, where five were called a ripple before falls were looked for; two alarms have a chance of one in
    twenty at a rate of 5 %.
    """
    n, t = 5000, np.arange(5000.0)
    alarms = 0
    for falls in (2, 4, 6, 10):
        for time in (1.0, 60.0):
            loss = descent(n) + noise(n, 200 * falls + int(time), sd=0.03)
            for i in range(falls):
                late = np.maximum(0.0, t - (i + 1) / (falls + 1) * n)
                loss -= 0.25 * 0.9**i * -np.expm1(-late / time)
            alarms += study(log_of(loss)).significant
    assert alarms <= 1


@pytest.mark.parametrize("shape", ["saw", "square", "wave"])
def test_a_ripple_with_falls_in_it_is_no_stair(shape: str) -> None:
    """It rises again, which a stair does not."""
    n, t = 4000, np.arange(4000)
    turn = t / 570 % 1
    made = {"saw": turn - 0.5, "square": np.sign(turn - 0.5) / 2, "wave": np.sin(2 * np.pi * turn) / 2}[shape]
    report = analyse(log_of(descent(n) + noise(n, 9) + 0.2 * made))
    assert report.significant and report.period_steps == pytest.approx(570, rel=0.02)
