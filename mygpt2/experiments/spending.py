"""One error budget for all that is asked of a baseline, however often and in whatever order.

A ledger's verdicts are tests in a row: the n-th, whether a new challenge or another look at an old one, is made at

    level_n = budget * gamma_n + (level_{n-1} if the one before decided something, else 0)
    gamma_n = n^-1.6 / zeta(1.6)

the online fallback procedure of Tian and Ramdas (Online control of the familywise error rate, Statistical Methods in
Medical Research 30, 2021), which keeps the chance of any false verdict in the whole row within the budget, for tests
that depend on each other in any way, as those of one baseline do. The weights are the usual ones of such procedures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from scipy.special import zeta

BUDGET = 0.05
EXPONENT = 1.6


def weight(number: int) -> float:
    """Share of the budget that the n-th test has of its own; all of them add up to 1."""
    return float(number**-EXPONENT / zeta(EXPONENT, 1))


def level(decided: Sequence[bool], budget: float = BUDGET) -> float:
    """The level of the next test, after tests that decided something or not, in their order."""
    before = 0.0
    for number, rejected in enumerate((*decided, False), 1):
        here = budget * weight(number) + before
        before = here if rejected else 0.0
    return here


def planned(budget: float, looks: int) -> list[float]:
    """The level of each of `looks` equally spaced looks that were planned beforehand; they add up to the budget.

    Lan and DeMets' spending function of Pocock's type (Discrete sequential boundaries for clinical trials, Biometrika
    70, 1983), its steps taken as they are: valid without a word on how the looks depend on each other.
    """
    if looks < 1:
        raise ValueError("a plan has looks")
    spent = [budget * math.log(1 + (math.e - 1) * k / looks) for k in range(looks + 1)]
    return [after - before for before, after in pairwise(spent)]


def holm(p: Sequence[float], budget: float) -> list[bool]:
    """Which of several arms differ, with a chance of any false one within the budget (Holm, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979)."""
    return [adjusted <= budget for adjusted in holm_adjusted(p)]


def holm_adjusted(p: Sequence[float]) -> list[float]:
    """Each arm's p-value as Holm adjusts it: to be compared with the whole budget."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    found, largest = [0.0] * len(p), 0.0
    for place, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - place) * p[i]))
        found[i] = largest
    return found
