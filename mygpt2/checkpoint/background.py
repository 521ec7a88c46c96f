"""Saves that do not hold up training, do not end it when the disk is full, and are not lost at exit."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.checkpoint import store
from mygpt2.checkpoint.files import FileSystem
from mygpt2.checkpoint.format import encode_json, write
from mygpt2.checkpoint.layout import UnreadableCheckpoint
from mygpt2.files import read_json, replace_file
from mygpt2.records import is_number

if TYPE_CHECKING:
    from torch import Tensor

    from mygpt2.config.schema import CheckpointConfig

Event = dict[str, Any]
LOSSES = "validation.json"
FREE_FACTOR = 1.2  # a save needs its own size beside what exists, and metrics must still fit afterwards


class Checkpointer:
    """Saves, one at a time, and rotates what is kept. Construct it while holding the run's lock: it sweeps leftovers.

    `on_event` receives plain dictionaries, from the saving thread when `background`:
    {"kind": "save", step, path, bytes, seconds, held_seconds, deleted} or
    {"kind": "save_failed", step, reason, free_bytes, needed_bytes} or {"kind": "checkpoint_broken", path, reason}.
    A failed save never raises: training goes on and the previous checkpoint stays. `last` and `failure` tell the
    outcome of the latest save after `wait()`.
    """

    def __init__(
        self,
        checkpoints: Path,
        config: CheckpointConfig,
        on_event: Callable[[Event], None],
        *,
        files: FileSystem | None = None,
    ) -> None:
        self.last: Path | None = None
        self.failure: str | None = None
        self._checkpoints, self._config, self._on_event = checkpoints, config, on_event
        self._files = files or FileSystem()
        self._thread: threading.Thread | None = None
        self._defect: BaseException | None = None
        self._snapshot = Snapshot()
        self._reported: set[Path] = set()
        self._lock = threading.Lock()
        checkpoints.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.sweep(checkpoints, files=self._files)
        self._losses = _read_losses(checkpoints / LOSSES)

    def save(
        self,
        step: int,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: Mapping[str, Any],
        *,
        background: bool | None = None,
        copied: bool = False,
    ) -> float:
        """Saves one step and returns the seconds training was held up.

        In the background the tensors are copied first, so they may change as soon as this returns, unless they are
        `copied` already. A save still in flight is waited for. `background` defaults to the configuration's.
        """
        began = time.monotonic()
        self.wait()
        frozen = json.loads(encode_json(state))  # a copy, and a ValueError here and now for what JSON cannot hold
        if not (self._config.background if background is None else background):
            self._write(step, model, optimizer, frozen, began, None)
            self._raise_defect()
            return time.monotonic() - began
        if not copied:
            model, optimizer = self._snapshot.take({"model": model, "optimizer": optimizer})
        held = time.monotonic() - began
        # Not a daemon: Python waits for it at exit, so a save in flight is finished even when training raises.
        self._thread = threading.Thread(
            target=self._write, args=(step, model, optimizer, frozen, began, held), name="checkpoint"
        )
        self._thread.start()
        return held

    @property
    def saving(self) -> bool:
        """Whether a save is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> Path | None:
        """Blocks until no save is in flight; the path of the last one that succeeded. Raises the thread's defects."""
        if self._thread:
            self._thread.join()
            self._thread = None
        self._raise_defect()
        return self.last

    def best(self, step: int, loss: float) -> bool:
        """Notes a validation loss, before or after the save of that step; True if it is the lowest so far.

        Rotation keeps the checkpoint with the lowest loss noted for it. Survives a restart.
        """
        if not math.isfinite(loss):
            return False
        with self._lock:
            others = [value for at, value in self._losses.items() if at != step]
            self._losses[step] = float(loss)
            self._keep_losses()
        return all(loss < value for value in others)

    @property
    def best_step(self) -> int | None:
        """The step of the checkpoint on disk with the lowest noted loss; the earlier one of equals."""
        with self._lock:
            known = [(self._losses[step], step) for step in store.steps(self._checkpoints) if step in self._losses]
        return min(known)[1] if known else None

    def _keep_losses(self) -> None:
        record = {"schema": 1, "losses": {str(step): loss for step, loss in sorted(self._losses.items())}}
        try:
            replace_file(self._checkpoints / LOSSES, encode_json(record))
        except OSError as error:
            self._on_event({"kind": "save_failed", "step": max(self._losses), "reason": f"{LOSSES}: {_reason(error)}"})

    def _write(
        self,
        step: int,
        model: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
        state: Event,
        began: float,
        held: float | None,
    ) -> None:
        """The whole of one save. Never raises: an OSError becomes an event, a defect is kept for `wait`."""
        from mygpt2.checkpoint.tensors import tensor_bytes

        needed = int(FREE_FACTOR * (tensor_bytes(model) + tensor_bytes(optimizer)))
        try:
            free = self._files.free_bytes(self._checkpoints)
            if free < needed:
                self._fail(step, "not enough space on the disk", needed)
                return
            path = write(self._checkpoints, step, model, optimizer, state, files=self._files)
            self.last, self.failure = path, None
            seconds = time.monotonic() - began
            done = {"seconds": seconds, "held_seconds": seconds if held is None else held}
            size = store.size_bytes(path)
            self._on_event(
                {"kind": "save", "step": step, "path": path.name, "bytes": size, **done, "deleted": self._rotate()}
            )
        except OSError as error:
            self._fail(step, _reason(error), needed)
        except BaseException as error:
            self._defect = error

    def _fail(self, step: int, reason: str, needed: int) -> None:
        self.failure = reason
        try:
            free: int | None = self._files.free_bytes(self._checkpoints)
        except OSError:
            free = None
        self._on_event(
            {"kind": "save_failed", "step": step, "reason": reason, "free_bytes": free, "needed_bytes": needed}
        )

    def _rotate(self) -> list[int]:
        """Steps deleted. A failing deletion is reported; the checkpoint just written is safe all the same."""
        config = self._config
        try:
            best = self.best_step if config.keep_best else None
            done = store.prune(self._checkpoints, config.keep_last, config.keep_every, best, files=self._files)
        except (OSError, UnreadableCheckpoint) as error:
            reason = _reason(error) if isinstance(error, OSError) else str(error)
            self._on_event({"kind": "prune_failed", "reason": reason})
            return []
        for broken in done.broken:
            if broken.path not in self._reported:
                self._reported.add(broken.path)
                self._on_event({"kind": "checkpoint_broken", **asdict(broken), "path": broken.path.name})
        return done.deleted

    def _raise_defect(self) -> None:
        defect, self._defect = self._defect, None
        if defect is not None:
            raise defect


class Snapshot:
    """Copies of tensors in CPU memory whose buffers are used again at the next save."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, str], Tensor] = {}

    def take(self, groups: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The groups, copied. On CUDA all copies run at once into pinned memory and are waited for together."""
        import torch

        copies, used, on_cuda = [], {}, False
        for group, tensors in groups.items():
            copy = {}
            for name, tensor in tensors.items():
                copy[name] = used[group, name] = self._buffer(group, name, tensor)
                copy[name].copy_(tensor.detach(), non_blocking=tensor.is_cuda)
                on_cuda |= tensor.is_cuda
            copies.append(copy)
        self._buffers = used  # buffers of tensors that no longer exist are let go
        if on_cuda:
            torch.cuda.synchronize()
        return copies

    def _buffer(self, group: str, name: str, tensor: Tensor) -> Tensor:
        import torch

        buffer = self._buffers.get((group, name))
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
        return buffer


def _read_losses(path: Path) -> dict[int, float]:
    """Noted losses; a missing or damaged file only forgets which checkpoint was best."""
    losses = (read_json(path) or {}).get("losses")
    if not isinstance(losses, dict):
        return {}
    return {
        int(step): float(loss) for step, loss in losses.items() if re.fullmatch(r"\d{1,12}", step) and is_number(loss)
    }


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
