"""Error bars: a document is the unit that is drawn, and two models are compared item by item."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from mygpt2.evals.clustered import clustered_error
from mygpt2.evals.hellaswag import mcnemar, paired, share_error


def documents(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Documents of very different lengths, easy and hard ones, with longer ones easier."""
    rng = np.random.default_rng(3)
    count = np.ceil(rng.lognormal(4.0, 1.0, n))
    level = 3.5 + rng.normal(0.0, 0.5, n) - 0.1 * np.log(count)
    return count * level + rng.normal(0.0, 1.0, n) * np.sqrt(count), count


def test_the_clustered_error_is_within_a_tenth_of_a_bootstrap_over_documents() -> None:
    nll, count = documents()
    rng = np.random.default_rng(4)
    draws = rng.integers(0, len(count), (4000, len(count)))
    bootstrap = (nll[draws].sum(1) / count[draws].sum(1)).std(ddof=1)
    error = clustered_error(nll, count)
    assert error is not None and abs(error / bootstrap - 1) < 0.1
    independent = math.sqrt(np.var(nll / count) / count.sum())
    assert error > 3 * independent  # counting tokens as independent would be far too small


def test_documents_without_targets_do_not_count_and_one_document_has_no_error() -> None:
    nll, count = documents(50)
    padded = np.append(nll, [0.0, 0.0]), np.append(count, [0.0, 0.0])
    assert clustered_error(*padded) == clustered_error(nll, count)
    assert clustered_error(np.array([5.0]), np.array([3.0])) is None


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (1, 0), (7, 7), (30, 12), (3, 400), (2500, 2400)])
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int) -> None:
    n = better + worse
    expected = binomtest(better, n).pvalue if n else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected, rel=1e-9)


def test_paired_errors_are_of_the_differences() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(1000) < 0.31, rng.random(1000) < 0.29
    test = paired(first, second)
    d = first.astype(float) - second.astype(float)
    assert test.difference == pytest.approx(d.mean()) and test.stderr == pytest.approx(d.std(ddof=1) / 1000**0.5)
    assert (test.better, test.worse) == (int((first & ~second).sum()), int((second & ~first).sum()))
    assert share_error(0.3, 101) == pytest.approx(math.sqrt(0.3 * 0.7 / 100)) and share_error(0.3, 1) is None
