"""From a form's values to an experiment: checked by the engine, with its cost, and the one command that runs it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mygpt2.config import preset_names
from mygpt2.errors import UserError
from mygpt2.experiments.arms import Arm, Spec, parts_of, read_arm, replicates, run_name
from mygpt2.experiments.cost import Cost, cost
from mygpt2.experiments.folder import check_experiment
from mygpt2.experiments.pieces import Piece
from mygpt2.experiments.running import missing
from mygpt2.files import cannot_write, replace_json
from mygpt2.format import duration
from mygpt2.planning import likely_device
from mygpt2.run_dir.marks import current_runs
from workbench import forms, words
from workbench.context import Context
from workbench.evaluations.start import protocol_of, protocols
from workbench.jobs import Task
from workbench.jobs.records import HOLDING
from workbench.judging import LABEL, source_name
from workbench.tabs.experiments import files
from workbench.tabs.experiments.found import KIND, KINDS, Experiments

RUN, PRESET = "run:", "preset:"
MOST_CHANGES = 40  # lines of changed settings
MOST_STEPS = 10**9
AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)  # times the base's value
Values = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """An experiment that can begin. `pieces` are its runs and their steps, `file` what is written before it starts."""

    kind: str
    name: str
    argv: tuple[str, ...]
    pieces: Mapping[str, int]
    cost: Cost
    told: str
    device: str
    notes: tuple[str, ...] = ()
    file: tuple[Path, str] | None = field(default=None)

    @property
    def command(self) -> str:
        return shlex.join(("python", *self.argv[1:]))


def choices(context: Context) -> list[tuple[str, str]]:
    """(label, value) of what an experiment can begin from: runs, then presets."""
    runs = [(run.name, RUN + run.name) for run in current_runs(context.runs) if run.config_file.is_file()]
    return [*runs, *((f"preset {name}", PRESET + name) for name in preset_names())]


def texts(context: Context) -> list[tuple[str, str]]:
    """(label, value) of the texts that arms can be scored on."""
    return [("held-out text of the base", "run"), *protocols(context)]


def default_base(context: Context, ticked: Any) -> str:
    """What to begin with where nothing was chosen: a run that is ticked in Monitor, or the latest that is no arm."""
    listed = ticked if isinstance(ticked, list) else []
    own = [run for run in current_runs(context.runs) if not parts_of(run.name) and run.config_file.is_file()]
    names = {run.name for run in own}
    if wanted := next((name for name in listed if name in names), None):
        return RUN + str(wanted)
    latest = max(own, key=lambda run: run.config_file.stat().st_mtime, default=None)
    return RUN + latest.name if latest else PRESET + "tiny"


def plan(context: Context, kind: str, values: Values) -> Plan:
    """What this form would begin. Reads, and writes nothing. UserError for what cannot be."""
    if kind not in PLANS:
        raise UserError(f"experiments of kind {kind!r} are not known; choose from: {', '.join(PLANS)}")
    return PLANS[kind](context, values)


def judge(context: Context, values: Values) -> Plan:
    """Is the variant better than the base?"""
    from mygpt2.experiments.judge import Question, prepare

    common = _steps(values)
    changed = changes(context, str(values.get("changes") or ""))
    base, named = str(values.get("base") or ""), str(values.get("variant") or "")
    if not named and not changed:
        raise UserError("choose what to compare with, or change a setting of the base, such as optimizer.lr = 0.003")
    base_spec = Spec(_what(context, base), tuple(common))
    variant_spec = Spec(_what(context, named or base), (*common, *changed))
    protocol = protocol_of(context, values.get("protocol") or "run")
    count = _whole(values.get("replicates"), "Pairs of seeds", 3)
    source = source_name(values.get("source") or "")
    prepared = prepare(Question(base_spec, variant_spec, context.runs, count, protocol, source=source))
    for arm in (prepared.base, prepared.variant):
        _check_files(context, arm)
    argv = [base_spec.what, *([variant_spec.what] if named else []), "--replicates", str(count), "--protocol", protocol]
    argv += [*(["--source", source] if source else []), "--runs", str(context.runs), *_prefixed("base", common)]
    argv += _prefixed("variant", [*(common if named else []), *changed])
    return Plan(
        "judge", prepared.experiment, _command("judge", argv),
        {piece.run: piece.config.train.steps for piece in prepared.all_pieces}, prepared.cost(),
        f"Is {prepared.variant.told} better than {prepared.base.told}?",
        likely_device(prepared.base.config.train.device), tuple(prepared.notices),
    )  # fmt: skip


def sweep(context: Context, values: Values) -> Plan:
    """Would another value of a setting be better?"""
    from mygpt2.experiments.grid import read_file
    from mygpt2.experiments.swept import compares

    arm = _base_arm(context, values)
    setting, grid = _axis(arm, values)
    steps, margin = _steps(values), files.several(values.get("margin") or "0.002", "Margin", float)
    own: dict[str, Any] = {
        "base": _what(context, str(values.get("base"))), "looks": _whole(values.get("looks"), "Looks", 3, 3),
        "margin": margin[0], "replicates": _whole(values.get("replicates"), "Pairs of seeds", 1),
        "protocol": protocol_of(context, values.get("protocol") or "run"),
    }  # fmt: skip
    name = _name(context, values, f"sweep-{arm.told}-{setting.rpartition('.')[2]}")
    text = files.swept(own, setting, grid, int(steps[1]) if steps else None)
    with files.on_disk(text, name) as file:
        made = _said_of(file, lambda: read_file(file, context.runs)[1])
    pairs = replicates(made.base.config, made.replicates)
    pieces = [
        Piece(run_name(name, short, pair.number), pair.of(each.config), each.preset)
        for short, each in made.arms.items() for pair in pairs
    ]  # fmt: skip
    looks = ", ".join(f"{step:,}" for step in made.looks)
    return Plan(
        "sweep", name, _command("sweep", [str(_file(context, name)), "--runs", str(context.runs)]),
        {piece.run: piece.config.train.steps for piece in pieces}, cost(missing(pieces, context.runs), context.runs),
        f"{len(grid)} values of {setting} on {arm.told}: {', '.join(f'{value:g}' for value in grid)}",
        likely_device(made.base.config.train.device),
        (f"That is the full grid; looks at steps {looks} compare {compares(made)}; what loses there stops.",),
        (_file(context, name), text),
    )  # fmt: skip


def _axis(arm: Arm, values: Values) -> tuple[str, list[float]]:
    """The setting, and its values: those given, else five around the base's."""
    optimizer = arm.config.optimizer
    setting = str(values.get("axis") or ("optimizer.muon_lr" if optimizer.name == "muon" else "optimizer.lr"))
    if given := files.several(values.get("values"), "Values", float):
        return setting, sorted(set(given))
    section, _, key = setting.partition(".")
    now = getattr(getattr(arm.config, section, None), key, None)
    if not isinstance(now, int | float) or not now > 0:
        raise UserError(f"{setting} has no positive value in {arm.told}; write the values, such as 0.001, 0.003, 0.01")
    return setting, sorted({float(f"{now * factor:.3g}") for factor in AROUND})


def ladder(context: Context, values: Values) -> Plan:
    """What would the next size give?"""
    from mygpt2.experiments.ladder import Ladder
    from mygpt2.experiments.ladder_file import OWN, QUIET, read_ladder
    from mygpt2.experiments.rungs import Plan as Sizes

    arm = _base_arm(context, values)
    own: dict[str, Any] = {
        "depths": files.several(values.get("depths") or "1, 2, 3, 4", "Sizes", int),
        "tokens": files.several(values.get("tokens") or "400k, 800k, 1.6M, 3.2M", "Budgets", files.tokens),
        "next": _next(values.get("next")), "protocol": protocol_of(context, values.get("protocol") or "run"),
        "foretell": [word for word in str(values.get("foretell") or "").replace(",", " ").split() if word],
    }  # fmt: skip
    name = _name(context, values, f"ladder-{arm.told}")
    text = files.written("ladder", own, arm.config, arm.preset, (*OWN, *QUIET))
    with files.on_disk(text, name) as file:
        made = _said_of(file, lambda: Ladder(Sizes(read_ladder(file)), context.runs))
    pieces = [piece for rung in made.all_rungs for piece in rung.pieces]
    last = f", and {own['next']} layers foretold" if own["next"] else ""
    return Plan(
        "ladder", name, _command("ladder", [str(_file(context, name)), "--runs", str(context.runs)]),
        {piece.run: piece.config.train.steps for piece in pieces}, made.cost(),
        f"{len(own['depths'])} sizes of {arm.told} at {len(own['tokens'])} budgets{last}",
        likely_device(arm.config.train.device), file=(_file(context, name), text),
    )  # fmt: skip


def _next(value: Any) -> int:
    text = str(value if value not in (None, "") else "5").strip()
    return 0 if text == "0" else _whole(text, "Next size", 5, 200)


def _name(context: Context, values: Values, stem: str) -> str:
    """The name that was given, or one that is free."""
    given = str(values.get("name") or "").strip()
    return check_experiment(given) if given else files.free_name(context.runs, stem)


def _file(context: Context, name: str) -> Path:
    """Where the page writes the file that the command reads."""
    return context.runs / ".workbench" / "experiments" / f"{name}.toml"


def _said_of(file: Path, make: Callable[[], T]) -> T:
    """What is wrong with a file that is there for a moment only is said without its path."""
    try:
        return make()
    except UserError as error:
        raise UserError(str(error).replace(f"{file}: ", "")) from None


def _base_arm(context: Context, values: Values) -> Arm:
    arm = read_arm(Spec(_what(context, str(values.get("base") or ""))), context.runs)
    _check_files(context, arm)
    return arm


def cost_told(context: Context, made: Plan) -> list[str]:
    """What an experiment takes, in sentences: time, machine, and what waits before it."""
    taken, lines = made.cost, []
    if not taken.runs:
        lines.append("Nothing is to be trained: all of its runs are there.")
    elif taken.seconds is None:
        lines.append(
            f"{_runs(taken.runs)} to train, {words.brief(taken.tokens)} tokens; how long is not known: "
            f"{taken.basis.removeprefix('unknown: ')}."
        )
    else:
        spread = f" ({duration(taken.low or 0)} to {duration(taken.high or 0)})" if taken.low and taken.high else ""
        lines.append(
            f"About {duration(taken.seconds)}{spread}: {_runs(taken.runs)} to train, {words.brief(taken.tokens)} "
            f"tokens; {taken.basis}."
        )
    if taken.runs:
        lines.append(
            f"One run after the other, each with all of this machine's {made.device}; evaluations come on top."
        )
    busy = [job.run for job in context.jobs.queue() if job.state in HOLDING]
    waiting = len(context.jobs.queue()) - len(busy)
    if busy:
        lines.append(
            f"At work now: {', '.join(busy[:3])}; it waits in the queue{f' behind {waiting} more' if waiting else ''}."
        )
    return lines


def start(context: Context, experiments: Experiments, made: Plan) -> Task:
    """Begins an experiment as a task that outlives page and server. UserError where it is under way already."""
    context.changes()
    check_experiment(made.name)
    tasks = context.jobs.tasks
    if experiments.running(made.name):
        raise UserError(f"{made.name} is at work already; wait for it, or stop it first")
    record = {
        "schema": 1, "kind": made.kind, "argv": list(made.argv), "pieces": dict(made.pieces),
        "seconds": made.cost.seconds, "told": made.told, "time": time.time(),
    }  # fmt: skip
    file = experiments.asked_file(made.name)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if made.file:
            made.file[0].write_text(made.file[1], encoding="utf-8")
        replace_json(file, record)
    except OSError as error:
        raise cannot_write(file, error) from None
    return tasks.start(KIND, made.argv, label=LABEL + made.name)


def go_on(context: Context, experiments: Experiments, name: str) -> Task:
    """Starts an experiment that was stopped by the command it was begun with."""
    context.changes()
    one = experiments.get(name)
    words = one.argv
    if one.at_work:
        raise UserError(f"{name} is at work already")
    if len(words) < 4 or words[1:3] != ("-m", "mygpt2") or words[3] not in KINDS:
        raise UserError(f"{name} was not begun on this page; give its command once more in a terminal, and it goes on")
    return context.jobs.tasks.start(KIND, (sys.executable, *words[1:]), label=LABEL + name)


def changes(context: Context, text: str) -> list[str]:
    """Settings as a person types them, a line each (`optimizer.lr = 0.003`), as words of a command. UserError."""
    found: list[str] = []
    lines = [line.strip() for line in text.replace(";", "\n").splitlines() if line.strip()]
    if len(lines) > MOST_CHANGES:
        raise UserError(f"{len(lines)} changed settings are too many; give at most {MOST_CHANGES}")
    for line in lines:
        name, sign, value = line.removeprefix("--").partition("=" if "=" in line else " ")
        name, value = name.strip(), value.strip()
        if not sign or not value or "." not in name:
            raise UserError(f"{line[:80]!r} is not a setting; write one on each line, such as optimizer.lr = 0.003")
        if name in forms.NAMING:
            forms.NAMING[name](context, value.strip("\"'"))
        found += [f"--{name}", value.strip("\"'")]
    return found


def _what(context: Context, value: str) -> str:
    """A choice as the engine takes it, checked: a run of this folder, or a preset."""
    if value.startswith(PRESET) and value.removeprefix(PRESET) in preset_names():
        return value
    name = value.removeprefix(RUN)
    if not name:
        raise UserError("no run is chosen; choose a run or a preset to begin from")
    run = context.run(name)
    context.configuration(run)
    return RUN + run.name


def _check_files(context: Context, arm: Arm) -> None:
    """UserError where the settings of an arm name data or models that nobody may type here."""
    for name, text in forms.named_in(arm.config):
        forms.NAMING[name](context, text)


def _steps(values: Values) -> list[str]:
    steps = values.get("steps")
    if steps in (None, "", 0):
        return []
    return ["--train.steps", str(_whole(steps, "Steps", 0, MOST_STEPS))]


def _whole(value: Any, what: str, default: int, most: int = 100) -> int:
    if value in (None, ""):
        return default
    text = str(value).strip()
    found = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None
    if found is None or not 1 <= found <= most:
        raise UserError(f"{what}: {str(value)[:40]!r} is not possible; give a whole number from 1 to {most:,}")
    return found


def _prefixed(who: str, settings: list[str]) -> list[str]:
    return [f"--{who}.{word.removeprefix('--')}" if i % 2 == 0 else word for i, word in enumerate(settings)]


def _command(verb: str, rest: list[str]) -> tuple[str, ...]:
    return (sys.executable, "-m", "mygpt2", verb, *rest)


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"


PLANS: dict[str, Callable[[Context, Values], Plan]] = {"sweep": sweep, "judge": judge, "ladder": ladder}
