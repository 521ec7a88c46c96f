"""Whether a run is compiled when `train.compile` is auto, and why: a function of the run and the machine alone.

No measurement and no earlier run has a say, so that a run that is resumed is compiled, or not, as it was before.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

from mygpt2.config.schema import RunConfig
from mygpt2.planning.figures import readable
from mygpt2.planning.flops import training_flops

# FLOP/s of a core in whole steps of tiny, not compiled: 226 and 84 on a Zen 5 processor, the second with AVX2 only.
CPU_SPEED = {"bf16": 200e9, "fp32": 80e9}
LONG_ENOUGH_S = 1500.0  # of steps on a CPU: compiling takes about a minute and saves a twentieth of them in bfloat16


def no_compiler() -> str | None:
    """Why nothing can be compiled here, or None. Triton, on CUDA, needs a compiler too, for its launchers."""
    compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
    if not any(name and shutil.which(name.split()[0]) for name in compilers):
        return "no C++ compiler (g++ or clang++)"
    return None


def compile_choice(config: RunConfig, vocab_size: int, *, device: str, precision: str, cores: int) -> tuple[bool, str]:
    """(whether, why) for `train.compile` on a device (cpu, cuda, mps). `cores` are those of all ranks together."""
    asked = config.train.compile
    if asked != "auto":
        return asked == "true", "as asked"
    if device == "mps":
        return False, "not tried on MPS"
    missing = no_compiler()
    if missing is None and device == "cuda" and importlib.util.find_spec("triton") is None:
        missing = "Triton is not installed"
    if missing:
        return False, missing
    if device == "cuda":
        return True, "a GPU gains half as much again"
    if precision == "fp32":
        return False, "in float32 a processor gains nothing by it"  # 1.17 x nanoGPT either way: benchmarks/training.py
    total = training_flops(config, vocab_size) * config.train.steps * config.train.batch_tokens
    seconds = total / (CPU_SPEED["bf16"] * cores)
    long_enough = seconds >= LONG_ENOUGH_S
    return long_enough, f"about {readable(seconds, 's')} of steps here {'pay' if long_enough else 'do not pay'} for it"
