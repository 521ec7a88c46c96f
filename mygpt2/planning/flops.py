"""Arithmetic of training: FLOPs per token, and how many sequences a forward pass takes when nobody said."""

from __future__ import annotations

from mygpt2.config.schema import ModelConfig, RunConfig
from mygpt2.config.summary import count_parameters

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


def fast_micro_batch(model: ModelConfig, gpu_bytes: int | None) -> int:
    """Sequences per forward pass that are known to be fast and to fit. `gpu_bytes` is None without CUDA.

    On a GPU 70 % of the memory left beside 16 bytes per parameter is shared among sequences of about 34 bytes per
    token, channel and layer (Korthikanti et al. 2022, arXiv 2205.05198, without the attention matrices that SDPA never
    stores).
    """
    if gpu_bytes is None:
        return max(1, CPU_TOKENS // model.block_size)
    states = 16 * (12 * model.n_layer * model.n_embd**2 + 50304 * model.n_embd)
    free = 0.7 * (gpu_bytes - states)
    return max(1, min(GPU_SEQUENCES, int(free / (34 * model.n_layer * model.n_embd * model.block_size))))
