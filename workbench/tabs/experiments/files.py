"""The TOML files that a sweep and a ladder are written in, from the form's values and the run they begin from."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from mygpt2.config import RunConfig, load_config
from mygpt2.config.fields import toml_value
from mygpt2.errors import UserError
from mygpt2.experiments.folder import FOLDER

MOST_VALUES = 12
SUFFIX = {"k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
T = TypeVar("T")


def written(section: str, own: Mapping[str, Any], base: RunConfig, preset: str, without: Sequence[str] = ()) -> str:
    """A preset, a section of the experiment's own, and every setting of the base that differs from the preset.

    `without`: settings, or whole sections, that the experiment sets itself. UserError for what TOML cannot say.
    """
    one, two = (_flat(config) for config in (base, load_config(preset)))
    lines = [f"preset = {toml_value(preset)}", "", f"[{section}]"]
    lines += [f"{key} = {toml_value(value)}" for key, value in own.items() if value not in (None, "")]
    named = ""
    for name, value in one.items():
        part, _, key = name.partition(".")
        if value == two[name] or name in without or part in without:
            continue
        if value is None:
            raise UserError(
                f"{name} is unset in the base and {two[name]} in preset {preset}; give it a value in the base"
            )
        lines += [*(["", f"[{part}]"] if part != named else []), f"{key} = {toml_value(value)}"]
        named = part
    return "\n".join(lines) + "\n"


def swept(own: Mapping[str, Any], setting: str, values: Sequence[float], steps: int | None) -> str:
    """The file of a sweep over one setting."""
    lines = [f"{key} = {toml_value(value)}" for key, value in own.items()]
    lines += ["", "[settings]", f"train.steps = {steps}"] if steps else []
    return "\n".join([*lines, "", "[[axis]]", f"setting = {toml_value(setting)}", f"values = {list(values)}", ""])


def _flat(config: RunConfig) -> dict[str, Any]:
    found = config.model_dump(mode="json")
    return {f"{section}.{key}": value for section, values in found.items() for key, value in values.items()}


@contextmanager
def on_disk(text: str, name: str) -> Iterator[Path]:
    """The text as a file of that name, for as long as it is read."""
    with tempfile.TemporaryDirectory(prefix="mygpt2-") as folder:
        file = Path(folder) / f"{name}.toml"
        file.write_text(text, encoding="utf-8")
        yield file


def free_name(runs: Path, stem: str) -> str:
    """The first of stem, stem-2, stem-3 ... that no experiment has and no run begins with."""
    stem = (re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_") or "experiment")[:34]
    try:
        taken = {path.name.partition(".")[0] for path in runs.iterdir() if "." in path.name}
    except OSError:
        taken = set()
    names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, 10_000))
    return next(name for name in names if name not in taken and not (runs / FOLDER / name).exists())


def several(text: Any, what: str, read: Callable[[str], T]) -> list[T]:
    """Values with commas or blanks between them. UserError for one that cannot be read, and for too many."""
    found = [word for word in re.split(r"[,\s]+", str(text or "")) if word]
    if len(found) > MOST_VALUES:
        raise UserError(f"{what}: {len(found)} values are too many; give at most {MOST_VALUES}")
    values = []
    for word in found:
        try:
            values.append(read(word))
        except (ValueError, OverflowError):
            raise UserError(f"{what}: {word[:40]!r} is not a number; write numbers with commas between them") from None
    return values


def tokens(word: str) -> int:
    """400k, 1.6M, 65_000 as a number of tokens. ValueError."""
    match = re.fullmatch(r"(\d[\d_]*(?:\.\d+)?)([kMBT]?)", word)
    if not match:
        raise ValueError(word)
    return round(float(match[1].replace("_", "")) * SUFFIX.get(match[2], 1))
