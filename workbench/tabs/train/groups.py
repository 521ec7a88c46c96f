"""The settings in the order in which a person decides: first what is open on the page, then what is folded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from mygpt2.config.fields import settings


@dataclass(frozen=True)
class Group:
    """Settings that stand together. `names`: the settings, or the section that all others of it come from (`eval.`)."""

    id: str
    title: str
    names: tuple[str, ...]
    folded: bool = False


_GROUPS = (
    Group("data", "Data", ("data.source", "data.mix", "data.tokenizer", "data.text_column")),
    Group("size", "Size", ("model.n_layer", "model.n_head", "model.n_embd", "model.block_size")),
    Group("length", "Length", ("train.steps", "train.batch_tokens")),
    Group("rate", "Rate", ("optimizer.name", "optimizer.lr", "optimizer.muon_lr", "schedule.name",
                           "schedule.warmup_steps", "schedule.min_lr_ratio")),
    Group("filters", "Filters of the text",
          ("data.min_score", "data.score_column", "data.language", "data.language_column"), folded=True),
    Group("evaluation", "Evaluation and checkpoints",
          ("eval.", "data.validation_fraction", "data.validation_tokens", "sample.", "checkpoint."), folded=True),
    Group("speed", "Speed and devices",
          ("train.micro_batch", "train.device", "train.precision", "train.compile", "data.threads",
           "data.prefetch_steps", "data.encoder", "data.token_cache", "data.cache_gb", "data.cache_dir",
           "train.stall_minutes"), folded=True),
    Group("rest", "Everything else",
          ("train.", "model.", "optimizer.", "schedule.", "data.", "log."), folded=True),
)  # fmt: skip


@lru_cache(maxsize=1)
def groups() -> tuple[Group, ...]:
    """The groups with every setting in exactly one of them, a section's others in the order of the schema."""
    named = {name for group in _GROUPS for name in group.names if not name.endswith(".")}
    made, taken = [], set(named)
    for group in _GROUPS:
        names: list[str] = []
        for name in group.names:
            more = [s for s in settings() if s.startswith(name) and s not in taken] if name.endswith(".") else [name]
            names += more
            taken.update(more)
        made.append(Group(group.id, group.title, tuple(names), group.folded))
    return tuple(made)


def group_of(name: str) -> Group | None:
    """The group that a setting stands in; None for what is no setting."""
    return next((group for group in groups() if name in group.names), None)
