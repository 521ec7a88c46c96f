"""For every setting of the schema what it must refuse, made from the schema's own rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import annotated_types as at

from mygpt2.config.fields import Setting, sections, settings

WRONG_TYPE = {"int": ["many", "1.5", "true", '"3"', "[3]", "1e3", "9" * 5000, "[" * 3000],
              "float": ["fast", "nan", "inf", "true", "[0.1]"], "bool": ["maybe", "1", "yes"],
              "list": ["The", "3", "[1]", '[""]', '["a"'],
              "tables": ["pydocs", "3", "[1]", "[{}]", '[{name = "a"}]', '[{name = "a", source = "/etc/passwd"}]'],
              "choice": ["no-such-choice", "3"], "str": []}  # fmt: skip
OUTSIDE = ["../elsewhere", "/etc/passwd", "~/x"]  # for settings that name a file or a folder
NAMING = ("data.source", "data.tokenizer", "data.cache_dir", "eval.yardstick", "eval.hellaswag")


def bad_values() -> dict[str, list[str]]:
    """Texts by dotted name, for every setting: out of range, of another type, no choice, empty, unusable."""
    return {name: list(dict.fromkeys(_bad(setting))) for name, setting in settings().items()}


def _bad(setting: Setting) -> Iterator[str]:
    yield from WRONG_TYPE[setting.kind]
    yield "a\0b"
    yield "\ud800"
    for rule in _rules(setting):
        yield from _beyond(setting, rule)
    if not setting.optional and setting.kind != "str":
        yield ""
    if setting.name in NAMING:
        yield from OUTSIDE


def _rules(setting: Setting) -> list[Any]:
    return list(sections()[setting.section].model_fields[setting.key].metadata)


def _beyond(setting: Setting, rule: Any) -> Iterator[str]:
    step = 1 if setting.kind == "int" else 0.001
    if isinstance(rule, at.Ge):
        yield str(rule.ge - step)
    elif isinstance(rule, at.Gt):
        yield str(rule.gt)
    elif isinstance(rule, at.Le):
        yield str(rule.le + step)
    elif isinstance(rule, at.Lt):
        yield str(rule.lt)
    elif isinstance(rule, at.MinLen) and setting.kind == "str" and not setting.optional:
        yield ""
    elif isinstance(rule, at.MaxLen):
        too_many = rule.max_length + 1
        yield "x" * too_many if setting.kind == "str" else str(["x"] * too_many).replace("'", '"')
    elif getattr(rule, "pattern", None):
        yield "ten to twelve"
