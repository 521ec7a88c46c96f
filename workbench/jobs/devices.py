"""The devices of this machine as the queue names them, which of them a run gets, and what its processes see of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

from mygpt2.config import RunConfig
from mygpt2.config.batch import legal_ranks
from mygpt2.errors import UserError
from mygpt2.launch.plan import CPU_PROCESSES
from mygpt2.machine import available_cores


def default_slots() -> list[str]:
    """Names of the devices here, found without loading torch: cuda:0 ..., mps, or cpu."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        count = len([d for d in visible.split(",") if d and d != "-1"])
    else:
        count = len([p for p in Path("/dev").glob("nvidia*") if p.name.removeprefix("nvidia").isdecimal()])
    if count:
        return [f"cuda:{number}" for number in range(count)]
    return ["mps"] if (platform.system(), platform.machine()) == ("Darwin", "arm64") else ["cpu"]


def check_slots(devices: Sequence[str], slots: Sequence[str]) -> None:
    """UserError unless every device is a slot, each once."""
    if not devices:
        raise UserError(f"no device was chosen; choose from: {', '.join(slots)}")
    for device in devices:
        if device not in slots:
            raise UserError(f"there is no device {device!r}; choose from: {', '.join(slots)}")
    if len(set(devices)) != len(devices):
        raise UserError(f"a device was chosen twice: {', '.join(devices)}; choose each once")


def default_nproc(config: RunConfig, slots: Sequence[str]) -> int:
    """As the launcher chooses: one process per device, else two on a CPU; fewer where the batch does not divide."""
    devices = [slot for slot in slots if slot != "cpu"] if config.train.device != "cpu" else []
    most = len(devices) or min(CPU_PROCESSES, available_cores())
    train, data = config.train, config.data
    return legal_ranks(train.batch_tokens, config.model.block_size, train.micro_batch, data.lanes, most)


def default_devices(slots: Sequence[str], nproc: int) -> tuple[str, ...]:
    """The first devices, one per process; all processes share a CPU."""
    return tuple(slots[:nproc])


def device_environment(devices: Sequence[str], environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Which CUDA devices the child sees: cuda:0 is the first of those this process sees."""
    numbers = [int(device.removeprefix("cuda:")) for device in devices if device.startswith("cuda:")]
    if not numbers:
        return {}
    seen = [d for d in (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
    names = [seen[number] if number < len(seen) else str(number) for number in numbers]
    return {"CUDA_VISIBLE_DEVICES": ",".join(names)}
