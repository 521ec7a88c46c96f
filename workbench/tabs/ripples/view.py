"""What the tab shows: an analysis of a run or a log, two runs side by side, a study; and what can be done to them."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mygpt2.data.sources.manifest import WORDS
from mygpt2.data.trace import place_of, read_manifest, read_trace, trace_files
from mygpt2.errors import UserError
from mygpt2.ripples import drawings
from mygpt2.ripples.drawings import figure
from mygpt2.ripples.report import Report
from mygpt2.ripples.runs import DAMAGED
from mygpt2.run_dir import state_of
from workbench import html, tasklist, words
from workbench.context import Context
from workbench.html import Markup, escape
from workbench.live import Asked, News
from workbench.tabs.ripples import cards, studies
from workbench.tabs.ripples.lead import lead
from workbench.tabs.ripples.peaks import Peak, peaks
from workbench.tabs.ripples.reports import Found, Reports
from workbench.tabs.ripples.study_view import study_view
from workbench.tabs.ripples.subject import Subject, choices, subject_of

FIELDS = ("column", "batch_tokens", "steps", "dataset", "file_tokens", "files", "streams")
RAW = {"panels": ["loss"], "smooth": 0}  # as a ripple is seen best
MOST_NAMED = 3  # files of a step
BY_ITSELF = 64 << 20  # bytes of metrics that are measured without being asked for: a second or two
WHAT = (
    "Here you will see whether the training loss has a ripple, a swing that comes from the order of the data: how long "
    "and how large it is, and what removes it."
)
WAIT = html.empty(WHAT)
NOTHING_YET = html.empty(
    f"{WHAT} There is no run in this folder yet. A log of another program (CSV, log.txt, W&B, TensorBoard) will do "
    "too: browse for it, or drop it here.",
    html.button("train", "", "Go to Train", "Go to Train", "wb-small wb-small-primary"),
)


def subject_asked(context: Context, asked: Asked) -> Subject:
    """The run or log that was chosen in this tab; without a choice that of Monitor, or the newest run."""
    options = {field: asked.get(field) for field in FIELDS}
    return subject_of(context, asked.get("run") or _at_hand(context, asked), asked.get("reference"), options)


def _at_hand(context: Context, asked: Asked) -> str:
    return next(iter(context.runs_at_hand(asked.get("ticked"))), "")


def look(context: Context, reports: Reports, asked: Asked, news: News) -> None:
    """All three pages. Starts an analysis that is due; what is wrong with what was chosen stands in its own page."""
    known = choices(context)
    news.set("reference", choices=[("its own trend", ""), *known])
    _one(context, reports, asked, news, known)
    news.show("pair", _pair(context, reports, asked, news, known))
    news.tell("enabled", {"wb-study-remove": _study(context, reports, asked, news)})


def _one(context: Context, reports: Reports, asked: Asked, news: News, known: list[tuple[str, str]]) -> None:
    """The run or log that was asked for, or is at hand: its lead, its curves, and below them the technique."""
    subject, found, report, mark = None, None, None, ""
    head, lead_now = Markup(""), NOTHING_YET
    try:
        if str(asked.get("run") or _at_hand(context, asked)).strip():
            subject = subject_asked(context, asked)
            # Another site's link shows what there is, and a new analysis waits for a click; so does a large one.
            waits = asked.get("link") or (not asked.get("run") and subject.state[0] > BY_ITSELF)
            found = reports.look(subject) if waits else reports.start_due(subject)
            head, lead_now = status(subject, found, not context.read_only), Markup("")
            if found.file is not None:
                report = Report.of(reports.read(found.file))
                mark = _mark(f"{found.file} {found.file.stat().st_mtime_ns} {subject.text}")
    except UserError as error:
        subject, found, report, head, lead_now = None, None, None, html.problem(str(error)), Markup("")
    run = subject.run if subject else None
    here = peaks(report) if report else []
    chosen = choose(here, asked.get("peak") if news.had("verdict") == mark else None)
    news.busy |= bool(found and found.running) or (run is not None and state_of(run).alive)
    news.set("run", choices=known, value=subject.text if subject else asked.get("run") or None)
    news.show("status", head)
    name = run.name if run else ""
    news.known_by("markup", "verdict", mark or _mark(lead_now), lambda: lead(report, name) if report else lead_now)
    news.known_by("markup", "spectrum", mark, lambda: figure(report, "periodogram", known=here) if report else "")
    news.known_by("markup", "figures", mark, lambda: cards.folds(report) if report else "")
    of = (mark, chosen)
    news.show("residual", lambda: figure(report, "residual", shaded=chosen) if report else "", of)
    news.show("loss", lambda: drawings.loss(report, chosen) if report and not run else "", (*of, run))
    news.set("peak", choices=[(one.label, one.key) for one in here], value=chosen.key if chosen else None,
             visible=bool(here))  # fmt: skip
    shown = [name] if run else []
    view = {"runs": shown, "shade": chosen.shade if chosen else None}
    # Of another run the loss alone and unsmoothed; then it is the person's to change.
    news.set("chart", stamp=view, value=view | (RAW if news.had("of") != _mark(shown) else {}))
    news.known_by("data", "of", _mark(shown), lambda: shown)
    news.set("of_run", visible=run is not None)


def choose(known: list[Peak], wanted: Any) -> Peak | None:
    """The peak of a key, else the first."""
    return next((peak for peak in known if peak.key == wanted), known[0] if known else None)


def status(subject: Subject, found: Found, can: bool) -> Markup:
    """How an analysis stands: under way, gone wrong, of an earlier state, or fresh. One line.

    can: whether it has buttons for what a person can do about it.
    """
    task, name = found.task, subject.name

    def button(act: str, text: str, label: str, kind: str = "") -> Markup:
        return html.button(act, name, text, label, f"wb-small {kind}") if can else Markup("")

    def line(said: Markup, *more: Markup) -> Markup:
        return Markup(f'<div class="wb-working" role="status"><span>{said}</span> {html.join(more)}</div>')

    if task is not None and task.running:
        doing, share = tasklist.progress(task)
        earlier = " What is shown is of an earlier state." if found.file is not None and not found.fresh else ""
        said = Markup(f"Measuring {escape(name)}: {escape(doing)}.{earlier}")
        return line(said, tasklist.bar(share, "measurement"), button("stop", "Stop", f"Stop measuring {name}"))
    measure = button("analyse", "Measure", f"Measure {name}", "wb-small-primary")
    again = button("analyse", "Measure again", f"Measure {name} again")
    save = _save(name) if can and found.file is not None else Markup("")
    if task is not None and not found.fresh:
        return html.join(
            [html.problem(task.error or f"Measuring {name} was {task.state}."), line(escape(""), again, save)]
        )
    if found.file is None:
        large = f" It has {words.bytes_of(subject.state[0])} of metrics." if subject.state[0] > BY_ITSELF else ""
        why = large if can else " This workbench is read only, so that it cannot be measured."
        return line(escape(f"{name} has not been measured.{why}"), measure)
    if found.fresh:
        return line(
            html.join(["Measured ", html.when(found.file.stat().st_mtime), "; nothing has changed since."]), again, save
        )
    more = f"grown by {found.grown - 1:.0%}" if found.grown > 1 else "changed"
    return line(escape(f"{name} has {more} since this was measured."), measure, save)


def _save(name: str) -> Markup:
    kinds = (("json", "All numbers as JSON"), ("html", "Report as one HTML file"))
    return html.menu("Save", [html.item(label, f"save-{kind}", name) for kind, label in kinds])


def _pair(context: Context, reports: Reports, asked: Asked, news: News, known: list[tuple[str, str]]) -> Markup:
    """Two runs, step against step: those that were chosen here, else those that are ticked in Monitor."""
    ticked = context.runs_at_hand(asked.get("ticked"))[:2]
    two = [str(asked.get(key) or "").strip() for key in ("first", "second")]
    shown = two if any(two) or len(ticked) < 2 else ticked
    for field, value in zip(("first", "second"), shown, strict=True):
        news.set(field, choices=known, value=value or None)
    if not all(shown):
        words = "Here you will see how two runs differ, far below their noise where they read the same batches."
        return html.empty(words, "Choose two runs or logs, and press Compare.")
    try:
        subject = subject_of(context, shown[0], shown[1], pair=True)
        found = reports.look(subject)
        report = reports.read(found.file) if found.file is not None else None
        both = replace(subject, name=f"{shown[0]} and {shown[1]}")
    except UserError as error:
        return html.problem(str(error))
    news.busy |= found.running
    if report is None and not found.running and found.task is None:
        return html.empty(f"{both.name} have not been compared yet.", "Press Compare: it takes seconds.")
    return html.join([cards.pair(report) if report else "", "" if found.fresh else status(both, found, False)])


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


def act(context: Context, reports: Reports, asked: Asked, button: Mapping[str, Any]) -> str | dict[str, str] | None:
    """What a button of the page does: the file to save, what is asked of Train, or nothing to go on with."""
    kind, id = (str(button.get(key, "")) for key in ("act", "id"))
    if kind == "train":
        run, settings = id.rpartition(" ")[::2]
        return {"from_run": run, "settings": settings} if run else {"settings": settings}
    asked = {**asked, "run": asked.get("run") or id}
    if id and (chosen := subject_asked(context, asked).name) != id:
        raise UserError(f"the button was for {id}, and {chosen} is chosen now; press the one for {chosen}")
    if kind in ("save-json", "save-html"):
        return file_text(context, reports, asked, kind.removeprefix("save-"))
    if kind == "analyse":
        reports.start(subject_asked(context, asked))
    if kind == "stop":
        reports.stop(subject_asked(context, asked))
    return None


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
        raise UserError(f"{subject.name} has no report yet; press Measure and wait for it")
    path = file if kind == "json" else file.with_suffix(".html")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        raise UserError(f"the {kind} of {subject.name} is gone; measure again") from None
    name = f"ripples-{subject.name}.{kind}"
    return json.dumps({"name": name, "text": text, "nonce": secrets.token_hex(4)})  # the same again is another value


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
    word = WORDS[manifest.kind][0]
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
