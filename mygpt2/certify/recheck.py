"""Parts of a run trained again, each from one kept checkpoint to the next, and what came out beside what is kept.

Batches are a pure function of the data and a checkpoint holds all of a run's state, so on the same kind of machine the
same losses and weights come out to the bit. Elsewhere sums are rounded otherwise: a tolerance is stated and held.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.certify.certificate import machine
from mygpt2.checkpoint.files import step_name
from mygpt2.checkpoint.format import MANIFEST, MODEL, OPTIMIZER, read_model, read_state, verify
from mygpt2.checkpoint.parts import whole_name
from mygpt2.checkpoint.rounding import one_way
from mygpt2.config import RunConfig, load_config, to_toml
from mygpt2.config.earlier import renewed
from mygpt2.data.sources.local.watch import watch_over
from mygpt2.data.sources.resolve import opened
from mygpt2.errors import TryAgain, UserError
from mygpt2.experiments.running import call
from mygpt2.format import file_size
from mygpt2.progress import Progress, silent
from mygpt2.records import whole
from mygpt2.run_dir.command import versions
from mygpt2.run_dir.metrics import read_events, read_metrics
from mygpt2.run_dir.paths import RunDir
from mygpt2.run_dir.scratch import scratch as scratch_folder
from mygpt2.tokenizer import load_tokenizer
from mygpt2.train.branching import HARMLESS, LEARNING, draft, make

TOLERANCE = 0.01  # nats: two machines that round otherwise were 0.002 apart after 40 steps of `tiny` in bfloat16
TRAINED = (MODEL, OPTIMIZER)  # what of a checkpoint must come out again; state.json has times and counts of attempts
KIND = "recheck"  # of its scratch folders
LIBRARIES = ("torch", "numpy")  # whose versions decide how sums are rounded


@dataclass(frozen=True)
class Segment:
    """The steps after `begin`, to `end`: both are kept, or `begin` is 0, where the run began."""

    begin: int
    end: int

    def __str__(self) -> str:
        return f"steps {self.begin + 1:,} to {self.end:,}"


@dataclass(frozen=True)
class Found:
    """A segment that was trained again. `loss` is the largest difference of a step's loss in nats, `weights` that of a
    weight, `bits`: whether every loss, weight and number of the optimizer is equal to the bit. `as_trained`: whether it
    was trained on as many ranks and threads, and otherwise as all of it was."""

    segment: Segment
    loss: float
    weights: float
    bits: bool
    as_trained: bool = True


def segments(run: RunDir, certificate: Mapping[str, Any]) -> tuple[list[Segment], dict[Segment, str]]:
    """(those that can be trained again, those that cannot, each with the reason), in their order.

    Of settings or data that were changed on purpose nobody kept at which step the change came.
    """
    kept = sorted(int(step) for step in certificate["checkpoints"])
    found, left_out, now = list[Segment](), dict[Segment, str](), dict[str, str | None]()
    for begin, end in zip([0, *kept], kept, strict=False):
        segment, state = Segment(begin, end), read_state(run.checkpoints_dir / step_name(end))
        config = load_config(base=renewed(state["config"]))
        if _rules(run, begin) != _rules(run, end) if begin else _changed_before(run, end):
            left_out[segment] = "settings or data were changed within them"
            continue
        key = config.data.model_dump_json()
        if key not in now:
            now[key] = _data_now(config)
        if now[key] == state["data"]["fingerprint"].get("data"):
            found.append(segment)
        else:
            left_out[segment] = "the data that they were trained on are gone or others now"
    return found, left_out


def _data_now(config: RunConfig) -> str | None:
    """What the text that settings name is now; None where it cannot be opened. A fork may have left other text."""
    try:
        with opened(config.data, load_tokenizer(config.data.tokenizer).eot_id) as (manifest, *_):
            return manifest.fingerprint
    except TryAgain:
        raise
    except UserError:
        return None


def _changed_before(run: RunDir, step: int) -> bool:
    """Whether the run went on with other settings before a step: the first part has no checkpoint to compare with."""
    resumes = [event for event in read_events(run, ("resume",)) if (whole(event.get("step")) or 0) < step]
    names = [name for event in resumes for name in event.get("changes") or ()]
    return any(name.partition(".")[0] in LEARNING and name not in HARMLESS for name in names)


def chosen(some: Sequence[Segment], count: int, seed: int | None = None) -> list[Segment]:
    """`count` of them at random, in their order; all where there are not so many. UserError for a bad count."""
    if count < 1:
        raise UserError(f"--recheck {count}: give 1 or more, how many parts of the run are to be trained again")
    return sorted(random.Random(seed).sample(some, min(count, len(some))), key=lambda each: each.end)


def _rules(run: RunDir, step: int) -> tuple[Any, Any]:
    """What decided the steps before a checkpoint: settings that change what is learned, and which data."""
    state = read_state(run.checkpoints_dir / step_name(step))
    known = renewed(state["config"])
    settings = {
        f"{section}.{key}": value
        for section in LEARNING
        for key, value in known.get(section, {}).items()
        if f"{section}.{key}" not in HARMLESS
    }
    return settings, state["data"]["fingerprint"]


def same_machine(certificate: Mapping[str, Any]) -> list[str]:
    """What of this machine is other than where the certificate was made; empty: equal bits are to come out."""
    then, now = certificate["with"], {"versions": versions(), "machine": machine()}
    names = [("machine", key) for key in then["machine"]] + [("versions", key) for key in LIBRARIES]
    return [
        f"{key} {then[part].get(key)} there and {now[part].get(key)} here"
        for part, key in names
        if then[part].get(key) != now[part].get(key)
    ]


def other_data(run: RunDir, config: RunConfig) -> list[str]:
    """What of the text is not what the run read, a line each. Reads every byte of local files; what the hub has is
    known by its commit. UserError where the data cannot be opened."""
    with opened(config.data) as (manifest, _, caches), scratch_folder(KIND) as folder:
        kept = folder / "data.checksums"  # of our own: nothing is written to the run
        for path in run.path.glob("data*.checksums"):
            shutil.copyfile(path, kept.with_name(path.name))
        told: list[str] = []
        try:
            watch_over(manifest, caches, kept, told.append, resumed=True, sync_bytes=sys.maxsize)
        except UserError as error:
            told.append(str(error))
    return told


def again(
    run: RunDir, segment: Segment, certificate: Mapping[str, Any], scratch: Path, progress: Progress = silent
) -> Found:
    """Trains a segment again, in a folder of runs of its own, and compares. UserError where that cannot be done."""
    facts = certificate["checkpoints"][str(segment.end)]
    name, end = f"steps-{segment.begin}-{segment.end}", run.checkpoints_dir / step_name(segment.end)
    how = one_way(facts.get("rounding", ()), segment.begin)
    words = [*_begin(run, segment, {**facts, **(how or {})}, scratch, name), "--runs", str(scratch), "--run", name]
    words += ["--until", str(segment.end)]  # it ends there by itself, also where nobody is left to end it
    given = {"OMP_NUM_THREADS": str(how["threads"])} if how else {}
    made = RunDir(scratch / name)
    place = made.checkpoints_dir / step_name(segment.end)

    def watch() -> None:
        progress(str(segment), _steps(made) - segment.begin, segment.end - segment.begin, "steps")

    code, said = call([*_launcher(facts["ranks"]), *words], watch, given=given, keep=False)
    if verify(place):
        raise UserError(f"{segment} could not be trained again: {said or f'exit code {code}'}")
    return Found(segment, *_compared(run, made, segment, end, place), as_trained=how is not None)


@contextmanager
def scratch_runs(needed: int, folder: Path | None = None) -> Iterator[Path]:
    """A folder of runs that is gone afterwards, with room for `needed` bytes; UserError where there is none.

    Whoever was killed at the same left its own, where a part may still be trained: it ends once its folder is gone.
    """
    try:
        with scratch_folder(KIND, folder) as path:
            free = shutil.disk_usage(path).free
            if free < needed:
                raise UserError(
                    f"{path} has {file_size(free)} free and {file_size(needed)} are needed; give another folder with "
                    "--scratch DIR"
                )
            yield path
    except OSError as error:
        place = folder or tempfile.gettempdir()
        raise UserError(
            f"cannot work in {place}: {error.strerror or error}; give another folder with --scratch DIR"
        ) from None


def judged(found: Sequence[Found], same: bool, tolerance: float) -> list[str]:
    """What does not hold, a line each: bits on the same kind of machine, the tolerance elsewhere, and where a segment
    could not be trained as it was."""
    told = []
    for each in found:
        if same and each.as_trained and not each.bits:
            told.append(f"{each.segment} came out otherwise: {differs(each)}")
        elif not each.loss <= tolerance:
            told.append(f"{each.segment} came out otherwise: {differs(each)}, more than {tolerance:g}")
    return told


def differs(found: Found) -> str:
    """How far a segment is from what is kept, in words."""
    if found.bits:
        return "equal to the bit"
    if found.loss == found.weights == 0:
        return "losses and weights are equal, but not the optimizer's numbers"
    return f"losses differ by at most {found.loss:.3g} nats and weights by {found.weights:.3g}"


def _begin(run: RunDir, segment: Segment, facts: Mapping[str, Any], scratch: Path, name: str) -> list[str]:
    """What stands behind `train`; the branch is made where the segment begins at a checkpoint."""
    over = {
        "checkpoint.interval": segment.end,  # its first multiple after the beginning is the end
        "train.precision": facts["precision"],
        **({"train.micro_batch": facts["micro_batch"]} if "micro_batch" in facts else {}),
        **({"train.compile": str(facts["compiled"]).lower()} if "compiled" in facts else {}),
        **{f"log.{tracker}": False for tracker in ("tensorboard", "wandb", "trackio")},
    }
    if segment.begin:
        make(scratch, draft(run.path.parent, run.name, segment.begin, over), name)
        return ["--resume", "must"]  # never another run, where this one was swept away meanwhile
    state = read_state(run.checkpoints_dir / step_name(segment.end))
    config = load_config(base=renewed(state["config"]), overrides=over)
    file = scratch / f"{name}.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    return ["--config", str(file)]


def _launcher(ranks: int) -> list[str]:
    if ranks > 1:
        return [sys.executable, "-m", "mygpt2.launch", "--nproc", str(ranks)]
    return [sys.executable, "-m", "mygpt2", "train"]


def _steps(run: RunDir) -> int:
    try:
        return int(json.loads(run.status_file.read_bytes()).get("step") or 0)
    except (OSError, ValueError, TypeError, AttributeError):
        return 0


def _compared(run: RunDir, made: RunDir, segment: Segment, end: Path, place: Path) -> tuple[float, float, bool]:
    """(largest difference of a loss, of a weight, whether all is equal to the bit)."""
    one, two = (_losses(each, segment) for each in (run, made))
    loss = float(np.abs(one - two).max()) if np.isfinite(one - two).all() else float("inf")
    if loss == 0 and _digests(end) == _digests(place):
        return 0.0, 0.0, True
    theirs, ours = read_model(end), read_model(place)
    weights = max(float((theirs[name].float() - ours[name].float()).abs().max()) for name in theirs)
    return loss, weights, False


def _losses(run: RunDir, segment: Segment) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The loss of every step of the segment; NaN for one that is not there."""
    metrics = read_metrics(run)
    known = dict(zip(metrics["step"].tolist(), metrics["loss"].tolist(), strict=True))
    return np.array([known.get(step, np.nan) for step in range(segment.begin + 1, segment.end + 1)])


def _digests(path: Path) -> dict[str, str]:
    files = json.loads((path / MANIFEST).read_bytes())["files"]
    return {name: entry["sha256"] for name, entry in files.items() if whole_name(name) in TRAINED}
