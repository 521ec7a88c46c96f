"""A forecast is what it was when it was frozen, or it does not count."""

import json
import math
import time

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.experiments.fit import Cells
from mygpt2.experiments.forecast import bounds, caution, freeze, read, score
from tests.experiments.ladders import BUDGETS, SIZES, Truth

CELLS = [{"n": 1000, "tokens": 10, "loss": 4.5}, {"n": 2000, "tokens": 10, "loss": 4.25}]
LOSS = {"value": 4.0, "low": 3.9, "high": 4.1}
FORECAST = {"name": "a", "loss": LOSS, "protocol": {"token_sha256": "7" * 64}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "forecasts" / "a.json"


def scored(frozen, measured, began=None, text="7" * 64):
    return score(frozen, measured, began=time.time() + 1 if began is None else began, token_sha256=text)


def test_a_frozen_forecast_is_never_written_again(path):
    first = freeze(path, FORECAST, CELLS, begun=None)
    before = path.read_bytes()
    again = freeze(path, {**FORECAST, "loss": {**LOSS, "value": 1.0}}, CELLS[:1], begun=None)
    assert path.read_bytes() == before and again.record == first.record and again.sound
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_loss_that_was_foretold_counts(path):
    found = scored(freeze(path, FORECAST, CELLS, begun=None), 4.05)
    assert (found.inside, found.why_not, round(found.error, 6)) == (True, "", 0.05)
    assert not scored(read(path), 4.2).inside and scored(read(path), 4.2).why_not == ""


def test_a_side_without_a_bound_holds_everything(path):
    loss = {"value": None, "low": 3.0, "high": math.inf}
    frozen = freeze(path, {**FORECAST, "level": None, "loss": loss}, CELLS, begun=None)
    assert scored(frozen, 9.0).inside and not scored(frozen, 2.9).inside and "bounds" in scored(frozen, 9.0).words


def test_a_forecast_after_the_fact_is_marked_and_does_not_count(path):
    frozen = freeze(path, FORECAST, CELLS, begun="the training began on Monday, before it")
    assert scored(frozen, 4.0).why_not == "the training began on Monday, before it"


def test_a_training_that_began_before_the_forecast_does_not_count(path):
    frozen = freeze(path, FORECAST, CELLS, begun=None)
    assert scored(frozen, 4.0, began=frozen.made - 1).why_not == "the training began before it"
    assert "not known" in score(frozen, 4.0, began=None, token_sha256="7" * 64).why_not


@pytest.mark.parametrize(
    "change",
    [lambda r: r["loss"].update(low=1.0), lambda r: r["cells"][0].update(loss=4.4), lambda r: r.update(made=1.0),
     lambda r: r.update(after_the_fact="x")],
)  # fmt: skip
def test_a_file_that_was_changed_does_not_count(path, change):
    freeze(path, FORECAST, CELLS, begun=None)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record, indent=4))
    assert scored(read(path), 4.0).why_not


def test_a_file_that_was_laid_out_anew_is_the_same(path):
    freeze(path, FORECAST, CELLS, begun=None)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read(path).sound


def test_losses_of_another_text_are_refused(path):
    with pytest.raises(UserError, match="losses of other texts do not compare"):
        scored(freeze(path, FORECAST, CELLS, begun=None), 4.0, text="8" * 64)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"made": "x", "loss": {}}', '{"made": 1, "loss": 3}'])
def test_what_is_no_forecast_is_not_overwritten(path, content):
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(UserError, match="is no forecast; move it away"):
        freeze(path, FORECAST, CELLS, begun=None)
    assert path.read_text() == content


def test_where_cells_decide_no_law_the_bounds_hold_of_any_law():
    rng = np.random.default_rng(0)
    for _ in range(200):
        e, a, b, alpha, beta = rng.uniform([0, 0, 0, 0.02, 0.02], [3, 2, 2, 2, 2])
        truth = Truth(e, a, b, alpha, beta)
        n, d = np.repeat(SIZES[:2], 2), np.tile(BUDGETS[:2], 2)
        cells = Cells(n, d, truth.loss(n, d))
        for target in ((SIZES[2], BUDGETS[1]), (SIZES[3], BUDGETS[3]), (1e9, 1e11), (SIZES[1], BUDGETS[2])):
            low, high = bounds(cells, *target)
            assert low <= truth.loss(*target) * (1 + 1e-12) and truth.loss(*target) <= high * (1 + 1e-12)


def test_one_column_bounds_from_above_only():
    cells = Cells(SIZES[:2], np.full(2, 1e6), np.array([5.0, 4.5]))
    assert bounds(cells, SIZES[2], 2e6) == (0.0, 4.5)
    assert bounds(cells, SIZES[0] / 2, 1e6) == (0.0, math.inf)


def test_far_forecasts_say_how_far():
    cells = Cells(SIZES, BUDGETS, np.full(4, 4.0))
    assert caution(cells, 7.5e6, 4e6) == ""
    assert caution(cells, 85e6, 1e10).startswith("20 times the parameters and 2,500 times the tokens")
