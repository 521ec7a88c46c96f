"""Prompts in, continuations out, token by token: rows of a batch go on together and know nothing of each other.

A row that outgrows the context drops its oldest quarter and is read again from there, so positions stay what the model
was trained on, and a token past the context costs what one within it costs, plus its share of that reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch
from torch import Tensor

from mygpt2.errors import UserError
from mygpt2.generate.decode import Decoder
from mygpt2.generate.sampling import Sampling, choose, penalised
from mygpt2.generate.text import TextStream
from mygpt2.model import GPT, GPTConfig, KVCache
from mygpt2.tokenizer import Tokenizer

LIKELIEST = 10  # alternatives reported with every token


@dataclass(frozen=True)
class Token:
    """One drawn token, as a stream reports it."""

    sample: int  # index of its record among the results: prompt by prompt, the samples of one side by side
    id: int
    text: str  # what it finished: "" inside a split character or a possible stop string, more when that is over
    logprob: float  # under the model itself, before temperature and limits, in nats
    rank: int  # 1 for the likeliest under the model itself, 2 for the next
    likeliest: tuple[tuple[int, float], ...]  # the ten likeliest ids and their log-probabilities, descending
    finish: str | None  # why the sample ends here: "end_of_text", "stop" or "length"; None while it goes on
    data: bytes | None = None  # what it adds to the text before it; None for end-of-text

    @property
    def probability(self) -> float:
        """Of this token under the model itself."""
        return math.exp(self.logprob)


OnToken = Callable[[Token], bool | None]


def generate(
    model: GPT,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Sequence[str] = (),
    seed: int = 0,
    num_samples: int = 1,
    on_token: OnToken | None = None,
    cancel: Event | None = None,
) -> list[dict[str, Any]]:
    """`Engine.generate` with a new engine over the model's own weights, which costs nothing to make."""
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    return Engine(model, tokenizer).generate(
        prompts,
        sampling,
        max_new_tokens=max_new_tokens,
        stop=stop,
        seed=seed,
        num_samples=num_samples,
        on_token=on_token,
        cancel=cancel,
    )


class Engine:
    """A model ready to decode: its weights as `weights` says, compiled or not; used from one thread at a time.

    weights: "fp32" (the model's own, shared with it), "bf16" or "int8" (copies; the model itself may then go).
    compile: whether products (on a GPU, blocks) are compiled when first met: seconds, and steps are far faster after.
    """

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, *, weights: str = "fp32", compile: bool = False, batch_size: int = 16
    ) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise UserError(
                f"tokenizer {tokenizer.name} has {tokenizer.vocab_size} ids, the model {model.config.vocab_size}; "
                "use the tokenizer it was trained with"
            )
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} is not allowed; use 1 or more")
        self.config: GPTConfig = model.config
        self.tokenizer = tokenizer
        self._decoder = Decoder(model, weights, compile=compile)
        self._batch_size = batch_size

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
        num_samples: int = 1,
        on_token: OnToken | None = None,
        cancel: Event | None = None,
    ) -> list[dict[str, Any]]:
        """`num_samples` continuations of each prompt, as JSON-ready records in order.

        A record: prompt; text (the continuation alone, up to end-of-text or the first stop string); ids (its tokens,
        with what ended it); logprobs (of each id under the model itself, before temperature and limits, in nats); seed;
        finish ("end_of_text", "stop", "length" or "cancelled"). Sample i has seed `seed + i`, and is what that seed
        alone gives for that prompt: it depends on no other prompt or sample. Global random state is not touched.

        `on_token` hears of every token, of all samples in turn; when it returns False, or `cancel` is set, no further
        token is drawn and the records hold what there is. Raises UserError for impossible values.
        """
        stream = self.stream(
            prompts, sampling, max_new_tokens=max_new_tokens, stop=stop, seed=seed, num_samples=num_samples
        )
        for token in stream:
            if (on_token is not None and on_token(token) is False) or (cancel is not None and cancel.is_set()):
                break
        return stream.records()

    def stream(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        *,
        max_new_tokens: int,
        stop: Sequence[str] = (),
        seed: int = 0,
        num_samples: int = 1,
    ) -> Stream:
        """The same as an iterator of tokens, each drawn when it is asked for; `records()` at any time."""
        stop = (stop,) if isinstance(stop, str) else tuple(stop)
        check_request(max_new_tokens, num_samples, seed, stop)
        samples = [
            _Sample(prompt, seed + i, self.tokenizer.encode(prompt) or [self.tokenizer.eot_id], stop)
            for prompt in prompts
            for i in range(num_samples)
        ]
        return Stream(self, samples, sampling, max_new_tokens)

    @torch.inference_mode()
    def _start(self, samples: Sequence[_Sample], max_new_tokens: int) -> tuple[KVCache, Tensor]:
        """A cache that holds every sample's prompt and the logits (B, V) after it. Each prompt is read once, alone."""
        longest = max(len(s.tokens) for s in samples) + max_new_tokens
        cache = self._decoder.cache(len(samples), longest)
        first: dict[tuple[int, ...], int] = {}
        logits: list[Tensor] = []
        for row, sample in enumerate(samples):
            sample.start = max(0, len(sample.tokens) - self.config.block_size)
            read = sample.tokens[sample.start :]
            same = first.setdefault(tuple(read), row)
            if same == row:
                logits.append(self._decoder.prefill(read, cache.row(row)))
            else:
                cache.copy_row(same, row, len(read))
                logits.append(logits[same])
        return cache, torch.stack(logits)

    @torch.inference_mode()
    def _advance(self, samples: Sequence[_Sample], cache: KVCache) -> Tensor:
        """Logits (B, V) after each sample's last token. A sample that has ended goes on doing nothing of interest."""
        limit = self.config.block_size
        full = [row for row, s in enumerate(samples) if s.finish is None and len(s.tokens) - s.start > limit]
        positions = [min(len(s.tokens) - s.start, limit, cache.capacity) - 1 for s in samples]
        logits: Tensor | None = None
        if len(full) < sum(s.finish is None for s in samples):
            logits = self._decoder.step([s.tokens[-1] for s in samples], positions, cache)
        for row in full:  # after the step, which wrote into their last slot
            samples[row].start += max(1, limit // 4)
            read = self._decoder.prefill(samples[row].tokens[samples[row].start :], cache.row(row))
            if logits is None:
                logits = read.new_zeros(len(samples), len(read))
            logits[row] = read
        assert logits is not None
        return logits


def check_request(max_new_tokens: int, num_samples: int, seed: int, stop: Sequence[str]) -> None:
    """UserError for what no model could do."""
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens} is not allowed; use 1 or more")
    if num_samples < 1:
        raise UserError(f"num_samples={num_samples} is not allowed; use 1 or more")
    if not 0 <= seed < 2**63 - num_samples:
        raise UserError(f"seed={seed} is not allowed; use 0 or more, below 2^63")
    if "" in stop:
        raise UserError("stop='' is not allowed, every text holds it; use the text to stop at, or leave it out")


class _Sample:
    """One continuation on its way."""

    def __init__(self, prompt: str, seed: int, tokens: Sequence[int], stop: Sequence[str]) -> None:
        self.prompt, self.seed = prompt, seed
        self.tokens = list(tokens)  # of the prompt, then the drawn ones
        self.start = 0  # of what the cache holds of them
        self.logprobs: list[float] = []
        self.text = ""
        self.stream = TextStream(stop)
        self.finish: str | None = None

    def add(self, token: int, logprob: float, data: bytes | None, last: bool) -> str:
        """Take a drawn token whose bytes are `data`, None for end-of-text; gives back the text this finished."""
        self.tokens.append(token)
        self.logprobs.append(logprob)
        text = "" if data is None else self.stream.push(data)
        if data is None:
            self.finish = "end_of_text"
        elif self.stream.stopped:
            self.finish = "stop"
        elif last:
            self.finish = "length"
        if self.finish is not None:
            text += self.stream.end()
        self.text += text
        return text

    def record(self) -> dict[str, Any]:
        if self.finish is None:
            self.text += self.stream.end()
            self.finish = "cancelled"
        ids = self.tokens[len(self.tokens) - len(self.logprobs) :]
        return {
            "prompt": self.prompt,
            "text": self.text,
            "ids": ids,
            "logprobs": list(self.logprobs),
            "seed": self.seed,
            "finish": self.finish,
        }


class Stream(Iterator[Token]):
    """Tokens of several samples as they are drawn, one of each sample in turn. To cancel is to stop asking."""

    def __init__(self, engine: Engine, samples: list[_Sample], sampling: Sampling, max_new_tokens: int) -> None:
        self._engine, self._samples = engine, samples
        self._sampling, self._max_new_tokens = sampling, max_new_tokens
        self._tokens = self._all()

    def __next__(self) -> Token:
        return next(self._tokens)

    def records(self) -> list[dict[str, Any]]:
        """One record per sample, as `Engine.generate` says. Ends the stream: what is not finished is cancelled."""
        self._tokens.close()
        return [sample.record() for sample in self._samples]

    def _all(self) -> Generator[Token, None, None]:
        size = self._engine._batch_size
        for start in range(0, len(self._samples), size):
            yield from self._batch(list(enumerate(self._samples))[start : start + size])

    def _batch(self, rows: list[tuple[int, _Sample]]) -> Iterator[Token]:
        """Tokens of the samples (each with its number) that decode together, until all have ended."""
        engine = self._engine
        samples = [sample for _, sample in rows]
        cache, logits = engine._start(samples, self._max_new_tokens)
        while True:
            yield from self._draw(rows, logits[:, : engine.tokenizer.vocab_size].float().cpu())
            going = [row for row, (_, sample) in enumerate(rows) if sample.finish is None]
            if not going:
                return
            if not engine._decoder.fixed_shapes and len(going) <= len(rows) // 2:
                rows = [rows[row] for row in going]
                cache.keep(going)
            logits = engine._advance([sample for _, sample in rows], cache)

    def _draw(self, rows: list[tuple[int, _Sample]], logits: Tensor) -> Iterator[Token]:
        """One token of every row that goes on, from logits (B, V)."""
        if not bool(logits.isfinite().all()):
            raise UserError("the model's logits are not finite, its weights are damaged; use an earlier checkpoint")
        samples = [sample for _, sample in rows]
        wanted = logits
        if self._sampling.repetition_penalty != 1:
            wanted = penalised(logits, _seen(samples, logits.shape), self._sampling.repetition_penalty)
        seeds = torch.tensor([sample.seed for sample in samples])
        places = torch.tensor([len(sample.logprobs) for sample in samples])
        drawn = choose(wanted, self._sampling, seeds, places)
        total = logits.logsumexp(1, keepdim=True)
        own = logits.gather(1, drawn[:, None])  # (B, 1)
        logprobs = (own - total)[:, 0].tolist()
        ranks = ((logits > own).sum(1) + 1).tolist()
        best, best_ids = torch.topk(logits, min(LIKELIEST, logits.shape[1]), dim=1)
        likeliest = zip(best_ids.tolist(), (best - total).tolist(), strict=True)
        tokenizer = self._engine.tokenizer
        drawings = zip(rows, drawn.tolist(), logprobs, ranks, likeliest, strict=True)
        for (number, sample), token, logprob, rank, ten in drawings:
            if sample.finish is None:
                data = None if token == tokenizer.eot_id else tokenizer.continuation(token, sample.tokens)
                text = sample.add(token, logprob, data, len(sample.logprobs) + 1 == self._max_new_tokens)
                yield Token(number, token, text, logprob, rank, tuple(zip(*ten, strict=True)), sample.finish, data)


def _seen(samples: Sequence[_Sample], shape: torch.Size) -> Tensor:
    """Bool (B, V): which ids are in each sample's prompt and continuation."""
    seen = torch.zeros(shape, dtype=torch.bool)
    for row, sample in enumerate(samples):
        seen[row, torch.tensor(sample.tokens)] = True
    return seen
