"""Where a process computes and in which arithmetic, chosen by probing the machine, and its threads and memory."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from mygpt2.board import RankInfo
from mygpt2.errors import UserError
from mygpt2.machine import available_cores, bfloat16_denied

ALONE = RankInfo()


def available_devices() -> list[str]:
    """Kinds of device that are here, the best first."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, is_there in there.items() if is_there]


def check_device_option(kind: str) -> None:
    """UserError for a `--device` that is not here."""
    if kind not in ("auto", *available_devices()):
        allowed = ", ".join(["auto", "cpu", *available_devices()[:-1]])
        raise UserError(f"--device {kind} is not there; allowed: {allowed}")


def choose_device(requested: str, info: RankInfo = ALONE) -> torch.device:
    """The device of this rank. `auto` takes CUDA, then MPS (one process only), then the CPU."""
    if requested in ("auto", "cuda") and torch.cuda.is_available():
        count = torch.cuda.device_count()
        if info.local_rank >= count:
            raise UserError(
                f"{info.local_size} processes were started on this machine but it has {count} CUDA devices; "
                f"use --nproc {count} or --train.device cpu"
            )
        return torch.device("cuda", info.local_rank)
    mps = torch.backends.mps.is_available()
    if requested == "mps" and info.size > 1:
        raise UserError(f"train.device=mps trains in one process, not {info.size}; use --nproc 1")
    if requested in ("auto", "mps") and mps and info.size == 1:
        return torch.device("mps")
    if requested in ("cuda", "mps"):
        raise UserError(f"train.device={requested} is not available here; use --train.device auto or cpu")
    return torch.device("cpu")


@dataclass(frozen=True)
class Precision:
    """`name` is bf16, fp16, tf32 or fp32; weights and optimizer state are float32 in all of them."""

    name: str
    reason: str

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of matrix products."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name, torch.float32)

    @property
    def scaled(self) -> bool:
        """Whether gradients need a loss scale: float16 underflows below 6e-8."""
        return self.name == "fp16"

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype)

    def apply(self) -> None:
        """Sets the process-wide switch for float32 products on CUDA: TF32 unless plain fp32 was asked for.

        By the older of PyTorch's two interfaces: after the newer one has been used Inductor raises (pytorch#166387).
        """
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("highest" if self.name == "fp32" else "high")
            torch.backends.cudnn.allow_tf32 = self.name != "fp32"


def cpu_bf16_unit() -> str | None:
    """The CPU's bfloat16 matrix instructions, or None. Without them bfloat16 is emulated, far slower than float32.

    `ONEDNN_MAX_CPU_ISA` keeps PyTorch's products from instructions that the processor has.
    """
    if bfloat16_denied():
        return None
    probe = torch.cpu
    if getattr(probe, "_is_amx_tile_supported", lambda: False)():
        return "AMX"
    if getattr(probe, "_is_avx512_bf16_supported", lambda: False)():
        return "AVX512-BF16"
    if platform.machine() in ("aarch64", "arm64") and getattr(probe, "_is_arm_bf16_supported", lambda: False)():
        return "Arm BF16"
    return None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has units for bfloat16 products, whatever the run's own precision is."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and cpu_bf16_unit() is not None


def choose(requested: str, device: torch.device, option: str = "train.precision=") -> Precision:
    """What a precision means on this device. A wish the device cannot fulfil is refused, never replaced.

    `option`: how the person gave it, for the message.
    """
    if requested == "auto":
        return _automatic(device)
    if requested == "fp16" and device.type == "cpu":
        raise UserError(f"{option}fp16 needs a GPU; on a CPU use auto, bf16 or fp32")
    if requested == "tf32" and device.type != "cuda":
        raise UserError(f"{option}tf32 exists on CUDA only, not on {device.type}; use auto or fp32")
    if requested == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"{option}bf16: this GPU has no bfloat16; use auto (fp16 with a loss scale) or fp32")
    return Precision(requested, "as asked")


def _automatic(device: torch.device) -> Precision:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", f"{name} has bfloat16")
        return Precision("fp16", f"{name} has no bfloat16: float16 with a loss scale")
    if device.type == "mps":
        # pytorch/pytorch#195910: causal attention leaks future tokens in half precision there.
        return Precision("fp32", "half precision on MPS has leaked future tokens and made NaN")
    unit = cpu_bf16_unit()
    if unit:
        return Precision("bf16", f"this CPU multiplies bfloat16 in hardware ({unit})")
    return Precision("fp32", bfloat16_denied() or "this CPU has no bfloat16 matrix unit")


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
