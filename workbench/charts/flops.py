"""Training FLOPs per token of a run, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mygpt2.errors import UserError
from workbench.charts.view import MAX_RUNS

if TYPE_CHECKING:
    from mygpt2.config.schema import ModelConfig
    from workbench.charts.points import Runs


def flops_per_token(context: Runs, request: Any) -> dict[str, float | None]:
    """{run: FLOPs} of `request["runs"]`, at most eight; None where the configuration or the vocabulary is not known."""
    names = request.get("runs") if isinstance(request, Mapping) else None
    return {str(name): _of_run(context, str(name)) for name in (names if isinstance(names, list) else [])[:MAX_RUNS]}


def _of_run(context: Runs, name: str) -> float | None:
    from mygpt2.config import load_config
    from mygpt2.tokenizer import load_tokenizer

    try:
        config = load_config(file=context.run(name).config_file)
        return of_shape(config.model, load_tokenizer(config.data.tokenizer).vocab_size)
    except (UserError, OSError):
        return None


def of_shape(model: ModelConfig, vocab_size: int) -> float:
    """Training FLOPs per token: 6 N for the matrices plus 12 L C T for attention (PaLM, arXiv 2204.02311, appendix B).

    N counts the tied embedding once and leaves out the positions, as the trainer's own figure does.
    """
    C, b = model.n_embd, int(model.bias)
    norm = C + b * C
    block = 12 * C * C + b * 9 * C + 2 * norm  # c_attn 3C², c_proj C², c_fc and its c_proj 4C² each, and their biases
    parameters = vocab_size * C + model.n_layer * block + norm
    return 6.0 * parameters + 12.0 * model.n_layer * C * model.block_size
