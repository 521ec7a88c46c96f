"""Two models continue one prompt in turn, a token each; and what a model finds likely after any tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mygpt2.errors import UserError
from mygpt2.generate import Sampling, Token
from mygpt2.generate.engine import LIKELIEST, Stream
from mygpt2.tokenizer import Tokenizer
from workbench.tabs.sample.models import Models, Ready
from workbench.tabs.sample.settings import Settings

Event = dict[str, Any]


@dataclass
class _Voice:
    """One pane on its way: its stream of tokens and the seconds its own model has worked."""

    pane: int
    tokenizer: Tokenizer
    stream: Stream
    before: list[int]  # what the next token is drawn after
    seconds: float = 0.0


def duet(
    models: Models, specs: Sequence[str], prompt: str, settings: Settings, stopped: Callable[[], bool]
) -> Iterator[Event]:
    """Events of one generation; `pane` is a model's place in `specs`: loading, begin, tokens, then end or problem.

    The models take turns, so both texts grow together. `stopped` is asked before every token: once it is true no
    further one is drawn. What is wrong with one model is that pane's problem, and the other goes on.
    """
    going: list[_Voice] = []
    for pane, spec in enumerate(specs):
        if not stopped():
            yield from _opened(models, pane, spec, prompt, settings, going)
    while going and not stopped():
        for voice in list(going):
            if stopped():
                break
            event = _next(voice)
            yield event
            if event["event"] != "token":
                going.remove(voice)
    for voice in going:
        yield _end(voice)


def _opened(
    models: Models, pane: int, spec: str, prompt: str, settings: Settings, going: list[_Voice]
) -> Iterator[Event]:
    if not models.holds(spec):
        yield {"event": "loading", "pane": pane}
    try:
        ready = models.get(spec)
        stream = _stream(ready, prompt, settings)
    except UserError as error:
        yield _problem(pane, error)
        return
    introduction = _introduction(ready, prompt)
    going.append(_Voice(pane, ready.tokenizer, stream, [*introduction["prompt_ids"]]))
    yield {"event": "begin", "pane": pane, **introduction}


def _stream(ready: Ready, prompt: str, s: Settings) -> Stream:
    sampling = Sampling(s.temperature, s.top_k, s.top_p, s.min_p, s.repetition_penalty)
    engine = ready.engine(s.weights)
    return engine.stream([prompt], sampling, max_new_tokens=s.max_new_tokens, stop=s.stop, seed=s.seed)


def _introduction(ready: Ready, prompt: str) -> Event:
    """What a pane says above its text: the model, and what of the prompt it sees."""
    ids = ready.tokenizer.encode(prompt)
    return {
        "name": ready.name,
        "parameters": ready.details["parameters"],
        "step": ready.details.get("step"),
        "weights_sha256": ready.details.get("weights_sha256"),
        "tokenizer": ready.tokenizer.name,
        "fingerprint": ready.tokenizer.fingerprint,
        "block_size": ready.block_size,
        "prompt_ids": ids or [ready.tokenizer.eot_id],
        "prompt_tokens": len(ids),
    }


def _next(voice: _Voice) -> Event:
    """The next token's event, or how the pane ended."""
    began = time.perf_counter()
    try:
        token = next(voice.stream, None)
    except UserError as error:
        return _problem(voice.pane, error)
    if token is None:
        return _end(voice)
    voice.seconds += time.perf_counter() - began
    drawn = _token(token, voice.tokenizer, voice.before)
    voice.before.append(token.id)
    return {"event": "token", "pane": voice.pane, "seconds": voice.seconds, **drawn}


def _token(token: Token, tokenizer: Tokenizer, before: Sequence[int]) -> Event:
    likeliest = [[id, piece(tokenizer, id, before), logprob] for id, logprob in token.likeliest]
    data = None if token.data is None else token.data.hex()
    return {"token": token.id, "bytes": data, "logprob": token.logprob, "rank": token.rank, "likeliest": likeliest}


def _end(voice: _Voice) -> Event:
    """Also of a stream that was left: its text then ends where it was."""
    record = voice.stream.records()[0]
    return {"event": "end", "pane": voice.pane, "finish": record["finish"], "text": record["text"]}


def _problem(pane: int, error: UserError) -> Event:
    return {"event": "problem", "pane": pane, "text": str(error)}


def piece(tokenizer: Tokenizer, id: int, before: Sequence[int]) -> str | None:
    """What a token adds to the text before it, in hexadecimal, for that may be half a character; None for end-of-text.

    Alone it is another text where the tokenizer spells spaces as a sign of their own.
    """
    return None if id == tokenizer.eot_id else tokenizer.continuation(id, before).hex()


@torch.no_grad()
def likeliest(ready: Ready, fingerprint: str, ids: Sequence[int], text: bytes, token: int | None = None) -> Event:
    """The ten ids `ready` finds likeliest after a context, teacher-forced, as [id, bytes, log-probability].

    `ids` are the context's tokens under the tokenizer with this fingerprint, `text` its bytes. A model with another
    tokenizer reads the text; half a character at its end has no tokens there and is left out (`dropped` bytes).
    `token` is an id of that tokenizer; where the model has it too, it comes as [id, bytes, log-probability, rank].
    """
    own, dropped = list(ids), 0
    if ready.tokenizer.fingerprint != fingerprint:
        dropped = _ends_inside(text)
        own = ready.tokenizer.encode(text[: len(text) - dropped].decode("utf-8", "replace"))
    own = own or [ready.tokenizer.eot_id]
    seen = own[-ready.block_size :]
    hidden = ready.model(torch.tensor([seen], device=ready.model.wte.device))[:, -1]  # (1, C)
    logprobs = torch.log_softmax(ready.model.logits(hidden)[0].float(), 0)  # (V,)
    best, best_ids = torch.topk(logprobs, min(LIKELIEST, len(logprobs)))
    found = [
        [id, piece(ready.tokenizer, id, own), value] for id, value in zip(best_ids.tolist(), best.tolist(), strict=True)
    ]
    answer = {"likeliest": found, "seen": len(seen), "context": len(own), "dropped": dropped}
    if token is not None and ready.tokenizer.fingerprint == fingerprint and 0 <= token < len(logprobs):
        rank = int((logprobs > logprobs[token]).sum()) + 1
        answer["token"] = [token, piece(ready.tokenizer, token, own), float(logprobs[token]), rank]
    return answer


def _ends_inside(text: bytes) -> int:
    """How many bytes at the end are the beginning of a character that is not finished."""
    for length in range(1, min(3, len(text)) + 1):
        first = text[-length]
        if first >= 0xC0:
            needed = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return length if length < needed else 0
        if first < 0x80:
            return 0
    return 0
