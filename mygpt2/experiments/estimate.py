"""A mean difference with its error and the degrees of freedom behind that error: p-values and intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy.special import ndtr, ndtri, stdtr, stdtrit


@dataclass(frozen=True)
class Estimate:
    """`mean` and `error` in nats per token, variant less base; `freedom` of Student's t, infinite where the error is
    as good as known."""

    mean: float
    error: float
    freedom: float = math.inf

    @property
    def p(self) -> float:
        """Two-sided p-value of no difference. 1 where all is exactly equal: that is no sign of a difference."""
        if self.error == 0.0:
            return 1.0 if self.mean == 0.0 else 0.0
        return float(2 * cumulative(-abs(self.mean) / self.error, self.freedom))

    def interval(self, level: float) -> tuple[float, float]:
        """Two-sided, of confidence 1 - level."""
        half = quantile(1 - level / 2, self.freedom) * self.error
        return self.mean - half, self.mean + half

    def to_json(self, level: float) -> dict[str, Any]:
        """Also the interval of 95 %, and that of what is left of the error budget."""
        freedom = None if math.isinf(self.freedom) else self.freedom
        return {
            "mean": self.mean, "error": self.error, "freedom": freedom, "p": self.p,
            "interval95": list(self.interval(0.05)), "level": level, "interval": list(self.interval(level)),
        }  # fmt: skip


def cumulative(t: float, freedom: float) -> float:
    """P(T <= t)."""
    return float(ndtr(t) if math.isinf(freedom) else stdtr(freedom, t))


def quantile(p: float, freedom: float) -> float:
    """The t below which T lies with probability p."""
    return float(ndtri(p) if math.isinf(freedom) else stdtrit(freedom, p))
