"""Finished runs as a trainer and `eval` leave them, without training: settings, losses, and scores by document."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mygpt2.config import RunConfig, load_config, to_toml
from mygpt2.experiments.folder import ExperimentDir
from mygpt2.run_dir import RunDir

TEXT = "7" * 64  # the digest of a text's tokens


def tiny(*words: str) -> RunConfig:
    return load_config("tiny", None, words)


def finished(
    runs: Path, name: str, config: RunConfig, nll=None, targets=None, *, losses=None, reason: str = "", window: int = 0,
    token_sha256: str = TEXT,
) -> RunDir:  # fmt: skip
    """A run at its last step. `nll`, `targets` (documents,) are what `eval` found of it; `reason` ends it instead."""
    run = RunDir.create(runs, name)
    run.config_file.write_text(to_toml(config))
    step = config.train.steps
    state, code = ("failed", 70) if reason else ("finished", 0)
    run.exit_file.write_text(
        json.dumps({"schema": 1, "attempt": 1, "state": state, "code": code, "reason": reason, "step": step})
    )
    run.status_file.write_text(json.dumps({"schema": 1, "attempt": 1, "state": state, "step": step, "steps": step}))
    losses = np.full(step, 4.0) if losses is None else losses
    batch = config.train.batch_tokens
    rows = [{"schema": 1, "attempt": 1, "step": i + 1, "tokens": (i + 1) * batch, "loss": float(loss), "lr": 1e-3,
             "step_ms": 500.0, "data_wait_ms": 0.0} for i, loss in enumerate(losses)]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if nll is not None:
        weights = hashlib.sha256(json.dumps([name, list(map(float, nll))]).encode()).hexdigest()
        checkpoint = run.checkpoints_dir / f"step-{step:08d}"
        checkpoint.mkdir()
        (checkpoint / "MANIFEST.json").write_text(json.dumps({"files": {"model.safetensors": {"sha256": weights}}}))
        result = {
            "schema": 1, "protocol": "run", "token_sha256": token_sha256, "precision": "fp32",
            "window": window or config.model.block_size, "details": {"weights_sha256": weights},
            "by_document": {"nll": [float(x) for x in nll], "targets": [int(x) for x in targets]},
        }  # fmt: skip
        (run.evals_dir / f"step-{step:08d}-run.json").write_text(json.dumps(result))
    return run


def text(documents: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(nll, targets) of a made-up model on documents of very different lengths."""
    rng = np.random.default_rng(seed)
    targets = np.ceil(rng.lognormal(5.5, 0.8, documents))
    return targets * (3.9 + rng.normal(0, 0.4, documents)), targets


def shifted(nll: np.ndarray, targets: np.ndarray, by: float, noise: float, seed: int) -> np.ndarray:
    """The same documents by a model that is worse by `by` nats per token, and differs by `noise` on each."""
    return nll + targets * (by + np.random.default_rng(seed).normal(0, noise, len(nll)))


def looked(runs: Path, name: str, lost: Mapping[str, str], left: Sequence[str] = (), step: int = 12) -> ExperimentDir:
    """A sweep after its first look at `step`: why each arm lost, and those that are left. Nothing is trained."""
    folder = ExperimentDir.begin(runs, name, b'base = "tiny"\n')
    folder.note_arms({arm: {"told": arm, "runs": {"1": f"{name}.{arm}.1"}} for arm in (*lost, *left)})
    arms = {arm: {"stopped": arm in lost, "why": lost.get(arm, "")} for arm in (*lost, *left)}
    folder.add_look({"kind": "sweep", "look": 1, "of": 3, "step": step, "arms": arms}, kind="sweep", state="running")
    return folder
