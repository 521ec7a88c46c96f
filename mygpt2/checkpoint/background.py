"""Saves that do not hold up training, do not end it when the disk is full, and are not lost at exit."""

from __future__ import annotations

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mygpt2.checkpoint import store
from mygpt2.checkpoint.beside import Beside, Snapshot
from mygpt2.checkpoint.files import FileSystem
from mygpt2.checkpoint.format import encode_json, write
from mygpt2.checkpoint.layout import BrokenCheckpoint, UnreadableCheckpoint
from mygpt2.checkpoint.parts import Part, Share
from mygpt2.checkpoint.together import Meeting
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
        self._snapshot, self._beside = Snapshot(), Beside()
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
        from mygpt2.checkpoint.tensors import tensor_bytes

        began = time.monotonic()
        self.wait()
        frozen = json.loads(encode_json(state))  # a copy, and a ValueError here and now for what JSON cannot hold
        background = self._config.background if background is None else background
        if background and not copied:
            model, optimizer = self._snapshot.take({"model": model, "optimizer": optimizer})
        needed = int(FREE_FACTOR * (tensor_bytes(model) + tensor_bytes(optimizer)))

        def make() -> Path:
            self._check_room(needed)
            return write(self._checkpoints, step, model, optimizer, frozen, files=self._files)

        return self._run(_Save(step, make, needed, began), background)

    def save_together(
        self,
        step: int,
        own: Share | None,
        meeting: Meeting,
        state: Mapping[str, Any],
        total_bytes: int,
        *,
        background: bool | None = None,
    ) -> float:
        """As `save`, of a checkpoint whose parts several ranks write. `own` is this one's part, if it has one, and
        `total_bytes` the size of all. The other ranks call `Follower.save`."""
        began = time.monotonic()
        self.wait()
        document = encode_json(state)
        background = self._config.background if background is None else background
        if background and own:
            own = copy_of(own, self._snapshot)
        needed = int(FREE_FACTOR * total_bytes)

        def make() -> Path:
            try:
                self._check_room(needed)
            except OSError:
                meeting.give_up()
                raise
            return meeting.lead(self._checkpoints, step, own, document, self._files)

        return self._run(_Save(step, make, needed, began, verified=True), background)

    def _run(self, save: _Save, background: bool) -> float:
        save.held = time.monotonic() - save.began if background else None
        if background:
            self._beside.start(lambda: self._write(save))
        else:
            self._write(save)
        return time.monotonic() - save.began if save.held is None else save.held

    @property
    def saving(self) -> bool:
        """Whether a save is in flight."""
        return self._beside.busy

    def wait(self) -> Path | None:
        """Blocks until no save is in flight; the path of the last one that succeeded. Raises the thread's defects."""
        self._beside.wait()
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

    def _write(self, save: _Save) -> None:
        """The whole of one save. An OSError becomes an event; what else is raised is a defect."""
        try:
            path = save.make()
            self.last, self.failure = path, None
            seconds = time.monotonic() - save.began
            done: Event = {"seconds": seconds, "held_seconds": seconds if save.held is None else save.held}
            size = store.size_bytes(path)
            done["deleted"] = self._rotate(path if save.verified else None)
            self._on_event({"kind": "save", "step": save.step, "path": path.name, "bytes": size, **done})
        except OSError as error:
            self._fail(save.step, _reason(error), save.needed)

    def _check_room(self, needed: int) -> None:
        if self._files.free_bytes(self._checkpoints) < needed:
            raise OSError("not enough space on the disk")

    def _fail(self, step: int, reason: str, needed: int) -> None:
        self.failure = reason
        try:
            free: int | None = self._files.free_bytes(self._checkpoints)
        except OSError:
            free = None
        self._on_event(
            {"kind": "save_failed", "step": step, "reason": reason, "free_bytes": free, "needed_bytes": needed}
        )

    def _rotate(self, verified: Path | None) -> list[int]:
        """Steps deleted. A failing deletion is reported; the checkpoint just written is safe all the same."""
        config = self._config
        try:
            best = self.best_step if config.keep_best else None
            done = store.prune(self._checkpoints, config.keep_last, config.keep_every, best, files=self._files,
                               keep_log=config.keep_log, verified=verified)  # fmt: skip
        except (OSError, UnreadableCheckpoint, BrokenCheckpoint) as error:
            reason = _reason(error) if isinstance(error, OSError) else str(error)
            self._on_event({"kind": "prune_failed", "reason": reason})
            return []
        for broken in done.broken:
            if broken.path not in self._reported:
                self._reported.add(broken.path)
                self._on_event({"kind": "checkpoint_broken", **asdict(broken), "path": broken.path.name})
        return done.deleted


@dataclass
class _Save:
    """One save: `make` does it. `needed`: bytes on the disk; `verified`: who wrote the files has read them back."""

    step: int
    make: Callable[[], Path]
    needed: int
    began: float
    held: float | None = None
    verified: bool = False


class Follower:
    """On every rank but the first: saves this rank's part of checkpoints, one at a time."""

    def __init__(self, checkpoints: Path, rank: int, *, files: FileSystem | None = None) -> None:
        self._checkpoints, self._rank, self._files = checkpoints, rank, files or FileSystem()
        self._snapshot, self._beside = Snapshot(), Beside()

    def save(self, own: Share, meeting: Meeting, *, background: bool) -> None:
        """Writes a part, in the background after it was copied. Whatever becomes of it the first rank tells."""
        self._beside.wait()
        if not background:
            meeting.follow(self._checkpoints, self._rank, own, self._files)
            return
        own = copy_of(own, self._snapshot)
        self._beside.start(lambda: meeting.follow(self._checkpoints, self._rank, own, self._files))

    def wait(self) -> None:
        """Blocks until no part is being written."""
        self._beside.wait()


def copy_of(share: Share, snapshot: Snapshot) -> Share:
    """The part with the values of this moment."""
    model, optimizer = snapshot.take({"model": share.model.tensors, "optimizer": share.optimizer.tensors})
    return replace(share, model=Part(model, share.model.rows), optimizer=Part(optimizer, share.optimizer.rows))


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
