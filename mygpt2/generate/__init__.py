"""Text from a model: sampling as functions of logits, and the loop that feeds them."""

from mygpt2.generate.engine import generate
from mygpt2.generate.sampling import Sampling

__all__ = ["Sampling", "generate"]
