"""What there is to read: sources that runs were trained on, uploads, the built-in text, and what lies in the roots."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mygpt2.config import from_toml
from mygpt2.errors import UserError
from mygpt2.inside import SMALL_BYTES, read_inside
from mygpt2.run_dir import RunDir, list_runs
from workbench import html
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.live import Asked, News
from workbench.picker.incoming import Incoming
from workbench.picker.listing import listing
from workbench.picker.places import all_places

MOST_RUNS = 500  # that are asked for their source
MOST_ROWS = 200
SHOWN_RUNS = 3  # named beside a source
WHERE = {"Built in": "built in", "Hugging Face": "Hugging Face", "Uploaded": "uploaded", "Folders": "folder"}


@dataclass(frozen=True)
class Known:
    """A source that can be opened. value: as it is typed; place: what the engine takes for it. runs: newest first."""

    value: str
    name: str
    place: str
    where: str
    detail: str = ""
    size: str = ""
    documents: int | None = None
    runs: tuple[str, ...] = field(default=())


class Library:
    """The live view of the list. The roots are looked through when the tab is opened or runs or uploads change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._used = Used(context)

    def __call__(self, asked: Asked, news: News) -> None:
        used = self._used.sources()
        places = all_places(self._context.runs, self._context.data_roots)
        uploads = [place.stat().st_mtime_ns for place in places if place.is_dir()]
        stamp = used, uploads, asked.get("opened")
        if news.differs("roots", stamp, "library"):
            news.show("library", table(known(self._context, used)))


class Used:
    """Which runs were trained on which source, by name; a run's settings are read again only when they change."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._read: dict[tuple[str, float], tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def sources(self) -> dict[str, tuple[str, ...]]:
        """Source to the runs that name it, those of the newest run first."""
        found: dict[str, list[tuple[float, str]]] = {}
        now: dict[tuple[str, float], tuple[str, ...]] = {}
        for run in list_runs(self._context.runs)[:MOST_RUNS]:
            try:
                time = run.config_file.stat().st_mtime
            except OSError:
                continue  # queued, or damaged: it has no source yet
            named = now[run.name, time] = self._read.get((run.name, time)) or _sources_of(run)
            for source in named:
                found.setdefault(source, []).append((time, run.name))
        with self._lock:
            self._read = now
        newest = sorted(found, key=lambda source: -max(time for time, _ in found[source]))
        return {source: tuple(name for _, name in sorted(found[source], reverse=True)) for source in newest}


def _sources_of(run: RunDir) -> tuple[str, ...]:
    """The source in a run's settings, or those of its mixture, each once; none where they cannot be read. The folder
    may be somebody else's."""
    try:
        data = from_toml(read_inside(run.config_file, run.path, most=SMALL_BYTES)).get("data")
    except (OSError, ValueError, RecursionError):
        return ()
    own = data if isinstance(data, dict) else {}
    entries = own.get("mix") or [own]  # a mixture stands in for the one source
    sources = [entry.get("source") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return tuple(dict.fromkeys(source for source in sources if isinstance(source, str) and source))


def known(context: Context, used: dict[str, tuple[str, ...]]) -> list[Known]:
    """Everything there is: what runs use first, then the newest uploads, the built-in text and the roots."""
    found: dict[str, Known] = {}
    for each in _listed(context):
        found.setdefault(each.place, each)
    for source, runs in used.items():
        try:
            place = context.source(source)
        except UserError:
            continue  # moved away, or outside the roots: nobody could open it here
        named = Known(source, _short(context, place), place, _where(place))
        each = found.pop(place) if place in found else named
        found[place] = replace(each, runs=tuple(dict.fromkeys((*each.runs, *runs))))
    documents = context.surveys.documents()
    rows = [replace(each, documents=documents.get(each.place)) for each in found.values()]
    order = ["", "uploaded", "built in", "folder", "Hugging Face"]
    return sorted(rows, key=lambda each: order.index("" if each.runs else each.where))[:MOST_ROWS]


def _listed(context: Context) -> Iterable[Known]:
    start = listing(context, {"kind": "data"})
    for group in start["groups"]:
        if group["title"] != "Folders":
            yield from _rows(context, group["entries"], WHERE[group["title"]])
            continue
        for root in group["entries"]:
            try:
                inside = listing(context, {"kind": "data", "folder": root["folder"]})
            except UserError:
                continue  # closed to this user
            yield from _rows(context, inside["entries"], "folder")


def _rows(context: Context, entries: Sequence[dict[str, Any]], where: str) -> Iterable[Known]:
    for entry in entries:
        if entry["choose"]:
            place = context.source(entry["value"])
            yield Known(entry["value"], entry["name"], place, where, entry["detail"], entry["size"])


def _where(place: str) -> str:
    return "folder" if Path(place).is_absolute() else "built in" if place == "pydocs" else "Hugging Face"


def _short(context: Context, place: str) -> str:
    """A path below its root."""
    for root in (*context.data_roots, context.runs):
        if Path(place).is_relative_to(root) and Path(place) != root:
            return str(Path(place).relative_to(root))
    return place


def table(rows: Sequence[Known]) -> Markup:
    """The list, a source a row: a press on its name opens it."""
    lines = [
        (
            html.button("open", each.value, each.name, f"Open {each.name}", "wb-source-name"),
            html.chip(each.where, title=each.place),
            each.detail or "",
            each.size or "",
            f"{each.documents:,}" if each.documents is not None else "",
            _runs(each.runs),
            _acts(each),
        )
        for each in rows
    ]
    headers = ["Source", "Where", "Holds", "Size", "Documents", "Used by", ""]
    return html.table(headers, lines, {3, 4}, "Sources of text", keys=[each.place for each in rows])


def _acts(each: Known) -> Markup:
    """What can be done with a source; what was uploaded here, and no run has read, can be deleted here."""
    train = html.button("train", each.value, "Train on it", f"Train on {each.name}")
    if each.where != WHERE["Uploaded"] or each.runs:
        return train
    delete = html.item("Delete for good", "delete", each.place, key=each.place, tone="bad")
    return html.join([train, html.menu("More", [delete], name=f"More for {each.name}")])


def delete(context: Context, place: str) -> str:
    """Deletes an upload that no run was trained on; its name. UserError for everything else."""
    context.changes()
    path = Path(context.source(place))
    runs = Used(context).sources().get(str(path), ())
    if runs:
        raise UserError(f"{path.name} is what run {runs[0]!r} was trained on, so it stays; delete the run first")
    Incoming(context.runs, context.data_roots).remove(path)
    return path.name


def _runs(names: Sequence[str]) -> Markup:
    links = html.join(
        Markup(f'<a class="wb-chip" href="?tab=monitor&amp;runs={escape(name)}">{escape(name)}</a> ')
        for name in names[:SHOWN_RUNS]
    )
    more = len(names) - SHOWN_RUNS
    return Markup(f"{links}{f'and {more:,} more' if more > 0 else ''}")
