"""Mixtures: several sources, each with its share of the tokens, and settings that differ by source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mygpt2.config.section import Section, setting

MOST_SOURCES = 64
LEAST_SHARE = 1e-6  # of a source: the order counts in steps of 2^-30


class MixSource(Section):
    """One source of a mixture. What is unset is as `[data]` has it."""

    name: str = setting(
        ..., "What the source is called in losses and shares.", title="Name", example="edu",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,31}$",
    )  # fmt: skip
    source: str = setting(..., "Text, as data.source names it.", title="Text", min_length=1, example="fineweb-edu-10BT")
    weight: float = setting(
        1.0, "Share of the tokens, in proportion to the other weights.", title="Weight", gt=0, le=1e9
    )
    max_epochs: float | None = setting(
        None, "Passes over the source that a run may take; one that would take more is refused before it starts.",
        title="Most passes", unit="passes", gt=0, example="4.0",
    )  # fmt: skip
    text_column: str | None = setting(None, "Field that holds the text.", title="Text column", min_length=1)
    min_score: float | None = setting(None, "Documents with a lower score are left out.", title="Lowest score")
    score_column: str | None = setting(None, "Column of the score.", title="Score column", min_length=1)
    language: str | None = setting(None, "Documents of another language are left out.", title="Language", min_length=1)
    language_column: str | None = setting(None, "Column of the language.", title="Language column", min_length=1)


def shares(sources: Sequence[MixSource]) -> list[float]:
    """The share of the tokens that each source is to have; together 1."""
    total = sum(source.weight for source in sources)
    return [source.weight / total for source in sources]


def mix_words(sources: Sequence[MixSource]) -> str:
    """A mixture in a line: `edu 70 %, code 30 %`."""
    each = zip(sources, shares(sources), strict=True)
    return ", ".join(f"{source.name} {100 * share:.3g} %" for source, share in each)


def mix_problem(sources: Sequence[MixSource], order: str) -> str | None:
    """What is wrong with a mixture as a whole, what is allowed, and what to do."""
    if not sources:
        return None
    names = [source.name for source in sources]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        return f"data.mix names {', '.join(twice)} more than once; give every source a name of its own"
    if alike := [name for name in names if [other.lower() for other in names].count(name.lower()) > 1]:
        return (
            f"data.mix names {', '.join(alike)}, which some file systems take for one; let them differ in more than "
            "capital letters"
        )
    if len(sources) > MOST_SOURCES:
        return f"data.mix has {len(sources)} sources; allowed: at most {MOST_SOURCES}; put some into one folder"
    least, name = min(zip(shares(sources), names, strict=True))
    if least < LEAST_SHARE:
        return f"data.mix gives {name} a share of {least:.2g}; allowed: {LEAST_SHARE:g} and more; raise its weight"
    if order != "lanes":
        return f"data.order={order} reads one source; allowed with data.mix: lanes; take out data.mix or data.order"
    return None


def entry_problem(value: Any, where: Sequence[int | str], expected: str) -> str:
    """What is wrong within data.mix: `where` is the place as pydantic has it, ("mix", 1, "weight") say."""
    if len(where) < 2 or not isinstance(value, list):
        return "data.mix: expected tables, each with name, source and weight; write [[data.mix]] above each of them"
    number = int(where[1])
    entry = value[number]
    named = entry.get("name") if isinstance(entry, dict) else None
    place = f"data.mix, source {number + 1}" + (f" ({named})" if isinstance(named, str) else "")
    if len(where) < 3:
        return f"{place}: expected a table with name, source and weight"
    key = str(where[2])
    if key not in MixSource.model_fields:
        return f"{place}: {key[:64]} is not a setting of a source; allowed: {', '.join(MixSource.model_fields)}"
    if key == "name":
        expected = "1 to 32 letters without accents, digits, dots, - or _, the first a letter or a digit"
    if key not in entry:
        return f"{place}: {key} is missing; expected {expected}"
    return f"{place}: {key} = {str(entry[key])[:80]!r}: expected {expected}"


def table_values(source: MixSource) -> Iterable[tuple[str, Any]]:
    """The keys that are set, in the order of the schema."""
    return source.model_dump(exclude_none=True).items()
