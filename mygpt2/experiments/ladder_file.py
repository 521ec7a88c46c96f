"""The file that a ladder is written in: a run's TOML with a `[ladder]` section, and the one that `--write` makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from mygpt2.config import RunConfig, load_config
from mygpt2.config.fields import nearest
from mygpt2.config.section import Section, setting
from mygpt2.config.toml import MAX_BYTES, from_toml
from mygpt2.errors import UserError
from mygpt2.experiments.folder import check_experiment
from mygpt2.launch.request import DEFAULT_PRESET
from mygpt2.records import tame

DECAYING = ("trapezoid", "wsd")  # schedules with a constant rate that a branch can leave at any step
OWN = ("model.n_layer", "model.n_head", "model.n_embd", "train.steps")  # what the ladder sets itself, per run
QUIET = {  # what costs time and changes no weight, unless the file says otherwise
    "eval.interval": 0, "eval.yardstick": "off", "sample.interval": 0, "sample.prompts": [], "log.plot_interval": 0,
    "checkpoint.keep_last": 1, "checkpoint.keep_best": False,
}  # fmt: skip
ALLOWED = {
    "name": "1 to 40 of A-Z a-z 0-9 _ -", "depths": "2 to 12 whole numbers from 1 to 200, rising",
    "width_per_depth": "a whole number from 8 to 512", "tokens": "2 to 12 whole numbers from 8 to 10^15, rising",
    "next": "a whole number from 0 to 200", "next_tokens": "up to 12 whole numbers from 8 to 10^15, rising",
    "foretell": "a list of up to 12", "protocol": "text that is not empty",
}  # fmt: skip
EXAMPLES = {"name": "sizes", "next_tokens": [4_000_000]}  # of what is empty by default
WIDEST, MOST_STEPS = 16_384, 10**9  # as in config.schema
SUFFIX = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
Depth = Annotated[int, Field(ge=1, le=200)]
Tokens = Annotated[int, Field(ge=8, le=10**15)]


class LadderSettings(Section):
    """Which sizes are trained on how much text, and what is foretold from them."""

    name: str | None = setting(None, "Begins the names of its runs. Unset: the file's name.", title="Name")
    depths: list[Depth] = setting(
        [1, 2, 3, 4], "Sizes, as numbers of layers.", title="Depths", unit="layers", min_length=2, max_length=12
    )
    width_per_depth: int = setting(
        64, "Width of a model of one layer: n_embd = width_per_depth x n_layer, one head per layer. 64 is the rule of "
        "the presets tiny (4 layers), small (6) and gpt2 (12).", title="Width per layer", unit="channels", ge=8, le=512,
    )  # fmt: skip
    tokens: list[Tokens] = setting(
        [500_000, 1_000_000, 2_000_000, 4_000_000], "Budgets that every size is trained for.", title="Budgets",
        unit="tokens", min_length=2, max_length=12,
    )  # fmt: skip
    next: int = setting(
        5, "Size that is foretold before it is trained, then scored, in layers; 0: none.", title="Next size",
        unit="layers", ge=0, le=200,
    )  # fmt: skip
    next_tokens: list[Tokens] = setting(
        [], "Budgets of the next size. Empty: the largest of `tokens`.", title="Budgets of the next size",
        unit="tokens", max_length=12,
    )  # fmt: skip
    foretell: list[str] = setting(
        ["gpt2@10B"], "Presets and tokens that are foretold and not trained here, as PRESET@TOKENS.", title="Foretold",
        max_length=12,
    )  # fmt: skip
    protocol: str = setting(
        "run", "Text that every cell is scored on, as `eval --protocol`; `run`: the held-out documents.",
        title="Protocol", min_length=1,
    )  # fmt: skip


@dataclass(frozen=True)
class LadderFile:
    """A ladder as it was written. `base` holds every setting but size and length, `preset` what it starts from."""

    name: str
    settings: LadderSettings
    base: RunConfig
    preset: str
    text: bytes


def read_ladder(file: Path, name: str | None = None) -> LadderFile:
    """Reads a ladder's file. UserError with every problem found, one line each."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_BYTES + 1)
        tables = from_toml(text)
    except OSError as error:
        raise UserError(
            f"{file}: {error.strerror or error}; give a ladder's TOML file; python -m mygpt2 ladder --write FILE makes "
            "one to start from"
        ) from None
    except ValueError as error:
        raise UserError(f"{file}: not TOML ({error}); write [section] and key = value lines") from None
    if "ladder" not in tables:
        raise UserError(
            f"{file}: there is no section [ladder], which says depths and tokens; write one, or begin with what python "
            "-m mygpt2 ladder --write FILE makes"
        )
    problems: list[str] = []
    section = tables.pop("ladder")
    settings = _settings(section, problems) if isinstance(section, dict) else LadderSettings()
    if not isinstance(section, dict):
        problems.append(f"ladder = {section!r} is a section, not a setting; write [ladder] and key = value lines")
    preset = tables.pop("preset", DEFAULT_PRESET)
    problems += [
        f"{own} is set by the ladder, for each run; take it out and say depths and tokens in [ladder]"
        for own in OWN if _given(tables, own)
    ]  # fmt: skip
    base = _base(preset, tables, problems)
    if base is not None:
        problems += [problem for problem in _wrong(settings, base) if problem]
    if problems or base is None:
        raise UserError("\n".join(f"{file}: {line}" for problem in problems for line in problem.splitlines()))
    return LadderFile(check_experiment(name or settings.name or _stem(file)), settings, base, str(preset), text)


def _settings(section: Mapping[str, Any], problems: list[str]) -> LadderSettings:
    known = LadderSettings.model_fields
    for key in section:
        if key not in known:
            close = nearest(key, known)
            hint = f"did you mean {close}?" if close else f"allowed: {', '.join(known)}"
            problems.append(f"[ladder] {key} is not a setting; {hint}")
    given = {key: value for key, value in section.items() if key in known}
    try:
        return LadderSettings.model_validate(given)
    except ValidationError as error:
        for key in dict.fromkeys(str(detail["loc"][0]) for detail in error.errors()):
            example = known[key].get_default()
            unit = (known[key].json_schema_extra or {}).get("unit")  # type: ignore[union-attr]
            what = str(known[key].description).partition(". ")[0].rstrip(".")
            problems.append(
                f"[ladder] {key} = {tame(given.get(key))!r:.80}: {what}"
                f"{f' ({unit})' if unit else ''}; {ALLOWED[key]}, for example {example or EXAMPLES[key]!r}"
            )
        return LadderSettings()


def _base(preset: Any, tables: Mapping[str, Any], problems: list[str]) -> RunConfig | None:
    """The settings of the runs, those of the file before QUIET ones before the preset's."""
    given = {name: value for name, value in QUIET.items() if not _given(tables, name)}
    try:
        quiet = load_config(str(preset), None, {**tables, **_nested(given, tables)})
    except UserError as error:
        problems.append(str(error))
        return None
    return quiet


def _nested(given: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with the given dotted settings in their sections."""
    sections = {name.partition(".")[0] for name in given}
    return {
        section: {
            **_table(tables, section),
            **{name.partition(".")[2]: value for name, value in given.items() if name.startswith(f"{section}.")},
        }
        for section in sections
    }


def _given(tables: Mapping[str, Any], name: str) -> bool:
    section, _, key = name.partition(".")
    return name in tables or key in _table(tables, section)


def _table(tables: Mapping[str, Any], section: str) -> dict[str, Any]:
    found = tables.get(section, {})
    return found if isinstance(found, dict) else {}


def _wrong(settings: LadderSettings, base: RunConfig) -> list[str]:
    """What is wrong with settings that are each allowed."""
    problems = []
    for key, values in (
        ("depths", settings.depths),
        ("tokens", settings.tokens),
        ("next_tokens", settings.next_tokens),
    ):
        if sorted(set(values)) != values:
            problems.append(f"[ladder] {key} = {values}: must rise; write {sorted(set(values))}")
    if 0 < settings.next <= max(settings.depths):
        problems.append(
            f"[ladder] next = {settings.next}: must be larger than all of depths = {settings.depths}, for example "
            f"{max(settings.depths) + 1}, or 0 for none"
        )
    widest = max([*settings.depths, settings.next]) * settings.width_per_depth
    if widest > WIDEST:
        problems.append(f"[ladder] depths x width_per_depth = {widest:,} channels; n_embd is at most {WIDEST:,}")
    for key, values in (("tokens", settings.tokens), ("next_tokens", settings.next_tokens)):
        steps = [round(tokens / base.train.batch_tokens) for tokens in values]
        if len(set(steps)) < len(steps) or max(steps, default=0) > MOST_STEPS:
            problems.append(
                f"[ladder] {key} = {values}: {steps} steps of {base.train.batch_tokens:,} tokens; each budget needs a "
                f"number of steps of its own, at most {MOST_STEPS:,}"
            )
    if base.schedule.name not in DECAYING:
        problems.append(
            f"schedule.name = {base.schedule.name}: budgets are branches that leave a trunk of constant rate; use "
            f"{' or '.join(DECAYING)}"
        )
    least = base.train.batch_tokens * max(2, base.schedule.warmup_steps + 2)
    if min(settings.tokens + settings.next_tokens) < least:
        problems.append(
            f"[ladder] tokens = {settings.tokens}: the smallest budget must be at least {least:,}, the warm-up of "
            f"{base.schedule.warmup_steps} steps and two more of {base.train.batch_tokens:,} tokens"
        )
    for told in settings.foretell:
        try:
            foretold(told)
        except UserError as error:
            problems.append(f"[ladder] foretell: {error}")
    return problems


def foretold(text: str) -> tuple[str, RunConfig, int]:
    """(preset, its configuration, tokens) of PRESET@TOKENS, as in gpt2@10B. UserError for anything else."""
    match = re.fullmatch(r"([\w-]+)@(\d+(?:\.\d+)?|\d[\d_]*)([kMBT]?)", text)
    if not match:
        raise UserError(f"{text!r:.80} is not PRESET@TOKENS; for example gpt2@10B or small@65M")
    tokens = round(float(match[2].replace("_", "")) * SUFFIX.get(match[3], 1))
    if not 0 < tokens <= 10**15:
        raise UserError(f"{text}: {match[2]}{match[3]} tokens cannot be; give 1 to 1000T")
    return match[1], load_config(match[1]), tokens


def _stem(file: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_")[:40] or "ladder"


TEMPLATE = """\
# A ladder: several sizes, each trained for several budgets of text, to foretell what the next size gives.
#
#     python -m mygpt2 ladder FILE --dry-run  what it will take
#     python -m mygpt2 ladder FILE            runs it; the same command goes on after a kill
#
# Every other setting of a run may stand below, in its own section; `python -m mygpt2 train --help` lists them.
preset = "tiny"

[ladder]
# Layers. The shape rule is width = 64 x layers and one head per layer: that of tiny (4), small (6) and gpt2 (12).
depths = [1, 2, 3, 4]
# Budgets of every size. Each is a branch of the size's one trunk, decayed to the end.
tokens = [500_000, 1_000_000, 2_000_000, 4_000_000]
# This size's loss is foretold and written down before it is trained, and scored afterwards. 0: none.
next = 5
# Foretold and not trained here: PRESET@TOKENS.
foretell = ["gpt2@10B"]
# Every cell is scored on this text. `run`: the held-out documents.
protocol = "run"

[train]
batch_tokens = 4_096
"""
