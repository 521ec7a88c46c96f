"""What this machine has, asked without torch: memory, free disk, GPUs, and the arithmetic that `auto` will choose."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from mygpt2.config.schema import RunConfig
from mygpt2.machine import bfloat16_denied
from mygpt2.planning.gpus import Gpu, named_gpu

BFLOAT16 = 8.0  # the first compute capability with bfloat16 (Ampere)


@dataclass(frozen=True)
class Machine:
    """Memory that a new process may take on the host now, what the host has in all, and its GPUs.

    `elsewhere`: only the GPUs are known, of a machine that is not this one.
    """

    host_free: int | None
    host_total: int | None
    gpus: tuple[Gpu, ...]
    elsewhere: bool = False


def this_machine() -> Machine:
    """The present figures; a container's limit counts as its memory (cgroup v2)."""
    memory = psutil.virtual_memory()
    free, total = memory.available, memory.total
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is not None:
        total = min(total, limit)
        free = min(free, max(0, limit - (used or 0)))
    return Machine(free, total, list_gpus())


def machine_with(gpu: str, count: int) -> Machine:
    """A machine elsewhere with so many GPUs of a name. UserError for a name that is not known."""
    return Machine(None, None, (named_gpu(gpu),) * count, elsewhere=True)


@lru_cache(maxsize=1)
def list_gpus() -> tuple[Gpu, ...]:
    """CUDA devices by the driver's own tool, asked once per process as it takes a second; none where it is missing."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        rows = [line.rsplit(",", 2) for line in done.stdout.splitlines()]
        return tuple(Gpu(name.strip(), int(memory) << 20, float(capability)) for name, memory, capability in rows)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


def likely_device(requested: str) -> str:
    """cpu, cuda or mps: what `train.device` will mean here."""
    if requested != "auto":
        return requested
    if list_gpus():
        return "cuda"
    return "mps" if platform.system() == "Darwin" and platform.machine() == "arm64" else "cpu"


def likely_precision(config: RunConfig, device: str, gpus: tuple[Gpu, ...] | None = None) -> tuple[str, str]:
    """(precision, why): what `train.precision` will mean here, by the rules of `train.precision.choose`.

    `gpus` stand in for this machine's. Where nothing tells, fp32: the larger memory.
    """
    gpus = list_gpus() if gpus is None and device == "cuda" else gpus
    if config.train.precision != "auto":
        return config.train.precision, "as asked"
    if device == "cuda":
        if not gpus:
            return "bf16", "assumed: no GPU can be asked"
        modern = gpus[0].capability >= BFLOAT16
        return ("bf16", "this GPU has bfloat16") if modern else ("fp16", "this GPU has no bfloat16")
    if device == "cpu" and _cpu_has_bfloat16() and not bfloat16_denied():
        return "bf16", "this CPU multiplies bfloat16"
    return "fp32", "no fast bfloat16 is known of"


def free_disk(folder: Path) -> int | None:
    """Bytes free where a folder is or would be made; None where nobody can tell."""
    there = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    try:
        return shutil.disk_usage(there).free
    except OSError:
        return None


@lru_cache(maxsize=1)
def _cpu_has_bfloat16() -> bool:
    """From the kernel's list of instructions: AMX's or AVX512's on x86, BF16 on Arm."""
    try:
        text = Path("/proc/cpuinfo").read_text("ascii", errors="replace")
    except OSError:
        return False
    flags = next(
        (line.split(":", 1)[1].split() for line in text.splitlines() if line.startswith(("flags", "Feat"))), []
    )
    return bool({"amx_tile", "avx512_bf16", "bf16"}.intersection(flags))


def _cgroup(name: str) -> int | None:
    try:
        return int(Path("/sys/fs/cgroup", name).read_text("ascii"))
    except (OSError, ValueError):
        return None
