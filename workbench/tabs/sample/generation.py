"""One generation as the server knows it: what was asked, what has come, and what the page is told of it."""

from __future__ import annotations

import json
import math
import threading
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mygpt2.errors import UserError
from workbench.tabs.sample.settings import Settings

ENDED = ("done", "stopped", "failed")
END_OF_TEXT = "<|endoftext|>"  # what a saved file calls it
AT_ONCE = 400  # tokens of one pane in one answer


@dataclass(frozen=True)
class Drawn:
    """One token. `data` None is end-of-text; `likeliest` stays JSON: it is asked for once in a while only."""

    id: int
    data: bytes | None
    logprob: float
    rank: int  # 1 is the likeliest
    likeliest: str


@dataclass
class Pane:
    """One model's side. `head` is what `duet` says at its beginning."""

    spec: str
    label: str
    head: dict[str, Any] = field(default_factory=dict)
    tokens: list[Drawn] = field(default_factory=list)
    shown: list[dict[str, Any]] = field(default_factory=list)
    text: str = ""
    finish: str = ""
    problem: str = ""
    loading: bool = False
    seconds: float = 0.0
    begun: bytes = b""  # of a character that is not whole yet

    @property
    def nats(self) -> float:
        """Σ surprisal of the drawn tokens, end-of-text included."""
        return math.fsum(-token.logprob for token in self.tokens)

    @property
    def size(self) -> int:
        """Bytes of the drawn tokens."""
        return sum(len(token.data or b"") for token in self.tokens)

    @property
    def bits_per_byte(self) -> float | None:
        return self.nats / math.log(2) / self.size if self.size else None

    def add(self, event: Mapping[str, Any]) -> None:
        data = None if event["bytes"] is None else bytes.fromhex(event["bytes"])
        likeliest = json.dumps(event["likeliest"], separators=(",", ":"))
        drawn = Drawn(event["token"], data, event["logprob"], event["rank"], likeliest)
        self.tokens.append(drawn)
        self.seconds = event["seconds"]
        self.shown.append({**self._piece(data), "n": -drawn.logprob, "r": drawn.rank})

    def _piece(self, data: bytes | None) -> dict[str, Any]:
        """How a token is shown: its text, or its bytes (`b`) with the character that they finish."""
        if data is None:
            return {"e": True}
        text, self.begun, split = joined(self.begun, data)
        if not is_visible(text):
            return {"t": "", "b": data.hex(" ")}
        return {"t": text, "b": data.hex(" ")} if split else {"t": text}

    def facts(self) -> dict[str, Any]:
        """Everything about the pane but its tokens."""
        keys = ("name", "parameters", "step", "tokenizer", "block_size", "prompt_tokens")
        return {
            "label": self.label,
            "head": {key: self.head.get(key) for key in keys} if self.head else None,
            "problem": self.problem,
            "loading": self.loading,
            "finish": self.finish,
            "count": len(self.tokens),
            "nats": self.nats,
            "bytes": self.size,
            "bits_per_byte": self.bits_per_byte,
            "seconds": self.seconds,
        }


def joined(pending: bytes, data: bytes) -> tuple[str, bytes, bool]:
    """The text that these bytes finish, what is left of a begun character, and whether the token splits one."""
    whole = pending + data
    for keep in range(0, min(3, len(whole)) + 1):
        try:
            text = whole[: len(whole) - keep].decode("utf-8")
        except UnicodeDecodeError:
            continue
        rest = whole[len(whole) - keep :]
        if not rest or _begins_character(rest):
            return text, rest, bool(pending or rest)
    return whole.decode("utf-8", "replace"), b"", True


def is_visible(text: str) -> bool:
    """Whether no control character is in it but line ends and tabs; such a one is shown as its bytes."""
    return all(unicodedata.category(c) != "Cc" or c in "\n\r\t" for c in text)


def _begins_character(data: bytes) -> bool:
    needed = 4 if data[0] >= 0xF0 else 3 if data[0] >= 0xE0 else 2 if data[0] >= 0xC2 else 0
    return data[0] <= 0xF4 and len(data) < needed and all(0x80 <= byte < 0xC0 for byte in data[1:])


class Generation:
    """Filled by the thread that reads the worker, read by the page's handlers."""

    def __init__(self, id: str, models: Sequence[tuple[str, str]], prompt: str, settings: Settings) -> None:
        """models: (what the engine loads, what people call it), one or two."""
        self.id, self.prompt, self.settings = id, prompt, settings
        self.panes = [Pane(spec, label) for spec, label in models]
        self.state = "waiting"  # waiting, running, done, stopped, failed
        self.problem = ""
        self.asked_to_stop = False
        self.after_stop: int | None = None
        self.polled = 0.0
        self._lock = threading.Lock()

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def request(self) -> dict[str, Any]:
        """What the worker is asked."""
        specs = [pane.spec for pane in self.panes]
        return {"do": "generate", "id": self.id, "models": specs, "prompt": self.prompt,
                "settings": self.settings.to_json()}  # fmt: skip

    def hear(self, event: Mapping[str, Any]) -> None:
        """One event of the worker."""
        with self._lock:
            kind = event["event"]
            if kind == "start":
                self.state = "running"
            elif kind == "done":
                self.state = "stopped" if self.asked_to_stop else "done"
                self.after_stop = event["after_stop"] if self.asked_to_stop else None
            elif kind == "problem" and "pane" not in event:
                self.state, self.problem = "failed", event["text"]
            else:
                self._hear(self.panes[event["pane"]], kind, event)

    def _hear(self, pane: Pane, kind: str, event: Mapping[str, Any]) -> None:
        pane.loading = kind == "loading"
        if kind == "begin":
            pane.head = dict(event)
        elif kind == "token":
            pane.add(event)
        elif kind == "end":
            pane.finish, pane.text = event["finish"], event["text"]
        elif kind == "problem":
            pane.problem = event["text"]

    def fail(self, text: str) -> None:
        with self._lock:
            if not self.ended:
                self.state, self.problem = "failed", text

    def since(self, counts: Sequence[int]) -> dict[str, Any]:
        """What the page does not have yet, given how many tokens of each pane it has."""
        with self._lock:
            panes = []
            more = False
            for pane, had in zip(self.panes, [*counts, 0, 0], strict=False):
                first = max(0, int(had))
                panes.append({**pane.facts(), "tokens": pane.shown[first : first + AT_ONCE]})
                more = more or len(pane.shown) > first + AT_ONCE
            return {"id": self.id, "state": self.state, "problem": self.problem, "more": more,
                    "prompt": self.prompt, "after_stop": self.after_stop, "panes": panes}  # fmt: skip

    def token(self, pane: int, at: int) -> Drawn:
        """UserError for a place where there is no token."""
        with self._lock:
            if not (0 <= pane < len(self.panes) and 0 <= at < len(self.panes[pane].tokens)):
                raise UserError("there is no such token; click one of the text")
            return self.panes[pane].tokens[at]

    def records(self) -> list[dict[str, Any]]:
        """The samples as `mygpt2 sample --json` writes them, with the model, the settings and the totals."""
        with self._lock:
            return [
                {
                    "prompt": self.prompt, "text": pane.text or text_of(pane.tokens),
                    "ids": [token.id for token in pane.tokens],
                    "tokens": [spelled(token.data) for token in pane.tokens],
                    "logprobs": [token.logprob for token in pane.tokens], "seed": self.settings.seed,
                    "finish": pane.finish or ("problem" if pane.problem else "running"),
                    "model": pane.head.get("name", pane.label), "weights_sha256": pane.head.get("weights_sha256"),
                    "settings": self.settings.to_json(), "total_nats": pane.nats, "bytes": pane.size,
                    "bits_per_byte": pane.bits_per_byte,
                }
                for pane in self.panes
            ]  # fmt: skip


def text_of(tokens: Sequence[Drawn]) -> str:
    return b"".join(token.data or b"" for token in tokens).decode("utf-8", "replace")


def spelled(data: bytes | None) -> str:
    """A token as text in a file; bytes that are no text of their own as \\xe2, end-of-text by its name."""
    return END_OF_TEXT if data is None else data.decode("utf-8", "backslashreplace")


def as_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Samples for a person: each under a line that says which it is."""
    return "\n".join(
        f"--- {r['model']}: seed {r['seed']}, {len(r['ids'])} tokens, {r['finish']}\n{r['prompt']}{r['text']}\n"
        for r in records
    )
