"""Names inside checkpoints/: whole ones, those being built, those going away, those being replaced.

step-00001200                       a checkpoint
.tmp-<pid>-<start>-<unique>         one being built by that process
.trash-<pid>-<start>-<unique>       one being deleted by that process
.replaced-step-00001200-<unique>    an older one of the same step; still counts until the new one has the name
"""

from __future__ import annotations

import os
import re
import secrets

from mygpt2.run_dir.process import signature

_STEP = re.compile(r"step-(\d{8,})")
_REPLACED = re.compile(r"\.replaced-(step-\d{8,})-[0-9a-f]+")
_SCRATCH = re.compile(r"\.(?:tmp|trash)-(\d+)-([0-9a-f]+)-[0-9a-f]+")


def step_name(step: int) -> str:
    return f"step-{step:08d}"


def replaced_name(name: str) -> str:
    return f".replaced-{name}-{secrets.token_hex(6)}"


def scratch_name(kind: str) -> str:
    """A name no other process uses and that tells who made it."""
    return f".{kind}-{os.getpid()}-{signature(os.getpid())}-{secrets.token_hex(6)}"


def step_of(name: str) -> int | None:
    """The step of a checkpoint's folder name, replaced ones included."""
    match = _STEP.fullmatch(original_of(name) or name)
    return int(match[1]) if match else None


def original_of(name: str) -> str | None:
    """The name a replaced checkpoint had."""
    match = _REPLACED.fullmatch(name)
    return match[1] if match else None


def is_leftover(name: str) -> bool:
    """Whether a scratch folder's process is gone, so nobody will finish it."""
    match = _SCRATCH.fullmatch(name)
    return match is not None and signature(int(match[1])) != match[2]
