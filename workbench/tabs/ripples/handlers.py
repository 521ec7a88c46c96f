"""What the tab answers: what a person chose in, the parts of the page that differ from what it shows out.

`seen` is a dict of short digests by part, kept in the page, so that a poll of something unchanged sends nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mygpt2.errors import UserError
from mygpt2.ripples import drawings
from mygpt2.ripples.report import Report
from workbench import html
from workbench.context import Context
from workbench.tabs.ripples import cards, studies
from workbench.tabs.ripples.peaks import Peak, peaks
from workbench.tabs.ripples.reports import Reports
from workbench.tabs.ripples.status import status
from workbench.tabs.ripples.study_view import study_view
from workbench.tabs.ripples.subject import Subject, choices, subject_of

FIELDS = ("column", "batch_tokens", "steps", "dataset", "file_tokens", "files", "streams")
EMPTY = html.empty(
    "No run or log is chosen.",
    "Choose a run above, upload a log (CSV, log.txt, or what W&B and TensorBoard export), or type a path inside the "
    "roots.",
)
NOTHING_YET = html.empty(
    "There is no run in this folder yet.",
    "Train one, or upload a log of any other training: CSV, log.txt, W&B, TensorBoard.",
)
Seen = dict[str, str]
Parts = dict[str, Any]


def asked_for(text: str | None) -> dict[str, Any]:
    """What was applied, as a dict; empty if damaged."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def subject_asked(context: Context, asked: Mapping[str, Any]) -> Subject:
    options = {field: asked.get(field) for field in FIELDS}
    return subject_of(context, asked.get("run"), asked.get("reference"), options)


def look(context: Context, reports: Reports, asked: Mapping[str, Any], peak: Any, seen: Seen) -> tuple[Parts, Seen]:
    """The changed parts of the first page: choices, status, verdict, peaks, chart, loss, figures, tables, buttons.

    Starts an analysis that is due. A UserError is a part of the page here, since a poll must not raise toasts.
    """
    known = choices(context)
    now: Parts = {"choices": known}
    if not str(asked.get("run") or "").strip():
        return _changed(now | _blank(EMPTY if known else NOTHING_YET), seen)
    try:
        subject = subject_asked(context, asked)
        # Another site's link shows what there is, and a new analysis waits for a click.
        found = reports.look(subject) if asked.get("link") else reports.start_due(subject)
        report = Report.of(reports.read(found.file)) if found.file is not None else None
    except UserError as error:
        return _changed(now | _blank(html.problem(str(error))), seen)
    now["of"] = [subject.name] if subject.run else []  # whose live chart is shown
    now["status"] = status(subject, found, context.read_only)
    now["buttons"] = {"stop": found.running, "analyse": not found.running, "files": report is not None,
                      "run": subject.run is not None}  # fmt: skip
    if report is None:
        now |= {"verdict": "", "figures": "", "loss": "", "peaks": {"choices": [], "value": None}}
        now["chart"] = {"runs": now["of"], "shade": None}
        return _changed(now, seen)
    assert found.file is not None
    stamp = f"{found.file} {found.file.stat().st_mtime_ns} {subject.text}"
    here = peaks(report)
    chosen = choose(here, peak if seen.get("report") == _digest(stamp) else None)
    now["peaks"] = {"choices": [(one.label, one.key) for one in here], "value": chosen.key if chosen else None}
    now["chart"] = {"runs": now["of"], "shade": chosen.shade if chosen else None}
    now["loss"] = "" if subject.run else drawings.loss(report, chosen)
    if seen.get("report") != _digest(stamp):
        now["verdict"] = cards.verdict(report)
        now["figures"] = drawings.all_figures(report, here) + cards.tables(report)
    changed, after = _changed(now, seen)
    return changed, after | {"report": _digest(stamp)}


def choose(known: list[Peak], wanted: Any) -> Peak | None:
    """The peak of a key, else the first."""
    return next((peak for peak in known if peak.key == wanted), known[0] if known else None)


def analyse(context: Context, reports: Reports, asked: Mapping[str, Any]) -> None:
    """Analyses what is asked for as it is now, whether or not there is a report. UserError while that is under way."""
    reports.start(subject_asked(context, asked))


def stop(context: Context, reports: Reports, asked: Mapping[str, Any]) -> None:
    reports.stop(subject_asked(context, asked))


def file_text(context: Context, reports: Reports, asked: Mapping[str, Any], kind: str) -> str:
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


def compare(context: Context, reports: Reports, first: Any, second: Any, seen: Seen, ask: bool) -> tuple[Parts, Seen]:
    """The changed parts of the page of two runs. `ask`: a person pressed the button, so that the work begins."""
    known = choices(context)
    now: Parts = {"choices": known}
    if not str(first or "").strip() or not str(second or "").strip():
        words = "Two runs with the same data order can be told apart by far less than their noise."
        return _changed(now | {"pair": html.empty(words, "Choose two runs or logs, and press Compare.")}, seen)
    try:
        subject = subject_of(context, first, second, pair=True)
        found = reports.look(subject)
        if ask and not found.running and not found.fresh:
            reports.start(subject)
            found = reports.look(subject)
        report = reports.read(found.file) if found.file is not None else None
    except UserError as error:
        return _changed(now | {"pair": html.problem(str(error))}, seen)
    head = status(subject, found, context.read_only) if not found.fresh else html.Markup("")
    return _changed(now | {"pair": html.join([head, cards.pair(report) if report else ""])}, seen)


def study(context: Context, reports: Reports, chosen: Any, seen: Seen) -> tuple[Parts, Seen]:
    """The changed parts of the page of studies, which go on without it."""
    all_of_them = studies.studies(context)
    one = next((study for study in all_of_them if study.id == chosen), all_of_them[0] if all_of_them else None)
    now: Parts = {
        "studies": {"choices": [(study.label, study.id) for study in all_of_them], "value": one.id if one else None}
    }
    if one is None:
        return _changed(now | {"study": study_view(None), "remove": False}, seen)
    try:
        view = study_view(studies.standing(context, reports, one))
    except UserError as error:
        view = html.problem(str(error))
    return _changed(now | {"study": view, "remove": not context.read_only}, seen)


def _blank(words: html.Markup) -> Parts:
    """A page without a report: what to do, or what is wrong."""
    return {"status": words, "verdict": "", "figures": "", "loss": "", "peaks": {"choices": [], "value": None},
            "chart": {"runs": [], "shade": None}, "of": [], "report": "",
            "buttons": {"stop": False, "analyse": True, "files": False, "run": False}}  # fmt: skip


def _changed(now: Parts, seen: Seen) -> tuple[Parts, Seen]:
    """The parts that are other than those on the page, and what the page shows after them."""
    digests = {name: _digest(value) for name, value in now.items()}
    return {name: now[name] for name, digest in digests.items() if seen.get(name) != digest}, {**seen, **digests}


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:12]
