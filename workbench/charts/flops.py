"""Training FLOPs per token of a run, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mygpt2.errors import UserError
from workbench.charts.view import MAX_RUNS

if TYPE_CHECKING:
    from workbench.charts.points import Runs


def flops_per_token(context: Runs, request: Any) -> dict[str, float | None]:
    """{run: FLOPs} of `request["runs"]`, at most eight; None where the configuration or the vocabulary is not known."""
    names = request.get("runs") if isinstance(request, Mapping) else None
    return {str(name): _of_run(context, str(name)) for name in (names if isinstance(names, list) else [])[:MAX_RUNS]}


def _of_run(context: Runs, name: str) -> float | None:
    """As the trainer counts: the tied embedding once, the positions not at all."""
    from mygpt2.config import load_config
    from mygpt2.config.summary import vocabulary_size
    from mygpt2.planning.compute import training_flops

    try:
        config = load_config(file=context.run(name).config_file)
        if not config.data.tokenizer.startswith("gpt2"):
            context.path(config.data.tokenizer, "tokenizer")  # a path in a file is judged as a typed one is
    except (UserError, OSError):
        return None
    ids = vocabulary_size(config.data.tokenizer)
    return None if ids is None else training_flops(config, ids)
