"""The schema as a form: the texts of its fields, and from texts to a configuration or to what is wrong at each field.

A field's value is the text a person sees, read by the function that reads the command line. Knows nothing of Gradio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mygpt2.config import ConfigError, RunConfig, load_config, preset_names
from mygpt2.config import from_toml as read_toml
from mygpt2.config.earlier import renewed
from mygpt2.config.fields import Setting, settings, toml_value
from mygpt2.config.summary import GPT2_IDS, vocabulary_size
from mygpt2.errors import UserError
from mygpt2.inside import open_inside

LISTS = ("list", "tables")  # kinds of settings that a field shows in TOML's notation
MAX_TEXT = 32_768  # characters of one field: 32 prompts of a kilobyte
EMPTY_SOURCE = "choose its text: pydocs, the name of a set on the hub, or a file or folder"
MAX_FILE = 256 * 1024  # bytes of a TOML file; one with every comment has 9 kB


class Places(Protocol):
    """Which data, models and folders a form may name; each raises UserError. `Context` is one."""

    def source(self, text: str) -> str: ...

    def model(self, text: str) -> str: ...

    def path(self, text: str, what: str) -> Path: ...


@dataclass(frozen=True)
class Change:
    """A setting that differs from the preset's. `follows`: nobody asked for it, it follows from another setting."""

    name: str
    preset: str
    text: str
    follows: bool = False


@dataclass(frozen=True)
class Reading:
    """What a form says. `config` is None while there are problems, which are lists of lines by dotted name.

    A cross-field rule stands at each field it names. `lines` has every problem once.
    """

    preset: str
    config: RunConfig | None
    problems: dict[str, list[str]]
    lines: list[str]
    changes: list[Change]


def text_of(setting: Setting, value: Any) -> str:
    """A value as its field shows it: text as it is, nothing for an unset one, TOML's notation for the rest."""
    if value is None:
        return ""
    return value if isinstance(value, str) and setting.kind not in LISTS else toml_value(value)


def mixture(text: Any) -> list[dict[str, Any]]:
    """The tables of a mixture's text, sound or not; none for a text that holds no tables."""
    try:
        given = read_toml(f"value = {as_text(text).strip()}".encode())
    except ValueError:
        return []
    found = given["value"] if len(given) == 1 else None
    return found if isinstance(found, list) and all(isinstance(table, dict) for table in found) else []


def trained_on(values: Mapping[str, Any]) -> str:
    """What a form trains on: the text of its mixture, or else of its one source."""
    mix = as_text(values.get("data.mix"))
    return mix if mixture(mix) else as_text(values.get("data.source"))


def mix_place(number: int, table: Mapping[str, Any]) -> str:
    """A source of a mixture as the schema's messages name it; `number` from 1."""
    name = table.get("name")
    return f"data.mix, source {number}" + (f" ({name})" if isinstance(name, str) else "")


def named_in(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(setting, text) of what a configuration names: data, models, folders."""
    for name in NAMING:
        section, _, key = name.partition(".")
        if text := text_of(settings()[name], getattr(getattr(config, section), key)):
            yield name, text


def texts(config: RunConfig) -> dict[str, str]:
    """The text of every field, by dotted name in the order of the schema."""
    return {name: text_of(s, getattr(getattr(config, s.section), s.key)) for name, s in settings().items()}


def preset_texts(preset: str) -> dict[str, str]:
    """The texts of a preset's fields; UserError for one that does not exist."""
    return texts(load_config(str(preset)))


def read(preset: str, values: Mapping[str, Any], places: Places) -> Reading:
    """Reads a form: `values` by dotted name as text (or bool); a field that is missing is as in the preset.

    Only what differs from the preset is an override, so the configuration is the one that the command line makes of
    the preset and these differences. Paths come out resolved. Writes nothing. UserError for an unknown preset.
    """
    base = preset_texts(preset)
    given = {name: as_text(values[name]) for name in base if name in values}
    if mixture(given.get("data.mix")):  # which stands in the place of the one source
        given["data.source"] = base["data.source"]
    problems: list[tuple[tuple[str, ...], str]] = []
    resolved = {name: _usable(name, text, places, problems) for name, text in given.items()}
    unusable = {name for fields, _ in problems for name in fields}
    overrides = {n: t for n, t in resolved.items() if t != base[n] and n not in unusable}
    config = None
    try:
        config = load_config(preset, None, overrides)
    except ConfigError as error:
        problems += [(tuple(getattr(line, "fields", ())), str(line)) for line in error.problems]
    by_field: dict[str, list[str]] = {}
    for fields, line in problems:
        for name in fields:
            by_field.setdefault(name, []).append(line)
    now = {**base, **resolved} if problems or config is None else texts(config)
    changes = [Change(n, base[n], now[n], n not in overrides and n not in unusable) for n in base if now[n] != base[n]]
    return Reading(preset, None if problems else config, by_field, [line for _, line in problems], changes)


def closest_preset(config: RunConfig) -> str:
    """The preset from which a configuration differs in the fewest settings: what its command begins with."""
    own = texts(config)
    return min(preset_names(), key=lambda name: sum(own[n] != text for n, text in preset_texts(name).items()))


@dataclass(frozen=True)
class Loaded:
    """A form filled from a file: its preset, its texts, what of the file found no field, and what it was read as."""

    preset: str
    values: dict[str, str]
    left_out: list[str]
    notices: tuple[str, ...] = ()


def from_config(config: RunConfig) -> Loaded:
    """The form of a configuration."""
    return Loaded(closest_preset(config), texts(config), [])


def from_toml(file: Path, name: str = "") -> Loaded:
    """The form of a TOML file as the command line reads it; bad values fill the form all the same, to be seen there.

    UserError for a file that is too large or is not TOML.
    """
    name = name or file.name
    try:
        with open_inside(file) as opened:
            data = opened.read(MAX_FILE + 1)
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror or error}; choose another file") from None
    if len(data) > MAX_FILE:
        raise UserError(f"{name} is larger than {MAX_FILE // 1024} kB; give a TOML file of settings")
    try:
        tree = renewed(read_toml(data))
    except ValueError as error:
        raise UserError(f"{name} is not TOML ({error}); write [section] and key = value lines") from None
    notices: list[str] = []
    try:
        loaded = from_config(load_config(None, file, notices=notices))
        return replace(loaded, notices=tuple(line.replace(str(file), name) for line in notices))
    except ConfigError as error:
        problems = error.problems
    preset = tree.get("preset")
    preset = preset if preset in preset_names() else preset_names()[0]
    found = dict(_leaves(tree))
    values = preset_texts(preset) if "preset" in tree else texts(RunConfig())
    values |= {key: text_of(settings()[key], value) for key, value in found.items() if key in settings()}
    unknown = [line.removeprefix(f"{file}: ") for line in problems if not getattr(line, "fields", ())]
    return Loaded(preset, values, [str(line) for line in unknown])


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and name not in settings():
            yield from _leaves(value, f"{name}.")
        elif name in settings():
            yield name, value


def as_text(value: Any) -> str:
    """What a component gave, as text: a tick is a bool, an emptied box may be None."""
    if isinstance(value, bool):
        return toml_value(value)
    return "" if value is None else str(value)


def _usable(name: str, text: str, places: Places, problems: list[tuple[tuple[str, ...], str]]) -> str:
    """The text with its path resolved; a text that nothing can hold or may name becomes a problem of its field."""
    if len(text) > MAX_TEXT:
        problems.append(((name,), f"{name}: {len(text):,} characters are too many; allowed: {MAX_TEXT:,}"))
    elif "\0" in text or (not text.isascii() and text != text.encode("utf-8", "replace").decode("utf-8")):
        problems.append(((name,), f"{name}: holds a character that no file or command can; type it again"))
    elif name in NAMING and text:
        try:
            return NAMING[name](places, text)
        except UserError as error:
            lines = str(error).splitlines() if name == "data.mix" else [f"{name}: {error}"]
            problems += [((name,), line) for line in lines]
    return text


def _mixture(places: Places, text: str) -> str:
    """The text with the sources of a mixture resolved; what is no mixture the schema refuses."""
    given, wrong = mixture(text), []
    for number, table in enumerate(given, 1):
        try:
            if isinstance(source := table.get("source"), str):
                if not source.strip():
                    raise UserError(EMPTY_SOURCE)
                table["source"] = places.source(source)
        except UserError as error:
            wrong.append(f"{mix_place(number, table)}: {error}")
    if wrong:
        raise UserError("\n".join(wrong))
    return toml_value(given) if given else text


def _tokenizer(places: Places, text: str) -> str:
    known = text == "gpt2" or text.startswith("gpt2:")
    allowed = f"gpt2, gpt2:N with N from 257 to {GPT2_IDS}, a tokenizer.json or its folder"
    found = text if known else _existing(places, text, "tokenizer", allowed, "tokenizer.json")
    if vocabulary_size(found) is None:
        raise UserError(f"tokenizer {text!r} cannot be used; give {allowed}")
    return found


def _existing(places: Places, text: str, what: str, allowed: str, inside: str = "") -> str:
    path = places.path(text, what)
    if not (path / inside if inside and path.is_dir() else path).is_file():
        raise UserError(f"{what} {text!r} is not there; give {allowed}")
    return str(path)


def _yardstick(places: Places, text: str) -> str:
    return text if text == "off" else places.model(text)


def _hellaswag(places: Places, text: str) -> str:
    return text if text == "hub" else _existing(places, text, "HellaSwag set", "hub, or the file of its validation set")


# Settings that name data, models or folders: what the page allows them to be.
NAMING: dict[str, Callable[[Places, str], str]] = {
    "data.source": lambda places, text: places.source(text),
    "data.mix": _mixture,
    "data.tokenizer": _tokenizer,
    "data.cache_dir": lambda places, text: str(places.path(text, "cache folder")),
    "eval.yardstick": _yardstick,
    "eval.hellaswag": _hellaswag,
}
