"""What the form can be filled from: a preset, a run, a job of the queue, a TOML file, a tokenizer, a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mygpt2.checkpoint import steps
from mygpt2.cli import Parser
from mygpt2.config import load_config
from mygpt2.config.earlier import renewed_names
from mygpt2.errors import UserError
from mygpt2.launch.request import add_arguments
from mygpt2.run_dir import rank_states
from mygpt2.train import branching
from workbench import forms
from workbench.context import Context
from workbench.forms import Loaded
from workbench.jobs import Job


def from_preset(name: str) -> Loaded:
    """UserError for a preset that does not exist."""
    return Loaded(name, forms.preset_texts(name), [])


def from_run(context: Context, name: str) -> Loaded:
    """The settings of a run; of its place in the queue while it has no folder of its own yet."""
    run = context.run(name)
    if run.config_file.is_file():
        return forms.from_toml(run.config_file, f"config.toml of run {run.name!r}")
    job = context.jobs.job_of(run.name)
    if job is None:
        raise UserError(f"run {run.name!r} has no config.toml; choose another run, or a preset")
    return from_job(context, job)


def from_job(context: Context, job: Job) -> Loaded:
    """The settings frozen in a job's command."""
    words = list(job.spec.argv)
    if "--preset" not in words:  # a resumed run: its settings are its own
        return from_run(context, job.run)
    parser = Parser(prog="train", allow_abbrev=False)
    parser.add_argument("--nproc")
    add_arguments(parser)
    args, settings = parser.parse_known_args(words[words.index("mygpt2.launch") + 1 :])
    return Loaded(args.preset, forms.texts(load_config(args.preset, args.config, settings)), [])


def machine_of(context: Context, request: Mapping[str, Any]) -> tuple[tuple[str, ...], int | None]:
    """The devices and the number of processes that a run or job had, as far as they are to be had here."""
    job, ranks = None, []
    if "from_job" in request:
        job = context.jobs.store.get(str(request["from_job"]))
    elif "from_run" in request:
        run = context.run(str(request["from_run"]))
        job, ranks = context.jobs.job_of(run.name), rank_states(run)
    devices = job.spec.devices if job else tuple(dict.fromkeys(rank.device for rank in ranks))
    count = len(ranks) or (job.spec.nproc if job else None)
    here = bool(devices) and set(devices) <= set(context.jobs.slots)
    return devices if here else (), count if here or not devices else None


def from_upload(file: str | None) -> Loaded:
    """A TOML file that was sent by the browser."""
    if not file:
        raise UserError("no file was chosen; give a TOML file of settings")
    path = Path(file)
    return forms.from_toml(path, path.name)


def from_request(
    context: Context, request: dict[str, Any], now: dict[str, Any], preset: str
) -> tuple[Loaded, str] | None:
    """What another tab asked for, and the stem of a name for the run. None for a request that is not known.

    `settings`, words of section.name=value, replace those of the run or job, or else of the form as it is now, as a
    tokenizer does that of the form.
    """
    words = (word.split("=", 1) for word in str(request.get("settings") or "").split() if "=" in word)
    changed = renewed_names(dict(words))
    if changed:
        rest = {key: value for key, value in request.items() if key != "settings"}
        loaded, stem = from_request(context, rest, now, preset) or (_shown(now, preset), preset)
        return replace(loaded, values={**loaded.values, **_known(changed, loaded.values)}), stem
    if "from_run" in request:
        name = str(request["from_run"])
        return from_run(context, name), name
    if "branch" in request:
        name, step = place(context, request)
        config = branching.settings_of(context.runs, name, step)[1]
        return forms.from_config(config), name
    if "from_job" in request:
        job = context.jobs.store.get(str(request["from_job"]))
        return from_job(context, job), job.run
    if "tokenizer" in request:
        loaded = _shown(now, preset)
        return replace(loaded, values={**loaded.values, "data.tokenizer": str(request["tokenizer"])}), preset
    if "train_on" in request:
        loaded = _shown(now, preset)
        one = {"data.source": str(request["train_on"]), "data.mix": "[]"}
        return replace(loaded, values={**loaded.values, **one}), preset
    if "preset" in request:
        name = str(request["preset"])
        return from_preset(name), name
    return None


def place(context: Context, request: Mapping[str, Any]) -> tuple[str, int]:
    """(run, step) of the checkpoint to branch from: of `branch` NAME@STEP, or of a run's last one until the step `at`,
    its first one where that is earlier. UserError for a run without any."""
    name, step = branching.place_of(str(request["branch"]))
    run = context.run(name)
    if step is not None:
        return run.name, step
    kept = steps(run.checkpoints_dir)
    if not kept:
        raise UserError(f"run {run.name!r} has no checkpoint to branch from; wait for its first one")
    asked = _step(str(request.get("at") or ""))
    until = kept[-1] if asked is None else asked
    return run.name, max((each for each in kept if each <= until), default=kept[0])


def _step(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else None


def branch_said(branch: tuple[str, int], at: str) -> str:
    """What is told of a branch at (run, step). at: the step that was asked for, "" for none."""
    asked = _step(at)
    elsewhere = f", as no checkpoint of step {asked:,} is kept" if asked not in (None, branch[1]) else ""
    return f"A branch of {branch[0]} at step {branch[1]:,}{elsewhere}: what you change here changes from there on."


def _shown(now: dict[str, Any], preset: str) -> Loaded:
    """The form as it is now."""
    return Loaded(preset, {name: forms.as_text(value) for name, value in now.items()}, [])


def _known(changed: dict[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    """UserError for settings that the form does not have."""
    if unknown := sorted(changed.keys() - fields.keys()):
        raise UserError(f"{', '.join(unknown)[:200]} is not a setting of the form; give section.name=value")
    return changed
