"""Text from a model: sampling as functions of logits, and the loop that feeds them."""

from mygpt2.generate.engine import Engine, Token, generate
from mygpt2.generate.sampling import Sampling

__all__ = ["Engine", "Sampling", "Token", "generate"]
