"""Judged experiments on disk, decided by the engine on losses that were made up: nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mygpt2.experiments.arms import Spec
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.experiments.judge import Question, judge, prepare
from tests.experiments.made import finished, shifted, text, tiny
from workbench.context import Context
from workbench.jobs import Jobs

STEPS = ("--train.steps", "40", "--schedule.warmup_steps", "2")


def a_place(folder: Path, **options: Any) -> Context:
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    return Context(runs, (folder,), Jobs(runs, ["cpu"]), **options)


def a_base(runs: Path, name: str = "tiny") -> None:
    """A finished run to begin from, with its scores."""
    finished(runs, name, tiny(*STEPS), *text(), losses=np.linspace(9, 4, 40))


def judged(runs: Path, *words: str, by: float = -0.02, spread: float = 0.001, pairs: int = 3) -> ExperimentDir:
    """The run `tiny` against itself with changed settings; every run that is needed is there, and the engine decides.

    by: nats that the variant is worse by, and by `spread` more with every further pair of seeds.
    """
    prepared = prepare(Question(Spec("run:tiny"), Spec("run:tiny", words), runs, pairs))
    nll, targets = text()
    for number, (_, base, variant) in enumerate(prepared.pieces):
        own = shifted(nll, targets, 0.01 * number, 0.02 * number, number)
        other = shifted(own, targets, by + spread * number, 0.01, number + 10)
        if not (runs / base.run).exists():
            finished(runs, base.run, base.config, own, targets, losses=np.linspace(9, 4, 40))
        if not (runs / variant.run).exists():
            finished(runs, variant.run, variant.config, other, targets, losses=np.linspace(9, 3.9, 40))
    judge(prepared, say=lambda text: None)
    return ExperimentDir.open(runs, prepared.experiment)
