"""torch.compile, with kernels kept apart by instruction set."""

from __future__ import annotations

import getpass
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

FOLDER = "TORCHINDUCTOR_CACHE_DIR"


def compiled(function: Callable[..., Any], dynamic: bool = False) -> Callable[..., Any]:
    """`torch.compile(function)` whose kernels are kept in a folder of this processor's instruction set.

    What PyTorch keeps of a compiled graph does not say for which vectors it was made (2.13). A kernel of AVX-512 taken
    where ATEN_CPU_CAPABILITY allows AVX2, or one that another processor wrote into a shared folder, gives wrong numbers
    without a word, or writes beyond its arrays.
    """
    name = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "-")
    if getattr(torch.cpu, "_is_amx_tile_supported", bool)():  # private; the builds for other processors may lack it
        name += "-amx"
    folder = Path(os.environ.get(FOLDER) or _usual())
    if folder.name != name:  # a child process inherits it
        os.environ[FOLDER] = str(folder / name)
    # By itself Dynamo cuts a compiled block where a bucket of DDP ends, which keeps its passes from being fused.
    # Gradients leave between the blocks as it is, for these are compiled one by one.
    torch._dynamo.config.optimize_ddp = False
    return torch.compile(function, dynamic=dynamic)


def _usual() -> Path:
    """Where PyTorch keeps kernels when nobody says."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir()) / f"torchinductor_{user}"
