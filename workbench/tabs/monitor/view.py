"""What the monitor shows: the list of runs, the chosen one, its chart, log and open pane, each only where it changed.

The page says which runs it shows, which pane is open and up to where it has read the log.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.experiments.folder import list_experiments
from mygpt2.experiments.standing import standing
from mygpt2.experiments.stopped import stopped_by
from mygpt2.launch.handed import Told, has_begun
from mygpt2.launch.handed import seen as seen_elsewhere
from mygpt2.launch.watching import Watching
from mygpt2.records import whole
from mygpt2.run_dir import RunDir, RunState, state_of
from mygpt2.run_dir.ghost import Ghost, ghost_of
from mygpt2.run_dir.mentions import HANDED, present_name
from mygpt2.run_dir.paths import NAME
from workbench import html
from workbench.context import Context
from workbench.jobs import Alert
from workbench.jobs.gpus import DeviceWatch
from workbench.jobs.policy import may_resume
from workbench.jobs.reading import starting
from workbench.jobs.records import HOLDING, WAITING
from workbench.live import Asked, News
from workbench.tabs.monitor import chips, diff, family, head, labels, logs, panes, table
from workbench.tabs.monitor.details import details
from workbench.tabs.monitor.glance import Glance, glance
from workbench.tabs.monitor.histories import Histories
from workbench.tabs.monitor.index import RunIndex, waits
from workbench.tabs.monitor.table import Trash
from workbench.tabs.monitor.trouble import ENDS, TOLD, trouble, waiting

MAX_RUNS = 8
SAVED = "Saved when you leave the field."
# What each button needs of the run, see `buttons`.
NEEDS = {
    "save": "stop", "now": "stop", "kill": "kill", "save_now": "ask", "sample_now": "ask", "resume": "resume",
    "train": "weights", "branch": "weights", "sample": "weights", "compare": "weights", "ripples": "use", "pair": "use",
    "star": "edit",
}  # fmt: skip
PANES = ("log", "samples", "notes", "settings", "results", "events", "details")


@dataclass(frozen=True)
class Ask:
    """What the page has and wants, as far as it made sense."""

    runs: tuple[str, ...] = ()
    focus: str = ""
    pane: str = "log"
    log: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)  # of the chart
    request: str = ""  # changes when the view was asked for from outside
    sample_at: int = 0
    all_rows: bool = False
    table: bool = False  # of all runs, in the place of one

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Ask:
        """Never raises; what is damaged is as if it were not there."""
        listed = found.get("runs")
        runs = [name for name in listed if _is_name(name)] if isinstance(listed, list) else []
        log, view, pane = (found.get(key) for key in ("log", "view", "pane"))
        return cls(
            tuple(dict.fromkeys(runs))[:MAX_RUNS],
            found["focus"] if _is_name(found.get("focus")) else "",
            pane if pane in PANES else "log",
            log if isinstance(log, dict) else {},
            view if isinstance(view, dict) else {},
            str(found.get("request", "")),
            whole(found.get("at")) or 0,
            bool(found.get("all")),
            found.get("table") is True,
        )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


@dataclass(frozen=True)
class Monitor:
    """What one server remembers for all its pages: caches of what lies in the run folders, nothing else."""

    context: Context
    index: RunIndex
    watching: Watching
    histories: Histories = field(default_factory=Histories)
    devices: DeviceWatch = field(default_factory=DeviceWatch)
    trash: Trash = field(default_factory=Trash)

    @classmethod
    def over(cls, context: Context) -> Monitor:
        watching = Watching(context.runs)
        index = RunIndex(context.runs, at_work=context.jobs.at_work, read_only=context.read_only,
                         elsewhere=watching.look)  # fmt: skip
        return cls(context, index, watching)


def look(monitor: Monitor, asked: Asked, news: News) -> None:
    """Everything there is to see, see `tab.build` for where it stands."""
    context, ask = monitor.context, Ask.parse(asked)
    alerts = context.jobs.alerts()
    again = monitor.index.working()  # whose end was another attempt's
    counts = Counter(
        alert.run for alert in alerts if alert.level == "error" and not (alert.kind in TOLD and alert.run in again)
    )
    changes = monitor.index.changes(news.had("list"), counts)
    news.known_by("data", "list", changes["mark"], lambda: changes)
    news.tell("readOnly", context.read_only)
    news.tell("experiments", [each.name for each in list_experiments(context.runs)])
    asked_for = {name: present_name(context.runs, name) for name in (*ask.runs, ask.focus) if name}
    news.tell("renamed", {name: now for name, now in asked_for.items() if now != name})
    if ask.table:
        table.tell(monitor.index, monitor.trash, context.runs, news)
    news.set("chart", stamp=(ask.runs, ask.request), value={**ask.view, "runs": list(ask.runs)})
    run = _focus(context, ask.focus)
    job = next((job.state for job in context.jobs.queue() if run and job.run == run.name), "")
    ghost = ghost_of(run) if run else None
    told = monitor.index.told.get(run.name) if run else None
    state = seen_elsewhere(starting(state_of(run), job in HOLDING), told) if run else None
    may = buttons(state, read_only=context.read_only, job=job, ghost=ghost is not None, told=told)
    news.tell("enabled", {f"wb-do-{name}": may[need] for name, need in NEEDS.items()})
    if run is None or state is None:
        gone = html.empty(f"There is no run {ask.focus}.", "Choose one from the list.") if ask.focus else html.empty("")
        news.show("head", gone)
        news.show("trouble", "")
    else:
        seen = glance(run, state, monitor.histories.events(run))
        news.show("head", head.head(seen, _place(context, ask, seen, may, alerts, ghost, told)))
        launcher = _launcher(context, run, told)
        wrong = trouble(seen, alerts, launcher, may_resume=may["resume"], waits=job in WAITING)
        news.show("trouble", waiting(state) if waits(told, state.state) else wrong)
        _note(run, context.read_only, news)
        _pane(monitor, ask, seen, alerts, news)
    works = monitor.index.at_work or monitor.index.measuring > 0 or changes["shared"]
    leaves = state is not None and bool(state.processes)  # it has ended, its processes not yet: no file tells when
    news.busy = works or leaves or bool(context.jobs.queue()) or _stops(context, run)


def _place(
    context: Context, ask: Ask, seen: Glance, may: Mapping[str, bool], alerts: Sequence[Alert], ghost: Ghost | None,
    told: Told | None,
) -> head.Place:  # fmt: skip
    """What the head has to know of the queue, the alerts and what was asked for."""
    name, queue = seen.run.name, [job for job in context.jobs.queue() if job.state in WAITING]
    waiting = next((number for number, job in enumerate(queue, 1) if job.run == name), 0)
    stop, halted = context.jobs.stop_of(name), stopped_by(seen.run, seen.state)
    found = [
        *family.chip(seen.run),
        *chips.halted_chips(halted),
        *chips.stop_chips(stop, alive=seen.state.alive),
        *chips.rank_chips(seen.state),
        *chips.band_chips(standing(seen.run)),
        *chips.alert_chips(alerts, name, no_chips(seen.state)),
    ]
    return head.Place(
        may, waiting, len(queue), stop is not None and not stop.done, found, labels.read_labels(seen.run).star,
        len(ask.runs) > 1, ghost, _unbegun(seen.state, told) or waits(told, seen.state.state), halted,
    )  # fmt: skip


def no_chips(state: RunState) -> tuple[str, ...]:
    """Kinds of alerts that are no chip: of which the page says more, and low disk for a run that writes no more."""
    over = ("disk",) if not state.alive and state.state != "queued" else ()
    return (*(TOLD if state.state in ENDS or state.alive else ()), *over)


def _stops(context: Context, run: RunDir | None) -> bool:
    """Whether a stop of the run is under way."""
    stop = context.jobs.stop_of(run.name) if run else None
    return stop is not None and not stop.done


def _focus(context: Context, name: str) -> RunDir | None:
    if not name:
        return None
    try:
        return context.run(name)
    except UserError:
        return None  # it was removed; the list says so


def _pane(monitor: Monitor, ask: Ask, seen: Glance, alerts: Sequence[Alert], news: News) -> None:
    """The parts of the pane that is open."""
    run = seen.run
    if ask.pane == "samples":
        timeline = panes.moments(monitor.histories.samples(run))
        count, at = len(timeline), ask.sample_at
        name, _, before = news.had("slider").rpartition(":")
        digest = f"{run.name}:{count}"
        if digest != f"{name}:{before}":
            stays = name == run.name and 0 < at < int(before or 0)  # looking back, not at the newest
            at = at if stays else count
        place = {"maximum": max(2, count), "value": max(1, at), "visible": count > 1}
        news.known_by("fields", "slider", digest, lambda: place)
        news.show("samples", panes.samples(timeline, at))
    elif ask.pane == "events":
        news.show("alerts", panes.alerts(alerts, run.name))
        news.show("events", panes.events(monitor.histories.events(run)))
    elif ask.pane == "details":
        told = details(seen, monitor.devices.devices() if seen.state.alive else [])
        news.show("details", html.join([told, _of_cluster(monitor, run)]))
    elif ask.pane == "results":
        news.show("results", lambda: panes.results(run), stamp=(run.name, _stamp(run.evals_dir)))
    elif ask.pane == "settings":
        chosen = [found for name in ask.runs or (run.name,) if (found := _focus(monitor.context, name))]
        stamps = [(r.name, _stamp(r.config_file), _stamp(r.command_file), _stamp(r.checkpoints_dir)) for r in chosen]
        news.show("settings", lambda: diff.table(chosen, all_rows=ask.all_rows), stamp=(stamps, ask.all_rows))
    elif ask.pane == "log" and (log := _log(monitor.context, run, ask.log, monitor.index.told.get(run.name))):
        news.send("log", log)


def _of_cluster(monitor: Monitor, run: RunDir) -> html.Markup:
    """To which job the run was handed, and how often its engine was asked; nothing for one that was not handed over."""
    told = monitor.index.told.get(run.name)
    if told is None:
        return html.Markup("")
    watching, ended = monitor.watching, f", {told.handed.ended}" if told.handed.ended else ""
    asked = f"engines were asked {watching.questions:,} times since this server began, {watching.unanswered:,} in vain"
    return html.note(f"Handed over: {told.handed.title}{ended}; {asked}.")


def _unbegun(state: RunState, told: Told | None) -> bool:
    """Whether a run was handed to a cluster and never began; what is left of it has to be settled."""
    return told is not None and not told.handed.ended and not state.processes and not has_begun(told.handed, state)


def buttons(
    state: RunState | None, *, read_only: bool, job: str = "", ghost: bool = False, told: Told | None = None
) -> dict[str, bool]:
    """Which buttons make sense now. `job`: the state of the run's place in the queue, if it has one: whose launcher is
    not known to be gone, or who is to be started again, can be stopped and not resumed; nor can who waits elsewhere.
    `ghost`: it has no weights."""
    alive = state is not None and (state.alive or bool(state.processes) or job in HOLDING)
    unbegun = state is not None and _unbegun(state, told)
    queued = state is not None and (state.state == "queued" or job in WAITING or unbegun)
    change = not read_only and state is not None
    return {
        "stop": change and (alive or queued),
        "kill": change and alive and not unbegun,
        "ask": change and state is not None and state.alive and not unbegun,
        "resume": change and state is not None and may_resume(state) and not (job or ghost or unbegun),
        "edit": change,
        "use": state is not None,
        "weights": state is not None and not ghost,
    }


def _note(run: RunDir, read_only: bool, news: News) -> None:
    """What the note's fields show when a run is chosen; later they are the person's who types."""
    found, foreign = labels.read_labels(run), labels.foreign_note(run)
    of = {"run": run.name, "digest": labels.note_digest(found.note)}
    news.set("note", run.name, value=found.note, interactive=not foreign and not read_only, info=foreign or SAVED)
    news.set("note_of", run.name, value=of)
    news.set("tags", run.name, value=", ".join(found.tags), interactive=not read_only)


def _log(context: Context, run: RunDir, wanted: Mapping[str, Any], told: Told | None) -> dict[str, Any] | None:
    """What is new in the chosen log, or None. Another run or another log starts anew."""
    files = logs.log_files(run, _launcher(context, run, told))
    name = logs.choose(files, str(wanted.get("file", "")))
    offset = wanted.get("offset")
    same = wanted.get("run") == run.name and wanted.get("file") == name and type(offset) is int
    if not name:
        return None if wanted.get("run") == run.name else {"run": run.name, "files": [], "file": "", "fresh": True}
    try:
        root = files[name].parent if name == logs.LAUNCHER else run.path
        news = logs.read_log(files[name], offset if same else None, root)
    except UserError as error:
        news = {"lines": [], "open": str(error), "offset": 0, "fresh": True, "skipped": 0}
    known = wanted.get("files") == list(files)
    if same and known and not news["fresh"] and not news["lines"] and news["open"] == wanted.get("open"):
        return None
    return {"run": run.name, "file": name, "files": list(files), "from": offset if same else None, **news}


def _launcher(context: Context, run: RunDir, told: Told | None) -> Path | None:
    """The log of who started the run: of the queue here, or of a batch script of SLURM."""
    if told is not None and told.handed.target == "slurm" and told.handed.job:
        return context.runs / HANDED / f"{run.name}-{told.handed.job}.log"
    job = context.jobs.job_of(run.name)
    return context.jobs.log_file(job) if job else None


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
