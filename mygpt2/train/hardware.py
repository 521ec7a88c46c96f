"""What the machine gives: threads, warm memory, memory in use, and the peak that MFU is measured against."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from mygpt2.board import RankInfo
from mygpt2.machine import available_cores
from mygpt2.planning.machine import published


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak at bf16/fp16, or None where it is unknown: a wrong peak is worse than no figure."""
    if device.type != "cuda" or precision not in ("bf16", "fp16"):
        return None
    known = published(torch.cuda.get_device_name(device))
    return known.peak if known else None


def use_threads(info: RankInfo) -> int:
    """Shares this machine's cores among its ranks, unless OMP_NUM_THREADS says otherwise; returns threads per rank."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    count = int(asked) if asked.isdigit() and int(asked) > 0 else max(1, available_cores() // info.local_size)
    torch.set_num_threads(count)
    return count


def keep_memory_warm() -> None:
    """Tells glibc to keep freed blocks: large activations would be unmapped and faulted in anew at every step.

    mallopt(3): M_MMAP_MAX = -4, M_TRIM_THRESHOLD = -1, M_TOP_PAD = -2.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-4, 0)
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-2, 64 << 20)


def memory_bytes(device: torch.device) -> int:
    """Device memory in use at its highest (CUDA), or the resident set of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)
