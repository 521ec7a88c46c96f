"""Two published logs, and what is known of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mygpt2.ripples import analyse, dataset_layout, read_log
from tests.ripples.made import golden


@pytest.fixture(scope="module")
def reference():
    """The reference run: 8 ranks, each with a file of FineWeb-Edu of its own; the mean loss of each 600 steps."""
    log = read_log(golden("mygpt2_124m_36.7BT.csv"))
    return analyse(log, layout=replace(dataset_layout("fineweb-edu"), streams=8, files=8, buffer_documents=80_000))


def test_the_reference_runs_ripple_is_a_third_of_a_file(reference) -> None:
    assert reference.significant and reference.p_value < 0.001
    low, high = reference.period_ci
    assert low <= 2.006e9 <= high and high - low < 0.02e9
    assert reference.amplitude == pytest.approx(0.042, abs=0.004)
    assert reference.share_of_file == pytest.approx(1 / 3, rel=0.01) and reference.part_of_file == 3
    assert not any(c["fits"] for c in reference.candidates)
    assert "structure inside the file" in reference.verdict


def test_the_reference_run_read_its_eight_files_again(reference) -> None:
    again = reference.repetition
    assert again["found"] and again["files"] == 8
    assert again["lag_tokens"] == pytest.approx(6.02e9, rel=0.01)
    assert again["correlation"] > 0.4 + max(again["thirds"])
    assert "read again" in reference.verdict and "8 files" in reference.verdict


def test_ten_times_the_buffer_is_foretold_as_the_other_run_had_it(reference) -> None:
    """The second published run, with 100,000 documents per rank, had 0.0157 [0.0135, 0.018] nats."""
    row = next(r for r in reference.forecast if r["order"] == "buffer of 800,000 documents")
    assert 0.0135 <= row["amplitude"] <= 0.018


def test_without_a_layout_the_same_run_still_tells_its_pass() -> None:
    report = analyse(read_log(golden("mygpt2_124m_36.7BT.csv")))
    assert report.repetition["found"]
    assert report.repetition["lag_tokens"] == pytest.approx(6.02e9, rel=0.01)
    assert "If this is FineWeb-Edu" in report.verdict and "structure inside the file" in report.verdict


def test_the_unshuffled_logs_cycle_and_its_drift() -> None:
    log = read_log(golden("build_nanogpt_fineweb_edu_10BT.csv"))
    part = analyse(log, first=3000, last=5000)
    assert part.significant and part.period_steps == pytest.approx(46.7, rel=0.005)
    assert part.amplitude == pytest.approx(0.093, abs=0.006)
    assert part.period_tokens == pytest.approx(24.5e6, rel=0.005)
    whole = analyse(log)
    first, *_, last = whole.drift
    assert first["period_steps"] == pytest.approx(46.7, rel=0.01) and first["from_step"] < 1500
    assert last["period_steps"] == pytest.approx(35.1, rel=0.02) and last["to_step"] > 15_000
    assert "It drifts" in whole.verdict
