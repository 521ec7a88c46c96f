"""The clusters that a launch can be handed to: which file each gets, what it cannot be asked, who takes the file."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mygpt2.errors import TryAgain, UserError, word
from mygpt2.files import cannot_write, replace_file
from mygpt2.launch import handed, kubeflow, kubernetes, skypilot, slurm
from mygpt2.launch.asking import ask_engine, cancel, find
from mygpt2.launch.command import Missing, NoAnswer, ask
from mygpt2.launch.handed import ENDED, GONE, TITLES, Handed, JobState
from mygpt2.launch.spec import LaunchSpec
from mygpt2.run_dir import RunDir, next_attempt, state_of, write_queued
from mygpt2.run_dir.holding import held
from mygpt2.run_dir.mentions import HANDED, queued_as
from mygpt2.run_dir.stop import record_unbegun

SLURM_S, KUBECTL_S, SKY_S = 60.0, 60.0, 900.0  # SkyPilot starts a machine for its controller at first


@dataclass(frozen=True)
class Target:
    """`submit` goes before the file's name, and may take `seconds`; `needs` and `refuses` are names of options, refused
    ones with a reason."""

    render: Callable[[LaunchSpec], str]
    suffix: str
    submit: tuple[str, ...]
    seconds: float
    needs: tuple[str, ...] = ()
    refuses: tuple[tuple[str, str], ...] = ()


NO_IMAGE = ("image", "SLURM starts no image by itself; a site's own way can be asked for by --option KEY=VALUE")
NO_VOLUME = ("volume", "nodes of SLURM share their file systems; leave it out")
NO_SECRET = ("secret", "SLURM passes on the variables of whoever submits; leave it out")
NO_TIME = ("time", "SkyPilot has no limit of time; leave it out")
NO_TYPE = ("gpu_type", "a cluster names its GPUs by labels of its nodes: --option LABEL=VALUE")
NO_PARTITION = ("partition", "partitions are SLURM's; leave it out")
KUBECTL = ("kubectl", "apply", "-f")
TARGETS = {
    "slurm": Target(slurm.render, ".sbatch", ("sbatch", "--parsable"), SLURM_S,
                    refuses=(NO_IMAGE, NO_VOLUME, NO_SECRET)),
    "skypilot": Target(skypilot.render, ".sky.yaml", ("sky", "jobs", "launch", "--yes", "--detach-run"), SKY_S,
                       refuses=(NO_TIME, NO_PARTITION)),
    "kubernetes": Target(kubernetes.render, ".k8s.yaml", KUBECTL, KUBECTL_S, ("image", "volume"),
                         (NO_TYPE, NO_PARTITION)),
    "kubeflow": Target(kubeflow.render, ".trainjob.yaml", KUBECTL, KUBECTL_S, ("image", "volume"),
                       (NO_TYPE, NO_PARTITION)),
}  # fmt: skip


def program(target: str) -> str:
    """The program that takes the target's file."""
    return TARGETS[target].submit[0]


def is_here(target: str) -> bool:
    """Whether that program is installed on this machine."""
    return shutil.which(program(target)) is not None


def file_of(target: str, run: str, runs: Path) -> Path:
    """Where the file of a launch is written, by its whole path."""
    return runs.absolute() / HANDED / f"{run}{TARGETS[target].suffix}"


def write(target: str, spec: LaunchSpec, runs: Path) -> Path:
    """Writes the target's file for this run below `runs`, over an older one. NotTaken where that cannot be."""
    path, text = file_of(target, spec.run, runs), TARGETS[target].render(spec)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode())
    except OSError as error:
        raise NotTaken(cannot_write(path, error)) from None
    return path


def submit(target: str, spec: LaunchSpec, runs: Path, config: str = "") -> str:
    """Hands a launch over by the engine's own program and returns what it said. `config`: its settings as TOML, so that
    they can be looked at before it begins.

    Once: a run that is at work, or whose job may still begin, is refused. The run's folder is made first, so that it is
    in every list, and the record before the program is called, see `handed`. UserError where the program is missing,
    TryAgain with its words where it refuses; then no run and no record of it is left.
    """
    if not is_here(target):
        raise UserError(f"{TITLES[target]} takes the file by `{program(target)}`, which is not installed here; write "
                        f"it with --print and run `{' '.join(TARGETS[target].submit)} FILE` where it is")  # fmt: skip
    with _held(runs, spec.run, target) as (run, made):
        _refuse_twice(run, runs)
        record = Handed(spec.run, target, "", spec.label, time.time(), next_attempt(run) - 1, handed.folder_of(run))
        try:
            path = write(target, spec, runs)
            _note(runs, record)
            if is_unbegun(run):
                write_queued(run, f"handed to {TITLES[target]}")
                if config:
                    replace_file(run.config_file, config.encode())
            said = _hand_over(target, path, runs, run)
        except NotTaken as error:
            _forget(runs, run, made)
            raise error.problem from None
        except OSError as error:
            _forget(runs, run, made)
            raise cannot_write(run.status_file, error) from None
        job = said.split(";")[0].strip() if target == "slurm" else spec.label
        job = job if handed.JOB.fullmatch(job) else ""  # not understood; it is found by its file or label
        with suppress(OSError):  # the engine has it: the record without its number finds it too
            handed.write(runs, replace(record, job=job, said=said))
    return said


class NotTaken(Exception):
    """The engine has nothing of the launch. `problem` is for the person."""

    def __init__(self, problem: UserError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _note(runs: Path, record: Handed) -> None:
    try:
        handed.write(runs, record)
    except OSError as error:
        raise NotTaken(cannot_write(handed.record_file(runs, record.run), error)) from None


def _hand_over(target: str, path: Path, runs: Path, run: RunDir) -> str:
    argv = [*TARGETS[target].submit, str(path)]
    try:
        answer = ask(argv, TARGETS[target].seconds)
    except NoAnswer as error:
        raise TryAgain(
            f"{error} and was ended, so it is not known whether {TITLES[target]} took the job; python -m mygpt2 runs "
            f"show {run.name} --runs {word(runs)} asks for it, and the same command hands it over only if it "
            "is not there"
        ) from None
    except UserError as error:
        raise NotTaken(error) from None
    if answer.code:
        raise NotTaken(TryAgain(f"{argv[0]} refused: {answer.words}; mend that, then run the same command"))
    return answer.out.strip()


def take_back(runs: Path, name: str) -> str:
    """Takes the job of a run back from its engine and says so. UserError where there is none, or it cannot be done."""
    record = handed.read(runs, name)
    if record is None or record.ended:
        raise UserError(f"run {name!r} was not handed to a cluster, or was taken back already")
    title = TITLES[record.target]
    try:
        record = record if record.job else find(runs, record) or record
        state = ask_engine(runs, record.target, [record])[name] if record.job else JobState(GONE)
    except UserError as error:
        kind = UserError if isinstance(error, Missing) else TryAgain
        raise kind(f"{record.title} cannot be taken back, as {title} cannot be asked for it: {error}") from None
    if state.word not in (ENDED, GONE):
        cancel(record)
    how = f"taken back from {title}" if state.word not in (ENDED, GONE) else f"{title} had ended it already"
    try:
        handed.write(runs, replace(record, ended=how))
        record_unbegun(RunDir(runs / name), "stopped", how)
    except OSError as error:
        raise cannot_write(handed.record_file(runs, name), error) from None
    return f"{record.title}: {how}"


def refuse_handed(runs: Path, name: str) -> None:
    """UserError where a cluster may still begin this run, or begin it again: nobody else may meanwhile."""
    record = handed.read(runs, name)
    state = state_of(RunDir(runs / name))
    if record is None or not handed.is_open(record, state):
        return
    try:
        waits = ask_engine(runs, record.target, [record])[name].word not in (ENDED, GONE)
    except UserError:  # a run that has begun is held by a lock as well, should its job come back
        waits = not handed.has_begun(record, state)
    if waits:
        raise UserError(
            f"run {name!r} was handed to {TITLES[record.target]} and may begin there; stop it first: python -m mygpt2 "
            f"runs stop {name} --runs {word(runs)}"
        )


def is_unbegun(run: RunDir) -> bool:
    """Whether no attempt was made in the folder yet."""
    return next_attempt(run) == 1 and not run.metrics_file.exists() and not run.names(run.checkpoints_dir)


def _refuse_twice(run: RunDir, runs: Path) -> None:
    state, record = state_of(run), handed.read(runs, run.name)
    stop = f"python -m mygpt2 runs stop {run.name} --runs {word(runs)}"
    if state.alive or state.processes:
        raise UserError(f"run {run.name!r} is at work already; stop it first: {stop}")
    if queued_as(runs, run.name):
        raise UserError(f"run {run.name!r} is in the workbench's queue; take it out there, or choose another --run")
    if record is None or not handed.is_open(record, state):
        return
    try:
        job = ask_engine(runs, record.target, [record])[run.name]
    except UserError as error:
        raise TryAgain(
            f"run {run.name!r} was handed to {TITLES[record.target]} before, which cannot be asked what became of it: "
            f"{error}; try again, or remove {handed.record_file(runs, run.name)} if no job of it is left"
        ) from None
    if job.word not in (ENDED, GONE):
        why = f" ({job.reason})" if job.reason else ""
        raise UserError(f"run {run.name!r} is handed over already: {record.title} is {job.word}{why}; {stop}")


@contextmanager
def _held(runs: Path, name: str, target: str) -> Iterator[tuple[RunDir, bool]]:
    """The run's folder, and whether it was made for this, while nobody else hands this run over."""
    run = RunDir(runs / name)
    while True:
        made = _claim(runs, name, target)
        with ExitStack() as locks:
            try:
                locks.enter_context(held(run.path))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise cannot_write(run.path, error) from None
            if run.path.is_dir():  # whoever held it may have removed it, as nothing came of it
                yield run, made
                return


def _claim(runs: Path, name: str, target: str) -> bool:
    """Makes the folder of a new run; whether it did. Nodes of SLURM work as whoever submits; a container may be
    somebody else, who then needs the permissions that the folder of runs gives."""
    run = RunDir(runs / name)
    if run.path.is_symlink():
        raise UserError(f"run {name!r} is a link to another place; runs lie in the folder of runs itself")
    if run.exists():
        return False
    try:
        RunDir.create(runs, name)
        if target != "slurm":
            for folder in (run.path, *run.folders):
                os.chmod(folder, os.stat(runs).st_mode & 0o777)
    except UserError:
        if run.exists():
            return False  # another was quicker
        raise
    except OSError as error:
        raise cannot_write(run.path, error) from None
    return True


def _forget(runs: Path, run: RunDir, made: bool) -> None:
    """Nothing was handed over: no record, and no folder of a run that was made for it."""
    with suppress(OSError):
        handed.record_file(runs, run.name).unlink()
    if made and is_unbegun(run):
        shutil.rmtree(run.path, ignore_errors=True)
    else:
        with suppress(OSError):
            record_unbegun(run, "stopped", "it was not handed over")
