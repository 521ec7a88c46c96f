"""One question of the page, one answer: what changed since it asked last. The page remembers, the server does not.

The browser sends which runs it shows, which pane is open, up to where it has read the log, and a digest of every part
of the page it has. Parts whose digest is still the same are not sent, and where possible not even made.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunState, state_of
from mygpt2.run_dir.paths import NAME
from workbench import html
from workbench.context import Context
from workbench.jobs.policy import may_resume
from workbench.jobs.records import HOLDING, WAITING
from workbench.tabs.monitor import diff, head, labels, logs, panes
from workbench.tabs.monitor.devices import DeviceWatch
from workbench.tabs.monitor.histories import Histories
from workbench.tabs.monitor.index import RunIndex, starting

MAX_RUNS = 8
SAVED = "Saved when you leave the field."
PANES = ("log", "samples", "notes", "settings", "results", "events", "export")


@dataclass(frozen=True)
class Ask:
    """What the page has and wants, as far as it made sense."""

    runs: tuple[str, ...] = ()
    focus: str = ""
    mark: str = ""
    pane: str = "log"
    digests: Mapping[str, str] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)
    view: Mapping[str, Any] = field(default_factory=dict)  # of the chart
    request: str = ""  # changes when the view was asked for from outside

    @classmethod
    def parse(cls, text: str | None) -> Ask:
        """Never raises; what is damaged is as if it were not there."""
        try:
            found = json.loads(text or "{}")
        except (ValueError, RecursionError):
            return cls()
        if not isinstance(found, dict):
            return cls()
        listed = found.get("runs")
        runs = [name for name in listed if _is_name(name)] if isinstance(listed, list) else []
        digests, log, view, pane = (found.get(key) for key in ("digests", "log", "view", "pane"))
        return cls(
            tuple(dict.fromkeys(runs))[:MAX_RUNS],
            found["focus"] if _is_name(found.get("focus")) else "",
            str(found.get("mark", "")),
            pane if pane in PANES else "log",
            {str(k): str(v) for k, v in digests.items()} if isinstance(digests, dict) else {},
            log if isinstance(log, dict) else {},
            view if isinstance(view, dict) else {},
            str(found.get("request", "")),
        )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and NAME.fullmatch(value) is not None


@dataclass(frozen=True)
class Monitor:
    """What one server remembers for all its pages: caches of what lies in the run folders, nothing else."""

    context: Context
    index: RunIndex
    histories: Histories = field(default_factory=Histories)
    devices: DeviceWatch = field(default_factory=DeviceWatch)

    @classmethod
    def over(cls, context: Context) -> Monitor:
        return cls(context, RunIndex(context.runs, at_work=context.jobs.at_work))


class Answer:
    """Collects parts that changed. `parts` by name; `digests` of the parts that the page now has."""

    def __init__(self, ask: Ask) -> None:
        self._had = ask.digests
        self.parts: dict[str, Any] = {}
        self.digests: dict[str, str] = {}

    def made(self, name: str, value: Any) -> None:
        """A part that costs little to make: sent if it differs from what the page has."""
        self.stamped(name, value, lambda: value)

    def stamped(self, name: str, stamp: Any, make: Callable[[], Any]) -> None:
        """A part that is made only when what it is made of has changed."""
        self.known_by(name, hashlib.blake2b(repr(stamp).encode(), digest_size=8).hexdigest(), make)

    def known_by(self, name: str, digest: str, make: Callable[[], Any]) -> None:
        """A part with a digest that says more than whether it is the same."""
        if self._had.get(name) != digest:
            self.parts[name] = make()
            self.digests[name] = digest


def answer(monitor: Monitor, ask: Ask, *, sample_at: int = 0, all_rows: bool = False) -> dict[str, Any]:
    """{"board": dict for the page's script or absent, and parts by name}; absent parts have not changed.

    Parts: busy (whether it is worth asking again soon), mixed, head, ranks, stop, alerts, buttons, and of the open pane
    samples, slider, note, settings, results, events.
    """
    context = monitor.context
    alerts = context.jobs.alerts()
    counts = Counter(alert.run for alert in alerts if alert.level == "error")
    board: dict[str, Any] = {}
    changes = monitor.index.changes(ask.mark, counts)
    if changes["mark"] != ask.mark:
        board["list"] = changes
    collected = Answer(ask)
    collected.made("mixed", mixed(monitor.index.tokenizers(ask.runs)))
    run = _focus(context, ask.focus)
    collected.stamped("chart", (ask.runs, ask.request), lambda: {**ask.view, "runs": list(ask.runs)})
    if run is None:
        gone = html.empty(f"There is no run {ask.focus}.", "Choose one from the list.") if ask.focus else html.empty("")
        collected.made("head", gone)
        collected.made("alerts", panes.alerts(alerts, ""))
        collected.made("buttons", buttons(None, read_only=context.read_only))
    else:
        job = next((job.state for job in context.jobs.queue() if job.run == run.name), "")
        state = starting(state_of(run), job in HOLDING)
        events = monitor.histories.events(run)
        collected.made("head", head.head(head.glance(run, state, events)))
        collected.made("ranks", head.ranks(state, monitor.devices.devices() if state.alive else []))
        collected.made("stop", head.stop_report(context.jobs.stop_of(run.name)))
        collected.made("alerts", panes.alerts(alerts, run.name))
        collected.made("buttons", buttons(state, read_only=context.read_only, job=job))
        collected.stamped("note", run.name, lambda: note(run, context.read_only))
        _pane(monitor, ask, run, collected, sample_at, all_rows)
        if ask.pane == "log":
            log = _log(context, run, ask.log)
            if log:
                board["log"] = log
    collected.made("busy", monitor.index.at_work or bool(context.jobs.queue()) or _stops(context, run))
    if collected.digests:
        board["digests"] = collected.digests
    return {**collected.parts, **({"board": board} if board else {})}


def mixed(tokenizers: Mapping[str, str]) -> html.Markup:
    """That the losses of the chosen runs do not compare, where their tokenizers differ; nothing where they do."""
    if len(set(tokenizers.values())) < 2:
        return html.Markup("")
    words = "; ".join(f"{run}: {spec}" for run, spec in tokenizers.items())
    text = "These runs have different tokenizers, so their losses per token do not compare; Compare gives bits per byte"
    return html.Markup(f'<p class="wb-warn" role="status">{html.escape(f"{text} ({words}).")}</p>')


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


def _pane(monitor: Monitor, ask: Ask, run: RunDir, collected: Answer, sample_at: int, all_rows: bool) -> None:
    """The parts of the pane that is open."""
    if ask.pane == "samples":
        timeline = panes.moments(monitor.histories.samples(run))
        count = len(timeline)
        before = ask.digests.get("slider", "").rpartition(":")
        stays = before[0] == run.name and 0 < sample_at < int(before[2] or 0)  # looking back, not at the newest
        at = sample_at if stays else count
        collected.known_by("slider", f"{run.name}:{count}", lambda: {"count": count, "at": at})
        if "slider" not in collected.parts:
            at = sample_at
        collected.made("samples", panes.samples(timeline, at))
    elif ask.pane == "events":
        collected.made("events", panes.events(monitor.histories.events(run)))
    elif ask.pane == "results":
        collected.stamped("results", (run.name, _stamp(run.evals_dir)), lambda: panes.results(run))
    elif ask.pane == "settings":
        chosen = [found for name in ask.runs or (run.name,) if (found := _focus(monitor.context, name))]
        stamps = [(r.name, _stamp(r.config_file), _stamp(r.command_file), _stamp(r.checkpoints_dir)) for r in chosen]
        collected.stamped("settings", (stamps, all_rows), lambda: diff.table(chosen, all_rows=all_rows))


def buttons(state: RunState | None, *, read_only: bool, job: str = "") -> dict[str, bool]:
    """Which buttons make sense now. `job`: the state of the run's place in the queue, if it has one: whose launcher is
    not known to be gone, or who is to be started again, can be stopped and not resumed."""
    alive = state is not None and (state.alive or bool(state.processes) or job in HOLDING)
    queued = state is not None and (state.state == "queued" or job in WAITING)
    change = not read_only and state is not None
    return {
        "stop": change and (alive or queued),
        "kill": change and alive,
        "ask": change and state is not None and state.alive,
        "resume": change and state is not None and may_resume(state) and not job,
        "edit": change,
        "use": state is not None,
    }


def note(run: RunDir, read_only: bool) -> dict[str, Any]:
    """What the note's fields show when a run is chosen."""
    found, foreign = labels.read_labels(run), labels.foreign_note(run)
    return {
        "run": run.name,
        "note": found.note,
        "digest": labels.note_digest(found.note),
        "editable": not foreign and not read_only,
        "info": foreign or SAVED,
        "tags": ", ".join(found.tags),
    }


def _log(context: Context, run: RunDir, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is new in the chosen log, or None. Another run or another log starts anew."""
    job = context.jobs.job_of(run.name)
    files = logs.log_files(run, context.jobs.log_file(job) if job else None)
    name = logs.choose(files, str(wanted.get("file", "")))
    offset = wanted.get("offset")
    same = wanted.get("run") == run.name and wanted.get("file") == name and type(offset) is int
    if not name:
        return None if wanted.get("run") == run.name else {"run": run.name, "files": [], "file": "", "fresh": True}
    try:
        root = context.jobs.store.folder if name == logs.LAUNCHER else run.path
        news = logs.read_log(files[name], offset if same else None, root)
    except UserError as error:
        news = {"lines": [], "open": str(error), "offset": 0, "fresh": True, "skipped": 0}
    known = wanted.get("files") == list(files)
    if same and known and not news["fresh"] and not news["lines"] and news["open"] == wanted.get("open"):
        return None
    return {"run": run.name, "file": name, "files": list(files), "from": offset if same else None, **news}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
