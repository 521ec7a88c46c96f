"""Arms and replicates: which configurations are compared, under which pairs of seeds, as which runs.

An arm is a recipe: a configuration without its seeds. A replicate is a pair of seeds, of the data's order and of the
weights, that every arm is trained under once: what the pair does to the loss is then the same in all of them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig, load_config, preset_names, without_fork
from mygpt2.config.fields import settings, toml_value
from mygpt2.errors import UserError
from mygpt2.experiments.folder import check_experiment
from mygpt2.launch.request import DEFAULT_PRESET
from mygpt2.machine import home_path
from mygpt2.records import number
from mygpt2.ripples.compare import FREE, SAME_ORDER
from mygpt2.run_dir.ghost import check_weights
from mygpt2.run_dir.paths import RunDir, check_name, list_runs
from mygpt2.train.branching import plain

SEEDS = ("data.seed", "model.seed")
LARGEST_SEED = 2**31 - 1
MOST_REPLICATES = 100
MOST_TOLD = 3  # changes that are told one by one
ARM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,15}")
# What leaves the trained weights as they are: how often is looked at them, how they are kept, how work is divided.
NO_RECIPE = (
    "log", "checkpoint", "sample", "eval", "train.micro_batch", "train.compile", "train.device",
    "train.parallel", "train.deterministic", "train.stall_minutes", *(f"data.{key}" for key in FREE),
)  # fmt: skip


@dataclass(frozen=True)
class Replicate:
    """A pair of seeds. `number` is from 1 on; 1 has the seeds of the base itself."""

    number: int
    data_seed: int
    model_seed: int

    def of(self, config: RunConfig) -> RunConfig:
        """The configuration under these seeds."""
        return with_seeds(config, self.data_seed, self.model_seed)


@dataclass(frozen=True)
class Arm:
    """A recipe with a short name. `told` is how a person named it, `run` the existing run that was named, `preset`
    what its commands start from."""

    name: str
    config: RunConfig
    told: str
    run: str | None = None
    preset: str = DEFAULT_PRESET


@dataclass(frozen=True)
class Spec:
    """What a person wrote for an arm: the name of a run, a preset or a TOML file, and `--section.key VALUE` words."""

    what: str
    words: tuple[str, ...] = ()


def read_arm(spec: Spec, runs: Path, name: str = "base") -> Arm:
    """The arm that is meant. A name is a run's where there is such a run, else a preset's; what ends in .toml or has a
    slash is a file. `run:NAME` and `preset:NAME` say which. UserError with what there is otherwise."""
    kind, _, rest = spec.what.partition(":")
    words = list(spec.words)
    if kind in ("run", "preset") and rest:
        return _run_arm(rest, spec, runs, name) if kind == "run" else _preset_arm(rest, spec, name)
    if spec.what.endswith(".toml") or "/" in spec.what:
        file = home_path(spec.what)
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", file.stem).strip("-_") or "file"
        return Arm(name, load_config(None, file, words), _told(stem, words))
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", spec.what) and RunDir(runs / spec.what).exists():
        return _run_arm(spec.what, spec, runs, name)
    if spec.what in preset_names():
        return _preset_arm(spec.what, spec, name)
    known = [*(run.name for run in list_runs(runs)), *preset_names()]
    near = difflib.get_close_matches(spec.what, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "python -m mygpt2 runs list shows the runs"
    raise UserError(
        f"{spec.what!r} is neither a run in {runs} nor a preset ({', '.join(preset_names())}) nor a TOML file; {hint}"
    )


def _run_arm(run: str, spec: Spec, runs: Path, name: str) -> Arm:
    found = RunDir.open(runs, check_name(run))
    check_weights(found)
    config = without_fork(load_config(None, found.config_file, list(spec.words)))
    return Arm(name, config, _told(run, spec.words), None if spec.words else run)


def _preset_arm(preset: str, spec: Spec, name: str) -> Arm:
    return Arm(name, load_config(preset, None, list(spec.words)), _told(preset, spec.words), preset=preset)


def _told(name: str, words: Sequence[str]) -> str:
    """The name and what is changed, of many changes the first few."""
    if any(word.startswith("--data.mix") for word in words):
        return f"{name} with another data.mix" + (" and more" if len(words) > 2 else "")
    text = " ".join(word.removeprefix("--") if word.startswith("--") else word for word in words)
    given = text.replace("=", " ").split()
    if len(given) > 2 * MOST_TOLD:
        text = f"{' '.join(given[: 2 * MOST_TOLD - 2])} and {len(given) // 2 - MOST_TOLD + 1} more settings"
    return f"{name} with {text}" if words else name


# Seeds


def seeds_of(config: RunConfig) -> tuple[int, int]:
    """(of the data's order, of the weights and dropout)."""
    return config.data.seed, config.model.seed


def with_seeds(config: RunConfig, data_seed: int, model_seed: int) -> RunConfig:
    data = config.data.model_copy(update={"seed": data_seed})
    return config.model_copy(update={"data": data, "model": config.model.model_copy(update={"seed": model_seed})})


def replicates(config: RunConfig, count: int) -> list[Replicate]:
    """`count` pairs of seeds: the configuration's own, then both one higher, and so on. UserError for a bad count."""
    if not 1 <= count <= MOST_REPLICATES:
        raise UserError(f"{count} replicates are not possible; use 1 to {MOST_REPLICATES}")
    first = seeds_of(config)
    return [Replicate(k + 1, *((seed + k) % (LARGEST_SEED + 1) for seed in first)) for k in range(count)]


# Recipes


def recipe(config: RunConfig) -> dict[str, Any]:
    """The settings that the trained weights follow from, by dotted name, without the seeds."""
    flat = _flat(config)
    left = {*NO_RECIPE, *SEEDS}
    return {name: value for name, value in flat.items() if name not in left and name.partition(".")[0] not in left}


def _flat(config: RunConfig) -> dict[str, Any]:
    """All settings by dotted name; of a mixture what its batches follow from, which limits of passes do not."""
    values = config.model_dump(mode="json", exclude={"data": {"mix": {"__all__": {"max_epochs"}}}})
    flat = {f"{section}.{key}": plain(value) for section, rest in values.items() for key, value in rest.items()}
    return {**flat, **({"data.source": None} if config.data.mix else {})}


def recipe_hash(config: RunConfig) -> str:
    """SHA-256 of the recipe: the same for runs that differ in their seeds, or in what changes no weight.

    Of what is not as the schema has it by default, so that settings of later versions change no hash.
    """
    usual = recipe(RunConfig())
    used = {name: value for name, value in recipe(config).items() if value != usual[name]}
    return hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()


def changes(base: RunConfig, variant: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Settings of the recipe that differ, with the value of either, in the order of the schema."""
    one, two = recipe(base), recipe(variant)
    return {name: (one[name], two[name]) for name in settings() if name in one and one[name] != two[name]}


def changes_words(found: dict[str, tuple[Any, Any]]) -> str:
    """`optimizer.lr 0.006 -> 0.003, ...`; `nothing` where nothing differs."""
    return ", ".join(f"{name} {_value(a)} -> {_value(b)}" for name, (a, b) in found.items()) or "nothing"


def _value(value: Any) -> str:
    if isinstance(value, list) and (not value or isinstance(value[0], dict)):
        return _mixture(value) or "none"
    return "unset" if value is None else value if isinstance(value, str) else toml_value(value)


def _mixture(value: list[dict[str, Any]]) -> str:
    """`docs 50 %, code 50 % (min_score 3.0)`: shares, and what is set of a source beside its name and text."""
    total = sum(number(each.get("weight")) or 0.0 for each in value) or 1.0
    told = []
    for each in value:
        rest = ", ".join(f"{k} {_value(v)}" for k, v in each.items() if k not in ("name", "source", "weight"))
        share = 100 * (number(each.get("weight")) or 0.0) / total
        told.append(f"{each.get('name')} {share:.3g} %" + (f" ({rest})" if rest else ""))
    return ", ".join(told)


def other_batches(one: RunConfig, two: RunConfig) -> list[str]:
    """The settings that give two configurations other batches, with both values; empty where all batches are equal."""
    flat = [_flat(config) for config in (one, two)]
    free = {f"data.{key}" for key in FREE} | {"data.validation_tokens", "data.max_quarantine"}
    names = [n for n in settings() if n.startswith(("data.", *SAME_ORDER[1:])) and n not in free]
    return [f"{n}: {_value(flat[0][n])} and {_value(flat[1][n])}" for n in names if flat[0][n] != flat[1][n]]


# Names of runs


def check_arm(name: str) -> str:
    """The name, or UserError: dots part it from the experiment and the replicate."""
    if ARM.fullmatch(name):
        return name
    raise UserError(
        f"arm {name!r} is not allowed; use 1 to 16 of A-Z a-z 0-9 _ -, beginning with a letter or digit, for example "
        "lr3e-3"
    )


def run_name(experiment: str, arm: str, replicate: int) -> str:
    """`<experiment>.<arm>.<replicate>`: the run of an arm under a pair of seeds."""
    return check_name(f"{check_experiment(experiment)}.{check_arm(arm)}.{replicate}")


def parts_of(run: str) -> tuple[str, str, int] | None:
    """(experiment, arm, replicate) of a run's name; None for a run that has no such name."""
    parts = run.split(".")
    if len(parts) == 3 and ARM.fullmatch(parts[1]) and parts[2].isdecimal() and len(parts[2]) < 6:
        return parts[0], parts[1], int(parts[2])
    return None
