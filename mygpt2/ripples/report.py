"""What an analysis says: the one form that text, page, figures and JSON are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

SCHEMA = 1
Maybe = Any  # None where it cannot be said


@dataclass(frozen=True)
class Report:
    """A report; its JSON has these keys in this order, with no NaN and no arrays.

    period_ci: in `period_ci_unit`, tokens where they are known. pulses, where what recurs is not a wave: kind (pulse;
    again, as data that is read again and again; wave, of a shape with many harmonics), main (whether it is the period
    above), period_steps, height, height_ci, width_steps, first_step, p_value, cause. figures: thinned for display.
    """

    schema: int = SCHEMA
    name: str = ""
    significant: bool = False
    can_say: bool = False
    period_steps: Maybe = None
    period_tokens: Maybe = None
    period_ci: Maybe = None
    period_ci_steps: Maybe = None
    period_ci_unit: str | None = None
    amplitude: Maybe = None  # semi-amplitude in nats
    amplitude_ci: Maybe = None
    p_value: Maybe = None
    share_of_file: Maybe = None
    part_of_file: Maybe = None
    share_of_slow_variance: Maybe = None
    repetition: Maybe = None
    attribution: Maybe = None
    validation: Maybe = None
    between_steps: Maybe = None
    detection_limit: Maybe = None
    forecast_larger: str | None = None
    signal: Maybe = None
    pulses: Maybe = None
    candidates: list[dict[str, Any]] = field(default_factory=list)
    forecast: list[dict[str, Any]] = field(default_factory=list)
    drift: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    verdict: str = ""

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Report:
        """From JSON, of this version or another: what is missing cannot be said, what is new is passed over."""
        return cls(**{item.name: found[item.name] for item in fields(cls) if found.get(item.name) is not None})

    def to_json(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


def plain(value: Any) -> Any:
    """The same with Python's own types, and None for what is not finite."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
