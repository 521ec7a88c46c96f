"""Settings of earlier versions, read as what they have become. Old files, commands and runs stay what they were.

One seed decided everything once; a second one then changed the batches too, and runs could not be compared step by
step. `train.seed` therefore stands for both seeds of today.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SEED = "train.seed"
BECAME = {SEED: ("data.seed", "model.seed")}


def names_of(name: str) -> tuple[str, ...]:
    """The settings that a name stands for: itself, or what an earlier version's has become."""
    return BECAME.get(name, (name,))


def notice(place: str, name: str) -> str:
    """What is told where an earlier name was given: at `place`, as it was written."""
    return f"{place} is read as {' and '.join(BECAME[name])}, which took its place"


def renewed_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name, under today's names; a name of today that is given too wins over the earlier one."""
    return {now: value for name, value in values.items() if name in BECAME for now in BECAME[name]} | {
        name: value for name, value in values.items() if name not in BECAME
    }


def renewed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables by section, as a file or a checkpoint has them, under today's names. What is no table stays as it is."""
    found = {name: dict(table) if isinstance(table, Mapping) else table for name, table in tables.items()}
    for old, new in BECAME.items():
        section, _, key = old.partition(".")
        table = found.get(section)
        if isinstance(table, dict) and key in table:
            value = table.pop(key)
            for name in new:
                into = found.setdefault(name.partition(".")[0], {})
                if isinstance(into, dict):
                    into.setdefault(name.partition(".")[2], value)
    return found


def notices(names: Iterable[str]) -> list[str]:
    """What is told of the earlier names among those given."""
    return [notice(name, name) for name in names if name in BECAME]
