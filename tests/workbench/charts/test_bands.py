"""The band behind the curves and its chip in Monitor: where one is good for a run, and nowhere else."""

from __future__ import annotations

import json

import pytest

from mygpt2.experiments import bands
from mygpt2.experiments.bands import make, write
from tests.experiments.test_bands import COUNT, trained
from tests.workbench.tabs.data.data_runs import context_of
from workbench.charts.bands import bands_of
from workbench.live import News
from workbench.tabs.monitor.view import Monitor, look


@pytest.fixture
def context(tmp_path, monkeypatch):
    """Runs beside a band of five replicates: one as usual, one that leaves it, one with another rate."""
    made = context_of(tmp_path)
    monkeypatch.setattr(bands, "FOLDER", tmp_path / "shipped")
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    replicates = [trained(tmp_path / "replicates", f"b{k}", k) for k in range(1, COUNT + 1)]
    write(make("tiny", replicates), tmp_path / "shipped" / "tiny.json")
    trained(made.runs, "usual", 77)
    trained(made.runs, "leaves", 78, 0.3, 80)
    trained(made.runs, "rate", 79, settings=("--optimizer.lr=0.01",))
    return made


def shown(context, run, pane="details"):
    news = News()
    look(Monitor.over(context), {"runs": [run], "focus": run, "pane": pane}, news)
    return {name: str(markup) for name, markup in news.changed["markup"].items()}


def test_the_chart_gets_the_band_of_runs_for_which_it_is_good(context):
    found = bands_of(context, {"runs": ["usual", "rate", "none", "../usual", 3]})
    assert list(found) == ["usual"] and json.dumps(found, allow_nan=False)
    band = found["usual"]
    assert len(band["step"]) == len(band["low"]) == len(band["high"]) > 10
    assert all(low < high for low, high in zip(band["low"], band["high"], strict=True))
    assert band["words"] == "99% band of 5 runs of tiny with other seeds"
    assert [bands_of(context, asked) for asked in (None, {}, {"runs": "usual"})] == [{}, {}, {}]


def test_a_chip_says_where_the_run_stands_and_opens_why(context):
    usual, leaves = shown(context, "usual")["head"], shown(context, "leaves")["head"]
    assert "inside the band" in usual and "What may differ: the seeds" in usual
    assert "above the band since step" in leaves and "What usually does this" in leaves


def test_a_run_for_which_no_band_is_good_has_no_chip_and_says_why_below(context):
    parts = shown(context, "rate")
    assert "the band" not in parts["head"]
    assert "No band: optimizer.lr is not as in the band of preset tiny." in parts["details"]


def test_without_a_file_nothing_is_claimed(context, tmp_path):
    (tmp_path / "shipped" / "tiny.json").unlink()
    parts = shown(context, "leaves")
    assert "band" not in parts["head"] and "No band" not in parts["details"]
    assert bands_of(context, {"runs": ["usual"]}) == {}
