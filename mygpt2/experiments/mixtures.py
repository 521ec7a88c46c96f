"""When two arms are compared source by source, and what is claimed of arms that saw different text."""

from __future__ import annotations

from typing import Any

from mygpt2.config import RunConfig
from mygpt2.errors import UserError, listed, shown

# Of [data]: what decides which text a run is trained on and holds out.
TEXT = (
    "source", "mix", "text_column", "min_score", "score_column", "language", "language_column", "tokenizer",
    "validation_fraction", "validation_tokens", "max_document_chars",
)  # fmt: skip
CLAIM = (
    "The arms were trained on different mixtures, and no batch is the same. Compared are the models that came of them, "
    "on documents of each source that neither was trained on: what each mixture as a whole did for a source, not what "
    "one weight would do if the rest stayed as it is."
)
SHARES = "They hold out different shares; of a source of both the smaller is scored, which neither was trained on."


def text_of(config: RunConfig) -> list[Any]:
    return [getattr(config.data, key) for key in TEXT]


def by_sources(protocol: str, source: str, base: RunConfig, variant: RunConfig) -> bool:
    """Whether the arms are compared source by source: mixtures that differ, or one source of a mixture that is asked
    for. They are scored on the held-out documents of every source that either trains on. UserError for a source that is
    asked for without a mixture."""
    mixed = protocol == "run" and bool(base.data.mix or variant.data.mix)
    if source and not mixed:
        raise UserError(
            f"--source {shown(source)} is for mixtures and what they hold out; leave it out, or compare a run with "
            "data.mix by --protocol run"
        )
    return mixed and (bool(source) or text_of(base) != text_of(variant))


def check_sources(source: str, base: RunConfig, variant: RunConfig) -> None:
    """UserError where an arm holds nothing out, or neither has the source that is asked for."""
    for who, config in (("base", base), ("variant", variant)):
        if config.data.validation_fraction == 0:
            raise UserError(
                f"the {who} holds no document out (data.validation_fraction = 0), so that it would be scored on what "
                "it was trained on; give both the same share, or a --protocol that is a text of neither"
            )
    names = [each.name for config in (base, variant) for each in config.data.mix]
    names += [config.data.source for config in (base, variant) if not config.data.mix]
    if source and not any(source == name or source.startswith(f"{name}.") for name in names):
        known = listed(dict.fromkeys(names), 20)
        raise UserError(f"--source {shown(source)} is no source of either mixture; there are: {known}")


def sentences(one: RunConfig, two: RunConfig) -> list[str]:
    """What is claimed of two arms that are compared source by source."""
    found = [CLAIM] if text_of(one) != text_of(two) else []
    return [*found, SHARES] if one.data.validation_fraction != two.data.validation_fraction else found
