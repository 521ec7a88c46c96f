"""What this machine has, asked without torch: memory, disk, GPUs by their published peaks; what `auto` will mean."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from mygpt2.config.fields import nearest
from mygpt2.config.schema import RunConfig
from mygpt2.errors import UserError
from mygpt2.machine import bfloat16_denied


@dataclass(frozen=True)
class Gpu:
    """A CUDA device as the driver lists it."""

    name: str
    memory_bytes: int
    capability: float


@dataclass(frozen=True)
class Published:
    """Dense bf16 tensor-core peak in FLOP/s (V100, T4: fp16), memory in GB, compute capability."""

    peak: float
    memory_gb: int
    capability: float


# Peaks without sparsity, and memory, from NVIDIA's data sheets and white papers of each (nvidia.com/data-center, the
# RTX Blackwell, Ada and GA102 white papers for GeForce). The longer name comes first: an "H100 PCIe" is no "H100".
GPUS = {
    "B200": Published(2.25e15, 180, 10.0),
    "GH200": Published(989e12, 96, 9.0),
    "H200 NVL": Published(835e12, 141, 9.0),
    "H200": Published(989e12, 141, 9.0),
    "H100 PCIe": Published(756e12, 80, 9.0),
    "H100 NVL": Published(835e12, 94, 9.0),
    "H100": Published(989e12, 80, 9.0),
    "A100 40GB": Published(312e12, 40, 8.0),
    "A100": Published(312e12, 80, 8.0),
    "A40": Published(149.7e12, 48, 8.6),
    "A10": Published(125e12, 24, 8.6),
    "L40S": Published(362e12, 48, 8.9),
    "L40": Published(181e12, 48, 8.9),
    "L4": Published(121e12, 24, 8.9),
    "RTX A6000": Published(155e12, 48, 8.6),
    "V100": Published(125e12, 32, 7.0),
    "T4": Published(65e12, 16, 7.5),
    "RTX 5090": Published(209e12, 32, 12.0),
    "RTX 4090": Published(165e12, 24, 8.9),
    "RTX 3090": Published(71e12, 24, 8.6),
}


def published(name: str) -> Published | None:
    """What is known of a device by the driver's name for it; None where a guess could be wrong."""
    if "Laptop" in name or "Max-Q" in name:  # the same name on a smaller chip
        return None
    return next((gpu for part, gpu in GPUS.items() if re.search(rf"\b{part}\b", name)), None)


def named_gpu(word: str) -> Gpu:
    """The GPU that a person means: h100, rtx4090, 4090, a100-40gb. UserError for one that is not known."""
    spelled = {_plain(name): name for name in GPUS} | {_plain(name).removeprefix("rtx"): name for name in GPUS}
    name = spelled.get(_plain(word))
    if name is None:
        close = nearest(_plain(word), spelled)
        hint = f"did you mean {spelled[close]}? " if close else ""
        raise UserError(f"--on {word}: this GPU is not known; {hint}known are {', '.join(GPUS)}")
    known = GPUS[name]
    return Gpu(name, known.memory_gb * 10**9, known.capability)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower().removeprefix("nvidia"))


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
