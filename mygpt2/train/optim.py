"""AdamW, or Muon for the block matrices with AdamW for the rest, and their state as named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mygpt2.config.schema import OptimizerConfig
from mygpt2.device import multiplies_bfloat16
from mygpt2.distributed import World
from mygpt2.errors import UserError
from mygpt2.train.muon import Muon

Named = list[tuple[str, nn.Parameter]]
STATES = {torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"), Muon: ("momentum_buffer",)}


def is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Muon is for the 2-D matrices inside the blocks; embeddings, norms and biases belong to AdamW."""
    return parameter.ndim == 2 and ".h." in name


class Optimizer:
    """One or two torch optimizers behind a single `step`, each parameter in exactly one group.

    The learning rate of every group is written before each step: the schedule, not a checkpoint, decides it.
    `world` deals Muon's work among the ranks, which then must step together; `compile` compiles that work on CUDA.
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        device: torch.device,
        world: World | None = None,
        compile: bool = False,
    ):
        named: Named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.names = {p: n for n, p in named}
        muon = [(n, p) for n, p in named if config.name == "muon" and is_block_matrix(n, p)]
        taken = {n for n, _ in muon}
        rest = [(n, p) for n, p in named if n not in taken]
        self.parts: list[torch.optim.Optimizer] = [_adamw(rest, config, device)]
        if muon:
            self.parts.append(_muon(muon, config, device, world, compile))
        self._peaks = [[float(group["lr"]) for group in part.param_groups] for part in self.parts]
        grouped = [p for part in self.parts for group in part.param_groups for p in group["params"]]
        if len(grouped) != len(named) or len(set(grouped)) != len(named):
            raise AssertionError("a parameter is in no group or in two")

    def set_share(self, share: float) -> None:
        """Sets every group's rate to its peak times `share`."""
        for part, peaks in zip(self.parts, self._peaks, strict=True):
            for group, peak in zip(part.param_groups, peaks, strict=True):
                group["lr"] = peak * share

    @property
    def lr(self) -> float:
        """AdamW's current rate: the one that is logged."""
        return float(self.parts[0].param_groups[0]["lr"])

    def parameters(self) -> list[nn.Parameter]:
        return list(self.names)

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def state_tensors(self) -> dict[str, Tensor]:
        """`<parameter name>/<state name>` for every tensor that must survive a restart."""
        found: dict[str, Tensor] = {}
        for part in self.parts:
            for parameter, state in part.state.items():
                for key, value in state.items():
                    found[f"{self.names[parameter]}/{key}"] = value  # type: ignore[index]
        return found

    def load_state_tensors(self, tensors: Mapping[str, Tensor], copy: bool = True) -> None:
        """Restores what `state_tensors` gave. Names or shapes that do not fit are refused before anything changes.
        Without `copy` it takes those that lie where they belong."""
        owner = self._owners()
        self.check_state_tensors(tensors)
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition("/")
            parameter, part = owner[name]
            # AdamW's step counters live on the device only in its fused form.
            place = parameter.device if kind != "step" or _fused(part) else torch.device("cpu")
            part.state[parameter][kind] = tensor.to(place, copy=copy)

    def check_state_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """UserError for names and shapes that do not fit."""
        owner = self._owners()
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition("/")
            if name not in owner:
                raise UserError(f"optimizer state for {name!r} is in the checkpoint but not in this model; "
                                "use the run's own model configuration")  # fmt: skip
            if tensor.ndim and tensor.shape != owner[name][0].shape:
                raise UserError(f"optimizer state {key!r} has shape {tuple(tensor.shape)}, the parameter "
                                f"{tuple(owner[name][0].shape)}; use the run's own model configuration")  # fmt: skip
            if kind not in STATES[type(owner[name][1])]:
                raise UserError(
                    f"the checkpoint's state {key!r} was made by another optimizer; keep optimizer.name as it was"
                )

    def _owners(self) -> dict[str, tuple[nn.Parameter, torch.optim.Optimizer]]:
        return {name: (p, part) for part in self.parts for p, name in self._owned(part)}

    def _owned(self, part: torch.optim.Optimizer) -> Iterable[tuple[nn.Parameter, str]]:
        return ((p, self.names[p]) for group in part.param_groups for p in group["params"])


def _fused(part: torch.optim.Optimizer) -> bool:
    return bool(part.param_groups[0].get("fused"))


def _adamw(named: Named, config: OptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    decayed = [p for _, p in named if p.ndim >= 2]
    free = [p for _, p in named if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=device.type in ("cuda", "cpu", "mps"),
    )


def _muon(named: Named, config: OptimizerConfig, device: torch.device, world: World | None, compile: bool) -> Muon:
    decay = config.weight_decay if config.muon_weight_decay is None else config.muon_weight_decay
    return Muon(
        [p for _, p in named],
        lr=config.muon_lr,
        momentum=config.muon_momentum,
        weight_decay=decay,
        dtype=torch.bfloat16 if multiplies_bfloat16(device) else torch.float32,
        rank=world.rank if world else 0,
        size=world.size if world else 1,
        gather=world.gather_tensors if world else None,
        compile=compile and device.type == "cuda",
    )
