"""What a person asked for, brought within what the workbench does, with a word for everything that was changed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

MAX_PROMPT = 100_000  # characters
MAX_STOPS, MAX_STOP = 8, 200  # strings, characters of one
PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "int8": "int8"}  # how the engine stores a model's matrices


@dataclass(frozen=True)
class Limit:
    """One number: `kind` is int or float, ends are allowed."""

    label: str
    kind: type
    low: float
    high: float
    default: float

    def clamp(self, given: Any) -> tuple[Any, str]:
        """The number used instead of `given`, and why; "" where it is the same."""
        if given is None or given == "":
            return self.kind(self.default), f"{self.label} was empty; {self.default:g} is used"
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = math.nan
        if math.isnan(number) or isinstance(given, bool):
            return self.kind(
                self.default
            ), f"{self.label} {str(given)[:40]!r} is not a number; {self.default:g} is used"
        near = min(max(number, self.low), self.high)
        used = self.kind(near)
        if used == given:
            return used, ""
        if used == near != number:
            return used, f"{self.label} {number:g} is outside {self.low:g} to {self.high:g}; {used:g} is used"
        return used, "" if used == number else f"{self.label} {number:g} is not a whole number; {used:g} is used"


LIMITS = {
    "max_new_tokens": Limit("New tokens", int, 1, 2048, 200),
    "temperature": Limit("Temperature", float, 0.0, 10.0, 0.8),
    "top_k": Limit("Top-k", int, 0, 1_000_000, 50),
    "top_p": Limit("Top-p", float, 0.001, 1.0, 1.0),
    "min_p": Limit("Min-p", float, 0.0, 1.0, 0.0),
    "repetition_penalty": Limit("Repetition penalty", float, 0.1, 10.0, 1.0),
    "seed": Limit("Seed", int, 0, 2**53 - 1, 1337),
}


@dataclass(frozen=True)
class Settings:
    """Everything that, with the prompt and the model, decides the text."""

    max_new_tokens: int = 200
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 1337
    stop: tuple[str, ...] = ()
    weights: str = "fp32"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "stop": list(self.stop)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Settings:
        return cls(**{**record, "stop": tuple(record["stop"])})


def clamped(given: Mapping[str, Any], stop: Any = "") -> tuple[Settings, list[str]]:
    """Settings within the limits and one sentence for each value that was not. `stop`: one string a line.

    given: numbers by their names in LIMITS, and `precision`, one of PRECISIONS."""
    values: dict[str, Any] = {}
    words: list[str] = []
    for name, limit in LIMITS.items():
        values[name], word = limit.clamp(given.get(name))
        words += [word] if word else []
    strings, word = stop_strings(stop)
    words += [word] if word else []
    precision = str(given.get("precision") or "float32")
    if precision not in PRECISIONS:
        words.append(f"precision {precision[:40]!r} is not one of {', '.join(PRECISIONS)}; float32 is used")
    return Settings(**values, stop=strings, weights=PRECISIONS.get(precision, "fp32")), words


def stop_strings(text: Any) -> tuple[tuple[str, ...], str]:
    r"""The stop strings of a box, one a line, `\n` and `\t` in them standing for a new line and a tab."""
    lines = [line.replace("\\n", "\n").replace("\\t", "\t") for line in str(text or "").split("\n")]
    found = tuple(dict.fromkeys(line for line in lines if line))
    kept = tuple(line[:MAX_STOP] for line in found[:MAX_STOPS])
    return kept, "" if kept == found else f"stop strings: the first {MAX_STOPS} of up to {MAX_STOP} characters are used"


def prompt_within(text: Any) -> tuple[str, str]:
    """The prompt's end, if it is longer than any context needs, and a word about it."""
    prompt = str(text or "")
    if len(prompt) <= MAX_PROMPT:
        return prompt, ""
    return prompt[-MAX_PROMPT:], f"the prompt has {len(prompt):,} characters; its last {MAX_PROMPT:,} are used"
