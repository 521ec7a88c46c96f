"""The chart's data: what the browser asks for, and what it is told. Only reads."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mygpt2.config.mix import MOST_SOURCES
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.by_source import TARGETS
from mygpt2.run_dir.ghost import ghost_of
from mygpt2.run_dir.lines import Cursor, news
from mygpt2.run_dir.metrics import resets
from mygpt2.run_dir.settings import tokenizer_of
from workbench.charts.host import hosts_of
from workbench.charts.marks import alert_marks, marks
from workbench.charts.sources import column_source, sources_of
from workbench.charts.view import COLUMNS, MAX_RUNS
from workbench.colours import colours_of
from workbench.columns import fresh
from workbench.jobs.reading import muon_times, starting

MAX_ALERTS = 100
MANY = 1000  # equal values, as of memory or of a rate that is held, are told as one


class Runs(Protocol):
    """What is needed of `workbench.context.Context`."""

    def run(self, name: str) -> RunDir: ...

    def path(self, text: str, what: str) -> Path: ...

    @property
    def runs(self) -> Path: ...

    @property
    def read_only(self) -> bool: ...

    @property
    def jobs(self) -> Any: ...


def points(context: Runs, request: Any) -> list[dict[str, Any]]:
    """One reply for each of `request["wants"]`, at most eight: {"run", "cursor", "until"}, of `request["columns"]`.

    A cursor is what the last reply held, None at first; it says all there is to know, so any server can go on from it,
    also after a restart. `until` is a byte offset to stop at, for columns that are fetched later. A reply has

    run, state, step    the run, what it does now, and its last step as status.json has it
    colour, tokenizer   the number of its --wb-run-N, see `workbench.colours`; its tokenizer as its settings name it
    ghost               of an imported log its protocol, or that it is not known; None for a run of this program
    muon                how many times the logged learning rate Muon's is, None without Muon
    rows                how many are new; in file order, so rows of overwritten steps come first
    steps, tokens       see `rows.progression`
    attempts            [[row, attempt]] where another attempt begins
    resets              [[row, step]]: before this row, forget (or dim) the rows from this step on
    columns             by name float32 as base64, a number where MANY are that one, None for nothing but nulls
    sources             where another attempt begins, the sources of a mixture, see `sources.sources_of`; their columns
                        are loss.NAME, with which comes targets.NAME, how many targets a row had of it
    marks               see `marks.marks`
    hosts               in the first reply: what is known of the machine at that time, see `host.hosts_of`
    replaced            true when the file is another one: forget everything
    more                true when there is more to fetch at once
    problem             in place of all that, why there is nothing
    """
    request = request if isinstance(request, Mapping) else {}
    wants, names = request.get("wants"), request.get("columns")
    names = names if isinstance(names, list) else []
    columns = [name for name in COLUMNS if name in names]
    columns += [name for name in dict.fromkeys(map(str, names)) if column_source(name) is not None][:MOST_SOURCES]
    wants = [want for want in wants if isinstance(want, Mapping)] if isinstance(wants, list) else []
    return [_reply(context, want, columns) for want in wants[:MAX_RUNS]]


def _reply(context: Runs, want: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    name = str(want.get("run", ""))
    try:
        run = context.run(name)
        return {"run": name, **_state(context, run), **_rows_and_marks(context, run, want, columns)}
    except UserError as error:
        return {"run": name, "problem": str(error)}
    except OSError as error:
        return {"run": name, "problem": f"{name} cannot be read: {error.strerror or error}"}


def _state(context: Runs, run: RunDir) -> dict[str, Any]:
    launched = context.jobs is not None and run.name in context.jobs.at_work()
    now, colours = (
        starting(state_of(run), launched),
        colours_of(context.runs).of([run.name], read_only=context.read_only),
    )
    ghost = ghost_of(run)
    return {"state": now.state, "step": now.status.get("step"), "colour": colours.get(run.name),
            "tokenizer": ghost.tokenizer if ghost else tokenizer_of(run), "muon": muon_times(run),
            "ghost": ghost.told if ghost else None}  # fmt: skip


def _rows_and_marks(context: Runs, run: RunDir, want: Mapping[str, Any], columns: list[str]) -> dict[str, Any]:
    cursor = want.get("cursor")
    cursor = cursor if isinstance(cursor, Mapping) else {}
    until = want.get("until") if type(want.get("until")) is int else None
    targets = [f"{TARGETS}{source}" for source in map(column_source, columns) if source is not None]
    metrics = fresh(run, Cursor.of(cursor.get("metrics")), [*columns, *targets, "tokens"], until=until)
    before = {} if metrics.replaced or not cursor else cursor
    rows = metrics.rows
    last = {
        "step": int(rows.step[-1]) if len(rows) else _int(before.get("step")),
        "attempt": int(rows.attempt[-1]) if len(rows) else _int(before.get("attempt")),
    }
    reply: dict[str, Any] = {
        "cursor": {"metrics": metrics.cursor and metrics.cursor.to_json(), **last},
        "rows": len(rows),
        "replaced": metrics.replaced,
        "more": metrics.more,
    }
    if len(rows):
        reply |= {
            "steps": progression(rows.step),
            "tokens": progression(rows.values["tokens"]),
            "attempts": changes(rows.attempt, _int(before.get("attempt"))),
            "resets": resets(rows.step, _int(before.get("step"))),
            "columns": {name: packed(rows.values[name]) for name in [*columns, *targets]},
        }
        if reply["attempts"]:
            reply["sources"] = sources_of(run)
    if until is None:
        _add_marks(reply, context, run, before)
    if not cursor:
        reply["hosts"] = hosts_of(run, context.runs)
    return reply


def _add_marks(reply: dict[str, Any], context: Runs, run: RunDir, before: Mapping[str, Any]) -> None:
    """New events and alerts, and the places to go on from."""
    events = news(run.events_file, Cursor.of(before.get("events")))
    alerts, newest = _new_alerts(context, run.name, None if events.replaced else before.get("alert"))
    reply["cursor"] |= {"events": events.cursor and events.cursor.to_json(), "alert": newest}
    found = [*marks(events.lines), *alert_marks(alerts)]
    if found:
        reply["marks"] = found
    if events.replaced:
        reply["marks_replaced"] = True
    reply["more"] = reply["more"] or events.more


def _new_alerts(context: Runs, name: str, since: Any) -> tuple[list[Any], int | None]:
    """Alerts behind number `since` in the log, oldest first, and the number of the last.

    Not by their time: an alert may tell of a moment before one that is known already.
    """
    since = _int(since)
    jobs = context.jobs
    every: Iterable[Any] = jobs.alerts(name) if jobs is not None else []
    found = sorted((alert for alert in every if since is None or alert.number > since), key=lambda alert: alert.number)
    found = found[-MAX_ALERTS:]
    return found, found[-1].number if found else since


def table(context: Runs, request: Any) -> dict[str, Any]:
    """{} if every run of `request["runs"]` can be saved as a table, or {"problem"}; see `workbench.downloads`."""
    names = request.get("runs") if isinstance(request, Mapping) else None
    try:
        for name in names if isinstance(names, list) and names else [""]:
            context.run(str(name))
    except UserError as error:
        return {"problem": str(error)}
    return {}


def flops_per_token(context: Runs, request: Any) -> dict[str, float | None]:
    """{run: FLOPs} of `request["runs"]`, at most eight; None where the configuration or the vocabulary is not known."""
    names = request.get("runs") if isinstance(request, Mapping) else None
    return {str(name): _of_run(context, str(name)) for name in (names if isinstance(names, list) else [])[:MAX_RUNS]}


def _of_run(context: Runs, name: str) -> float | None:
    """As the trainer counts: the tied embedding once, the positions not at all."""
    from mygpt2.config import load_config
    from mygpt2.config.summary import vocabulary_size
    from mygpt2.planning.compute import training_flops

    try:
        config = load_config(file=context.run(name).config_file)
        if not config.data.tokenizer.startswith("gpt2"):
            context.path(config.data.tokenizer, "tokenizer")  # a path in a file is judged as a typed one is
    except (UserError, OSError):
        return None
    ids = vocabulary_size(config.data.tokenizer)
    return None if ids is None else training_flops(config, ids)


# Columns as short text for the browser


def changes(values: NDArray[np.int64], before: int | None) -> list[list[int]]:
    """[[row, value], ...] where a value differs from the one before it; `before` stands in front of the first."""
    if not len(values):
        return []
    rows = (np.flatnonzero(np.diff(values)) + 1).tolist()
    rows = ([] if values[0] == before else [0]) + rows
    return [[row, int(values[row])] for row in rows]


def packed(values: NDArray[np.float64]) -> str | float | None:
    """Little-endian float32 as base64; a number where MANY are that one, None where there is nothing but nulls."""
    if np.isnan(values).all():
        return None
    with np.errstate(over="ignore"):
        found = values.astype("<f4")
    if len(found) >= MANY and np.isfinite(found[0]) and (found == found[0]).all():
        return float(found[0])
    return base64.b64encode(found.tobytes()).decode()


def progression(values: NDArray[Any]) -> list[list[float]] | str:
    """Numbers that mostly rise evenly as [[first, count, difference], ...]; otherwise float64 as base64."""
    n, at = len(values), 0
    pieces: list[list[float]] = []
    numbers = np.nan_to_num(values.astype(np.float64), nan=-1.0)
    steps = np.diff(numbers)
    turns = np.flatnonzero(np.diff(steps)) + 1
    while at < n:
        if len(pieces) > 8 + n // 16:
            return base64.b64encode(numbers.astype("<f8").tobytes()).decode()
        turn = np.searchsorted(turns, at, side="right")
        last = int(turns[turn]) if turn < len(turns) else n - 1
        rise = float(steps[at]) if at < n - 1 else 0.0
        pieces.append([float(numbers[at]), last - at + 1, rise])
        at = last + 1
    return pieces


def _int(value: Any) -> int | None:
    return value if type(value) is int else None
