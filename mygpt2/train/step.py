"""One optimizer step: forward and backward over the micro-batches, one gradient exchange, clip, guard, update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mygpt2.device import Precision
from mygpt2.distributed import World, gathered, no_sync
from mygpt2.errors import EXIT_DEFECT
from mygpt2.failures import NONFINITE
from mygpt2.model.loss import IGNORE
from mygpt2.train.optim import Optimizer


class NonFinite(Exception):
    """The loss or the gradient is not finite and the run was asked to stop, or skipped too often."""

    exit_code = EXIT_DEFECT
    shared = True  # both numbers are sums over the ranks: it is not a rank's own

    def __str__(self) -> str:
        return f"{NONFINITE}{super().__str__()}"


@dataclass
class Guard:
    """Decides what a step with a non-finite loss or gradient norm does.

    Both numbers are summed over the ranks before they come here, so every rank decides alike. A loss scale that is
    still too high (`scaled`) is no defect: the scaler lowers it and the step is left out.
    """

    mode: str
    max_skips: int
    scaled: bool = False
    skips: int = 0

    def allows(self, step: int, loss: float, grad_norm: float) -> bool:
        """Whether the optimizer may use this step's gradients. Raises NonFinite when the run must stop."""
        if math.isfinite(loss) and math.isfinite(grad_norm):
            self.skips = 0
            return True
        self.skips += 1
        what = f"loss {loss}, gradient norm {grad_norm} at step {step}"
        if self.mode == "stop" and not (self.scaled and math.isfinite(loss)):
            raise NonFinite(f"{what}: stopped before the weights were touched")
        limit = max(self.max_skips, 20) if self.scaled else self.max_skips
        if self.skips > limit:
            raise NonFinite(f"{what}: {self.skips} steps in a row were skipped")
        return False


@dataclass(frozen=True)
class StepResult:
    """What a step did. `loss` is nats per valid target over all ranks; `row_losses` are this rank's rows, in order.

    by_source: of a mixture, the sum of the loss and the valid targets of each source, over all ranks.
    """

    loss: float
    grad_norm: float
    row_losses: np.ndarray  # (rows,) float32, nats per valid target
    applied: bool
    seconds: float
    forward_s: float  # of them, what this rank's device needed for the forward passes
    by_source: tuple[tuple[float, int], ...] = ()


def to_device(tokens: np.ndarray, device: torch.device) -> Tensor:
    """(rows, T + 1) token ids as int64 on the device, in one copy; -100 survives for masked targets."""
    host = torch.from_numpy(tokens.astype(np.int64, copy=False))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


class Counted(NamedTuple):
    """Targets that count: of this rank's rows, (rows,) int64, and of the step over all ranks.

    Of a mixture also the source of each row, (rows,) int64, and the step's targets of each source over all ranks.
    """

    rows: np.ndarray
    total: int
    sources: np.ndarray | None = None
    of_sources: Sequence[int] = ()


def count_targets(targets: np.ndarray, world: World) -> Counted:
    """Counts (rows, T) targets on the host, and over the ranks by an exchange of its own."""
    rows = (targets != IGNORE).sum(axis=1)
    return Counted(rows, int(world.sum([int(rows.sum())], torch.int64)[0]))


def targets_of_sources(sources: np.ndarray | None, rows: np.ndarray, count: int) -> list[int]:
    """A rank's targets of each of `count` sources, from those of its rows (rows,) and their sources; none of one."""
    if count == 1:
        return []
    return np.zeros(count, int).tolist() if sources is None else np.bincount(sources, rows, count).astype(int).tolist()


def _nothing() -> None:
    """Unless somebody has something to do."""


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed of a step's dropout: a function of its place, so there is no generator state to save or to lose."""
    digest = blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Stopwatch:
    """Seconds that the device takes for forward passes.

    The rest of a step contains the exchange of gradients, in which the fast ranks wait for the slow, so that its
    length is the same for all. On a GPU the marks are read once the host has waited for the device anyway.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        began = self._mark()
        yield
        self._marks.append((began, self._mark()))

    def taken(self) -> float:
        """Seconds since the last call."""
        marks, self._marks = self._marks, []
        if self._cuda:
            return sum(float(began.elapsed_time(ended)) for began, ended in marks) / 1e3
        return sum(float(ended - began) for began, ended in marks)

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark


class TrainStep:
    """Everything a step needs that does not change from step to step.

    loss_module: forward(inputs (B, T), targets (B, T)) -> (nll_sum scalar, row_nll (B,), valid count scalar)
    """

    def __init__(
        self,
        loss_module: nn.Module,
        optimizer: Optimizer,
        world: World,
        precision: Precision,
        guard: Guard,
        *,
        micro_batch: int,
        grad_clip: float,
        seed: int,
        dropout: bool,
    ):
        self.loss_module, self.optimizer, self.world = loss_module, optimizer, world
        self.precision, self.guard = precision, guard
        self.micro_batch, self.grad_clip = micro_batch, grad_clip
        self.seed, self.dropout = seed, dropout
        self.stopwatch = Stopwatch(world.device)
        self.meanwhile: Callable[[], None] = _nothing  # what the host does while the device is at work
        self.unfinished = False  # weights were changed by a step whose end nobody has noted yet
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=precision.scaled)

    def __call__(
        self, step: int, inputs: Tensor, targets: Tensor, share: float, counted: Counted | None = None
    ) -> StepResult:
        """Runs step number `step` on this rank's rows: inputs and targets (rows, T), ignored targets -100.

        The host waits for the device once: for the loss, the gradient norm and the losses of the rows, together.
        """
        began = time.perf_counter()
        if self.dropout:
            torch.manual_seed(step_seed(self.seed, step, self.world.rank))
        counted = counted or count_targets(targets.cpu().numpy(), self.world)
        rows, valid = counted.rows, counted.total
        nll, row_nll = self._accumulate(inputs, targets, valid)
        nll = self._with_sources(nll, row_nll, counted)
        self.world.sum_on_device(nll)
        grads = [p.grad for p in self.optimizer.parameters() if p.grad is not None]
        if self.scaler.is_enabled():
            for part in self.optimizer.parts:
                self.scaler.unscale_(part)
        total_norm = gathered(torch.nn.utils.get_total_norm(grads))
        self.meanwhile()
        numbers, several = self._on_host(nll, total_norm, row_nll), len(counted.of_sources)
        nll_sum, of_sources, grad_norm = numbers[0], numbers[1 : 1 + several], numbers[1 + several]
        row_sums = numbers[2 + several :]
        loss, forward_s = nll_sum / max(valid, 1), self.stopwatch.taken()
        applied = self.guard.allows(step, loss, grad_norm)
        if applied:
            if self.grad_clip and grad_norm > self.grad_clip:
                torch._foreach_mul_(grads, self.grad_clip / grad_norm)
            self.unfinished = True
            self.optimizer.set_share(share)
            self.optimizer.step()
        if self.scaler.is_enabled():
            self.scaler.update()
        self.optimizer.zero_grad()
        row_losses = np.asarray(row_sums, np.float32) / np.maximum(rows, 1).astype(np.float32)
        by_source = tuple(zip(of_sources, counted.of_sources, strict=True))
        return StepResult(loss, grad_norm, row_losses, applied, time.perf_counter() - began, forward_s, by_source)

    def _with_sources(self, nll: Tensor, row_nll: Tensor, counted: Counted) -> Tensor:
        """(1 + sources,) the loss of all rows, and of each source's: one exchange sums them all. () without sources."""
        if counted.sources is None or not len(counted.of_sources):
            return nll
        sources = torch.from_numpy(counted.sources).to(nll.device, non_blocking=True)
        of_sources = nll.new_zeros(len(counted.of_sources)).index_add_(0, sources, row_nll.to(nll.dtype))
        return torch.cat([nll.reshape(1), of_sources])

    def _on_host(self, nll: Tensor, grad_norm: Tensor, row_nll: Tensor) -> list[float]:
        """The numbers of all three, by the one copy for which the host waits. float64 where `nll` is."""
        parts = [part.reshape(-1).to(nll.dtype) for part in (nll, grad_norm, row_nll)]
        return torch.cat(parts).tolist()

    def _accumulate(self, inputs: Tensor, targets: Tensor, valid: int) -> tuple[Tensor, Tensor]:
        """Gradients of Σ nll / valid over all micro-batches and ranks, exchanged once, with the last micro-batch.

        DDP divides the summed gradient by the number of ranks, hence the factor `size`.
        """
        rows = inputs.shape[0]
        wide = torch.float32 if self.world.device.type == "mps" else torch.float64  # MPS has no float64
        total = torch.zeros((), dtype=wide, device=self.world.device)
        row_nll: list[Tensor] = []
        scale = self.world.size / max(valid, 1)
        for first in range(0, rows, self.micro_batch):
            part = slice(first, first + self.micro_batch)
            with no_sync(self.loss_module, last=first + self.micro_batch >= rows):
                with self.stopwatch.running(), self.precision.autocast(self.world.device):
                    nll, row, _ = self.loss_module(inputs[part], targets[part])
                self.scaler.scale(nll * scale).backward()
            total += nll.detach()
            row_nll.append(row)
        return total, torch.cat(row_nll)
