"""Rules that need more than one field. Each names the fields it reads, and is skipped when one of them is bad."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mygpt2.config.batch import around, batch_problem, divisors, lanes_problem
from mygpt2.config.mix import mix_problem
from mygpt2.config.schema import RunConfig


@dataclass(frozen=True)
class Rule:
    """`check` returns what is wrong, what is allowed and what to do, or None."""

    fields: tuple[str, ...]
    check: Callable[[RunConfig], str | None]


class Problem(str):
    """One line of what is wrong, which knows the settings it is about, so that a form can say it there."""

    fields: tuple[str, ...]

    def __new__(cls, text: str, fields: tuple[str, ...]) -> Problem:
        made = super().__new__(cls, text)
        made.fields = fields
        return made


def heads_divide_width(config: RunConfig) -> str | None:
    head, width = config.model.n_head, config.model.n_embd
    if width % head == 0:
        return None
    legal = [d for d in divisors(width) if d <= 256]
    near = ", ".join(str(n) for n in around(legal, head))
    return f"model.n_head={head} does not divide model.n_embd={width}; nearest n_head: {near}"


def batch_is_whole(config: RunConfig) -> str | None:
    train = config.train
    return batch_problem(train.batch_tokens, config.model.block_size, train.micro_batch, ranks=1)


def lanes_fit_batch(config: RunConfig) -> str | None:
    tokens, block = config.train.batch_tokens, config.model.block_size
    if tokens % block:
        return None  # batch_is_whole reports it
    return lanes_problem(tokens // block, config.data.lanes, ranks=1)


def warmup_ends(config: RunConfig) -> str | None:
    warmup, steps = config.schedule.warmup_steps, config.train.steps
    if warmup < steps:
        return None
    return (
        f"schedule.warmup_steps={warmup} must be below train.steps={steps}, or the peak rate is never reached; "
        f"allowed: 0 to {steps - 1}, for example {steps // 10}"
    )


def profile_is_inside(config: RunConfig) -> str | None:
    if config.log.profile is None:
        return None
    first, last = (int(part) for part in config.log.profile.split(":"))
    if 0 < first <= last <= config.train.steps:
        return None
    return (
        f"log.profile={config.log.profile} must be FIRST:LAST with 1 <= FIRST <= LAST <= train.steps="
        f"{config.train.steps}, for example {min(10, config.train.steps)}:{min(12, config.train.steps)}"
    )


def mixture_is_whole(config: RunConfig) -> str | None:
    return mix_problem(config.data.mix, config.data.order)


RULES = (
    Rule(("model.n_head", "model.n_embd"), heads_divide_width),
    Rule(("train.batch_tokens", "model.block_size", "train.micro_batch"), batch_is_whole),
    Rule(("data.lanes", "train.batch_tokens", "model.block_size"), lanes_fit_batch),
    Rule(("schedule.warmup_steps", "train.steps"), warmup_ends),
    Rule(("log.profile", "train.steps"), profile_is_inside),
    Rule(("data.mix", "data.order"), mixture_is_whole),
)


def broken_rules(config: RunConfig, bad: set[str]) -> list[str]:
    """The problems of all rules whose fields are themselves sound."""
    checked = ((rule.check(config), rule.fields) for rule in RULES if not bad.intersection(rule.fields))
    return [Problem(text, fields) for text, fields in checked if text]
