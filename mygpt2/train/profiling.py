"""Where the time of a step goes, as PyTorch's profiler tells it of some steps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch


def profiler_for(spec: str | None, folder: Path, device: torch.device) -> AbstractContextManager[Any]:
    """The profiler for steps `FIRST:LAST` (1-based), which leaves a Chrome trace and a table in `folder`."""
    if spec is None:
        return nullcontext()
    first, last = (int(part) for part in spec.split(":"))

    def keep(profiler: Any) -> None:
        try:
            folder.mkdir(exist_ok=True)
            profiler.export_chrome_trace(str(folder / f"steps-{first}-{last}.json"))
            (folder / "top.txt").write_text(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
        except OSError as error:
            print(f"the profile could not be written: {error}; training goes on", flush=True)

    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    warm = min(first - 1, 1)
    plan = torch.profiler.schedule(wait=first - 1 - warm, warmup=warm, active=last - first + 1, repeat=1)
    return torch.profiler.profile(activities=kinds, schedule=plan, on_trace_ready=keep)
