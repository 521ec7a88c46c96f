"""A configuration as TOML, each setting with its unit and help, such that reading it gives the same configuration; and
TOML from anywhere, read within bounds."""

from __future__ import annotations

import codecs
import re
import tomllib
from typing import Any

from mygpt2.config.fields import sections, settings, toml_value
from mygpt2.config.mix import MixSource, table_values
from mygpt2.config.schema import RunConfig
from mygpt2.errors import LONGEST_NAME, LONGEST_PATH, TOO_LONG


def to_toml(config: RunConfig, comments: bool = True) -> str:
    """The fully resolved configuration. Unset optional settings appear as comments: TOML has no null."""
    lines = ["# Every setting of the run. To repeat it: python -m mygpt2 train --config THIS_FILE"] if comments else []
    for section in sections():
        lines += ["", f"[{section}]"]
        for setting in (s for s in settings().values() if s.section == section):
            value = getattr(getattr(config, section), setting.key)
            if setting.name == "data.source" and config.data.mix:
                lines.append("# source: see [[data.mix]] below")
                continue
            if setting.kind == "tables" and value:
                continue
            line = f"# {setting.key} is unset" if value is None else f"{setting.key} = {toml_value(value)}"
            if comments and setting.unit:
                line += f"  # {setting.unit}"
            lines += [f"# {setting.help}"] if comments else []
            lines.append(line)
        if section == "data":
            lines += [line for source in config.data.mix for line in _table(source)]
    return "\n".join(lines).lstrip("\n") + "\n"


def _table(source: MixSource) -> list[str]:
    return ["", "[[data.mix]]", *(f"{key} = {toml_value(value)}" for key, value in table_values(source))]


MAX_BYTES = 1 << 20  # all comments make 10 kB, and 32 prompts of the longest kind half a megabyte
DEEPEST = 16  # brackets or dotted names within each other; a configuration has two
LARGEST = 2**63  # toml.io/en/v1.0.0#integer: 64 bits, signed

_TEXTS = re.compile(
    r'"""(?:[^\\]|\\.)*?(?:"""|\Z)|' r"'''.*?(?:'''|\Z)|" r'"(?:[^"\\\n]|\\.)*+"?|' r"'[^'\n]*+'?|#[^\n]*+", re.DOTALL
)
_LONG_NAME = re.compile(rf"(?<![\w-])[\w-]++(?:[ \t]*+\.[ \t]*+[\w-]++){{{DEEPEST}}}")


def from_toml(data: bytes) -> dict[str, Any]:
    """The tables of a TOML document. ValueError in words for what is none, or would take the machine to read.

    Python's reader takes memory with the square of a dotted name's parts, and time with that of brackets.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES // 1024} kB")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ValueError("UTF-16 or binary; save it as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save it as UTF-8") from None
    bare = _TEXTS.sub("x", text)
    if _LONG_NAME.search(bare) or _depth(bare) > DEEPEST:
        raise ValueError(f"names or brackets more than {DEEPEST} deep")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python refuses to read numbers of more than 4,300 digits
        raise ValueError("a number with thousands of digits") from None


def _depth(text: str) -> int:
    """How many brackets are open at most."""
    deepest = depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth = max(0, depth + (1 if bracket in "[{" else -1))
        deepest = max(deepest, depth)
    return deepest


def unwritable(kind: str, value: Any) -> str | None:
    """Why a setting's text, or one within its tables, can be no name, path or word of a configuration."""
    if isinstance(value, str):
        return _unwritable(value) if kind == "str" else _undecoded(value) if kind == "tables" else None
    for number, entry in enumerate(value if kind == "tables" and isinstance(value, list) else (), 1):
        for key, text in entry.items() if isinstance(entry, dict) else ():
            if isinstance(text, str) and (reason := _unwritable(text)):
                return f"source {number}, {key[:64]}: {reason}"
    return None


def _unwritable(text: str) -> str | None:
    if "\0" in text:
        return "it holds a NUL character, which no name or path does; take it out"
    if reason := _undecoded(text):
        return reason
    content = text.encode()
    if len(content) > LONGEST_PATH or max(map(len, content.split(b"/"))) > LONGEST_NAME:
        return f"it is too long; {TOO_LONG}"
    return None


def _undecoded(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return "it is not UTF-8 text, which config.toml could not hold; rename it"
    return None
