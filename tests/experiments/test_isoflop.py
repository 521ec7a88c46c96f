"""The best size for a compute, from parabolas through sizes of equal compute."""

import numpy as np
import pytest

from mygpt2.experiments.fit import Cells
from mygpt2.experiments.isoflop import slices
from tests.experiments.ladders import Truth


def ladder(truth, sizes, budgets):
    n, d = np.repeat(sizes, len(budgets)), np.tile(budgets, len(sizes))
    return Cells(n, d, truth.loss(n, d))


def best(truth, compute):
    n = np.geomspace(1e4, 1e9, 20_001)
    return n[truth.loss(n, compute / 6 / n).argmin()]


def test_the_minimum_is_where_the_law_has_it():
    truth = Truth(a=0.8, b=0.5, alpha=0.3, beta=0.5)
    cells = ladder(truth, np.geomspace(0.3e6, 9e6, 6), np.geomspace(0.25e6, 16e6, 7))
    found = slices(cells)
    inside = [one for one in found if one.best is not None]
    assert len(found) == 4 and len(inside) >= 2
    for one in inside:
        assert one.best == pytest.approx(best(truth, one.compute), rel=0.12)
        if len(one.n) > 3:
            assert one.low <= one.best <= one.high
    computes = [one.compute for one in found]
    assert computes == sorted(computes)


def test_a_minimum_outside_of_the_sizes_is_not_told():
    truth = Truth(a=0.01, b=2.0)  # size is worth nothing: the smallest is best
    found = slices(ladder(truth, np.geomspace(1e6, 4e6, 4), np.geomspace(0.5e6, 8e6, 5)))
    assert found and all(one.best is None and "outside" in one.words for one in found)


def test_sizes_that_share_no_compute_have_no_slice():
    assert slices(ladder(Truth(), np.array([1e5, 1e7, 1e9]), np.array([1e6, 2e6]))) == []


def test_three_sizes_tell_no_error():
    found = slices(
        ladder(Truth(a=0.8, b=0.5, alpha=0.3, beta=0.5), np.array([0.5e6, 1e6, 2e6]), np.geomspace(0.25e6, 4e6, 5))
    )
    inside = [one for one in found if one.best is not None]
    assert inside and all(one.low is None and "three sizes" in one.words for one in inside)
