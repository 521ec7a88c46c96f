"""Is this normal? Where a run stands beside the band of its preset, or why no band fits it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from mygpt2.config import load_config, without_fork
from mygpt2.errors import UserError
from mygpt2.experiments.bands import LEVEL, Band, bands, fingerprint_of, means, plain_recipe, torch_of
from mygpt2.experiments.step import spikes_of
from mygpt2.files import read_json
from mygpt2.records import whole
from mygpt2.run_dir.ghost import ghost_of
from mygpt2.run_dir.metrics import read_events, read_metrics
from mygpt2.run_dir.newest import Newest
from mygpt2.run_dir.paths import RunDir

IN_A_ROW = 2  # stretches outside until a run is called so: one in a hundred is outside by chance
FEW = 3  # settings that a run may differ in for its band to be named at all
USUALLY = (
    "What usually does this, settings being equal: a spike that was not recovered from, a resume without the "
    "optimizer's state, a lower precision, other versions of libraries, changed code."
)
Where = Literal["inside", "above", "below", "early"]


@dataclass(frozen=True)
class Standing:
    """`where` the run is now: early before the first two stretches are over. `since`: the first step outside.

    `figures`: what was measured, in a sentence; `same`, `differs`: what band and run share, and what may differ;
    `causes`: what usually takes a run out of its band, what was seen in this one first.
    """

    band: Band
    where: Where
    since: int | None
    figures: str
    differs: str
    causes: tuple[str, ...]

    @property
    def words(self) -> str:
        """For a chip."""
        if self.where == "early":
            return "band: too early to say"
        return "inside the band" if self.where == "inside" else f"{self.where} the band since step {self.since:,}"


def standing(run: RunDir, known: Sequence[Band] | None = None) -> Standing | str:
    """The standing, or in a sentence why no band is good for this run; "" where none comes near it."""
    found = fitting(run, known)
    return found if isinstance(found, str) else _standing(run, found)


def fitting(run: RunDir, known: Sequence[Band] | None = None) -> Band | str:
    """The band that is good for a run, or why none is."""
    if ghost_of(run) is not None:
        return ""
    known = bands() if known is None else known
    if not known:
        return ""
    try:
        state = run.config_file.stat()
        mine = _recipe_of(run, state.st_mtime_ns, state.st_size)
    except (OSError, UserError):
        return ""
    apart = [(_apart(mine, band.recipe), band) for band in known]
    names, band = min(apart, key=lambda one: len(one[0]))
    if len(names) > FEW:
        return ""
    if names:
        verb = "is" if len(names) == 1 else "are"
        return f"no band: {', '.join(names)} {verb} not as in the band of preset {band.preset}"
    same = [one for names, one in apart if not names]
    data = _data_of(run)
    if not data:
        return f"no band: the run does not say on which data it trains, as the band of preset {band.preset} needs"
    fits = next((one for one in same if one.data == data), None)
    if fits is None:
        return (
            f"no band: its data is not that of the band of preset {band.preset}"
            + (", and the built-in text is made of this machine's own packages" if _builtin(band) else "")
            + f"; python benchmarks/bands.py {band.preset} --here trains replicates on it"
        )
    return fits


def _builtin(band: Band) -> bool:
    return band.recipe.get("data.source", "pydocs") == "pydocs"


@lru_cache(maxsize=256)
def _recipe_of(run: RunDir, changed: int, size: int) -> dict[str, Any]:
    return plain_recipe(without_fork(load_config(None, run.config_file)))


@lru_cache(maxsize=256)
def _fingerprint(run: RunDir, changed: int) -> str:
    return fingerprint_of(run)


def _data_of(run: RunDir) -> str:
    try:
        return _fingerprint(run, (run.trace_dir / "manifest.json").stat().st_mtime_ns)
    except OSError:
        return ""


def _apart(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Settings in which two recipes differ."""
    return sorted(name for name in {*one, *two} if one.get(name) != two.get(name))


_LOSSES: Newest[tuple[np.ndarray, np.ndarray]] = Newest(64)


def _losses(run: RunDir) -> tuple[np.ndarray, np.ndarray]:
    metrics = read_metrics(run)
    return metrics["step"], metrics["loss"]


def _standing(run: RunDir, band: Band) -> Standing:
    try:
        step, loss = _LOSSES.of(run.metrics_file, lambda: _losses(run))
    except OSError:
        step, loss = np.zeros(0, np.int64), np.zeros(0)
    low, high = band.limits()
    mine = means(step, loss, band.stretches)
    ended = band.stretches[:, 1] <= (step[-1] if len(step) else 0)
    done = int(ended.sum())
    side = np.where(~(mine <= high), 1, np.where(mine < low, -1, 0))[:done]  # no number is above
    where, since = _where(side, band)
    differs = _differs(run, band)
    if not done:
        last = int(band.stretches[0, 1])
        return Standing(band, "early", None, f"The band begins with the steps up to {last:,}.", differs, ())
    figures = _figures(band, done - 1, float(mine[done - 1]), float(low[done - 1]), float(high[done - 1]))
    causes = _causes(run, band, where, since)
    return Standing(band, where, since, figures, differs, causes)


def _where(side: np.ndarray, band: Band) -> tuple[Where, int | None]:
    """Of the sides (n,) of the stretches that are over, -1, 0 or 1, and since when it has been so."""
    if len(side) < IN_A_ROW:
        return "early", None
    last = int(side[-1])
    if not last or not (side[-IN_A_ROW:] == last).all():
        return "inside", None
    other = np.flatnonzero(side != last)
    first = int(other[-1]) + 1 if len(other) else 0
    return ("above" if last > 0 else "below"), int(band.stretches[first, 0])


def _figures(band: Band, at: int, mine: float, low: float, high: float) -> str:
    first, last = band.stretches[at]
    theirs = band.train[at]
    return (
        f"The mean training loss of the steps {first:,} to {last:,} is {mine:.3f} nats per token of {band.tokenizer}. "
        f"{len(band.replicates)} runs of preset {band.preset} that differ in their seeds had {theirs.min():.3f} to "
        f"{theirs.max():.3f}; one more is expected between {low:.3f} and {high:.3f} ({LEVEL:.0%})."
    )


def _differs(run: RunDir, band: Band) -> str:
    ends = read_events(run, ("eval",))
    mine = str(ends[-1].get("precision") or "") if ends else ""
    precision = f"precision ({mine or 'not known yet'} here, {' and '.join(band.precision) or 'not known'} there)"
    return (
        f"Settings, data and tokenizer are the same. What may differ: the seeds, the number of ranks, the {precision}, "
        f"and PyTorch ({torch_of(run) or 'not known'} here, {' and '.join(band.torch) or 'not known'} there)."
    )


def _causes(run: RunDir, band: Band, where: Where, since: int | None) -> tuple[str, ...]:
    if where in ("inside", "early") or since is None:
        return ()
    if where == "below":
        return ("A lower loss than all replicates with equal settings usually means changed code, or text that was "
                "trained on before.",)  # fmt: skip
    at = int(np.searchsorted(band.stretches[:, 0], since))
    width = int(band.stretches[at, 1]) - since + 1
    near = [one for one in spikes_of(run) if since - 2 * width <= one.first < since + width]
    seen = [f"a spike at step {one.step:,}, of which the run did not recover" for one in near[-1:]]
    events = read_events(run, ("resume", "branch", "skipped"))
    steps = [(str(event.get("kind")), step) for event in events if (step := whole(event.get("step"))) is not None]
    seen += [f"the run was resumed at step {step:,}" for kind, step in steps if kind == "resume" and step <= since][-1:]
    seen += [f"it is a branch from step {step:,}" for kind, step in steps if kind == "branch"][-1:]
    skipped = sum(kind == "skipped" for kind, _ in steps)
    seen += [f"{skipped:,} steps were skipped, their gradients were not finite"] if skipped else []
    git = (read_json(run.command_file, run.path) or {}).get("git")
    seen += ["the code was changed since its commit"] if isinstance(git, dict) and git.get("changed") else []
    told = [f"Seen in this run: {'; '.join(seen)}."] if seen else ["Nothing of the usual is seen in this run."]
    return (*told, USUALLY)
