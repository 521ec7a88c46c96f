"""Whether torch.compile works here and gives what plain execution gives.

A process of its own (`python -m mygpt2.doctor.compiled`), because the first compilation on a machine can take longer
than the whole report may: it is given a time limit and ended, children included.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from mygpt2.doctor import FAIL, OK, SKIP, Finding
from mygpt2.planning.compute import no_compiler

ADVICE = "train.compile will not work; switch it off with train.compile=false"


class CompileCheck:
    """Starts the check at once, so that it runs beside the others; `finish` waits for it until its deadline."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s, self._began = limit_s, time.monotonic()
        self._reason = no_compiler()
        self._process: subprocess.Popen[str] | None = None
        if self._reason is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mygpt2.doctor.compiled"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            )

    def finish(self) -> Finding:
        """The finding; after the deadline the process and whatever compiler it started are ended."""
        if self._process is None:
            return Finding(SKIP, "compile", f"{self._reason}", "train.compile=auto leaves it out")
        try:
            left = max(0.1, self._began + self._limit_s - time.monotonic())
            output, _ = self._process.communicate(timeout=left)
        except subprocess.TimeoutExpired:
            return Finding(
                SKIP,
                "compile",
                f"not done after {self._limit_s:.0f} s, as happens the first time",
                "run doctor again for this check",
            )
        finally:
            self.close()
        last = (output.strip().splitlines() or ["no output"])[-1][:160]
        if self._process.returncode == 0:
            return Finding(OK, "compile", last)
        return Finding(FAIL, "compile", last, ADVICE)

    def close(self) -> None:
        """Ends the process group if it still runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()


def main() -> int:
    """Compares the compiled loss kernel, loss and gradient, with the plain one; prints one line."""
    import torch

    from mygpt2.device import choose_device
    from mygpt2.model.compiled import compiled
    from mygpt2.model.loss import _fused_kernel, softmax_in_place

    device, generator = choose_device("auto"), torch.Generator().manual_seed(1)
    logits = torch.randn(16, 320, generator=generator).to(device)
    targets = torch.randint(0, 300, (16,), generator=generator).to(device)
    plain, fused = logits.clone(), logits.clone()
    difference = softmax_in_place(plain, targets, 300, True) - compiled(_fused_kernel)(fused, targets, 300, True)
    worst = max(float(difference.abs().max()), float((plain - fused).abs().max()))
    print(f"compiled and plain loss and gradient differ by {worst:.0e}")
    return 0 if worst < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
