"""What both models find likeliest at one token: the two lists are always of one and the same context."""

from __future__ import annotations

import json
import math
from typing import Any

from mygpt2.errors import UserError
from workbench.tabs.sample.client import Desk, Sampler
from workbench.tabs.sample.generation import Drawn, Generation, Pane, is_visible

TAIL = 60  # characters of the context that are shown


def alternatives(sampler: Sampler, id: Any, pane: int, at: int) -> dict[str, Any]:
    """The ten likeliest of each model after what pane `pane` holds before its token `at`.

    The pane's own list is what it drew from. The other model is asked about the same tokens (with another tokenizer:
    the same text), unless it wrote the very same ones itself. UserError for a token that is not there.
    """
    generation, desk = sampler.get(id)
    token = generation.token(pane, at)
    own = generation.panes[pane]
    lists = [
        _own(own, at, token) if number == pane else _other(generation, desk, own, other, at)
        for number, other in enumerate(generation.panes)
    ]
    return {
        "pane": pane,
        "at": at,
        "whose": own.label,
        "context": _bytes_before(generation, own, at).decode("utf-8", "replace")[-TAIL:],
        "empty": not generation.prompt and at == 0,
        "differ": len(generation.panes) == 2 and not _same_tokens(own, generation.panes[1 - pane], at),
        "nats": -token.logprob,
        "lists": lists,
    }


def _own(pane: Pane, at: int, chosen: Drawn) -> dict[str, Any]:
    """What a pane drew from; `chosen` is the token that was asked about, of this pane or the other."""
    drawn = pane.tokens[at]
    beyond = [drawn.id, _hex(drawn), drawn.logprob, drawn.rank] if drawn.data == chosen.data else None
    context, size = len(pane.head["prompt_ids"]) + at, pane.head["block_size"]
    note = f"sees at most the last {size:,} of {context:,} tokens" if context > size else ""
    return {"label": pane.label, "rows": rows(json.loads(drawn.likeliest), chosen, beyond), "note": note}


def _other(generation: Generation, desk: Desk, own: Pane, other: Pane, at: int) -> dict[str, Any]:
    if other.problem:
        return {"label": other.label, "rows": [], "note": other.problem}
    chosen, known = own.tokens[at], None
    if _same_tokens(own, other, at) and len(other.tokens) > at and own.head["block_size"] == other.head["block_size"]:
        known = _own(other, at, chosen)
        if any(row["chosen"] for row in known["rows"]):
            return known  # else where the token stands in the other's ranking is asked for
    ids = [*own.head["prompt_ids"], *(token.id for token in own.tokens[:at])]
    text = _bytes_before(generation, own, at).hex()
    question = {"do": "likeliest", "model": other.spec, "fingerprint": own.head["fingerprint"], "ids": ids,
                "token": chosen.id}  # fmt: skip
    try:
        found = desk.ask({**question, "text": text})
    except UserError as error:
        return known or {"label": other.label, "rows": [], "note": str(error)}
    ranked = rows(found["likeliest"], chosen, found.get("token"))
    return {"label": other.label, "rows": ranked, "note": _note(generation, own, other, found)}


def _note(generation: Generation, own: Pane, other: Pane, found: dict[str, Any]) -> str:
    words = [] if generation.settings.weights == "fp32" else ["computed in float32"]
    if other.head and other.head["fingerprint"] != own.head["fingerprint"]:
        words.append(f"reads this text as {found['context']:,} tokens of its own tokenizer")
    if found["dropped"]:
        words.append("without the beginning of a character at its end")
    if found["seen"] < found["context"]:
        words.append(f"sees the last {found['seen']:,} of {found['context']:,} tokens")
    return "; ".join(words)


def rows(likeliest: list[list[Any]], chosen: Drawn, beyond: list[Any] | None = None) -> list[dict[str, Any]]:
    """[id, bytes, log-probability] for the page: text `t` where the bytes are text, else the bytes `b`.

    beyond: the chosen token with its rank as a fourth; it is the last row where it is none of the likeliest.
    """
    ranked = [[*each, rank] for rank, each in enumerate(likeliest, 1)]
    if beyond is not None and all(data != _hex(chosen) for _, data, _, _ in ranked):
        ranked.append(beyond)
    found = []
    for id, data, logprob, rank in ranked:
        row: dict[str, Any] = {"id": id, "data": data, "p": math.exp(logprob), "n": -logprob, "rank": rank}
        row["chosen"] = data == _hex(chosen)
        if data is None:
            row["e"] = True
        else:
            raw = bytes.fromhex(data)
            text = raw.decode("utf-8", "replace")
            if text.encode() == raw and is_visible(text):
                row["t"] = text
            else:
                row["b"] = raw.hex(" ")
        found.append(row)
    return found


def _hex(token: Drawn) -> str | None:
    return None if token.data is None else token.data.hex()


def _same_tokens(one: Pane, two: Pane, at: int) -> bool:
    """Whether both panes hold the same tokens of the same tokenizer up to a place."""
    if not one.head or not two.head or one.head["fingerprint"] != two.head["fingerprint"]:
        return False
    return [t.id for t in one.tokens[:at]] == [t.id for t in two.tokens[:at]]


def _bytes_before(generation: Generation, pane: Pane, at: int) -> bytes:
    return generation.prompt.encode("utf-8", "replace") + b"".join(token.data or b"" for token in pane.tokens[:at])
