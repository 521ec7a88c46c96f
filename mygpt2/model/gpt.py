"""GPT-2: a stack of pre-norm transformer blocks with learned positions and an output layer tied to the input.

Parameter names are OpenAI's as Hugging Face spells them, with matrices in `nn.Linear`'s orientation (out, in), so
weights map by eye. There is no `lm_head` parameter: the output layer is `transformer.wte.weight` itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mygpt2.errors import UserError
from mygpt2.model.attention import KVCache, Past, blocked_attention, blocks_pay, causal_attention
from mygpt2.model.compiled import compiled
from mygpt2.model.loss import LossParts, linear_cross_entropy
from mygpt2.model.products import Linear

RunBlock = Callable[["Block", Tensor, "Past | None"], Tensor]
VOCAB_MULTIPLE = 64  # rows of wte; matrix kernels are fastest when every side is a multiple of it


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a network; `vocab_size` is the tokenizer's, without padding."""

    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    block_size: int = 1024  # tokens
    vocab_size: int = 50257
    bias: bool = True
    dropout: float = 0.0
    gelu: str = "tanh"  # its form: "tanh" as GPT-2's, "erf" as nanoGPT's; they differ by 1e-3 in logits

    def __post_init__(self) -> None:
        if self.gelu not in GELUS:
            raise UserError(f"gelu={self.gelu} is not a form of GELU; allowed: {', '.join(GELUS)}")
        if self.n_embd % self.n_head:
            legal = [h for h in range(1, self.n_embd + 1) if self.n_embd % h == 0]
            nearest = sorted(sorted(legal, key=lambda h: abs(h - self.n_head))[:3])
            raise UserError(
                f"n_head={self.n_head} does not divide n_embd={self.n_embd}; nearest heads that do: "
                + ", ".join(map(str, nearest))
            )

    @property
    def padded_vocab(self) -> int:
        """Rows of wte: the vocabulary rounded up to a multiple of 64."""
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE


class Attention(nn.Module):
    """Multi-head causal self-attention with one matrix for queries, keys and values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.c_attn = Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        qkv = self.c_attn(x)  # (B, T, 3C), with a past (B x T, 3C)
        if past is not None:
            return self.c_proj(past.attend(qkv, self.n_head))
        dropout = self.dropout if self.training else 0.0
        if blocks_pay(qkv, dropout):
            return self.c_proj(blocked_attention(qkv, self.n_head))
        B, T, C = x.shape
        q, k, v = qkv.view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)  # (B, nh, T, hs)
        y = causal_attention(q, k, v, dropout)
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Expand four times, GELU (in its tanh form, with which GPT-2 was trained, unless imported otherwise), contract."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.gelu = GELUS[config.gelu]
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))


def tanh_gelu(x: Tensor) -> Tensor:
    """GELU's tanh form. A compiler gets it as x sigmoid(2 z), which is the same and has the cheaper exponential."""
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    wide = x.float()
    slope = math.sqrt(8 / math.pi) * (1 + 0.044715 * wide * wide)
    return (wide * torch.sigmoid(wide * slope)).to(x.dtype)


GELUS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": tanh_gelu, "erf": F.gelu}


def dropped(x: Tensor, p: float) -> Tensor:
    return F.dropout(x, p) if p else x


class Block(nn.Module):
    """Attention and MLP, each added to the residual stream."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=1e-5, bias=config.bias)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=1e-5, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, past: Past | None = None, run: RunBlock | None = None) -> Tensor:
        """The stream after this block, by way of `run` where that is given: `plain`, compiled for example.

        It is called within the module's call, whose hooks may have to bring the parameters first.
        """
        return self.plain(x, past) if run is None else run(self, x, past)

    def plain(self, x: Tensor, past: Past | None = None) -> Tensor:
        p = self.dropout if self.training else 0.0
        x = x + dropped(self.attn(self.ln_1(x), past), p)
        return x + dropped(self.mlp(self.ln_2(x)), p)


class Transformer(nn.Module):
    """What GPT-2's names begin with: both embeddings, the blocks, the last norm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.padded_vocab, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=1e-5, bias=config.bias)


class GPT(nn.Module):
    """The network. `forward` gives hidden states; `logits` and `loss` are the two ways to read them.

    `seed` (or `generator`) decides the initial weights alone: the global random state is neither read nor moved, so
    two models built side by side do not disturb each other. `device="meta"` builds the shape without memory.
    """

    def __init__(
        self,
        config: GPTConfig,
        *,
        seed: int = 0,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.config = config
        with torch.device("meta"):  # no memory and no default initialisation, which would move the global state
            self.transformer = Transformer(config)
        if torch.device(device).type != "meta":
            self.to_empty(device="cpu")
            self._initialise(generator or torch.Generator().manual_seed(seed))
            self.to(device)

    @property
    def padded_vocab(self) -> int:
        """Rows of wte, padding included."""
        return self.config.padded_vocab

    @property
    def wte(self) -> Tensor:
        """The token embedding (padded_vocab, C), which is the output layer too."""
        return self.transformer.wte.weight

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """GPT-2's: N(0, 0.02), and N(0, 0.02 / sqrt(2 n_layer)) for what writes to the residual stream."""
        residual_std = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if name.endswith("wte.weight"):
                parameter.zero_()  # padded rows stay zero: no loss reaches them and decay keeps zero at zero
                parameter[: self.config.vocab_size].normal_(0.0, 0.02, generator=generator)
            elif parameter.dim() == 2:
                std = residual_std if name.endswith("c_proj.weight") else 0.02
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)

    def num_parameters(self) -> int:
        """Parameters as published: the tied matrix once, its padding not at all."""
        padding = (self.padded_vocab - self.config.vocab_size) * self.config.n_embd
        return sum(p.numel() for p in self.parameters()) - padding

    def kv_cache(
        self, batch: int, capacity: int | None = None, *, dtype: torch.dtype | None = None, few_sizes: bool = False
    ) -> KVCache:
        """An empty cache for `batch` rows of `capacity` positions, the whole context unless less is enough."""
        c, wpe = self.config, self.transformer.wpe.weight
        shape = (batch, c.n_head, min(capacity or c.block_size, c.block_size), c.n_embd // c.n_head)
        return KVCache(c.n_layer, shape, device=wpe.device, dtype=dtype or wpe.dtype, few_sizes=few_sizes)

    def forward(
        self,
        idx: Tensor,
        cache: KVCache | None = None,
        starts: Sequence[int] | None = None,
        *,
        run_block: RunBlock | None = None,
        residual: torch.dtype | None = None,
    ) -> Tensor:
        """Hidden states after the last norm, (B, T, C), of token ids (B, T).

        With a cache, row b of `idx` stands at the positions from `starts[b]` on (0 unless given), sees what the cache
        holds before them, and is stored there. `run_block` computes a block, as `Block.forward` says.
        `residual` is the dtype of the residual stream, the embeddings' own unless given.
        """
        body, T = self.transformer, idx.shape[1]
        pasts: Sequence[Past | None] = [None] * self.config.n_layer
        if cache is None:
            if self.config.block_size < T:
                raise ValueError(f"{T} positions do not fit a context of {self.config.block_size}")
            x = body.wte(idx) + body.wpe.weight[:T]  # (B, T, C)
        else:
            pasts = cache.continued(starts or [0] * len(idx), T)
            x = (body.wte(idx) + body.wpe(pasts[0].places[2])).flatten(0, 1)  # (B x T, C)
        x = dropped(x if residual is None else x.to(residual), self.config.dropout if self.training else 0.0)
        for block, past in zip(cast(Iterable[Block], body.h), pasts, strict=True):
            x = block(x, past, run_block)
        return body.ln_f(x).view(*idx.shape, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., vocab_size) from hidden states (..., C); padded ids have no column, so none can be predicted."""
        return F.linear(hidden, self.wte[: self.config.vocab_size])

    def loss(self, idx: Tensor, targets: Tensor) -> LossParts:
        """Next-token loss of (B, T) ids against (B, T) targets, -100 where there is none; see `LossParts`."""
        return linear_cross_entropy(self(idx), self.wte, targets, vocab_size=self.config.vocab_size)


class LossModule(nn.Module):
    """What a data-parallel wrapper wraps: ids and targets in, `(nll_sum, row_nll, count)` out.

    `compile` compiles this path only; the model itself stays plain, so evaluating it recompiles nothing and its
    state dict carries no prefix.
    """

    def __init__(self, model: GPT, compile: bool = False, residual: torch.dtype | None = None) -> None:
        super().__init__()
        self.model = model
        self.compiled = compile
        self.residual = residual
        # One block is compiled and serves all: 24 layers take no longer to compile than 2.
        self._run_block: RunBlock | None = compiled(Block.plain) if compile else None

    def forward(self, idx: Tensor, targets: Tensor) -> LossParts:
        vocab_size = self.model.config.vocab_size
        hidden = self.model(idx, run_block=self._run_block, residual=self.residual)
        return linear_cross_entropy(hidden, self.model.wte, targets, vocab_size=vocab_size, compile=self.compiled)


# Parameters as named tensors, the way files hold them: the tied matrix once and no vocabulary padding.

PADDED = "transformer.wte.weight"


def state_for_checkpoint(model: GPT) -> dict[str, Tensor]:
    """Every parameter by name, detached; wte as (vocab_size, C). Views: clone before training on."""
    return without_padding({name: p.detach() for name, p in model.named_parameters()}, model.config.vocab_size)


def without_padding(tensors: Mapping[str, Tensor], vocab_size: int) -> dict[str, Tensor]:
    """The tensors as files hold them."""
    return {name: tensor[:vocab_size] if name == PADDED else tensor for name, tensor in tensors.items()}


def check_state(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """UserError when a name is missing or unexpected or a shape differs."""
    own = state_for_checkpoint(model)
    problems = [f"missing {name}" for name in own if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in own]
    problems += [
        f"{name} is {list(tensors[name].shape)}, the model's is {list(p.shape)}"
        for name, p in own.items()
        if name in tensors and tensors[name].shape != p.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"weights do not fit the model: {'; '.join(problems[:3])}{more}; "
            "use the [model] section and tokenizer the weights were trained with"
        )


@torch.no_grad()
def load_state(model: GPT, tensors: Mapping[str, Tensor]) -> None:
    """Copy `tensors` into the model, converting dtype and device; padded rows become zero.

    What does not fit is refused as by `check_state`, and leaves the model untouched.
    """
    check_state(model, tensors)
    for name, parameter in state_for_checkpoint(model).items():
        parameter.copy_(tensors[name])
    model.wte[model.config.vocab_size :] = 0.0
