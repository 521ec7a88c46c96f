"""Experiments as they lie on disk: what was asked, their runs, looks and ledger. All that the tab knows of their files.

The engine writes runs/_experiments/<name>/ (see mygpt2/experiments/folder.py). What the page itself was asked for lies
beside it, so that it can go on with the same command:

    runs/.workbench/experiments/<name>.json   {"kind", "argv", "pieces": {run: steps}, "seconds", "told", "time"}
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments.arms import parts_of
from mygpt2.experiments.folder import FOLDER, NAME, ExperimentDir
from mygpt2.files import read_json
from mygpt2.inside import SMALL_BYTES, read_inside
from mygpt2.records import number, tame, whole
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.liveness import state_of
from mygpt2.run_dir.paths import NAME as RUN_NAME
from workbench import judging
from workbench.context import Context
from workbench.jobs import Task
from workbench.judging import LABEL
from workbench.tabs.experiments.experiment import Asked, Experiment, Member

KIND = "experiment"  # of its task
KINDS = ("judge", "sweep", "ladder")
MOST_RUNS = 400  # of one experiment that are looked at


class Experiments:
    """All experiments of a folder of runs. What has ended is not read again until its files change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._known: dict[str, tuple[Any, Member]] = {}

    @property
    def folder(self) -> Path:
        return self._context.runs / FOLDER

    def names(self) -> list[str]:
        """Also those whose files cannot be read: they are told."""
        found = set()
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            found = {e.name for e in entries if NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False)}
        return sorted(found | {task.label.removeprefix(LABEL) for task in self._tasks().values() if task.running})

    def all(self) -> list[Experiment]:
        """Every experiment, those at work first, then the latest changed."""
        tasks, runs = self._tasks(), self._runs()
        found = [self._read(name, tasks.get(name), runs.get(name, [])) for name in self.names()]
        return sorted(found, key=lambda each: (not each.at_work, -each.changed, each.name))

    def get(self, name: str) -> Experiment:
        """One experiment. UserError where there is none of this name."""
        found = next((each for each in self.all() if each.name == name), None)
        if found is None:
            raise UserError(f"there is no experiment {name[:60]!r} in {self._context.runs}; choose one from the list")
        return found

    def asked_file(self, name: str) -> Path:
        return self._context.runs / ".workbench" / "experiments" / f"{name}.json"

    def _tasks(self) -> dict[str, Task]:
        """The task of each experiment that has one: one that runs, else the latest."""
        found: dict[str, Task] = {}
        for task in self._listed():
            name = task.label.removeprefix(LABEL)
            if NAME.fullmatch(name) and (name not in found or (task.running and not found[name].running)):
                found[name] = task
        return found

    def running(self, name: str) -> list[Task]:
        """All tasks at work for an experiment: of one baseline several questions may be asked at once."""
        return [task for task in self._listed() if task.running and task.label == LABEL + name]

    def _listed(self) -> list[Task]:
        """Tasks of experiments, newest first, whoever began them: this page, or another program."""
        tasks = [task for task in self._context.jobs.tasks.list() if task.kind in (KIND, judging.KIND)]
        return [task for task in tasks if task.label.startswith(LABEL)]

    def _runs(self) -> dict[str, list[str]]:
        """Runs by the experiment that their names begin with."""
        found: dict[str, list[str]] = {}
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(self._context.runs)):
                if RUN_NAME.fullmatch(name) and (parts := parts_of(name)):
                    found.setdefault(parts[0], []).append(name)
        return found

    def _read(self, name: str, task: Task | None, runs: Sequence[str]) -> Experiment:
        folder = ExperimentDir(self.folder / name)
        problems: list[str] = []
        settings = self._settings(folder, task, problems)
        ledger, lost = self._ledger(folder, problems)
        record, looks = self._looks(folder, problems)
        asked = self._asked(name)
        looks = [_counted(look, ledger) for look in looks]
        noted = _noted(folder, problems)
        places = _places(noted, looks)
        names = list(dict.fromkeys([*places, *asked.pieces, *runs]))[:MOST_RUNS]
        members = [self._member(run, asked.pieces.get(run), places.get(run)) for run in names]
        members.sort(key=lambda member: member.arm != "base")
        kind = str(record.get("kind") or settings.get("kind") or _kind(settings))
        if kind == "judge":
            _lost(folder, problems)
        if kind not in KINDS and task and len(task.argv) > 3 and task.argv[3] in KINDS:
            kind = task.argv[3]  # its folder is about to be made
        return Experiment(
            name, kind if kind in KINDS else "", settings, looks, ledger, lost, members, asked, task, problems,
            {arm: told for arm, known in noted.items() if (told := _told(known))}, record,
            max([asked.time, *(_mtime(path) for path in (folder.path, folder.ledger_file))]),
        )  # fmt: skip

    def _settings(self, folder: ExperimentDir, task: Task | None, problems: list[str]) -> dict[str, Any]:
        if not folder.settings_file.exists():
            if not (task and task.running):
                problems.append("experiment.toml is missing, so that nothing tells what was asked.")
            return {}
        try:
            return folder.settings()
        except UserError as error:
            problems.append(f"{str(error)[:300]}.")
            return {}

    def _ledger(self, folder: ExperimentDir, problems: list[str]) -> tuple[list[dict[str, Any]], int]:
        try:
            found = folder.ledger() if folder.ledger_file.exists() else None
        except UserError as error:
            problems.append(f"{str(error)[:300]}.")
            return [], 0
        if found and found.damaged:
            word = "line of the ledger is" if found.damaged == 1 else "lines of the ledger are"
            problems.append(f"{found.damaged} {word} damaged; each is counted as a question that decided nothing.")
        return (found.records, found.damaged) if found else ([], 0)

    def _looks(self, folder: ExperimentDir, problems: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """(all of verdict.json, its sound looks)."""
        if not folder.verdict_file.exists():
            return {}, []
        record = read_json(folder.verdict_file, folder.path)
        if record is None or not isinstance(record.get("looks"), list):
            problems.append(
                "verdict.json cannot be read; what the ledger says is shown, and the runs are as they were."
            )
            return {}, []
        looks = folder.looks()
        if odd := len(record["looks"]) - len(looks):
            problems.append(f"{odd} of the looks in verdict.json cannot be read.")
        return {key: tame(value) for key, value in record.items()}, looks

    def _asked(self, name: str) -> Asked:
        record = read_json(self.asked_file(name), self._context.runs, most=SMALL_BYTES) or {}
        argv, pieces = record.get("argv"), record.get("pieces")
        return Asked(
            tuple(str(word) for word in argv) if isinstance(argv, list) else (),
            {run: steps for run, steps in pieces.items() if RUN_NAME.fullmatch(run) and whole(steps)}
            if isinstance(pieces, dict) else {},
            number(record.get("seconds")), str(record.get("told") or ""), number(record.get("time")) or 0.0,
        )  # fmt: skip

    def _member(self, name: str, steps: int | None, place: tuple[str, int] | None) -> Member:
        run = RunDir(self._context.runs / name)
        stamp = (_mtime(run.status_file), _mtime(run.exit_file), steps, place)
        known = self._known.get(name)
        if known and known[0] == stamp and not known[1].at_work and stamp[0]:
            return known[1]
        found = _seen(run, steps, place)
        self._known[name] = (stamp, found)
        return found


def _lost(folder: ExperimentDir, problems: list[str]) -> None:
    """Says where questions are missing in the ledger that verdict.json still has."""
    try:
        if lost := len(folder.lost()):
            problems.append(
                f"The ledger has lost {lost} of its questions; the next one puts them back from verdict.json."
            )
    except UserError as error:
        if (told := f"{str(error)[:300]}.") not in problems:
            problems.append(told)


def settings_text(experiment: Experiment, runs: Path) -> str:
    """experiment.toml as it is written. UserError where it cannot be read."""
    folder = runs / FOLDER / experiment.name
    try:
        return read_inside(folder / "experiment.toml", folder, most=SMALL_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise UserError(f"experiment.toml cannot be read: {error.strerror or error}") from None


def _seen(run: RunDir, steps: int | None, place: tuple[str, int] | None) -> Member:
    parts = parts_of(run.name)
    arm, replicate = place or ((parts[1], parts[2]) if parts else (run.name, None))
    if not run.exists():
        return Member(run.name, arm, replicate, steps=steps)
    from mygpt2.experiments.pieces import outcome

    state, ended = state_of(run), outcome(run.path.parent, run.name)
    return Member(
        run.name, arm, replicate, ended.state, ended.step, steps or whole(state.status.get("steps")),
        number(state.status.get("loss")), ended.reason, ended.diverged,
    )  # fmt: skip


def _noted(folder: ExperimentDir, problems: list[str]) -> dict[str, dict[str, Any]]:
    """What arms.json says of the arms, by name."""
    if folder.arms_file.exists() and read_json(folder.arms_file, folder.path) is None:
        problems.append("arms.json cannot be read; arms are called by their short names.")
    return {str(name)[:40]: arm for name, arm in folder.arms().items()}


def _kind(settings: Mapping[str, Any]) -> str:
    """What the file of an experiment is of, by its sections."""
    return "sweep" if "axis" in settings else "ladder" if "ladder" in settings else ""


def _told(arm: Mapping[str, Any]) -> str:
    """What an arm is: its place on the axes of a sweep, else in the engine's words."""
    values = arm.get("values")
    if isinstance(values, dict) and values:
        return ", ".join(f"{str(name).rpartition('.')[2]} {value}" for name, value in values.items())[:200]
    return str(arm.get("told") or "")[:200]


def _places(noted: Mapping[str, Any], looks: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """(arm, replicate) of the runs that arms.json and looks name: those that were named are not called after it."""
    found: dict[str, tuple[str, int]] = {}
    for arm, known in noted.items():
        runs = known.get("runs")
        for place, name in (runs if isinstance(runs, dict) else {}).items():
            if isinstance(name, str) and RUN_NAME.fullmatch(name) and place.isdecimal() and len(place) < 6:
                found.setdefault(name, (arm, int(place)))
    for look in looks:
        pairs = look.get("replicates")
        for pair in pairs if isinstance(pairs, list) else []:
            if not isinstance(pair, dict):
                continue
            for key, arm in (("base", "base"), ("variant", str(look.get("variant") or "variant")[:40])):
                name = pair.get(key)
                if isinstance(name, str) and RUN_NAME.fullmatch(name):
                    found.setdefault(name, (arm, whole(pair.get("number")) or 1))
    return found


def _counted(look: dict[str, Any], ledger: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The look with how many different variants its baseline had been asked about by then."""
    then = number(look.get("time"))
    if not isinstance(look.get("ledger"), dict) or then is None:
        return look
    before = {str(line.get("variant")) for line in ledger if (number(line.get("time")) or 0.0) <= then}
    return {**look, "ledger": {**look["ledger"], "challengers": len(before) or 1}}


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
