"""What is on the Train tab at one moment, and whether it can be started: values in, reasons or a job out.

Everything is looked at again on the server when Start is pressed; what the page showed before counts for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mygpt2.config import RunConfig, load_config, preset_names, to_toml
from mygpt2.config.batch import batch_problem, lanes_problem
from mygpt2.errors import UserError
from mygpt2.launch.asked import Asked
from mygpt2.launch.handover import submit
from mygpt2.launch.spec import LaunchSpec
from mygpt2.planning import Plan, plan
from mygpt2.run_dir import check_name
from mygpt2.train import branching
from workbench import elsewhere, forms
from workbench.context import Context
from workbench.elsewhere import TARGET, Elsewhere
from workbench.jobs import Job, JobSpec, begun_command, branch_command, config_hash, shown, train_command
from workbench.jobs.devices import check_slots, default_nproc, device_environment
from workbench.jobs.jobs import NPROC_LIMIT, submit_config
from workbench.jobs.records import HOLDING
from workbench.survey.passes import mixture_problems, unusable

FIRST_PRESET = "tiny"
TRACKERS = {"log.tensorboard": "tensorboard", "log.wandb": "wandb", "log.trackio": "trackio"}
PRESET, RUN, DEVICES, NPROC, BRANCH = "preset", "run", "devices", "processes", "branch"  # fields that are no settings
Tell = Callable[..., None]  # tell(line, *fields)


@dataclass(frozen=True)
class Draft:
    """The values of the page as they came: nothing in it is believed. `branch`: NAME@STEP of a checkpoint of another
    run that this one begins from, "" for a run that begins by itself."""

    preset: str
    values: Mapping[str, Any]
    run: str
    devices: Sequence[str]
    processes: str
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    branch: str = ""


@dataclass(frozen=True)
class Checked:
    """A draft that was looked at. It may start when `reasons` is empty; then `command` is what will be executed, or
    `spec` and `file` what is handed over.

    problems: lines by field, for settings and for preset, run, devices and processes. reasons: every problem once,
    with the fields it stands at. config is there as soon as the settings themselves are sound.
    """

    draft: Draft
    problems: dict[str, list[str]] = field(default_factory=dict)
    reasons: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    changes: list[forms.Change] = field(default_factory=list)
    config: RunConfig | None = None
    processes: int | None = None
    command: tuple[str, ...] = ()
    asked: Asked | None = None
    spec: LaunchSpec | None = None
    file: str = ""
    branch: branching.Draft | None = None

    @property
    def environment(self) -> dict[str, str]:
        return device_environment(self.draft.devices)

    @property
    def command_line(self) -> str:
        """The command as a line for a terminal; of a branch, after the one that makes it."""
        if not self.command:
            return ""
        made = f"{shown(branch_command(self.branch, self.draft.run))}\n" if self.branch else ""
        return f"{made}{shown(self.command, self.environment)}"


def check(context: Context, draft: Draft) -> Checked:
    """Looks at everything at once. Writes and starts nothing."""
    found = Checked(draft)

    def tell(line: str, *fields: str) -> None:
        if (line, fields) not in found.reasons:
            found.reasons.append((line, fields))
        for name in fields:
            found.problems.setdefault(name, []).append(line)

    config = _read_settings(context, draft, found, tell)
    _check_run(context, draft.run, tell)
    if draft.elsewhere.target != elsewhere.HERE:
        return _check_elsewhere(context, draft, found, config, tell)
    processes = _check_machine(context, draft, config, tell)
    if config:
        _check_files(context, config, tell)
    if config and processes:
        _check_division(config, processes, tell)
    if config:
        _check_packages(config, tell)
    branch = _check_branch(context, draft, config, tell) if config and draft.branch else None
    command: tuple[str, ...] = ()
    if config and not found.reasons:
        try:
            command = tuple(
                begun_command(draft.run, context.runs, processes) if branch
                else train_command(config, draft.preset, draft.run, context.runs, processes)
            )  # fmt: skip
        except UserError as error:
            tell(str(error))
    if context.read_only:
        tell("this workbench was started with --read-only; start it without to train")
    return replace(found, config=config, processes=processes, command=command, branch=branch)


def _check_elsewhere(context: Context, draft: Draft, found: Checked, config: RunConfig | None, tell: Tell) -> Checked:
    """What a cluster is asked for, in the place of this machine's devices."""
    if not draft.elsewhere.is_cluster:
        names = ", ".join(target for _, target in elsewhere.CHOICES)
        tell(f"{draft.elsewhere.target[:80]!r} is no place to train; allowed: {names}", TARGET)
        return found
    if draft.branch:
        tell("a branch is trained on this machine: choose that, or leave Branch of empty", BRANCH, TARGET)
    asked = elsewhere.check(draft.elsewhere, tell)
    if config:
        _check_files(context, config, tell)
    if config and asked:
        _check_division(config, asked.ranks, tell, "launch.nodes")
    described = None
    if config and asked and not found.reasons:
        described = elsewhere.describe(draft.elsewhere, asked, config, draft.preset, draft.run, context.runs, tell)
    if context.read_only:
        tell("this workbench was started with --read-only; start it without to hand a run over")
    spec, file = described or (None, "")
    return replace(found, config=config, processes=asked.ranks if asked else None, asked=asked, spec=spec, file=file)


def hand_over(context: Context, draft: Draft) -> str:
    """Hands the draft to its cluster, once; what the engine said. UserError with every reason why it cannot."""
    context.changes()
    checked = check(context, draft)
    if checked.reasons or checked.spec is None:
        raise UserError("\n".join(line for line, _ in checked.reasons) or "there is nothing to hand over")
    return submit(draft.elsewhere.target, checked.spec, context.runs, to_toml(checked.config) if checked.config else "")


def launch(context: Context, draft: Draft, at_once: bool) -> Job:
    """Puts the draft into the queue, in front of it if `at_once`. UserError with every reason why it cannot."""
    context.changes()
    checked = check(context, replace(draft, elsewhere=Elsewhere()))
    if checked.reasons or not (checked.config and checked.processes and checked.command):
        raise UserError("\n".join(line for line, _ in checked.reasons) or "there is nothing to start")
    if checked.branch:  # one that cannot be queued is there all the same, and can be resumed
        run = branching.make(context.runs, checked.branch, draft.run).run.name
        devices, hash = tuple(draft.devices), config_hash(checked.config)
        return context.jobs.submit(JobSpec(run, checked.command, devices, checked.processes, hash), at_once)
    return submit_config(
        context.jobs, checked.config, draft.preset, draft.run, checked.processes, draft.devices, at_once=at_once
    )


def _check_branch(context: Context, draft: Draft, config: RunConfig, tell: Tell) -> branching.Draft | None:
    """The branch that the form asks for; None where its place, or a change, is not possible."""
    try:
        parent, step = branching.place_of(draft.branch)
        return branching.draft_as(context.runs, context.run(parent).name, step, config)
    except UserError as error:
        about = re.match(r"--([a-z]+\.[a-z_]+) ", str(error))  # a setting that a branch cannot have
        tell(str(error).removeprefix("--"), about[1] if about else BRANCH)
        return None


def busy(context: Context, draft: Draft) -> list[str]:
    """Who is at work on a chosen device now, for whom this run would have to wait."""
    jobs = [job for job in context.jobs.queue() if job.state in HOLDING and {*job.spec.devices} & {*draft.devices}]
    others = (who for device, who in context.jobs.devices.held().items() if device in draft.devices)
    return list(dict.fromkeys([*(f"run {job.run}" for job in jobs), *others]))


def estimate(context: Context, checked: Checked) -> Plan | str:
    """The plan of a draft whose settings are sound, or in words why there is none."""
    if checked.config is None:
        return "The estimate comes back once the settings are sound."
    try:
        kind = "cpu" if checked.config.train.device == "cpu" else device_kind(checked.draft.devices)
        if checked.draft.elsewhere.is_cluster:
            kind = "cuda" if checked.asked and checked.asked.gpus else "cpu"
        begun = checked.branch.origin.step if checked.branch else 0
        return plan(checked.config, world_size=checked.processes or 1, runs=context.runs, device=kind, begun=begun)
    except UserError as error:
        return str(error)
    except OverflowError:
        return "These numbers are too large for an estimate."


def free_name(context: Context, stem: str) -> str:
    """The first name of stem-1, stem-2 ... that no run has."""
    stem = _slug(stem)
    taken = {path.name for path in context.runs.iterdir()} if context.runs.is_dir() else set()
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def stem_of(context: Context, preset: str, source: str) -> str:
    """What a run is called after until somebody names it: a file or folder of one's own, the names of a mixture, else
    the preset. source: see `forms.trained_on`."""
    if tables := forms.mixture(source):
        return _slug("-".join(str(table.get("name") or "") for table in tables))
    try:
        path = Path(context.source(source))
    except UserError:
        return preset
    return _slug(path.name.partition(".")[0] or path.name) if path.is_absolute() else preset


def is_suggested(name: str, *stems: str) -> bool:
    """Whether a name is empty or made by `free_name` from a preset or one of the stems, so that it may be replaced."""
    stem = re.sub(r"-\d{1,6}$", "", name.strip())
    return not name.strip() or stem in preset_names() or stem in map(_slug, stems)


def _slug(stem: str) -> str:
    """The stem as a name of a run may begin."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", re.sub(r"-\d{1,6}$", "", stem)).strip("-._")[:50] or "run"


def first_devices(context: Context) -> list[str]:
    """What is chosen when the page opens: every GPU, else the one device there is."""
    cuda = [slot for slot in context.jobs.slots if slot.startswith("cuda:")]
    return cuda or list(context.jobs.slots[:1])


def first_processes(preset: str, devices: Sequence[str]) -> int:
    """One process per GPU, two on a CPU with two cores; fewer where the preset's batch does not divide by that."""
    return default_nproc(load_config(preset), devices)


def device_kind(devices: Sequence[str]) -> str:
    """cpu, cuda or mps: what the chosen devices are."""
    return str(devices[0]).partition(":")[0] if devices else "cpu"


def parse_processes(text: Any) -> int:
    """A number of processes as it was typed. UserError for anything else."""
    words = str(text if text is not None else "").strip()
    if words.isascii() and words.isdecimal() and len(words) < 6 and 1 <= int(words) <= NPROC_LIMIT:
        return int(words)
    raise UserError(f"processes = {words[:80]!r}: expected a whole number from 1 to {NPROC_LIMIT}, for example 2")


def _read_settings(context: Context, draft: Draft, found: Checked, tell: Tell) -> RunConfig | None:
    try:
        reading = forms.read(draft.preset, draft.values, context)
    except UserError as error:
        tell(str(error), PRESET)
        return None
    changed = {change.name for change in reading.changes}
    for line in dict.fromkeys(reading.lines):
        fields = [name for name, lines in reading.problems.items() if line in lines]
        tell(_of_processes(line, draft), *([name for name in fields if name in changed] or fields))
    found.changes.extend(reading.changes)
    return reading.config


def _of_processes(line: str, draft: Draft) -> str:
    """A line on a batch that does not divide, said for as many processes as are chosen: its advice must hold."""
    texts = {**forms.preset_texts(draft.preset), **draft.values}
    try:
        tokens, block = (int(str(texts[name])) for name in ("train.batch_tokens", "model.block_size"))
        micro = int(str(texts["train.micro_batch"])) if texts["train.micro_batch"] else None
        alone, together = (batch_problem(tokens, block, micro, n) for n in (1, parse_processes(draft.processes)))
    except (ValueError, ZeroDivisionError, UserError):
        return line
    return line.replace(alone, together) if alone and together else line


def _check_files(context: Context, config: RunConfig, tell: Tell) -> None:
    """A file or folder that training cannot read would end the run once it has come out of the queue."""
    if not config.data.mix and (problem := unusable(context.surveys, config.data)):
        tell(problem, "data.source")
    for line in mixture_problems(context.surveys, config):
        tell(line, "data.mix")


def _check_run(context: Context, name: str, tell: Tell) -> None:
    try:
        check_name(name)
    except UserError as error:
        tell(str(error), RUN)
        return
    if _exists(context.runs / name):
        tell(f"run {name!r} exists already; {free_name(context, name)!r} is free, or resume it below", RUN)


def _check_packages(config: RunConfig, tell: Tell) -> None:
    """A tracker that is not installed would end the run at its start."""
    for name, package in TRACKERS.items():
        if getattr(config.log, name.partition(".")[2]) and find_spec(package) is None:
            tell(f"{name} needs the package {package}, which is not installed; install it, or switch this off", name)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _check_machine(context: Context, draft: Draft, config: RunConfig | None, tell: Tell) -> int | None:
    """Devices and the number of processes on them; None when the number is not one."""
    devices = [str(device) for device in draft.devices]
    kinds = {device_kind([device]) for device in devices}
    try:
        check_slots(devices, context.jobs.slots)
        if len(kinds) > 1:
            raise UserError(f"{', '.join(devices)} are of different kinds; choose devices of one kind")
    except UserError as error:
        tell(str(error), DEVICES)
        kinds = set()
    asked = config.train.device if config else "auto"
    if kinds and asked not in ("auto", "cpu", *kinds):
        tell(f"train.device={asked} is not among the chosen devices ({', '.join(devices)}); use auto", "train.device")
    try:
        processes = parse_processes(draft.processes)
    except UserError as error:
        tell(str(error), NPROC)
        return None
    if kinds == {"cuda"} and asked != "cpu" and processes > len(devices):
        tell(f"{processes} processes need {processes} GPUs, {len(devices)} are chosen; use {len(devices)}", NPROC)
    if kinds == {"mps"} and asked != "cpu" and processes > 1:
        tell(f"Apple's GPU trains in one process, not {processes}; use 1", NPROC)
    return processes


def _check_division(config: RunConfig, processes: int, tell: Tell, at: str = NPROC) -> None:
    train, block = config.train, config.model.block_size
    if problem := batch_problem(train.batch_tokens, block, train.micro_batch, processes):
        tell(problem, "train.batch_tokens", at)
    elif problem := lanes_problem(train.batch_tokens // block, config.data.lanes, processes):
        tell(problem, "data.lanes", at)
