"""mygpt2: a GPT-2 pretraining engine whose batches, losses and checkpoints survive anything."""

__version__ = "0.1.0"
