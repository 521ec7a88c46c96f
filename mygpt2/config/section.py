"""What the sections of the schema are made with: a field with its title, help, unit and range; and their base."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, help: str, *, title: str, unit: str = "", example: str = "", **limits: Any) -> Any:
    """A field with its title, help, unit and range in one place. `title` is its name for a person, in a form and in
    errors; the first sentence of `help` is what a form shows. `example` is for errors, where the default does not
    serve."""
    extra: dict[str, Any] = {"unit": unit, "example": example}
    more = {key: value for key, value in extra.items() if value}
    return Field(default, title=title, description=help, json_schema_extra=more, **limits)


class Section(BaseModel):
    """Unknown keys, other types, NaN and infinities are errors; values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)
