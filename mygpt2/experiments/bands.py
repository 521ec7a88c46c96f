"""Bands: between which losses a run of a preset lies, from replicates of it that differ in their seeds alone.

A band is a file of a few kilobytes, made by benchmarks/bands.py: the mean training loss of every replicate in each of
some dozens of stretches of steps. One more run is expected within

    mean +- t(level, R - 1) * s * sqrt(1 + 1 / R)        (a prediction interval for one more of R normal values)

of the R replicates, where s is taken over a stretch and its neighbours, as five values tell little of a spread.
A band is good for its recipe, data and tokenizer alone. Without a file for a preset nothing is claimed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mygpt2.config import RunConfig, load_config, without_fork
from mygpt2.data.trace import MANIFEST, MANIFEST_BYTES
from mygpt2.errors import UserError, shown
from mygpt2.experiments.arms import recipe, seeds_of
from mygpt2.files import read_json
from mygpt2.inside import DOCUMENT_BYTES
from mygpt2.machine import cache_folder
from mygpt2.records import is_number, number, whole
from mygpt2.run_dir.metrics import read_events, read_metrics
from mygpt2.run_dir.paths import RunDir

Floats = NDArray[Any]
FOLDER = Path(__file__).parents[1] / "presets" / "bands"
FEWEST, MOST = 3, 100  # replicates
LEVEL = 0.99
NARROWEST, SHARE = 4, 0.08  # steps of a stretch at least, and as a share of where it lies
NEAR = 2  # stretches on a side that tell the spread with one
DIGITS = 4
SCHEMA = 1
FREE = ("train.precision",)  # of the recipe: told where it differs, and no other run


@dataclass(frozen=True)
class Replicate:
    """A run that the band is made of. `end`: its validation loss at the end, None where it had none."""

    run: str
    data_seed: int
    model_seed: int
    end: float | None


@dataclass(frozen=True)
class Band:
    """`stretches` (n, 2): first and last step of each; `train` (n, R): the replicates' mean losses, nats per token.

    `recipe`: the settings that are not as by default, without the seeds. `data`: the fingerprint of the source.
    `text`: the hash of the held-out tokens, "" where replicates had several. `precision`, `torch`: of the replicates.
    """

    preset: str
    recipe: dict[str, Any]
    data: str
    text: str
    precision: tuple[str, ...]
    torch: tuple[str, ...]
    replicates: tuple[Replicate, ...]
    stretches: NDArray[np.int64]
    train: Floats

    @property
    def tokenizer(self) -> str:
        return str(self.recipe.get("data.tokenizer", "gpt2"))

    def limits(self, level: float = LEVEL) -> tuple[Floats, Floats]:
        """(low (n,), high (n,)) of one more run, in nats per token."""
        from scipy.special import stdtrit  # quick to import, as scipy.stats is not

        count = self.train.shape[1]
        variance = self.train.var(axis=1, ddof=1)
        total = np.convolve(variance, np.ones(2 * NEAR + 1), "same")
        spread = np.sqrt(total / np.convolve(np.ones(len(variance)), np.ones(2 * NEAR + 1), "same"))
        half = stdtrit(count - 1, (1 + level) / 2) * spread * math.sqrt(1 + 1 / count)
        middle = self.train.mean(axis=1)
        return middle - half, middle + half

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        rounded = [[round(float(value), DIGITS) for value in row] for row in self.train]
        return {
            "schema": SCHEMA, "preset": self.preset, "recipe": self.recipe, "data": self.data, "text": self.text,
            "precision": list(self.precision), "torch": list(self.torch),
            "replicates": [asdict(one) for one in self.replicates],
            "stretches": self.stretches.tolist(), "train": rounded,
        }  # fmt: skip


def stretches_of(steps: int, warmup: int = 0) -> NDArray[np.int64]:
    """(n, 2): the first and last step of each stretch, after the warm-up, that together hold all steps."""
    found, first = [], warmup + 1
    while first <= steps:
        last = first + max(NARROWEST, round(SHARE * first)) - 1
        if steps - last < NARROWEST:
            last = steps
        found.append((first, min(last, steps)))
        first = last + 1
    return np.array(found, np.int64).reshape(-1, 2)


def means(step: NDArray[np.int64], loss: Floats, stretches: NDArray[np.int64]) -> Floats:
    """(n,) mean losses of the stretches; NaN for one that is not whole, or that holds a loss that is no number."""
    found = np.full(len(stretches), np.nan)
    for at, (first, last) in enumerate(stretches):
        a, b = np.searchsorted(step, (first, last + 1))
        if b - a == last - first + 1:
            found[at] = loss[a:b].mean()
    return found


def plain_recipe(config: RunConfig) -> dict[str, Any]:
    """What a run's weights follow from, but for seeds and precision, where it is not as by default."""
    usual = recipe(RunConfig())
    return {name: value for name, value in recipe(config).items() if name not in FREE and value != usual[name]}


def fingerprint_of(run: RunDir) -> str:
    """Of the data that a run was trained on, from its trace; "" where that does not say."""
    found = read_json(run.trace_dir / MANIFEST, run.path, most=MANIFEST_BYTES) or {}
    return str(found.get("fingerprint") or "")


def make(preset: str, runs: Sequence[RunDir]) -> Band:
    """The band of finished runs of one recipe. UserError where they do not belong together, or are too few."""
    if not FEWEST <= len(runs) <= MOST:
        raise UserError(f"{len(runs)} replicates make no band; give {FEWEST} to {MOST}")
    configs = [without_fork(load_config(None, run.config_file)) for run in runs]
    first = configs[0]
    for run, config in zip(runs, configs, strict=True):
        if plain_recipe(config) != plain_recipe(first):
            raise UserError(f"run {run.name!r} has other settings than {runs[0].name!r}; delete it and train it again")
    if len({seeds_of(config) for config in configs}) < len(configs):
        raise UserError("two replicates have the same seeds; each needs a pair of its own")
    data = {fingerprint_of(run) for run in runs}
    if len(data) > 1 or "" in data:
        raise UserError("the replicates were not trained on the same data, or do not say on which; train them again")
    stretches = stretches_of(first.train.steps, first.schedule.warmup_steps)
    losses = []
    for run in runs:
        metrics = read_metrics(run)
        losses.append(means(metrics["step"], metrics["loss"], stretches))
        if not np.isfinite(losses[-1]).all():
            raise UserError(f"run {run.name!r} lacks steps or diverged; a band needs whole runs")
    ends = [_end(run) for run in runs]
    texts = {end.get("token_sha256") for end in ends}
    return Band(
        preset, plain_recipe(first), data.pop(), str(texts.pop() or "") if len(texts) == 1 else "",
        tuple(sorted({str(end["precision"]) for end in ends if end.get("precision")})),
        tuple(sorted({version for run in runs if (version := torch_of(run))})),
        tuple(Replicate(run.name, *seeds_of(config), number(end.get("loss")))
              for run, config, end in zip(runs, configs, ends, strict=True)),
        stretches, np.column_stack(losses),
    )  # fmt: skip


def _end(run: RunDir) -> dict[str, Any]:
    """The last evaluation."""
    found = read_events(run, ("eval",))
    return found[-1] if found else {}


def torch_of(run: RunDir) -> str:
    """The version of PyTorch that a run was trained with; "" where it is not known."""
    versions = (read_json(run.command_file, run.path) or {}).get("versions")
    return str(versions.get("torch") or "") if isinstance(versions, Mapping) else ""


def here() -> Path:
    """Where bands lie that were made on this machine."""
    return cache_folder() / "bands"


def bands() -> list[Band]:
    """All that can be read: those of this machine before those that are shipped."""
    found: list[Band] = []
    for folder in (_folder_here(), FOLDER):
        for path in sorted(folder.glob("*.json")) if folder is not None and folder.is_dir() else ():
            try:
                found.append(_read(path, path.stat().st_mtime_ns))
            except (OSError, ValueError):  # a damaged file claims nothing
                continue
    return found


def _folder_here() -> Path | None:
    try:
        return here()
    except UserError:
        return None


@lru_cache(maxsize=32)
def _read(path: Path, changed: int) -> Band:
    return parse(path.read_bytes()[:DOCUMENT_BYTES])


def parse(content: bytes) -> Band:
    """The band of a file. ValueError for what is none."""
    try:
        found = json.loads(content)
        stretches = np.array(found["stretches"], np.int64).reshape(-1, 2)
        train = np.array(found["train"], np.float64)
        made = Band(
            str(found["preset"]), dict(found["recipe"]), str(found["data"]), str(found["text"]),
            tuple(map(str, found["precision"])), tuple(map(str, found["torch"])),
            tuple(Replicate(**one) for one in found["replicates"]), stretches, train,
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"this is no band: {error!r}") from None
    flat = stretches.ravel()
    ordered = len(flat) > 0 and flat[0] > 0 and bool((np.diff(flat) >= 0).all() and (np.diff(flat)[1::2] > 0).all())
    fits = train.shape == (len(stretches), len(made.replicates)) and bool(np.isfinite(train).all())
    seeds = all(whole(s) is not None for one in made.replicates for s in (one.data_seed, one.model_seed))
    ends = all(one.end is None or is_number(one.end) for one in made.replicates)
    if not (ordered and fits and seeds and ends and FEWEST <= len(made.replicates) <= MOST and made.data):
        raise ValueError("this is no band: its numbers do not fit together")
    return made


def write(band: Band, path: Path) -> None:
    """The file, whole or not at all. OSError where it cannot be written."""
    from mygpt2.files import replace_file

    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.dumps(band.to_json(), allow_nan=False)
    replace_file(path, rows.replace('"stretches"', '\n"stretches"').replace('"train": [[', '\n"train": [[').encode())


def check_name(preset: str, known: Sequence[str]) -> str:
    """The preset, or UserError."""
    if preset in known:
        return preset
    raise UserError(f"{shown(preset)} is no preset; allowed: {', '.join(known)}")
