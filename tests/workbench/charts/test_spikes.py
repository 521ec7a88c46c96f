"""The spikes of the chart's runs, as the browser asks for them."""

from __future__ import annotations

import json

import numpy as np

from tests.experiments.planted import Planted
from tests.workbench.tabs.data.data_runs import context_of
from workbench.charts.spikes import spikes


def test_spikes_come_by_run_and_runs_that_there_are_not_have_none(tmp_path):
    made = Planted()
    made.rows[39] += 2.0
    made.rows[79] = np.nan
    made.write(tmp_path, "odd")
    found = spikes(context_of(tmp_path), {"runs": ["odd", "none", "../odd", 7]})
    assert list(found) == ["odd"] and [one["step"] for one in found["odd"]] == [40, 80]
    assert found["odd"][0]["z"] > 6 and found["odd"][1]["z"] is None and json.dumps(found, allow_nan=False)


def test_nonsense_has_none(tmp_path):
    context = context_of(tmp_path)
    assert [spikes(context, asked) for asked in (None, {}, {"runs": "odd"}, [])] == [{}, {}, {}, {}]
