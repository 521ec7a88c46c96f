"""The law through a ladder's cells: found where it is known, with intervals that hold what they promise."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from mygpt2.experiments.fit import EXPONENTS, Cells, Laws, fit, refit
from mygpt2.experiments.intervals import Documents, fitted
from tests.experiments.ladders import BUDGETS, NEXT, SIZES, Truth, documents, drawn, measured


def exact(truth):
    return measured(Truth(**{**vars(truth), "noise": 0.0}), np.random.default_rng(0))[0]


@pytest.mark.parametrize(
    "truth", [Truth(), Truth(alpha=0.2, beta=0.6, e=1.5), Truth(a=0.2, b=1.5, alpha=0.6, beta=0.25)]
)
def test_the_exponents_of_cells_without_noise_are_found(truth):
    law = fit(exact(truth))
    found = [law.alpha[0], law.beta[0], law.e[0]]
    np.testing.assert_allclose(found, [truth.alpha, truth.beta, truth.e], rtol=1e-3)
    np.testing.assert_allclose(law.loss(85e6, 1e10), truth.loss(85e6, 1e10), rtol=1e-4)
    assert not law.at_bounds()


def test_published_constants_come_back_in_their_own_units():
    # Besiroglu et al. 2024, table 1: E, A, B, alpha, beta of the Chinchilla data, fitted anew.
    e, a, b, alpha, beta = 1.8172, 482.01, 2085.43, 0.3478, 0.3658
    n, d = np.repeat(np.geomspace(44e6, 16e9, 6), 5), np.tile(np.geomspace(1e9, 3e11, 5), 6)
    law = fit(Cells(n, d, e + a / n**alpha + b / d**beta))
    found = [law.e[0], law.a[0], law.b[0], law.alpha[0], law.beta[0]]
    np.testing.assert_allclose(found, [e, a, b, alpha, beta], rtol=5e-3)
    assert law.best_n_exponent[0] == pytest.approx(0.3658 / (0.3478 + 0.3658), rel=1e-3)


def test_no_other_optimiser_comes_lower():
    cells, _ = measured(Truth(noise=0.01), np.random.default_rng(3))
    law = fit(cells)
    x, y = cells.axes

    def cost(p):
        residual = np.abs(np.log(cells.loss) - np.log(p[0] + np.exp(p[1] - p[3] * x) + np.exp(p[2] - p[4] * y)))
        return 1e6 * np.where(residual <= law.delta, residual**2 / 2, law.delta * (residual - law.delta / 2)).sum()

    other = minimize(
        cost, law.points[0], method="Nelder-Mead", options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-7}
    )
    assert law.cost[0] * 1e6 <= other.fun * (1 + 1e-6)


def test_one_wild_cell_moves_the_law_little():
    cells = exact(Truth())
    wild = Cells(cells.n, cells.d, np.where(np.arange(16) == 5, cells.loss * 1.3, cells.loss))
    assert fit(wild).loss(*NEXT)[0] == pytest.approx(Truth().loss(*NEXT), rel=2e-3)


def test_a_cell_that_is_left_out_has_no_say():
    cells, _ = measured(Truth(), np.random.default_rng(1))
    wild = Cells(cells.n, cells.d, np.where(np.arange(16) == 5, 3 * cells.loss, cells.loss))
    law, weights = fit(cells), (np.arange(16) != 5)[None].astype(float)
    here, there = refit(cells, law, weights=weights), refit(wild, law, weights=weights)
    np.testing.assert_allclose(here.points, there.points, rtol=1e-6)


def test_cells_that_do_not_decide_say_so():
    few = Cells(np.repeat(SIZES[:2], 4), np.tile(BUDGETS, 2), np.linspace(5, 4, 8))
    assert "8 cells of 2 sizes and 4 budgets do not decide" in str(few.too_few())
    with pytest.raises(ValueError, match="do not decide"):
        fitted(few)
    flat = exact(Truth(a=1e-4))  # size makes no difference: any alpha will do
    noisy = Cells(flat.n, flat.d, flat.loss * np.exp(0.003 * np.random.default_rng(2).standard_normal(16)))
    found = fitted(noisy)
    alpha = found.number(lambda laws: laws.alpha, EXPONENTS)
    assert found.law.at_bounds() or alpha.high - alpha.low > 0.5
    assert EXPONENTS[0] <= alpha.low <= alpha.value <= alpha.high <= EXPONENTS[1]


def test_a_law_without_e_stops_at_its_bound_and_says_so():
    law = fit(exact(Truth(e=0.0)))
    assert law.e[0] < 1e-3 and law.alpha[0] == pytest.approx(0.35, rel=0.01)
    below = exact(Truth(e=0.5))
    assert fit(Cells(below.n, below.d, below.loss - 0.8)).at_bounds() == ["E"]  # what would need E = -0.3


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0, np.inf])
def test_losses_that_are_none_are_refused(bad):
    with pytest.raises(ValueError, match="positive"):
        fit(Cells(np.repeat(SIZES, 4), np.tile(BUDGETS, 4), np.full(16, bad)))


def test_no_interval_is_narrower_than_what_leaving_one_cell_out_does():
    found = fitted(exact(Truth()))
    points = found.law.points + np.array([0.01, 0, 0, 0, 0])  # E higher whichever cell is left out
    away = Laws(np.repeat(points, 16, axis=0), np.zeros(16), found.law.centre, found.law.delta)
    biased = replace(found, cells_out=away)
    left_out = away.loss(*NEXT)[0]
    assert found.loss(*NEXT).high < left_out  # nothing else tells of it: all of them agree
    assert biased.loss(*NEXT).high == pytest.approx(left_out)


def test_four_of_five_intervals_hold_what_was_measured_later():
    """100 ladders; the full form is benchmarks/ladders.py. 80 of 100 has a standard error of 4."""
    rng = np.random.default_rng(2026)
    held = 0
    for _ in range(100):
        cells, later = measured(drawn(rng), rng)
        estimate = fitted(cells).loss(*NEXT)
        held += estimate.low <= later <= estimate.high
    assert 70 <= held <= 90


def test_other_documents_widen_an_interval_and_the_same_ones_do_not():
    rng = np.random.default_rng(5)
    cells, _ = measured(Truth(), rng)
    text = documents(cells, rng)
    alone, found = fitted(cells).loss(*NEXT), fitted(cells, text).loss(*NEXT)
    assert (found.low, found.high) == (alone.low, alone.high)
    assert found.text_low < found.low and found.high < found.text_high
    # The standard error of the mean of these documents is 0.15 / sqrt(120 documents, of unequal length): 1.7 %.
    spread = np.std(text.drawn_again(400, rng)[:, 0]) / cells.loss[0]
    assert 0.013 < spread < 0.022


def test_documents_that_are_drawn_again_are_whole_blocks_of_neighbours():
    targets = np.ones(27)
    nll = np.arange(27.0)[None]
    rng = np.random.default_rng(0)
    losses = Documents(nll, targets).drawn_again(2000, rng)[:, 0]
    # blocks of 3 around a circle: the mean of 9 block means, whose variance is that of the 27 possible blocks over 9
    blocks = np.array([(nll[0][[i, (i + 1) % 27, (i + 2) % 27]]).mean() for i in range(27)])
    assert losses.std() == pytest.approx(np.sqrt(blocks.var() / 9), rel=0.06)
