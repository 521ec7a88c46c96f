"""The trace of a run as its ranks write it: one file for all ranks of a machine, where they can come together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mygpt2.data.batch import Batch
from mygpt2.data.trace import TraceWriter
from mygpt2.distributed import World
from mygpt2.train.record import Recorder


class Tracing:
    """On every rank; `writer` is None where a run keeps no trace.

    The trace is not vital: a disk that is full or sick just now is said once, and the rows wait in memory.
    """

    def __init__(self, world: World, recorder: Recorder, writer: TraceWriter | None) -> None:
        self._world, self._recorder, self._writer = world, recorder, writer
        self._fails = False

    @property
    def due(self) -> bool:
        """Whether enough rows wait for a file: on all ranks at the same step, as all have equally many."""
        return self._writer is not None and self._writer.full

    def add(self, step: int, batch: Batch, row_losses: np.ndarray) -> None:
        """Notes the rows of a step."""
        if self._writer:
            self._writer.add(step, batch, row_losses)

    def flush(self) -> None:
        """Writes what was added, by all ranks at once: the first of each machine for all of that machine."""
        if self._writer is None:
            return
        if self._world.info.local_size > 1:
            self._writer.hand_over(self._world.to_node_lead)
        self._vainly(self._writer.flush)

    def end(self) -> None:
        """Writes what was added, by this rank alone: the others may have ended."""
        if self._writer:
            self._vainly(self._writer.flush)

    def _vainly(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._fails = False
        except OSError as error:
            if not self._fails:
                self._fails = True
                reason = error.strerror or str(error)
                message = f"the trace cannot be written just now: {reason}"
                self._recorder.event("alert", level="warning", message=message)
                print(f"{message}; training goes on", flush=True)
