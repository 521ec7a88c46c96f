"""Checkpoints: atomic, verified, rotating, never a pickle. Importing this package does not import torch."""

from mygpt2.checkpoint.background import Checkpointer, Follower
from mygpt2.checkpoint.files import FileSystem, step_name, step_of
from mygpt2.checkpoint.format import (
    BrokenCheckpoint,
    Checkpoint,
    load,
    read_model,
    read_optimizer,
    read_state,
    verify,
    write,
)
from mygpt2.checkpoint.layout import Unreadable, UnreadableCheckpoint
from mygpt2.checkpoint.store import (
    Pruned,
    Skipped,
    candidates,
    load_newest,
    newest,
    prune,
    refuse,
    size_bytes,
    steps,
    sweep,
)

__all__ = [
    "BrokenCheckpoint", "Checkpoint", "Checkpointer", "FileSystem", "Follower", "Pruned", "Skipped", "Unreadable",
    "UnreadableCheckpoint", "candidates", "load", "load_newest", "newest", "prune", "read_model",
    "read_optimizer", "read_state", "refuse", "size_bytes", "step_name", "step_of", "steps", "sweep", "verify", "write",
]  # fmt: skip
