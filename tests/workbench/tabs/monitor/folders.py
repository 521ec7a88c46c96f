"""Run folders as small as a test needs them."""

from __future__ import annotations

from pathlib import Path

from mygpt2.run_dir import RunDir, RunWriter


def run_folder(runs: Path, name: str, *, steps: int = 3, state: str = "finished", toml: str = "") -> RunDir:
    """A run of `steps` steps that ended, or says it is `running`."""
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config(toml)
        for step in range(1, steps + 1):
            writer.metrics(step=step, tokens=64 * step, loss=5.0 - step / 10, tokens_per_second=1000.0, step_ms=90.0,
                           data_wait_ms=10.0)  # fmt: skip
        writer.status(state="running", phase="training", step=steps, steps=10, tokens=64 * steps)
        if state != "running":
            writer.finish(state, 0, state)
    return run
