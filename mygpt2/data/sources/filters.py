"""Which documents of a source are wanted, by a column beside their text: a score of at least so much, a language.

A document that is not wanted keeps its number in its block: a `Filtered` stands in the place of its text and says why,
so that it is counted and no other document moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mygpt2.config.data import DataConfig
from mygpt2.data.sources.local.unpack import Damaged
from mygpt2.data.sources.parquet import is_text, row_numbers, row_texts
from mygpt2.errors import UserError, listed, shown


@dataclass(frozen=True)
class Filtered:
    """Stands in the place of a document that a filter leaves out. `reason`: what it counts as, in words."""

    reason: str


_filtered = lru_cache(1024)(Filtered)
_ASKED = {"score_column": "min_score", "language_column": "language"}  # what is asked of a column


@dataclass(frozen=True)
class Filters:
    """What is asked of a document's row; at least one of `min_score` and `language`."""

    min_score: float | None = None
    score_column: str = "score"
    language: str | None = None
    language_column: str = "language"

    @classmethod
    def of(cls, data: DataConfig) -> Filters | None:
        """Those of the settings; None where nothing is asked. The name of a column that nobody looks at is left."""
        asked = {setting for column, setting in _ASKED.items() if getattr(data, setting) is not None}
        named = {column: getattr(data, column) for column, setting in _ASKED.items() if setting in asked}
        return cls(**{setting: getattr(data, setting) for setting in asked}, **named) if asked else None

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are looked at, each by the setting that names it."""
        return {name: getattr(self, name) for name, asked in _ASKED.items() if getattr(self, asked) is not None}

    def __str__(self) -> str:
        """The settings that ask."""
        asked = {name: getattr(self, name) for name in _ASKED.values()}
        return " and ".join(f"data.{name}={shown(value)}" for name, value in asked.items() if value is not None)

    @property
    def identity(self) -> dict[str, Any]:
        """What the choice depends on, JSON-ready."""
        return asdict(self)

    def check_names(self, names: Sequence[str], where: str) -> None:
        """UserError unless each column, or key, is there once."""
        for setting, column in self.columns.items():
            if (count := list(names).count(column)) != 1:
                there = f"stands {count} times in" if count else "is not in"
                raise UserError(
                    f"data.{setting}={shown(column)} {there} {where}; columns there: {listed(names, 20)}; name the "
                    f"right one, or unset data.{_ASKED[setting]}"
                )

    def check(self, schema: pa.Schema, where: str) -> None:
        """UserError unless a file has each column once, and it holds what is asked for."""
        self.check_names(schema.names, where)
        for setting, column in self.columns.items():
            kind = schema.field(column).type
            fits = is_number(kind) if setting == "score_column" else is_text(kind)
            if not fits and not pa.types.is_null(kind):
                wanted = "numbers" if setting == "score_column" else "text"
                others = [f.name for f in schema if (is_number(f.type) if wanted == "numbers" else is_text(f.type))]
                raise UserError(
                    f"data.{setting}={shown(column)} of {where} holds {str(kind)[:100]}, not {wanted}; columns with "
                    f"{wanted}: {listed(others, 20)}; name one of them, or unset data.{_ASKED[setting]}"
                )

    def applied(self, documents: list[Any], columns: Mapping[str, Sequence[Any]]) -> list[Any]:
        """The documents of a block, with a Filtered for each that is not wanted. `columns`: as long, by their names."""
        scores = columns[self.score_column] if self.min_score is not None else repeat(None)
        languages = columns[self.language_column] if self.language is not None else repeat(None)
        rows = zip(documents, scores, languages, strict=False)
        chosen = [self._or_why(document, score, language) for document, score, language in rows]
        if len(chosen) != len(documents):
            raise Damaged(f"{len(chosen)} rows beside {len(documents)} documents")
        return chosen

    def of_record(self, document: Any, record: Mapping[str, Any]) -> Any:
        """The document of one record, or a Filtered."""
        return self._or_why(document, record.get(self.score_column), record.get(self.language_column))

    def _or_why(self, document: Any, score: Any, language: Any) -> Any:
        if self.min_score is not None:
            if not isinstance(score, int | float | Decimal) or isinstance(score, bool) or score != score:
                return _filtered(f"no {self.score_column}")
            if score < self.min_score:
                return _filtered(f"{self.score_column} below {self.min_score:g}")
        if self.language is not None and language != self.language:
            given = f"{self.language_column} not {self.language}"
            return _filtered(given if isinstance(language, str) else f"no {self.language_column}")
        return document


def is_number(kind: pa.DataType) -> bool:
    """An Arrow type whose values are whole or other numbers."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def row_documents(
    source: pq.ParquetFile, text_column: str, filters: Filters | None, group: int, start: int = 0, stop: int = -1
) -> list[Any]:
    """The documents of rows [start, stop) of a parquet row group, see `row_texts`, as the filters have them."""
    texts = row_texts(source, group, text_column, start, stop)
    if filters is None:
        return texts
    read = {"score_column": row_numbers, "language_column": row_texts}
    return filters.applied(
        texts, {column: read[name](source, group, column, start, stop) for name, column in filters.columns.items()}
    )
