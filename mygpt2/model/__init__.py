"""The network: GPT-2, its fused loss, its key-value cache and its weights as named tensors."""

from mygpt2.model.attention import KVCache
from mygpt2.model.gpt import GPT, GPTConfig, LossModule, load_state, state_for_checkpoint
from mygpt2.model.loss import LossParts, linear_cross_entropy

__all__ = [
    "GPT",
    "GPTConfig",
    "KVCache",
    "LossModule",
    "LossParts",
    "linear_cross_entropy",
    "load_state",
    "state_for_checkpoint",
]
