"""GPUs by name: their published peaks, against which MFU is measured and with which a run elsewhere can be planned."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mygpt2.config.fields import nearest
from mygpt2.errors import UserError


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
