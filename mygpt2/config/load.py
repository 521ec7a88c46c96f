"""From a preset, a file and overrides to one validated configuration, or to the list of everything wrong with them.

Later layers win: schema defaults < preset < file < overrides. All problems are found before any is reported, each one
line that says what was given, what is allowed and what to write instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mygpt2.config.earlier import BECAME, SEED, names_of, notice
from mygpt2.config.fields import Setting, nearest, nearest_setting, sections, settings, settings_of, toml_value
from mygpt2.config.mix import MixSource, entry_problem
from mygpt2.config.rules import Problem, broken_rules
from mygpt2.config.schema import RunConfig
from mygpt2.config.section import Section
from mygpt2.config.toml import LARGEST, MAX_BYTES, from_toml, unwritable
from mygpt2.errors import UserError
from mygpt2.terminal import printable

OPTION = re.compile(r"--([A-Za-z_][\w-]*\.[A-Za-z_][\w.-]*)(?:=(.*))?", re.DOTALL)
LONGEST_NAME = 64  # what a longer one was meant to be nobody needs to guess
MOST_STRANGERS = 20  # unknown names told one by one; a file of other things has thousands


# Settings that came after the first names were made of hashes; unless they are used, a hash is what it was before them.
LATER = (
    ("train", "residual"),
    ("train", "parallel"),
    ("checkpoint", "sharded"),
    ("checkpoint", "keep_log"),
    ("data", "mix"),
    ("data", "min_score"),
    ("data", "score_column"),
    ("data", "language"),
    ("data", "language_column"),
)


class ConfigError(UserError):
    """All problems of a configuration, one line each; a Problem where it is about settings that exist."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Given:
    """A value and where it came from: `origin` is "preset", "file" or "override", `place` how to show it, `earlier` the
    name that an earlier version gave the setting, where it was written under that one."""

    value: Any
    origin: str
    place: str
    earlier: str = ""


def preset_names() -> list[str]:
    """The presets, smallest first."""
    order = ["tiny", "small", "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "gpt3-small", "gpt2-35B"]
    found = {Path(entry.name).stem for entry in _preset_folder().iterdir() if entry.name.endswith(".toml")}
    return [name for name in order if name in found] + sorted(found.difference(order))


def load_config(
    preset: str | None = None,
    file: Path | str | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    notices: list[str] | None = None,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Resolve a configuration. `overrides` are command-line words or a (dotted or nested) mapping, `base` are tables
    that everything else goes before, such as those of a run.

    A file may name its base with a top-level `preset = "gpt2"`; `preset` given here wins over that. What a person
    should know of a sound configuration goes to `notices`. Raises ConfigError with every problem found.
    """
    problems: list[str] = []
    in_file = _read_file(Path(file), problems) if file is not None else {}
    named = in_file.pop("preset", None)
    chosen = preset if preset is not None else named
    given = _flatten(base, "file", "", problems) if base is not None else {}
    if chosen is not None:
        given |= _flatten(_read_preset(chosen, problems), "preset", f"preset {chosen}: ", problems)
    given |= _flatten(in_file, "file", f"{file}: ", problems)
    if isinstance(overrides, Mapping):
        given |= _flatten(overrides, "override", "", problems)
    else:
        given |= _from_words(list(overrides), problems)
    config = _validate(given, problems)
    if problems:
        raise ConfigError(problems)
    if notices is not None:
        notices += dict.fromkeys(notice(g.place, g.earlier) for g in given.values() if g.earlier)
    return config


def config_hash(config: RunConfig) -> str:
    """SHA-256 of the resolved values: the same for the same run, however it was written down and by which version."""
    values = config.model_dump(mode="json")
    if values["data"]["seed"] == values["model"]["seed"]:  # what one seed did, under its name
        values["train"][SEED.partition(".")[2]] = values["data"].pop("seed")
        del values["model"]["seed"]
    for section, key in LATER:
        if values[section][key] == type(getattr(config, section)).model_fields[key].default:
            del values[section][key]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def without_fork(config: RunConfig) -> RunConfig:
    """The configuration a run keeps: a fork is allowed by the command that asks for it, never by one that goes on."""
    return config.model_copy(update={"data": config.data.model_copy(update={"fork": False})})


def _preset_folder() -> Any:
    return resources.files("mygpt2") / "presets"


def _read_preset(name: Any, problems: list[str]) -> dict[str, Any]:
    names = preset_names()
    if name in names:
        return tomllib.loads((_preset_folder() / f"{name}.toml").read_text("utf-8"))
    close = nearest(str(name), names)
    hint = f"did you mean {close}?" if close else f"start from {names[0]}"
    problems.append(f"there is no preset {_show(name)}; allowed: {', '.join(names)}; {hint}")
    return {}


def _read_file(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        return from_toml(_read_bytes(path))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problems.append(f"--config {path}: {reason}; give a readable TOML file, or a preset with --preset NAME")
    except ValueError as error:
        problems.append(f"--config {path}: not TOML ({error}); write [section] and key = value lines")
    return {}


def _read_bytes(path: Path) -> bytes:
    """A little more than may be read, from a file or from a pipe that somebody writes to; a device has no end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        os.set_blocking(descriptor, True)  # a pipe without a writer is empty now; one with a writer is waited for
        return file.read(MAX_BYTES + 1)


def _flatten(layer: Mapping[str, Any], origin: str, place: str, problems: list[str]) -> dict[str, Given]:
    """Dotted names to values; unknown sections and keys become problems."""
    given: dict[str, Given] = {}
    strangers = 0
    for name, value in _dotted(layer):
        setting = settings().get(names_of(name)[0])
        if setting is None:
            strangers += 1
            if strangers <= MOST_STRANGERS:
                problems.append(_unknown(name, place if name not in sections() else f"{place}{name} = {_show(value)}"))
            continue
        if isinstance(value, str) and (origin == "override" or value == "none"):
            value = _from_text(setting, value)
        _take(given, name, Given(value, origin, f"{place}{name} = {_show(value)}"))
    if strangers > MOST_STRANGERS:
        problems.append(f"{place}{strangers - MOST_STRANGERS:,} more names are not settings; is it a configuration?")
    return given


def _dotted(layer: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in layer.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and name not in settings():
            yield from _dotted(value, f"{name}.")
        elif not (isinstance(value, Mapping) and name in sections()):
            yield name, value


def _from_words(words: list[str], problems: list[str]) -> dict[str, Given]:
    """`--section.key VALUE` and `--section.key=VALUE`."""
    given: dict[str, Given] = {}
    queue = list(reversed(words))
    while queue:
        word = queue.pop()
        match = OPTION.fullmatch(word)
        name, text = (match[1], match[2]) if match else (word, None)
        if word.startswith("--") and "=" not in word and queue and not queue[-1].startswith("--"):
            text = queue.pop()
        setting = settings().get(names_of(name)[0])
        if match is None:
            problems.append(_not_a_setting(word))
        elif setting is None:
            problems.append(_unknown(name, "--"))
        elif text is None:
            problems.append(f"--{name} has no value; expected {setting.expected}")
        else:
            _take(given, name, Given(_from_text(setting, text), "override", f"--{name} {_word(text)}"))
    return given


def _take(given: dict[str, Given], name: str, found: Given) -> None:
    """Adds a value to those of its layer, where a name of today wins over one of an earlier version."""
    if name not in BECAME:
        given[name] = found
        return
    for now in names_of(name):
        if now not in given or given[now].earlier:
            given[now] = replace(found, earlier=name)


def _from_text(setting: Setting, text: str) -> Any:
    """Text typed for a setting as the value it stands for; what cannot be read stays text and fails validation."""
    if setting.optional and text.strip().lower() in ("none", "null", ""):
        return None
    if setting.kind in ("str", "choice"):
        return text
    if setting.kind == "bool" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        read = from_toml(f"value = {text.strip()}".encode())
    except ValueError:  # not TOML, a number of thousands of digits, brackets without end, half a surrogate
        return text
    return read["value"] if len(read) == 1 else text


def _bounded(value: Any) -> Any:
    """The value, with whole numbers that need more than 64 bits as text, which no setting of a number accepts."""
    return value if type(value) is not int or -LARGEST <= value < LARGEST else _show(value)


def _validate(given: dict[str, Given], problems: list[str]) -> RunConfig:
    """Check each section, then the rules across sections, with bad values replaced by defaults meanwhile."""
    bad: set[str] = set()
    mix, source = given.get("data.mix"), given.get("data.source")
    if mix and mix.value and source and source.origin != "preset" and source.value != settings()["data.source"].default:
        text = f"{source.place}: data.mix says what is read; take out one of the two"
        problems.append(Problem(text, ("data.source", "data.mix")))
    parts = {name: _validate_section(name, model, given, bad, problems) for name, model in sections().items()}
    config = RunConfig.model_validate(parts)
    config = _fit_warmup(config, given) if not bad else config
    problems += broken_rules(config, bad)
    return config


def _validate_section(
    section: str, model: type[Section], given: dict[str, Given], bad: set[str], problems: list[str]
) -> Section:
    values = {}
    for name, g in given.items():
        if name.startswith(f"{section}."):
            values[name.partition(".")[2]] = _bounded(g.value)
            if reason := unwritable(settings()[name].kind, g.value):
                problems.append(Problem(f"{g.place}: {reason}", (name,)))
                bad.add(name)
                del values[name.partition(".")[2]]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for key in dict.fromkeys(str(detail["loc"][0]) for detail in error.errors()):
            name = f"{section}.{key}"
            setting = settings()[name]
            text = f"{given[name].place} ({setting.title}): expected {setting.expected}"
            texts = _mix_problems(given[name], error) if setting.kind == "tables" else [text]
            problems += [Problem(text, (name,)) for text in texts]
            bad.add(name)
            del values[key]
    return model.model_validate(values)


def _mix_problems(given: Given, error: ValidationError) -> list[str]:
    """A line for each thing that is wrong within a mixture."""
    known = {setting.key: setting.expected for setting in settings_of("", MixSource)}
    places = dict.fromkeys(detail["loc"] for detail in error.errors() if detail["loc"][0] == "mix")
    return list(dict.fromkeys(
        entry_problem(given.value, place, known.get(str(place[2]) if len(place) > 2 else "", "")) for place in places
    ))  # fmt: skip


def _fit_warmup(config: RunConfig, given: dict[str, Given]) -> RunConfig:
    """A warm-up nobody asked for (preset, default) follows a shorter run: a tenth of it. One asked for is checked."""
    asked = given.get("schedule.warmup_steps")
    if (asked and asked.origin != "preset") or config.schedule.warmup_steps < config.train.steps:
        return config
    schedule = config.schedule.model_copy(update={"warmup_steps": config.train.steps // 10})
    return config.model_copy(update={"schedule": schedule})


def _unknown(name: str, place: str) -> str:
    section, _, key = name.partition(".")
    name, section, key = _word(name), section[:LONGEST_NAME], key[:LONGEST_NAME]
    if not key and section in sections():
        return f"{place} is a section, not a setting; write [{section}] and key = value lines below it"
    close = nearest_setting(name) if key else nearest(section, sections()) or nearest_setting(section)
    hint = f"did you mean {close}?" if close else "all settings: python -m mygpt2 train --help"
    allowed = (
        f"[{section}] has {', '.join(s.key for s in settings().values() if s.section == section)}"
        if section in sections()
        else f"sections are {', '.join(sections())}"
    )
    return f"{place}{name} is not a setting; {hint} ({allowed})"


def _not_a_setting(word: str) -> str:
    close = nearest_setting(word.lstrip("-").partition("=")[0]) if word.startswith("-") else None
    hint = f"did you mean --{close}?" if close else "see python -m mygpt2 train --help"
    return f"{word!r} is not an option; settings are written --section.key VALUE; {hint}"


def _word(text: str) -> str:
    """A word of the command line as it was typed, unless that would not fit in a line."""
    return text if text.isprintable() and len(text) <= 80 else _show(text)


def _show(value: Any) -> str:
    """A value as it was written, cut to a length that fits in a line."""
    if type(value) is int and not -LARGEST <= value < LARGEST:
        return f"a whole number of {value.bit_length():,} bits"
    try:
        text = toml_value(value)
    except (TypeError, ValueError):  # ValueError: a number of thousands of digits within a list
        text = type(value).__name__ if isinstance(value, list) else repr(value)
    return printable(text if len(text) <= 80 else f"{text[:77]}...")
