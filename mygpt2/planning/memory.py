"""Memory of one rank, derived from what the model, its loss and its optimizers keep, part by part.

The parts do not all exist at once: the peak is the fullest of four moments of a step. Checked on a CPU against the
allocator's own record of real steps (tests/planning/test_memory.py): GPT-2 124M in bfloat16, one sequence at a time,
peaks at 3,247 MB and is estimated at the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mygpt2.config.schema import ModelConfig, RunConfig

FLOAT = 4  # bytes of float32: weights, gradients, optimizer state and the residual stream, in every precision
VOCAB_MULTIPLE = 64  # rows of the embedding, as in model.gpt
CHUNK = 1024  # tokens whose logits exist at once, as in model.loss
PILES = 8  # of the matrices of one shape, as in train.muon
TILE = 1 << 20  # of which so many are float32 at a time on a CPU
QUERIES, LONGEST = 128, 1024  # blocks of the CPU's attention, as in model.attention
EVALUATED = 8192  # tokens of a validation's forward pass when nobody says, as in evals.loss
STANDS_FOR = {"held": "gradients", "kept": "gradients", "again": "second"}  # parts that exist in some runs only

MOMENTS = {
    "while the loss is computed": ("weights", "optimizer", "held", "activations", "head", "logits"),
    "as the backward pass begins": ("weights", "optimizer", "held", "activations", "head", "backward"),
    "as the backward pass ends": ("weights", "optimizer", "gradients", "again"),
    "in the optimizer's step": ("weights", "optimizer", "gradients", "update"),
    "while validating": ("weights", "optimizer", "kept", "validation", "whole"),
}


@dataclass(frozen=True)
class Part:
    """One part of the memory in bytes, and how it was derived."""

    key: str
    label: str
    size: int
    how: str


@dataclass(frozen=True)
class RankMemory:
    """`parts` by key; `peak` bytes of tensors on the device at `moment`."""

    parts: Mapping[str, Part]
    peak: int
    moment: str
    at_peak: tuple[str, ...]


def rank_memory(
    config: RunConfig, vocab_size: int, *, micro_batch: int, accumulation: int, ranks: int, device: str, precision: str,
    shards: int = 1,
) -> RankMemory:  # fmt: skip
    """Tensors of one rank of an uncompiled run on its device, at their most. `shards` ranks share one model."""
    shape = Shape.of(config.model, vocab_size)
    item = 2 if precision in ("bf16", "fp16") else FLOAT
    tokens = micro_batch * config.model.block_size
    parts = [
        *_shared(config, shape, shards, accumulation),
        _optimizer(config, shape, shards),
        _activations(config, shape, tokens, item, device),
        Part("head", "Gradients of the output layer", FLOAT * shape.embedding + item * tokens * shape.width,
             "made with the loss: 4 bytes per weight of the output matrix, and those of the hidden states"),
        _logits(shape, tokens, item, device, precision),
        Part("backward", "Working memory of the backward pass", _backward(shape, tokens, item),
             "two residual-wide float32 gradients and those inside one MLP"),
        Part("second", "Second gradient of the embedding", FLOAT * shape.embedding,
             "the tied matrix has one gradient as output and one as input, summed at the end"),
        Part("update", "Working memory of the optimizer", _update(config, shape, item, ranks),
             "Muon's copies of one pile of matrices, and of several ranks' updates; fused AdamW has none"),
        Part("validation", "Working memory of validation", _validation(config, shape, item, device),
             "one block at a time, and the logits in slices"),
    ]  # fmt: skip
    by_key = {part.key: part for part in parts}
    # Gradients exist during a forward pass only once an earlier one has made some; several ranks keep theirs for ever.
    several = ranks > 1 and shards == 1
    kept = by_key["gradients"].size if several else 0
    held = by_key["gradients"].size if accumulation > 1 or several else 0
    again = by_key["second"].size if held else 0  # else the first of the two becomes the gradient itself
    sizes = {key: part.size for key, part in by_key.items()} | {"held": held, "kept": kept, "again": again}
    moments = {moment: sum(sizes[key] for key in keys) for moment, keys in MOMENTS.items()}
    moment = max(moments, key=lambda name: moments[name])
    named = [STANDS_FOR.get(key, key) for key in MOMENTS[moment] if sizes[key]]
    return RankMemory(by_key, moments[moment], moment, tuple(by_key[key].label.lower() for key in named))


@dataclass(frozen=True)
class Shape:
    """Sizes of a network in elements."""

    parameters: int  # with the embedding's padded rows
    embedding: int  # of the token embedding, padded
    rows: int  # of it
    matrices: int  # inside the blocks
    width: int

    @classmethod
    def of(cls, model: ModelConfig, vocab_size: int) -> Shape:
        from mygpt2.config.summary import count_parameters

        rows = -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
        matrices = 12 * model.n_layer * model.n_embd**2
        return cls(count_parameters(model, rows), rows * model.n_embd, rows, matrices, model.n_embd)


def optimizer_bytes(config: RunConfig, shape: Shape) -> int:
    """AdamW keeps two moments per parameter, Muon one momentum per parameter of the blocks' matrices."""
    muon = shape.matrices if config.optimizer.name == "muon" else 0
    return FLOAT * (muon + 2 * (shape.parameters - muon))


def _shared(config: RunConfig, shape: Shape, shards: int, accumulation: int) -> list[Part]:
    """Weights and gradients. Of shared ones two blocks and the embeddings are whole at a time; gradients of several
    forward passes are whole until they are exchanged, and weights while they are measured, sampled or saved."""
    whole = FLOAT * shape.parameters
    if shards == 1:
        how = f"4 bytes x {shape.parameters:,}, padded rows included"
        return [Part("weights", "Weights", whole, how), Part("gradients", "Gradients", whole, "4 bytes per parameter"),
                Part("whole", "Whole weights", 0, "")]  # fmt: skip
    near = FLOAT * (shape.parameters - shape.matrices + 2 * shape.matrices // config.model.n_layer)
    how = f"4 bytes x {shape.parameters:,} / {shards} ranks, and"
    part = -(-whole // shards)
    return [
        Part("weights", "Weights", part + near, f"{how} two blocks and the embeddings whole"),
        Part("gradients", "Gradients", part + (whole if accumulation > 1 else near),
             f"{how} {'all' if accumulation > 1 else 'two blocks and the embeddings'} whole until they are exchanged"),
        Part("whole", "Whole weights", whole, "4 bytes per parameter while they are measured or sampled"),
    ]  # fmt: skip


def _optimizer(config: RunConfig, shape: Shape, shards: int) -> Part:
    how = "AdamW: two float32 moments per parameter"
    if config.optimizer.name == "muon":
        how = "Muon: one float32 momentum for the blocks' matrices; AdamW: two moments for the rest"
    how += f", / {shards} ranks" if shards > 1 else ""
    return Part("optimizer", "Optimizer state", -(-optimizer_bytes(config, shape) // shards), how)


def _activations(config: RunConfig, shape: Shape, tokens: int, item: int, device: str) -> Part:
    """What the backward pass needs of the forward pass.

    Per token, channel and layer: the residual stream twice in float32; both norms' outputs, qkv (3), attention's
    output, and the MLP's four-fold width before and after its GELU, in the products' dtype: 8 + 14 x item bytes.
    """
    m = config.model
    per_layer = (2 * FLOAT + 14 * item) * tokens * m.n_embd
    per_layer += _attention(m, tokens, item, device)
    if m.dropout:
        per_layer += 2 * (item if device == "cpu" else 1) * tokens * m.n_embd
    copies = item * shape.matrices if item != FLOAT else 0
    size = m.n_layer * per_layer + FLOAT * tokens * m.n_embd + copies
    how = (
        f"{m.n_layer} layers x {tokens:,} tokens x {m.n_embd} channels x {2 * FLOAT + 14 * item} bytes, "
        f"{'attention weights' if _keeps_weights(m, device) else 'attention statistics'}"
    )
    return Part("activations", "Activations", size, how + (", half-precision copies of the matrices" if copies else ""))


def _keeps_weights(model: ModelConfig, device: str) -> bool:
    return device == "cpu" and (model.dropout > 0 or model.block_size <= LONGEST)


def _attention(model: ModelConfig, tokens: int, item: int, device: str) -> int:
    """Bytes that attention keeps in one layer beside qkv and its output."""
    rows, T = tokens // model.block_size, model.block_size
    if not _keeps_weights(model, device):
        return FLOAT * rows * model.n_head * T  # the softmax's normaliser
    if model.dropout:  # PyTorch's plain way, in float32: q, k, v; weights, dropout's noise and their product
        return 3 * FLOAT * (rows * model.n_head * T * T + tokens * model.n_embd)
    ends = [min(start + QUERIES, T) for start in range(0, T, QUERIES)]
    kept = sum((end - start) * end for start, end in zip([0, *ends], ends, strict=False))
    return item * rows * model.n_head * kept


def _logits(shape: Shape, tokens: int, item: int, device: str, precision: str) -> Part:
    """The loss in slices: the logits of `CHUNK` tokens, and what turns them into gradients."""
    chunk = min(CHUNK, tokens)
    logits = item * chunk * shape.rows
    if device == "cpu":  # softmax in small tiles; a low-precision product is added to float32 through a copy
        product = shape.embedding * (item + FLOAT if item != FLOAT else FLOAT)
        working = logits + max(product, 2 * FLOAT * min(TILE, chunk * shape.rows))
    else:
        working = logits + max(2 * FLOAT * chunk * shape.rows, FLOAT * shape.embedding)
    working += FLOAT * tokens * shape.width  # the hidden states
    if item != FLOAT:
        working += item * (tokens * shape.width + shape.embedding)  # and both factors in the products' dtype
    how = f"logits of {chunk:,} tokens at a time x {shape.rows:,} ids x {item} bytes, their float32 working copies"
    return Part("logits", "Logits and loss", working, how)


def _backward(shape: Shape, tokens: int, item: int) -> int:
    """Of the last block's MLP: the residual's gradient twice, in float32 and cast, and the four-fold width twice."""
    cast = item if item != FLOAT else 0
    return (2 * FLOAT + cast + 8 * item) * tokens * shape.width


def _validation(config: RunConfig, shape: Shape, item: int, device: str) -> int:
    """A forward pass that keeps nothing: half-precision copies of the matrices, and either one MLP or the logits."""
    m, d = config.model, config.data
    if d.validation_fraction == 0 and config.eval.hellaswag is None:
        return 0
    most = -(-max(d.validation_tokens, 1) // m.block_size)
    tokens = min(most, config.eval.batch or max(1, EVALUATED // m.block_size)) * m.block_size
    cast = item if item != FLOAT else 0
    block = (2 * FLOAT + cast + 8 * item) * tokens * m.n_embd
    slices = (item + 2 * FLOAT) * min(CHUNK, tokens) * shape.rows if device != "cpu" else item * CHUNK * shape.rows
    loss = (2 * FLOAT + cast) * tokens * m.n_embd + cast * shape.embedding + slices
    return (cast and item * shape.matrices) + max(block, loss)


def _update(config: RunConfig, shape: Shape, item: int, ranks: int) -> int:
    """Muon works on one pile of matrices after the other: the largest, of 4 C x C, in float32 and three times in its
    own arithmetic. Several ranks hold the updates of all matrices, and their own share once more, for the exchange.
    """
    if config.optimizer.name != "muon":
        return 0
    pile = -(-config.model.n_layer // PILES) * 4 * shape.width**2
    exchange = item * (shape.matrices + shape.matrices // ranks) if ranks > 1 else 0
    return (FLOAT + 3 * item) * pile + exchange
