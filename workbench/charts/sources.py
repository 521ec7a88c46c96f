"""The sources of a run's mixture, for its curves: their names in the order of the mixture, and what was promised."""

from __future__ import annotations

import re
from typing import Any

from mygpt2.config import load_config
from mygpt2.config.mix import MOST_SOURCES, shares
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.by_source import BY_SOURCE, LOSS, plain
from mygpt2.run_dir.lines import first_record, last_record

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)


def column_source(column: Any) -> str | None:
    """The source whose losses a column holds; None for another column, and for a name that no source has."""
    name = column.removeprefix(LOSS) if isinstance(column, str) and column.startswith(LOSS) else ""
    return name if NAME.fullmatch(name) else None


def sources_of(run: RunDir) -> list[dict[str, Any]]:
    """[{"name", "promised"}] of the sources that the first and the last row have; none of a run without a mixture.

    promised: the share of the tokens, None where the settings do not have it, as of the kinds of a folder.
    """
    records = [first_record(run.metrics_file), last_record(run.metrics_file)]
    names = dict.fromkeys(name for record in records for name in plain((record or {}).get(BY_SOURCE)))
    known = [name for name in names if NAME.fullmatch(name)][:MOST_SOURCES]
    promised = _promised(run) if known else {}
    return [{"name": name, "promised": promised.get(name)} for name in known]


def _promised(run: RunDir) -> dict[str, float]:
    try:
        mix = load_config(None, run.config_file).data.mix
    except (UserError, OSError):
        return {}
    return {source.name: share for source, share in zip(mix, shares(mix), strict=True)}
