"""What a run measures and shows of itself at intervals: the loss on its held-out documents, HellaSwag, samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mygpt2.config.schema import RunConfig
from mygpt2.data.validation import ValidationSet
from mygpt2.device import Precision
from mygpt2.distributed import World
from mygpt2.errors import UserError
from mygpt2.evals import hellaswag, yardstick
from mygpt2.evals.items import load_items
from mygpt2.evals.loss import GPTScorer, LossResult, evaluate
from mygpt2.evals.stream import TokenStream, held_out_stream
from mygpt2.generate.engine import generate
from mygpt2.machine import cache_folder
from mygpt2.model import GPT
from mygpt2.run_dir import RunWriter
from mygpt2.tokenizer import Tokenizer
from mygpt2.train.parallel import Weights


@dataclass(frozen=True)
class Evaluations:
    """The plain module is measured, never the compiled one: other shapes would compile anew. Its weights are whole on
    every rank meanwhile, so that ranks need not have equally much to do.

    `text` is None where no document is held out, `table` where HellaSwag was not asked for, `yardstick` where GPT-2's
    loss on these tokens is not known.
    """

    scorer: GPTScorer
    weights: Weights
    world: World
    text: TokenStream | None
    batch: int | None
    yardstick: dict[str, Any] | None
    table: hellaswag.Table | None

    def loss(self) -> LossResult:
        """Of the held-out documents, in windows of the run's own context."""
        assert self.text is not None, "no document is held out"
        with self.weights.whole():
            return evaluate(self.scorer, self.text, window=self.scorer.block_size, ranks=self.world, batch=self.batch)

    def hellaswag(self) -> dict[str, Any]:
        """Both protocols; see `evals.hellaswag.summary`."""
        assert self.table is not None, "HellaSwag was not asked for"
        with self.weights.whole():
            return hellaswag.summary(self.table, hellaswag.score(self.scorer, self.table, ranks=self.world))


def evaluations(
    config: RunConfig,
    world: World,
    weights: Weights,
    tokenizer: Tokenizer,
    held_out: ValidationSet | None,
    precision: Precision,
) -> Evaluations:
    """Everything ready: what is wrong with a file is said before the first step, not at the first interval."""
    scorer = GPTScorer(weights.view, precision)
    cache_dir = cache_folder(config.data.cache_dir)
    text = held_out_stream(held_out, tokenizer) if held_out else None
    table = None
    if config.eval.hellaswag is not None:
        where, limit = config.eval.hellaswag, config.eval.hellaswag_limit
        items = world.lead_first(lambda: load_items(where, cache_dir, limit, option="eval.hellaswag="))
        table = hellaswag.tabulate(items, tokenizer, scorer.block_size)
    known = _yardstick(config, world, tokenizer, text, cache_dir, precision) if text else None
    return Evaluations(scorer, weights, world, text, config.eval.batch, known, table)


def _yardstick(
    config: RunConfig, world: World, tokenizer: Tokenizer, text: TokenStream, cache_dir: Path, precision: Precision
) -> dict[str, Any] | None:
    """The yardstick's result on these tokens from the cache; measured, and fetched, only if a setting says so."""
    spec = config.eval.yardstick
    if spec == "off":
        return None
    found = world.lead_first(lambda: yardstick.find(cache_dir, spec, text.sha256))
    if found is not None or not config.eval.measure_yardstick:
        return found
    from mygpt2.exchange.load import load_model

    other = world.lead_first(lambda: load_model(spec))
    if other.tokenizer.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"eval.measure_yardstick: {spec} has another tokenizer than data.tokenizer={config.data.tokenizer}, and "
            "losses per token of the two do not compare; use data.tokenizer=gpt2 or leave the setting out"
        )
    scorer = GPTScorer(other.model.to(world.device), precision)
    measured = evaluate(scorer, text, window=scorer.block_size, ranks=world, batch=config.eval.batch)
    if world.lead:
        yardstick.keep(cache_dir, spec, other.details, "run", measured)
    world.barrier()
    return yardstick.find(cache_dir, spec, text.sha256)


def due(step: int, interval: int) -> bool:
    """Whether something that is done every `interval` steps is done after this one; of 0 never."""
    return interval > 0 and step % interval == 0


def write_samples(
    writer: RunWriter, model: GPT, tokenizer: Tokenizer, config: RunConfig, step: int, precision: Precision
) -> None:
    """Appends one record per prompt to samples.jsonl and prints the texts. The model's mode is left as it was."""
    chosen = config.sample
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), precision.autocast(next(model.parameters()).device):
            samples = generate(
                model,
                tokenizer,
                list(chosen.prompts),
                max_new_tokens=chosen.max_new_tokens,
                temperature=chosen.temperature,
                top_k=chosen.top_k,
                seed=config.model.seed,
            )
    finally:
        model.train(was_training)
    for sample in samples:
        writer.sample(step=step, **sample)
        print(f"sample at step {step}: {sample['prompt']}{sample['text']}".replace("\n", "\n    "), flush=True)
