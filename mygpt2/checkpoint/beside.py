"""Work beside training: copies of tensors that may change meanwhile, and one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class Beside:
    """One piece of work at a time in a thread. Its exceptions are raised by the next `wait`, or `run`."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._defect: BaseException | None = None

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], object]) -> None:
        """Begins work in a thread. Not a daemon: Python waits for it at exit, so a save in flight is finished even
        when training raises."""
        self._thread = threading.Thread(target=self._kept, args=(work,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Blocks until no work is in flight."""
        if self._thread:
            self._thread.join()
            self._thread = None
        defect, self._defect = self._defect, None
        if defect is not None:
            raise defect

    def _kept(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._defect = error


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
