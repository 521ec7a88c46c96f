"""Stops or skips before a non-finite value reaches the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mygpt2.errors import EXIT_DEFECT

NONFINITE = "non-finite: "  # how the recorded reason of such an end begins


class NonFinite(Exception):
    """The loss or the gradient is not finite and the run was asked to stop, or skipped too often."""

    exit_code = EXIT_DEFECT
    shared = True  # both numbers are sums over the ranks: it is no rank's own

    def __str__(self) -> str:
        return f"{NONFINITE}{super().__str__()}"


@dataclass
class Guard:
    """Decides what a step with a non-finite loss or gradient norm does.

    Both numbers are summed over the ranks before they come here, so every rank decides alike. A loss scale that is
    still too high (`scaled`) is no defect: the scaler lowers it and the step is left out.
    """

    mode: str
    max_skips: int
    scaled: bool = False
    skips: int = 0

    def allows(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer may use this step's gradients. Raises NonFinite when the run must stop."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.skips = 0
            return True
        self.skips += 1
        what = f"loss {loss}, gradient norm {grad_norm} at step {step}"
        if self.mode == "stop" and not (self.scaled and math.isfinite(loss)):
            raise NonFinite(f"{what}: stopped before the weights were touched")
        limit = max(self.max_skips, 20) if self.scaled else self.max_skips
        if self.skips > limit:
            raise NonFinite(f"{what}: {self.skips} steps in a row were skipped")
        return False
