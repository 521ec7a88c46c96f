"""A mixture among a run's settings in the few words that a table has room for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from mygpt2.config.mix import MixSource, mix_words


def mixed_as_text(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings with a mixture as its text: `data.source` says the names and shares, `data.mix` the sources.

    One that is none, as in a damaged file, stays as it is.
    """
    tables = settings.get("data.mix")
    if not isinstance(tables, list) or not tables:
        return settings
    try:
        sources = [MixSource.model_validate(table) for table in tables]
    except ValidationError:
        return settings
    named = ", ".join(f"{source.name}: {source.source}" for source in sources)
    return {**settings, "data.source": mix_words(sources), "data.mix": named}
