"""What a model scores on each held-out document: read from the run's `evals/`, else measured by `mygpt2 eval`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.checkpoint.format import load, weights_sha256
from mygpt2.checkpoint.parts import count_parts
from mygpt2.config import RunConfig, load_config
from mygpt2.config.data import DataConfig
from mygpt2.errors import UserError, word
from mygpt2.evals.protocols import PROTOCOLS
from mygpt2.experiments.running import STOPPED, Interrupted, call
from mygpt2.failures import NO_LOSS
from mygpt2.files import read_json
from mygpt2.machine import home_path
from mygpt2.progress import Progress, silent
from mygpt2.records import number, whole
from mygpt2.run_dir.paths import RunDir

PRECISION = "fp32"  # of `eval` where nobody says; one precision for every arm
Floats = np.ndarray


class NoLoss(UserError):
    """A run came to its end with weights that give no finite loss: it diverged at its last step, where no later loss
    told."""

    def __init__(self, run: str, step: int) -> None:
        super().__init__(f"{run} diverged: its weights after step {step:,} give no finite loss")
        self.run = run


@dataclass(frozen=True)
class Source:
    """A source of a held-out text: the documents [first, stop), and the runs that the text says train on it."""

    name: str
    first: int
    stop: int
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scores:
    """`nll` in nats and `targets`, both (documents,): sums over each document's own tokens. `protocol` fixes the text,
    `window` its windows in tokens, `token_sha256` its tokens; `weights` is the digest of what was scored. `sources`: of
    a mixture's text, in the order of the documents."""

    run: str
    step: int
    protocol: str
    window: int
    token_sha256: str
    precision: str
    weights: str
    nll: Floats
    targets: Floats
    sources: tuple[Source, ...] = ()

    def of(self, source: str) -> Scores:
        """Of one source alone. UserError for one that the text does not have."""
        found = next((each for each in self.sources if each.name == source), None)
        if found is None:
            known = ", ".join(each.name for each in self.sources) or "it is of one source"
            raise UserError(f"the text that {self.run} was scored on has no source {source}; there are: {known}")
        own = slice(found.first, found.stop)
        return replace(self, nll=self.nll[own], targets=self.targets[own], sources=())

    @property
    def tokens(self) -> int:
        return int(self.targets.sum())

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.nll.sum() / self.targets.sum())


def scores(
    runs: Path, run: str, step: int, protocol: str, *, say: Callable[[str], None] = print, device: str = "auto",
    progress: Progress = silent,
) -> Scores:  # fmt: skip
    """Of the run's checkpoint at `step`. Measured only where no result of these very weights is there.

    UserError for a checkpoint that is gone, a text that cannot be had, or one of too many documents to keep apart.
    """
    folder = RunDir(Path(runs) / run)
    checkpoint = folder.checkpoints_dir / f"step-{step:08d}"
    if not checkpoint.exists() and (known := _of_one_model(_results(folder, step, protocol))):
        return known  # the run went on and did not keep it, or somebody wanted the room
    weights = weights_of(folder, step)
    found = _find(folder, step, protocol, weights)
    if found is None:
        say(f"scoring {run} at step {step:,} on {protocol}")
        words = [sys.executable, "-m", "mygpt2", "eval", "--model", str(checkpoint), "--protocol", protocol]
        with tempfile.TemporaryDirectory() as aside:
            file = Path(aside) / "progress.json"
            watch = partial(_tell, progress, f"scoring {run}", file)
            code, told = call([*words, "--runs", str(runs), "--device", device], watch, file)
        if code in STOPPED:
            raise Interrupted(f"the scoring of {run} was stopped; the same command goes on from there")
        if told.startswith(NO_LOSS):
            raise NoLoss(run, step)
        if code:
            raise UserError(f"{run} cannot be scored on {protocol}: {told or f'eval ended with code {code}'}")
        found = _find(folder, step, protocol, weights)
    if found is None:
        raise UserError(
            f"{protocol} has too many documents to keep the score of each, without which two models cannot be paired; "
            "choose a protocol of at most 40,000"
        )
    return found


def _tell(progress: Progress, title: str, file: Path) -> None:
    """How many of the text's targets are scored, once the command says it."""
    told = read_json(file) or {}
    done, total = whole(told.get("done")), whole(told.get("total"))
    if told.get("unit") != "targets" or done is None or total is None:
        done, total = 0, 0  # it still reads the text
    progress(title, done, total, "targets")


def check_protocol(protocol: str, config: RunConfig, runs: Path) -> None:
    """UserError for a text that cannot be had, before anything is trained that is to be scored on it."""
    if protocol == "run" and config.data.validation_fraction == 0:
        raise UserError(
            "the base holds no document out (data.validation_fraction = 0), so that the protocol run has no text; give "
            f"one of {', '.join(PROTOCOLS)}, run:NAME or a path"
        )
    if protocol.startswith("run:"):
        holder = RunDir.open(runs, protocol.partition(":")[2])
        check_held_out(load_config(None, holder.config_file), config, holder.name)
    elif protocol != "run" and protocol not in PROTOCOLS and (not protocol or not home_path(protocol).exists()):
        raise UserError(
            f"the protocol {protocol!r} is neither a protocol nor a path; allowed: {', '.join(PROTOCOLS)}, run, "
            "run:NAME, or the path of text or tokens"
        )


def check_held_out(holder: RunConfig, trained: RunConfig, name: str) -> None:
    """UserError where a model was trained on documents that `holder` holds out: on those it looks better than it is.

    Which documents are held out is a hash's share of them, so that those of a smaller share are among a larger one's.
    """
    if (
        sources_of(holder.data) & sources_of(trained.data)
        and trained.data.validation_fraction < holder.data.validation_fraction
    ):
        raise UserError(
            f"a model of data.validation_fraction = {trained.data.validation_fraction:g} was trained on documents that "
            f"{name} holds out ({holder.data.validation_fraction:g}) and would look better on them than it is; give "
            "both the same share, or a --protocol that is a text of neither"
        )


def sources_of(data: DataConfig) -> set[str]:
    """What is trained on, as a person wrote it."""
    return {source.source for source in data.mix} or {data.source}


def weights_of(run: RunDir, step: int) -> str:
    """The digest of a checkpoint's weights, from its manifest, or for weights in parts from themselves. UserError where
    it is not there any more."""
    folder = run.checkpoints_dir / f"step-{step:08d}"
    files = (read_json(folder / "MANIFEST.json", run.path) or {}).get("files")
    model = files.get("model.safetensors") if isinstance(files, dict) else None
    digest = model.get("sha256") if isinstance(model, dict) else None
    if isinstance(files, dict) and count_parts(files):
        return weights_sha256(load(folder, optimizer=False))
    if not isinstance(digest, str):
        raise UserError(
            f"run {run.name!r} has no whole checkpoint of step {step:,}, to compare, and no result of it; "
            f"python -m mygpt2 runs delete {run.name} --runs {word(run.path.parent)}, and the same command trains it "
            "again"
        )
    return digest


def _find(run: RunDir, step: int, protocol: str, weights: str) -> Scores | None:
    """A result in the run's folder of the same weights, text and precision."""
    return next((found for found in _results(run, step, protocol) if found.weights == weights), None)


def _of_one_model(found: Sequence[Scores]) -> Scores | None:
    """The first of results that are all of the same weights; else nobody can say which of them is meant."""
    return found[0] if len({each.weights for each in found}) == 1 else None


def _results(run: RunDir, step: int, protocol: str) -> list[Scores]:
    """What the run's folder holds on a text, at this precision."""
    names = [name for name in run.names(run.evals_dir) if name.startswith(f"step-{step:08d}-")]
    records = [read_json(run.evals_dir / name, run.path) or {} for name in names if name.endswith(".json")]
    found = [each for record in records if (each := _scores(record, run.name, step))]
    return [each for each in found if (each.protocol.removeprefix("local:"), each.precision) == (protocol, PRECISION)]


def _scores(record: dict[str, Any], run: str, step: int) -> Scores | None:
    """None for a record that is no result, or holds no sums by document."""
    by, details = record.get("by_document"), record.get("details")
    texts = [record.get(key) for key in ("protocol", "token_sha256", "precision")]
    weights = details.get("weights_sha256") if isinstance(details, dict) else None
    window = whole(record.get("window"))
    if not isinstance(by, dict) or window is None or not all(isinstance(text, str) for text in (*texts, weights)):
        return None
    nll, targets = by.get("nll"), by.get("targets")
    if not isinstance(nll, list) or not isinstance(targets, list) or len(nll) != len(targets):
        return None
    if None in map(number, nll) or None in map(whole, targets) or not sum(targets):
        return None
    protocol, sha, precision = map(str, texts)
    return Scores(
        run, step, protocol, window, sha, precision, str(weights), np.array(nll, float), np.array(targets, float),
        _sources(record, len(nll)),
    )  # fmt: skip


def _sources(record: dict[str, Any], documents: int) -> tuple[Source, ...]:
    """Where each source's documents are; none of a text of one, or of a record that does not add up."""
    by, text = record.get("by_source"), record.get("text")
    runs = text.get("sources") if isinstance(text, dict) else None
    runs = runs if isinstance(runs, dict) else {}
    found: list[Source] = []
    for name, part in by.items() if isinstance(by, dict) else ():
        count = whole(part.get("documents")) if isinstance(part, dict) else None
        first = found[-1].stop if found else 0
        of = runs.get(name)
        found.append(Source(name, first, first + (count or 0), tuple(map(str, of)) if isinstance(of, list) else ()))
    sound = found and found[-1].stop == documents and all(each.first < each.stop for each in found)
    return tuple(found) if sound else ()
