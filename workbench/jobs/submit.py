"""From a configuration to a place in the queue: the one way in for the form, the API and scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mygpt2.config import RunConfig, config_hash, load_config, plan_batch
from mygpt2.config.batch import legal_ranks
from mygpt2.errors import UserError
from mygpt2.launch.plan import CPU_PROCESSES
from mygpt2.machine import available_cores
from mygpt2.run_dir import check_name
from workbench.jobs.command import train_command
from workbench.jobs.records import RESTARTS, Job, JobSpec

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.jobs.jobs import Jobs


def submit_config(
    jobs: Jobs,
    config: RunConfig,
    preset: str | None,
    run: str,
    nproc: int | None = None,
    devices: Sequence[str] | None = None,
    *,
    at_once: bool = False,
    restarts: int = RESTARTS,
) -> Job:
    """Queues a run of this configuration. Everything is checked before anything is written; UserError says what not."""
    check_name(run)
    ranks = nproc or default_nproc(config, jobs.slots)
    plan_batch(config.train.batch_tokens, config.model.block_size, config.train.micro_batch, ranks, config.data.lanes)
    chosen = tuple(devices or default_devices(jobs.slots, ranks))
    if config.train.device in ("auto", "cuda") and chosen[0].startswith("cuda") and ranks > len(chosen):
        raise UserError(f"{ranks} processes need {ranks} devices, and {len(chosen)} are chosen: {', '.join(chosen)}")
    argv = train_command(config, preset, run, jobs.runs, ranks)
    return jobs.submit(JobSpec(run, tuple(argv), chosen, ranks, config_hash(config), restarts), at_once)


def submit_settings(
    jobs: Jobs, runs: Path, preset: str, run: str, settings: Mapping[str, Any], nproc: int | None = None
) -> Job:
    """The same from a preset and a mapping of settings, dotted or nested. ConfigError with every problem found."""
    return submit_config(jobs, load_config(preset or None, None, dict(settings)), preset, run, nproc or None)


def default_nproc(config: RunConfig, slots: Sequence[str]) -> int:
    """As the launcher chooses: one process per device, else two on a CPU; fewer where the batch does not divide."""
    devices = [slot for slot in slots if slot != "cpu"] if config.train.device != "cpu" else []
    most = len(devices) or min(CPU_PROCESSES, available_cores())
    train, data = config.train, config.data
    return legal_ranks(train.batch_tokens, config.model.block_size, train.micro_batch, data.lanes, most)


def default_devices(slots: Sequence[str], nproc: int) -> tuple[str, ...]:
    """The first devices, one per process; all processes share a CPU."""
    return tuple(slots[:nproc])
