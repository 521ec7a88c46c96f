"""Prompts in, continuations out: one prefill for each prompt, then one position for each token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.generate.sampling import Sampling, choose
from mygpt2.model import GPT, KVCache
from mygpt2.tokenizer import Tokenizer


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    num_samples: int = 1,
) -> list[dict[str, Any]]:
    """`num_samples` continuations of each prompt, as JSON-ready records in order.

    A record: prompt; text (the continuation alone); ids (its tokens, a final end-of-text included); logprobs (of each
    id under the model itself, before temperature and truncation, in nats); seed; finish ("end_of_text" or "length").
    Sample i has seed `seed + i`, and is what that seed alone gives for that prompt: it depends on no other prompt or
    sample. The model's mode is restored; the global random state is neither read nor moved.
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(model, tokenizer, max_new_tokens, num_samples, seed)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return [
                {"prompt": prompt, **sample}
                for prompt in prompts
                for sample in _samples(model, tokenizer, prompt, max_new_tokens, sampling, seed, num_samples)
            ]
    finally:
        model.train(was_training)


def _check(model: GPT, tokenizer: Tokenizer, max_new_tokens: int, num_samples: int, seed: int) -> None:
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens} is not allowed; use 1 or more")
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} is not allowed; use 1 or more")
    if not 0 <= seed < 2**63 - num_samples:
        raise UserError(f"seed={seed} is not allowed; use 0 or more, below 2^63")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}; "
            "use the tokenizer it was trained with"
        )


def _samples(
    model: GPT, tokenizer: Tokenizer, prompt: str, length: int, sampling: Sampling, seed: int, count: int
) -> Iterator[dict[str, Any]]:
    """Samples of one prompt. The prompt is read once; each sample rewinds to its end."""
    row = Row(model, tokenizer.encode(prompt) or [tokenizer.eot_id])
    for i in range(count):
        row.rewind()
        generator = torch.Generator().manual_seed(seed + i)
        ids, logprobs = [], []
        for token, logprob in continuation(row, length, sampling, generator, tokenizer.vocab_size):
            ids.append(token)
            logprobs.append(logprob)
            if token == tokenizer.eot_id:
                break
        ended = ids[-1] == tokenizer.eot_id
        text = tokenizer.decode(ids[:-1] if ended else ids)
        finish = "end_of_text" if ended else "length"
        yield {"text": text, "ids": ids, "logprobs": logprobs, "seed": seed + i, "finish": finish}


def continuation(
    row: Row, length: int, sampling: Sampling, generator: torch.Generator, vocab_size: int
) -> Iterator[tuple[int, float]]:
    """Up to `length` (id, log-probability) pairs as they are drawn; ids from `vocab_size` on are never drawn."""
    for i in range(length):
        logits = row.logits[:vocab_size].float().cpu()
        if not logits.isfinite().all():
            raise UserError("the model's logits are not finite, its weights are damaged; use an earlier checkpoint")
        token = choose(logits, sampling, generator)
        yield token, float(torch.log_softmax(logits, 0)[token])
        if i < length - 1:
            row.append(token)


class Row:
    """A row of tokens and, always, the logits (V,) of what comes next.

    While the row fits the context, a token costs one position, by the cache. A longer row is read as its last
    `block_size` tokens; every one of them then has a new position, so each token costs a full pass: exact, as if there
    were no cache, and the cache keeps the prompt for the next sample.
    """

    def __init__(self, model: GPT, prompt: Sequence[int]) -> None:
        self._model = model
        self._limit = model.config.block_size
        self._prompt = list(prompt)
        self._tokens = list(prompt)
        device = model.wte.device
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else model.wte.dtype
        self._cache = KVCache(model.config, 1, device=device, dtype=dtype)
        self._after_prompt = self._read(self._tokens[-self._limit :], self._cache)
        self.logits = self._after_prompt

    def append(self, token: int) -> None:
        """Put one token behind the row."""
        self._tokens.append(token)
        if len(self._tokens) <= self._limit:
            self.logits = self._read([token], self._cache)
        else:
            self.logits = self._read(self._tokens[-self._limit :], None)

    def rewind(self) -> None:
        """Back to the end of the prompt."""
        self._tokens = list(self._prompt)
        self._cache.rewind(min(len(self._prompt), self._limit))
        self.logits = self._after_prompt

    def _read(self, tokens: list[int], cache: KVCache | None) -> Tensor:
        idx = torch.tensor([tokens], dtype=torch.int64, device=self._model.wte.device)
        return self._model.logits(self._model(idx, cache)[:, -1])[0]
