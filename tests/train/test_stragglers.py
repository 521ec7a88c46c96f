"""The rank that holds the others up is named, and a fleet of equals is left in peace."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mygpt2.run_dir import RunDir
from mygpt2.train.stragglers import EVERY, Stragglers


@pytest.fixture
def fleet(tmp_path):
    """Four ranks of which this is the first; `others` are the milliseconds of the rest. Returns what was told."""
    run = RunDir(tmp_path / "run")
    run.ranks_dir.mkdir(parents=True)
    told, exchanges = [], []

    def work(windows, own=100.0):
        def gather(mine):
            exchanges.append(mine)
            others = windows[len(exchanges) - 1]
            return [mine, *(np.array([1000 * forward, 0], np.int64) for forward in others)]

        told.clear(), exchanges.clear()
        recorder = SimpleNamespace(event=lambda kind, **more: told.append((kind, more)), say=lambda text: None)
        found = Stragglers(SimpleNamespace(size=4, lead=True, gather=gather), run, recorder)
        for step in range(1, len(windows) * EVERY + 1):
            found.step(step, own / 1e3, 0.002)
        assert len(exchanges) == len(windows), "one exchange in so many steps"
        return told, json.loads((run.ranks_dir / "speed.json").read_text())

    return work


def test_a_rank_that_is_behind_is_named_once_until_it_is_further_behind(fleet):
    told, record = fleet([[100, 130, 101], [100, 131, 101], [100, 160, 101]])
    assert [(kind, more["step"]) for kind, more in told] == [("alert", 50), ("alert", 150)]
    assert told[0][1]["about"] == "ranks" and "rank 2 holds the others up" in told[0][1]["message"]
    assert "29% longer" in told[0][1]["message"] or "30% longer" in told[0][1]["message"]
    assert (record["slowest"], record["forward_ms"][2], record["wait_ms"][0]) == (2, 160.0, 2.0)


def test_equals_are_left_in_peace_and_one_rank_alone_exchanges_nothing(fleet, tmp_path):
    told, record = fleet([[104, 97, 101]] * 3)
    assert told == [] and 0 < record["behind"] < 0.1
    alone = Stragglers(SimpleNamespace(size=1), RunDir(tmp_path), None)
    for step in range(1, 2 * EVERY):
        alone.step(step, 0.1, 0.0)
