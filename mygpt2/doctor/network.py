"""Whether the network computes what it should on this machine: a model small enough for a second each."""

from __future__ import annotations

import math

import torch

from mygpt2.device import choose
from mygpt2.doctor import OK, Finding, judged
from mygpt2.model import GPT, GPTConfig

CONFIG = GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=32, vocab_size=300)
BROKEN = "this installation of PyTorch computes wrongly; reinstall it"


def batch(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (8, 32) of a fixed pattern that a tiny model can learn by heart."""
    rows = torch.randint(0, CONFIG.vocab_size, (8, CONFIG.block_size + 1), generator=torch.Generator().manual_seed(1))
    rows = rows.to(device)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def check_causality(device: torch.device) -> Finding:
    """Changing a token changes its own position and leaves every earlier one as it was."""
    model, (idx, _) = GPT(CONFIG, seed=1, device=device).eval(), batch(device)
    changed, cut = idx.clone(), CONFIG.block_size // 2
    changed[:, cut:] = (changed[:, cut:] + 1) % CONFIG.vocab_size
    with torch.no_grad():
        difference = (model(idx) - model(changed)).abs().amax(dim=(0, 2))
    leak, effect = float(difference[:cut].max()), float(difference[cut])
    return judged("causality", leak < 1e-4 < effect, f"a later token moves earlier positions by {leak:.0e}", BROKEN)


def train(device: torch.device, steps: int, dtype: torch.dtype = torch.float32) -> list[float]:
    """Losses (nats per token) of `steps` steps on one batch, each weight moved by 0.003 against its gradient's sign.

    That is Adam without memory; torch.optim itself would spend seconds of the report on importing the compiler.
    """
    model, (idx, goals) = GPT(CONFIG, seed=1, device=device), batch(device)
    losses = []
    for _ in range(steps):
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            parts = model.loss(idx, goals)
        (parts.nll_sum / parts.count).backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p.sub_(p.grad.sign(), alpha=3e-3)
                p.grad = None
        losses.append(parts.nll_sum.item() / goals.numel())
    return losses


def check_learning(device: torch.device) -> Finding:
    """The first loss is that of a uniform guess, and training lowers it."""
    losses = train(device, 20)
    uniform = math.log(CONFIG.vocab_size)
    good = all(map(math.isfinite, losses)) and abs(losses[0] - uniform) < 0.2 and losses[-1] < losses[0] - 1.0
    return judged(
        "learning", good, f"loss {losses[0]:.2f} (ln V = {uniform:.2f}) to {losses[-1]:.2f} in 20 steps", BROKEN
    )


def check_determinism(device: torch.device) -> Finding:
    """Two runs of three steps agree in every bit; without that no run can be repeated or resumed exactly."""
    first, second = train(device, 3), train(device, 3)
    detail = "two runs of 3 steps are equal" if first == second else f"losses {first} and {second}"
    return judged(
        "determinism", first == second, detail, "set train.deterministic=true; check the memory of the machine"
    )


def check_precision(device: torch.device) -> Finding:
    """Training in the chosen arithmetic stays near float32."""
    precision = choose("auto", device)
    if precision.dtype is torch.float32:
        return Finding(OK, "precision", f"{precision.name}: {precision.reason}")
    exact, rounded = train(device, 10), train(device, 10, precision.dtype)
    worst = max(abs(a - b) for a, b in zip(exact, rounded, strict=True))
    detail = f"{precision.name} follows float32 within {worst:.3f} nats for 10 steps"
    return judged("precision", worst < 0.1, detail, "train with train.precision=fp32")
