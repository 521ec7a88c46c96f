"""Two runs with the same batches: what pairing resolves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import analyse, compare_runs, make_log
from tests.ripples.made import descent, log_of, noise, run_folder, wave

STEPS = 3000


def pair(difference: float, shared: bool = True):
    batches = noise(STEPS, 1, sd=0.06)
    other = batches if shared else noise(STEPS, 2, sd=0.06)
    a = log_of(descent(STEPS) + batches + noise(STEPS, 3, sd=0.0026) + difference)
    b = log_of(descent(STEPS) + other + noise(STEPS, 4, sd=0.0026))
    return a, b


def test_a_millinat_is_resolved_between_runs_with_the_same_batches() -> None:
    report = compare_runs(*pair(0.001))
    low, high = report["interval"]
    assert report["significant"] and report["same_order"] and low <= 0.001 <= high
    assert report["steps_to_resolve"]["paired"] < 200 < 20_000 < report["steps_to_resolve"]["unpaired"]
    assert report["correlation"] > 0.99 and 15 < report["noise_ratio"] < 40
    json.dumps(report, allow_nan=False)


def test_without_shared_batches_it_is_not_and_the_report_says_so() -> None:
    report = compare_runs(*pair(0.001, shared=False))
    assert not report["significant"] and not report["same_order"]
    assert "not the same" in report["verdict"]


def test_equal_runs_differ_one_time_in_twenty() -> None:
    """The interval's error for noise that remembers: 40 pairs, the truth outside in at most 6."""
    outside = 0
    for seed in range(40):
        a = log_of(descent(800) + noise(800, 2 * seed, sd=0.01, memory=0.8))
        b = log_of(descent(800) + noise(800, 2 * seed + 1, sd=0.01, memory=0.8))
        outside += compare_runs(a, b)["significant"]
    assert outside <= 6


def test_the_same_run_twice_is_no_difference() -> None:
    log, _ = pair(0.0)
    report = compare_runs(log, log)
    assert report["difference"] == 0 and not report["significant"]


def test_runs_with_other_settings_of_the_order_are_told(tmp_path) -> None:
    from mygpt2.ripples import read_log

    one, two = run_folder(tmp_path / "one"), run_folder(tmp_path / "two", shuffled=True)
    report = compare_runs(read_log(one), read_log(two))
    assert not report["same_order"] and any("data.order" in line for line in report["order_differs"])


@pytest.mark.parametrize("steps", [60, 400, 3000])
def test_runs_of_two_sizes_with_the_same_batches_are_told_so_whatever_their_descents(steps: int, tmp_path) -> None:
    """A deeper model falls faster and lower, and feels its batches a little differently."""
    from mygpt2.ripples import read_log

    t = np.arange(1, steps + 1)
    batches = noise(steps, 1, sd=0.06)
    one = 2.8 + 8 * (t + 0.003 * steps) ** -0.4 + batches + noise(steps, 3, sd=0.02)
    two = 2.5 + 8 * (t + 0.003 * steps) ** -0.7 + 1.2 * batches + noise(steps, 4, sd=0.02)
    for name, loss in (("one", one), ("two", two)):
        (tmp_path / f"{name}.csv").write_text(
            "step,loss\n" + "".join(f"{i},{x}\n" for i, x in zip(t, loss, strict=True))
        )
    report = compare_runs(read_log(tmp_path / "one.csv"), read_log(tmp_path / "two.csv"))
    assert report["same_order"] and report["noise_ratio"] > 2
    assert "are the same" in report["verdict"] and "gains little" not in report["verdict"]
    assert len(report["curve"]) >= 7


def test_runs_of_other_settings_that_read_the_same_batches_are_judged_by_what_was_measured(tmp_path) -> None:
    from mygpt2.ripples import read_log

    one, two = run_folder(tmp_path / "one"), run_folder(tmp_path / "two")
    text = (two / "config.toml").read_text()
    (two / "config.toml").write_text(text.replace("[data]", '[data]\nsource = "elsewhere"', 1))
    report = compare_runs(read_log(one), read_log(two))
    assert report["same_order"] and any("data.source" in line for line in report["order_differs"])


def test_the_seed_of_the_weights_leaves_the_order_and_an_earlier_versions_seed_is_known_as_the_datas(tmp_path) -> None:
    from mygpt2.ripples import read_log
    from mygpt2.ripples.compare import order_differs

    one, two = run_folder(tmp_path / "one"), run_folder(tmp_path / "two")
    plain = (one / "config.toml").read_text()

    def seeds(data: int, model: int) -> None:
        text = plain.replace("[data]", f"[data]\nseed = {data}").replace("[model]", f"[model]\nseed = {model}")
        (two / "config.toml").write_text(text)

    (one / "config.toml").write_text(plain + "[train]\nseed = 3\n")
    seeds(3, 4)
    assert order_differs(read_log(one), read_log(two)) == []
    seeds(4, 3)
    assert order_differs(read_log(one), read_log(two)) == ["data.seed: 3 and 4"]


def test_logs_without_common_steps_are_refused() -> None:
    a = make_log("a", np.arange(100), np.ones(100))
    with pytest.raises(UserError, match="0 steps in common"):
        compare_runs(a, make_log("b", np.arange(200, 300), np.ones(100)))


def test_a_reference_in_another_order_takes_the_shared_descent_away() -> None:
    """The ripple of one run, sought in the difference to another."""
    steps = 1200
    bump = 0.3 * np.exp(-(((np.arange(steps) - 600) / 80) ** 2))
    mine = log_of(descent(steps) + bump + noise(steps, 1, sd=0.02) + wave(steps, 40, 0.02))
    its = log_of(descent(steps) + bump + noise(steps, 2, sd=0.02))
    report = analyse(mine, reference=its)
    assert report.significant and report.period_steps == pytest.approx(40, rel=0.02)
