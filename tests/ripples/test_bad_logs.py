"""Whatever a log is like: a sentence about what can and cannot be said, never a false verdict, never an exception."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import analyse, make_log
from mygpt2.ripples.html import report_html
from mygpt2.ripples.text import report_text
from tests.ripples.made import descent, log_of, noise, wave

NAN = math.nan
BAD = {
    "empty": ([], "no step with a finite loss"),
    "one step": ([3.0], "1 usable points"),
    "two steps": ([3.0, 2.9], "2 usable points"),
    "short": (list(descent(40) + noise(40, 1)), "40 usable points"),
    "constant": ([2.5] * 500, "constant"),
    "zeros": ([0.0] * 500, "constant"),
    "all NaN": ([NAN] * 500, "no step with a finite loss"),
    "a straight line": (list(np.linspace(4, 3, 500)), "smooth"),
}


@pytest.mark.parametrize("case", BAD)
def test_nothing_is_claimed_of_a_log_that_says_nothing(case: str) -> None:
    loss, part = BAD[case]
    report = analyse(make_log("bad", np.arange(len(loss)), loss))
    assert not report.significant and not report.can_say
    assert report.p_value is None and report.period_steps is None
    assert part in report.verdict
    json.dumps(report.to_json(), allow_nan=False)
    assert part in report_text(report).replace("\n", " ") and "<svg" not in report_html(report)


ODD = {
    "infinite values": lambda x: np.where(np.arange(len(x)) % 50 == 7, np.inf, x),
    "one enormous spike": lambda x: np.where(np.arange(len(x)) == 400, 1e6, x),
    "two values only": lambda x: np.where(np.random.default_rng(0).random(len(x)) < 0.5, 3.0, 3.01),
    "a jump": lambda x: x + 0.5 * (np.arange(len(x)) > 500),
    "negative losses": lambda x: x - 10,
    "tiny losses": lambda x: x * 1e-12,
    "huge losses": lambda x: x * 1e12,
}


@pytest.mark.parametrize("case", ODD)
def test_odd_noise_is_no_ripple(case: str) -> None:
    report = analyse(log_of(ODD[case](descent(900) + noise(900, 3))))
    assert report.can_say and not report.significant, report.verdict
    assert "No significant ripple" in report.verdict
    json.dumps(report.to_json(), allow_nan=False)


def test_a_ripple_is_found_through_gaps_and_the_gaps_are_told() -> None:
    n = 1500
    loss = descent(n) + noise(n, 2) + wave(n, 60, 0.03)
    kept = (np.arange(n) % 7 != 0) & ~((np.arange(n) > 500) & (np.arange(n) < 700))
    steps = np.arange(1, n + 1)
    report = analyse(make_log("gappy", steps[kept], loss[kept], tokens=steps[kept] * 1000.0))
    assert report.significant and report.period_steps == pytest.approx(60, rel=0.02)
    assert any("are missing" in note for note in report.notes)


def test_a_resumed_log_counts_its_later_steps() -> None:
    n = 1000
    loss = descent(n) + noise(n, 2) + wave(n, 50, 0.04)
    steps = np.r_[np.arange(600), np.arange(400, n)]
    twice = np.r_[loss[:600] + 5.0 * (np.arange(600) >= 400), loss[400:]]
    report = analyse(make_log("resumed", steps, twice))
    assert report.significant and report.period_steps == pytest.approx(50, rel=0.02)
    assert any("written again" in note for note in report.notes)
    assert not any("spikes" in note for note in report.notes)


def test_every_tenth_step_logged_is_enough_for_a_long_period() -> None:
    n = 9000
    loss = descent(n) + noise(n, 2) + wave(n, 700, 0.03)
    steps = np.arange(n)[::10]
    report = analyse(make_log("thin", steps, loss[::10]))
    assert report.significant and report.period_steps == pytest.approx(700, rel=0.02)
    assert report.period_tokens is None and report.period_ci_unit == "steps"


def test_tokens_that_do_not_ascend_are_not_used() -> None:
    loss = descent(300) + noise(300, 2)
    report = analyse(make_log("odd", np.arange(300), loss, tokens=np.full(300, 7.0)))
    assert report.can_say and any("in steps" in note for note in report.notes)


def test_a_range_without_steps_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(UserError, match="has the steps 1 to 300"):
        analyse(log_of(descent(300)), first=1000)


def test_the_limit_of_what_would_have_been_found_is_one() -> None:
    """At the amplitude told as just significant, a line at that period is found about half of the time."""
    n = 2000
    limit = analyse(log_of(descent(n) + noise(n, 11))).detection_limit
    clear = analyse(log_of(descent(n) + noise(n, 12) + wave(n, limit["period_steps"], 2 * limit["amplitude"])))
    faint = analyse(log_of(descent(n) + noise(n, 12) + wave(n, limit["period_steps"], 0.3 * limit["amplitude"])))
    assert clear.significant and not faint.significant
