"""How the checkpoints of a run are written: by the first rank, or by all ranks that share a model, each its part."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from mygpt2.checkpoint import Checkpointer, Follower
from mygpt2.checkpoint.together import LOOK_S, Meeting
from mygpt2.distributed import World
from mygpt2.train.optim import Optimizer
from mygpt2.train.parallel import SharedWeights, Weights

ANSWER_S = 16.0  # how long the other ranks are waited for after a failure: those that hang are ended before
DECIDE_S = ANSWER_S + 6.0  # how long they wait for what the first rank makes of the answers
DECLINED = "none"

State = Callable[[], dict[str, Any]]  # state.json, made when it is needed


class Saver:
    """On every rank. `checkpointer` is the first's, which knows what is on the disk; `follower` is the others'."""

    def __init__(
        self, world: World, weights: Weights, optimizer: Optimizer, checkpointer: Checkpointer | None,
        follower: Follower | None, in_parts: Callable[[int], bool],
    ) -> None:  # fmt: skip
        """`in_parts`: whether a checkpoint of so many bytes is written by all that share the model."""
        self._world, self._weights, self._optimizer = world, weights, optimizer
        self.checkpointer, self._follower, self._in_parts = checkpointer, follower, in_parts
        self._notes = world.notes() if isinstance(weights, SharedWeights) else None
        self._meetings = 0
        self._looked, self._dead = float("-inf"), set[int]()

    def save(self, step: int, state: State, *, background: bool) -> None:
        """Saves a step, by all ranks at once. What goes wrong the checkpointer tells."""
        weights = self._weights
        if isinstance(weights, SharedWeights) and self._in_parts(weights.total_bytes(self._optimizer)):
            self._meetings += 1
            count = self._world.size // weights.nodes
            self._together(weights, f"{self._meetings}", range(count), step, state, background)
            return
        model, optimizer = weights.tensors(self._optimizer)
        if self.checkpointer:
            with self._world.undisturbed():
                copied = weights.shared_out
                self.checkpointer.save(step, model, optimizer, state(), background=background, copied=copied)

    def wait(self) -> None:
        """Blocks until this rank writes nothing any more."""
        for each in (self.checkpointer, self._follower):
            if each:
                each.wait()

    def _together(
        self, weights: SharedWeights, name: str, ranks: range, step: int, state: State, background: bool
    ) -> None:
        """This rank's work at a checkpoint whose parts `ranks` write, without an exchange."""
        assert self._notes is not None
        meeting = Meeting(self._notes, name, ranks)
        own = weights.share(self._optimizer) if self._world.rank in ranks else None
        with self._world.undisturbed():
            if self.checkpointer:
                size = weights.total_bytes(self._optimizer)
                self.checkpointer.save_together(step, own, meeting, state(), size, background=background)
            elif own and self._follower:
                self._follower.save(own, meeting, background=background)

    # After a failure

    def offer(self, step: int, changing: bool) -> None:
        """On every rank but the first, after a failure: says what this rank still has of a shared model, and writes it
        if the first rank wants it."""
        if self._notes is None or not isinstance(self._weights, SharedWeights):
            return
        self._say(step, changing)
        wanted = self._wait(lambda: self._notes.read("rescue by") if self._notes else None, lambda: {0} & self._gone(),
                            DECIDE_S)  # fmt: skip
        if wanted and wanted != DECLINED:
            ranks = range(*json.loads(wanted))
            self._together(self._weights, "rescue", ranks, step, dict, background=False)

    def decline(self) -> None:
        """On the first rank: there is nothing to be saved, so nobody need wait."""
        if self._notes is not None:
            self._notes.write("rescue by", DECLINED)

    def rescue(self, step: int, changing: bool, state: State) -> str | None:
        """On the first rank, after a failure: saves a shared model if all of its parts are still there, once. Returns
        why it could not; where it was tried the checkpointer tells how that went."""
        assert self._notes is not None and isinstance(self._weights, SharedWeights)
        self._say(step, changing)
        count = self._world.size // self._weights.nodes
        copies = [range(first, first + count) for first in range(0, self._world.size, count)]
        said: dict[int, list[Any]] = {}

        def whole() -> range | None:
            """The ranks of a copy of the model that is whole, and of this step."""
            for rank in set(range(self._world.size)).difference(said):
                if text := self._told(rank):
                    said[rank] = json.loads(text)
            return next((ranks for ranks in copies if all(said.get(r) == [step, False] for r in ranks)), None)

        def hopeless() -> bool:
            gone = self._gone()
            return all(any(r in gone or said.get(r, [step, False]) != [step, False] for r in ranks) for ranks in copies)

        ranks = self._wait(whole, hopeless, ANSWER_S)
        if ranks is None:
            self.decline()
            return self._why(step, said)
        self._notes.write("rescue by", json.dumps([ranks.start, ranks.stop]))
        self._together(self._weights, "rescue", ranks, step, state, background=False)
        return None

    def _why(self, step: int, said: dict[int, list[Any]]) -> str:
        gone = sorted(self._gone().difference(said))
        if any(changing for _, changing in said.values()):
            return "the weights were being changed"
        if len(said) == self._world.size:
            return "the ranks are not at one step"
        whose = f"rank {gone[0]} took" if gone else "a rank that does not answer has"
        return f"{whose} a part of the weights that no other rank has"

    def _say(self, step: int, changing: bool) -> None:
        assert self._notes is not None
        self._notes.write(f"rescue {self._world.rank}", json.dumps([step, changing]))

    def _told(self, rank: int) -> str | None:
        return self._notes.read(f"rescue {rank}") if self._notes else None

    def _gone(self) -> set[int]:
        """Ranks that are dead and had said nothing. Looked for once a second: it reads a file of each rank."""
        if time.monotonic() > self._looked + 1.0:
            self._looked, self._dead = time.monotonic(), self._world.gone()
        return {rank for rank in self._dead if self._told(rank) is None}

    def _wait(self, look: Callable[[], Any], in_vain: Callable[[], object], seconds: float) -> Any:
        """What `look` finds, or None when that can never be or takes too long."""
        ends = time.monotonic() + seconds
        while (found := look()) is None and not in_vain() and time.monotonic() < ends:
            time.sleep(LOOK_S)
        return found
