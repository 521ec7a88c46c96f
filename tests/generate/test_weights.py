"""Packed weights: the same function within their precision, a perplexity within half a percent, and less memory."""

from __future__ import annotations

import math
import os

import pytest
import torch

from mygpt2.errors import UserError
from mygpt2.generate.decode import Decoder, pack, unpack
from mygpt2.model import GPT, GPTConfig

CONFIG = GPTConfig(n_layer=2, n_head=2, n_embd=64, block_size=32, vocab_size=80)


def chain(rows: int, length: int, seed: int) -> torch.Tensor:
    """Sequences (rows, length) in which each id has five likely successors, a sixth of the time anything."""
    successors = torch.randint(0, 80, (80, 5), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    out = torch.randint(0, 80, (rows, length), generator=generator)
    for t in range(1, length):
        likely = successors[out[:, t - 1], torch.randint(0, 5, (rows,), generator=generator)]
        out[:, t] = torch.where(torch.rand(rows, generator=generator) < 0.83, likely, out[:, t])
    return out


@pytest.fixture(scope="module")
def trained() -> GPT:
    model = GPT(CONFIG, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        rows = chain(16, 33, seed=step + 1)
        nll, _, count = model.loss(rows[:, :-1], rows[:, 1:])
        (nll / count).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def stepped_logits(decoder: Decoder, rows: torch.Tensor) -> torch.Tensor:
    """Logits (B, T, V) of rows (B, T) read the way a sample is: its first tokens at once, the others one by one."""
    cache = decoder.cache(len(rows), rows.shape[1])
    out = [torch.stack([decoder.prefill(row[:1].tolist(), cache.row(i)) for i, row in enumerate(rows)])]
    for t in range(1, rows.shape[1]):
        out.append(decoder.step(rows[:, t].tolist(), [t] * len(rows), cache))
    return torch.stack(out, 1)


def perplexity(decoder: Decoder, rows: torch.Tensor) -> float:
    logits = stepped_logits(decoder, rows[:, :-1])
    return math.exp(torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item())


@pytest.mark.parametrize("kind", ["bf16", "int8"])
@pytest.mark.parametrize("rows", [4, 12], ids=["few rows", "many rows"])
def test_perplexity_stays_within_half_a_percent(trained: GPT, kind: str, rows: int) -> None:
    test = chain(rows, 33, seed=10_000)
    exact = perplexity(Decoder(trained), test)
    assert exact < 20  # of 80: it has learnt something that rounding could spoil
    assert abs(perplexity(Decoder(trained, kind), test) / exact - 1) < 0.005


@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("bf16", 0.1), ("int8", 0.1)])
def test_a_prompt_at_once_and_token_by_token_agree(trained: GPT, kind: str, tolerance: float) -> None:
    rows, decoder = chain(2, 20, seed=3), Decoder(trained, kind)
    stepped = stepped_logits(decoder, rows)
    with torch.no_grad():
        for i, row in enumerate(rows):
            at_once = decoder.prefill(row.tolist(), decoder.cache(1, 20))
            assert torch.allclose(stepped[i, -1], at_once, atol=tolerance)
        if kind == "fp32":
            assert torch.allclose(stepped, trained.logits(trained(rows)), atol=1e-5)


def test_int8_rounds_to_half_a_step_of_each_rows_maximum_and_keeps_zeros() -> None:
    matrix = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 3, 6)[:, None]
    matrix[2] = 0
    error = (unpack(pack(matrix, "int8")) - matrix).abs().amax(1)
    assert (error <= matrix.abs().amax(1) / 254 * 1.001).all() and error[2] == 0


def test_fp32_shares_the_models_memory_and_the_others_are_smaller() -> None:
    model = GPT(CONFIG)

    def size(kind: str) -> int:
        blocks = Decoder(model, kind).model.transformer.h
        linears = [
            m for block in blocks for m in (block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj)
        ]
        return sum(linear.matrix.values.nbytes for linear in linears)

    shared = Decoder(model).model.transformer.h[0].mlp.c_fc.matrix.values
    assert shared.data_ptr() == model.transformer.h[0].mlp.c_fc.weight.data_ptr()
    assert size("fp32") == 2 * size("bf16") == 4 * size("int8")
    with pytest.raises(UserError, match="weights=int4 is not allowed; use one of fp32, bf16, int8"):
        Decoder(model, "int4")


@pytest.mark.skipif(not os.environ.get("MYGPT2_FULL"), reason="compiles for a minute; MYGPT2_FULL=1 runs it")
@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_compiled_steps_give_what_plain_ones_give_and_no_row_feels_another(trained: GPT, kind: str) -> None:
    rows = chain(3, 20, seed=3)
    compiled = stepped_logits(Decoder(trained, kind, compile=True), rows)
    assert torch.allclose(compiled, stepped_logits(Decoder(trained, kind), rows), atol=1e-4 if kind == "fp32" else 0.1)
    alone = stepped_logits(Decoder(trained, kind, compile=True), rows[1:2])
    assert torch.allclose(compiled[1:2], alone, atol=1e-5)
