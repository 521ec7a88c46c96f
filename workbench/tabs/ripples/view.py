"""What the tab shows: an analysis of a run or a log, two runs side by side, a study; and what can be done to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from mygpt2.data.trace import place_of, read_manifest, read_trace, trace_files
from mygpt2.errors import UserError
from mygpt2.ripples import drawings
from mygpt2.ripples.report import Report
from mygpt2.ripples.runs import DAMAGED
from mygpt2.run_dir import state_of
from workbench import html, tasklist
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.live import Asked, News
from workbench.tabs.ripples import cards, studies
from workbench.tabs.ripples.peaks import Peak, peaks
from workbench.tabs.ripples.reports import Found, Reports
from workbench.tabs.ripples.study_view import study_view
from workbench.tabs.ripples.subject import Subject, choices, subject_of

FIELDS = ("column", "batch_tokens", "steps", "dataset", "file_tokens", "files", "streams")
RAW = {"panels": ["loss"], "smooth": 0}  # as a ripple is seen best
MOST_NAMED = 3  # files of a step
EMPTY = html.empty(
    "No run or log is chosen.",
    "Choose a run above, upload a log (CSV, log.txt, or what W&B and TensorBoard export), or type a path inside the "
    "roots.",
)
NOTHING_YET = html.empty(
    "There is no run in this folder yet.",
    "Train one, or upload a log of any other training: CSV, log.txt, W&B, TensorBoard.",
)


def subject_asked(context: Context, asked: Asked) -> Subject:
    options = {field: asked.get(field) for field in FIELDS}
    return subject_of(context, asked.get("run"), asked.get("reference"), options)


def look(context: Context, reports: Reports, asked: Asked, news: News) -> None:
    """All three pages. Starts an analysis that is due; what is wrong with what was chosen stands in its own page."""
    known = choices(context)
    for field in ("run", "first", "second"):
        news.set(field, choices=known)
    news.set("reference", choices=[("none", ""), *known])
    on = _one(context, reports, asked, news, EMPTY if known else NOTHING_YET)
    news.show("pair", _pair(context, reports, asked, news))
    news.tell("enabled", on | {"wb-study-remove": _study(context, reports, asked, news)})


def _one(context: Context, reports: Reports, asked: Asked, news: News, empty: Markup) -> dict[str, bool]:
    """The run or log that was asked for: status, verdict, peaks, chart, loss, figures; which buttons can be pressed."""
    subject, found, report, mark = None, None, None, ""
    try:
        head = empty
        if str(asked.get("run") or "").strip():
            subject = subject_asked(context, asked)
            # Another site's link shows what there is, and a new analysis waits for a click.
            found = reports.look(subject) if asked.get("link") else reports.start_due(subject)
            head = status(subject, found, context.read_only)
            if found.file is not None:
                report = Report.of(reports.read(found.file))
                mark = _mark(f"{found.file} {found.file.stat().st_mtime_ns} {subject.text}")
    except UserError as error:
        subject, found, report, head = None, None, None, html.problem(str(error))
    run = subject.run if subject else None
    here = peaks(report) if report else []
    chosen = choose(here, asked.get("peak") if news.had("verdict") == mark else None)
    news.busy |= bool(found and found.running) or (run is not None and state_of(run).alive)
    news.show("status", head)
    news.known_by("markup", "verdict", mark, lambda: cards.verdict(report) if report else "")
    made = (lambda: drawings.all_figures(report, here) + cards.tables(report)) if report else str
    news.known_by("markup", "figures", mark, made)
    news.show("loss", lambda: drawings.loss(report, chosen) if report and not run else "", (mark, run, chosen))
    news.set("peak", choices=[(one.label, one.key) for one in here], value=chosen.key if chosen else None,
             visible=bool(here))  # fmt: skip
    shown = [run.name] if run else []
    view = {"runs": shown, "shade": chosen.shade if chosen else None}
    # Of another run the loss alone and unsmoothed; then it is the person's to change.
    news.set("chart", stamp=view, value=view | (RAW if news.had("of") != _mark(shown) else {}))
    news.known_by("data", "of", _mark(shown), lambda: shown)
    news.set("of_run", visible=run is not None)
    news.set("save", visible=report is not None)
    running = bool(found and found.running)
    return {"wb-ripples-stop": running, "wb-ripples-analyse": not running}


def choose(known: list[Peak], wanted: Any) -> Peak | None:
    """The peak of a key, else the first."""
    return next((peak for peak in known if peak.key == wanted), known[0] if known else None)


def status(subject: Subject, found: Found, read_only: bool) -> Markup:
    """How an analysis stands: under way, gone wrong, of an earlier state, or fresh. One line."""
    task, name = found.task, subject.name
    if task is not None and task.running:
        doing, share = tasklist.progress(task)
        earlier = " What is below is of an earlier state." if found.file is not None else ""
        return Markup(
            f'<p class="wb-working" role="status">{tasklist.bar(share, "analysis")} '
            f"<span>Analysing {escape(name)}: {escape(doing)}.{earlier}</span></p>"
        )
    if task is not None and not found.fresh:
        return html.problem(task.error or f"The analysis of {name} was {task.state}; press Analyse for it.")
    if found.file is None:
        why = " This workbench is read only, so that it cannot be made." if read_only else " Press Analyse."
        return html.note(f"{name} has not been analysed.{why}")
    if found.fresh:
        return html.note(f"Analysed as it is now, {name}.")
    more = f"It has grown by {found.grown - 1:.0%} since" if found.grown > 1 else "It has changed since"
    return html.note(f"This is of an earlier state of {name}. {more}; press Analyse for the present one.")


def _pair(context: Context, reports: Reports, asked: Asked, news: News) -> Markup:
    """Two runs, step against step."""
    if not all(str(asked.get(key) or "").strip() for key in ("first", "second")):
        words = "Two runs with the same data order can be told apart by far less than their noise."
        return html.empty(words, "Choose two runs or logs, and press Compare.")
    try:
        subject = subject_of(context, asked["first"], asked["second"], pair=True)
        found = reports.look(subject)
        report = reports.read(found.file) if found.file is not None else None
    except UserError as error:
        return html.problem(str(error))
    news.busy |= found.running
    head = status(subject, found, context.read_only) if not found.fresh else ""
    return html.join([head, cards.pair(report) if report else ""])


def _study(context: Context, reports: Reports, asked: Asked, news: News) -> bool:
    """The chosen study, which goes on without the page; whether it can be removed."""
    known = studies.studies(context)
    one = next((study for study in known if study.id == asked.get("study")), known[0] if known else None)
    news.set("study", choices=[(study.label, study.id) for study in known], value=one.id if one else None)
    if one is None:
        news.show("standing", study_view(None))
        return False
    try:
        at = studies.standing(context, reports, one)
        news.busy |= not at.done
        news.show("standing", study_view(at))
    except UserError as error:
        news.show("standing", html.problem(str(error)))
        return False
    return not context.read_only


# What a person does


def analyse(context: Context, reports: Reports, asked: Asked) -> None:
    """Analyses what is asked for as it is now, whether or not there is a report. UserError while that is under way."""
    reports.start(subject_asked(context, asked))


def stop(context: Context, reports: Reports, asked: Asked) -> None:
    reports.stop(subject_asked(context, asked))


def compare(context: Context, reports: Reports, first: Any, second: Any) -> None:
    """Compares two runs unless that is done already, or under way."""
    subject = subject_of(context, first, second, pair=True)
    found = reports.look(subject)
    if not found.running and not found.fresh:
        reports.start(subject)


def file_text(context: Context, reports: Reports, asked: Asked, kind: str) -> str:
    """The report as JSON of a file's name and text, for the browser to save. UserError while there is none."""
    subject = subject_asked(context, asked)
    file = reports.look(subject).file
    if file is None:
        raise UserError(f"{subject.name} has no report yet; press Analyse and wait for it")
    path = file if kind == "json" else file.with_suffix(".html")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"the {kind} of {subject.name} is gone; analyse again") from None
    return json.dumps({"name": f"ripples-{subject.name}.{kind}", "text": text})


def about_step(context: Context, run: str, step: Any) -> str:
    """What a step was trained on, in a line: of the trace its rows alone are read.

    UserError for a run without a trace or a step that is not a number.
    """
    folder = context.run(run)
    try:
        number = round(float(step))
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{str(step)[:20]!r} is not a step; give a whole number") from None
    if not trace_files(folder.path):
        return (
            f"Step {number:,}: run {run} has no trace yet, which would say what was in it (log.trace; written every "
            "200 steps and at the end)."
        )
    rows = read_trace(folder.path, number, number).select(["lane", "block", "document"]).to_pylist()
    if not rows:
        return f"Step {number:,} is not in the trace of run {run}."
    manifest = read_manifest(folder.path)
    file, part, document = place_of(manifest, rows[0]["block"][0], rows[0]["document"][0])
    word = "row group" if manifest.kind == "parquet" else "part"
    documents = {pair for row in rows for pair in zip(row["block"], row["document"], strict=True)}
    files = sorted({manifest.file_of(block).name for block, _ in documents})
    others = [name for name in files if name != file]
    more = f", also from {', '.join(others[:MOST_NAMED])}" if others else ""
    more += f" and {len(others) - MOST_NAMED} more files" if len(others) > MOST_NAMED else ""
    return (
        f"Step {number:,}: file {file}, {word} {part}, first document {document:,}; "
        f"{len(documents):,} documents in {len(rows):,} rows{more}."
    )


def teller(context: Context) -> Callable[..., Any]:
    """`about_step` as the page calls it; what is wrong is told in place of the line."""

    def ripples_step(request: Any) -> str:
        asked = request if isinstance(request, dict) else {}
        try:
            return about_step(context, str(asked.get("run", "")), asked.get("step"))
        except UserError as error:
            return str(error)
        except DAMAGED:
            return "The trace of this run cannot be read."

    return ripples_step


def _mark(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:12]
