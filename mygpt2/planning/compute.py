"""Arithmetic of training, sequences of a forward pass when nobody said, and whether `train.compile = auto` compiles.

All are functions of the run and the machine alone: no measurement and no earlier run has a say, so that a run that is
resumed is compiled, or not, as it was before.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

from mygpt2.config.schema import ModelConfig, RunConfig
from mygpt2.config.summary import count_parameters
from mygpt2.format import readable

CPU_TOKENS = 4096  # keep a CPU's matrix units busy within its caches
GPU_SEQUENCES = 64


def flops_per_token(parameters: int, n_layer: int, n_embd: int, block_size: int) -> float:
    """Training FLOPs per token: 6 N for the matrices plus 12 L C T for attention (PaLM, arXiv 2204.02311, appendix B).

    `parameters` counts the tied embedding once (it is a matrix product at the output) and leaves out the positions.
    C is PaLM's H x Q, heads times their width.
    """
    return 6.0 * parameters + 12.0 * n_layer * n_embd * block_size


def training_flops(config: RunConfig, vocab_size: int) -> float:
    """FLOPs per token of a configuration, as `train` counts them for MFU."""
    m = config.model
    counted = count_parameters(m, vocab_size) - m.block_size * m.n_embd
    return flops_per_token(counted, m.n_layer, m.n_embd, m.block_size)


def fast_micro_batch(model: ModelConfig, gpu_bytes: int | None, shards: int = 1) -> int:
    """Sequences per forward pass that are known to be fast and to fit. `gpu_bytes` is None without CUDA.

    On a GPU 70 % of the memory left beside 16 bytes per parameter is shared among sequences of about 34 bytes per
    token, channel and layer (Korthikanti et al. 2022, arXiv 2205.05198, without the attention matrices that SDPA never
    stores). Of weights shared out over `shards` ranks each keeps its part, and at times 4 bytes per parameter whole.
    """
    if gpu_bytes is None:
        return max(1, CPU_TOKENS // model.block_size)
    states = 16 * (12 * model.n_layer * model.n_embd**2 + 50304 * model.n_embd)
    free = 0.7 * (gpu_bytes - (states if shards == 1 else states // shards + states // 4))
    return max(1, min(GPU_SEQUENCES, int(free / (34 * model.n_layer * model.n_embd * model.block_size))))


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
    limit = readable(LONG_ENOUGH_S, "s")  # the run's own length would be a second estimate beside the plan's
    paid = f"a run longer than about {limit} pays for it"
    return long_enough, paid if long_enough else f"a run shorter than about {limit} does not pay for it"
