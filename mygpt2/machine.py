"""What this process may use of the machine. Imports nothing heavy."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from mygpt2.errors import UserError

ELSEWHERE = ("192.0.2.1", 9)  # nobody's address (RFC 5737), reached by the default route


def available_cores() -> int:
    """Cores this process may use: its affinity, and a container's quota where there is one (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def address_towards(host: str, port: int) -> str | None:
    """The address from which this machine reaches `host`; None where that cannot be told."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, port))  # sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return None


def cache_folder(chosen: str | None = None) -> Path:
    """Where everything lies that can be made again: `chosen`, else $MYGPT2_CACHE, else the user's cache folder.

    UserError where none of them can be known: a user without an account, as in a container, has no home folder.
    """
    if given := chosen or os.environ.get("MYGPT2_CACHE"):
        return home_path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return home_path(given) / "mygpt2"
    try:
        return Path.home() / ".cache" / "mygpt2"
    except RuntimeError:
        raise UserError(
            "there is no place for the cache: HOME is not set and this user has no home folder; "
            "name a folder with MYGPT2_CACHE=DIR or --data.cache_dir DIR"
        ) from None


def home_path(text: str | Path) -> Path:
    """A path as a person types it, ~ and ~user included. UserError for a user who does not exist or has no home."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = Path(text).parts[0]
        raise UserError(f"{text}: there is no home folder of {user} here; write the path in full") from None


def bfloat16_denied() -> str | None:
    """Why PyTorch's products may not use the CPU's bfloat16 units although it may have them, or None.

    oneDNN, which does those products, is kept to older instructions by ONEDNN_MAX_CPU_ISA.
    """
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        limit = os.environ.get(name, "").upper()
        if limit.startswith(("SSE", "AVX2")) or limit in ("AVX", "AVX512_CORE", "AVX512_CORE_VNNI"):
            return f"{name}={os.environ[name]} keeps products from bfloat16 units"
    return None
