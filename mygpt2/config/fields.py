"""The schema as a flat table: one row per setting, from which help, errors and files are made."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import annotated_types as at
from pydantic.fields import FieldInfo

from mygpt2.config.schema import RunConfig
from mygpt2.config.section import Section

# TOML's basic strings forbid what JSON's leave as it is: DEL (toml.io/en/v1.0.0#string).
CONTROL = re.compile("\x7f")


def toml_value(value: Any) -> str:
    """A scalar, a list, or a source of a mixture (as an inline table) in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return CONTROL.sub(r"\\u007f", json.dumps(value, ensure_ascii=False))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, Section):
        value = value.model_dump()
    if isinstance(value, Mapping):  # TOML has no null: what is unset is not there
        given = (f"{key} = {toml_value(item)}" for key, item in value.items() if item is not None)
        return "{" + ", ".join(given) + "}"
    return repr(value)


KIND_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
    "tables": "a list of tables",
}  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One field of the schema. `kind` is int, float, bool, str, choice, list (of text) or tables."""

    section: str
    key: str
    kind: str
    default: Any
    help: str
    unit: str | None
    title: str
    optional: bool
    choices: tuple[str, ...]
    limits: str
    example: str

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def short_help(self) -> str:
        """The first sentence of the help: what the setting is."""
        return self.help.partition(". ")[0].rstrip(".") + "."

    @property
    def allowed(self) -> str:
        """What may be given, as words: type, range, unit."""
        words = f"one of {', '.join(self.choices)}" if self.kind == "choice" else KIND_WORDS[self.kind]
        if self.limits:
            words += f" {self.limits}"
        if self.unit and self.kind in ("int", "float"):
            words += f" ({self.unit})"
        return f"{words}, or none" if self.optional else words

    @property
    def expected(self) -> str:
        """What may be given, and an example where there is one beside "none"."""
        return self.allowed if self.example == "none" else f"{self.allowed}, for example {self.example}"


def sections() -> dict[str, type[Section]]:
    """Name and model of each section, in the order of the schema."""
    return {name: typing.cast(type[Section], info.annotation) for name, info in RunConfig.model_fields.items()}


@lru_cache(maxsize=1)
def settings() -> dict[str, Setting]:
    """All settings by dotted name, in the order of the schema."""
    return {row.name: row for name, model in sections().items() for row in settings_of(name, model)}


def settings_of(section: str, model: type[Section]) -> list[Setting]:
    """The settings of a section, or of the tables of a mixture, in the order of the schema."""
    return [_setting(section, key, info) for key, info in model.model_fields.items()]


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word a person most likely meant, or None when nothing is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    return close[0] if close else None


def nearest_setting(name: str) -> str | None:
    """The setting meant by a dotted name (or a bare key): the same key in another section comes first."""
    known = settings()
    key = name.rpartition(".")[2].replace("-", "_")
    same_key = [setting.name for setting in known.values() if setting.key == key]
    if same_key:
        return nearest(name, same_key) or same_key[0]
    close = nearest(name.replace("-", "_"), known)
    if close:
        return close
    key_match = nearest(key, [setting.key for setting in known.values()])
    return next((s.name for s in known.values() if s.key == key_match), None)


def _setting(section: str, key: str, info: FieldInfo) -> Setting:
    annotation, optional = _without_none(info.annotation)
    kind, choices = _kind(annotation)
    extra = typing.cast("dict[str, Any]", info.json_schema_extra or {})
    return Setting(
        section=section,
        key=key,
        kind=kind,
        default=None if info.is_required() else info.get_default(call_default_factory=True),
        help=info.description or "",
        unit=extra.get("unit"),
        title=info.title or key,
        optional=optional,
        choices=choices,
        limits=_limits(kind, info.metadata, extra.get("example", "")),
        example=extra.get("example") or ("none" if info.default is None else toml_value(info.default)),
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(annotation) if a is not type(None)]
        return rest[0], True
    return annotation, False


def _kind(annotation: Any) -> tuple[str, tuple[str, ...]]:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return "choice", typing.get_args(annotation)
    if origin is list:
        item = typing.get_args(annotation)[0]
        return ("tables" if isinstance(item, type) and issubclass(item, Section) else "list"), ()
    return annotation.__name__, ()


def _limits(kind: str, metadata: list[Any], example: str) -> str:
    """The range in words: `from 1 to 200`, `above 0, at most 10`, `of 1 to 128 characters`."""
    low = high = ""
    for rule in metadata:
        if isinstance(rule, at.Ge):
            low = f"from {rule.ge}"
        elif isinstance(rule, at.Gt):
            low = f"above {rule.gt}"
        elif isinstance(rule, at.Le):
            high = f"to {rule.le}" if low.startswith("from") else f"at most {rule.le}"
        elif isinstance(rule, at.Lt):
            high = f"below {rule.lt}"
        elif isinstance(rule, at.MinLen) and kind == "str":
            low = "that is not empty"
        elif isinstance(rule, at.MaxLen):
            high = f"of at most {rule.max_length} {'texts' if kind == 'list' else 'characters'}"
        elif getattr(rule, "pattern", None):
            low = f"like {example}"
    if low.startswith("from") and not high:
        low += " up"
    joint = " " if high.startswith(("to", "of")) else ", "
    return joint.join(part for part in (low, high) if part)
