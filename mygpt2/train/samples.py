"""Samples during training: fixed prompts under a fixed seed, so that only the model changes from one to the next."""

from __future__ import annotations

import torch

from mygpt2.config.schema import RunConfig
from mygpt2.device import Precision
from mygpt2.generate.engine import generate
from mygpt2.model import GPT
from mygpt2.run_dir import RunWriter
from mygpt2.tokenizer import Tokenizer


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
                seed=config.train.seed,
            )
    finally:
        model.train(was_training)
    for sample in samples:
        writer.sample(step=step, **sample)
        print(f"sample at step {step}: {sample['prompt']}{sample['text']}".replace("\n", "\n    "), flush=True)
