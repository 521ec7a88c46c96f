"""What is seen of a report: the verdict, three figures, the curves and the folds; and how logs that say little read."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from mygpt2.errors import UserError
from mygpt2.ripples.report import Report
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import context_of
from tests.workbench.tabs.ripples.made_up import CSV, PERIOD, analysed, look, planted, settled, write
from workbench import html
from workbench.tabs.ripples import view
from workbench.tabs.ripples.lead import remedy, searched
from workbench.tabs.ripples.peaks import peaks
from workbench.tabs.ripples.reports import KIND, Reports
from workbench.tabs.ripples.subject import subject_of


@pytest.fixture
def context(tmp_path):
    return context_of(tmp_path)


@pytest.fixture
def reports(context):
    return Reports(context)


def test_report_is_shown_with_every_figure_and_its_verdict_first(context, reports):
    parts, _ = analysed(context, reports, {"run": write(context, "log.csv", planted())})
    report = reports.read(reports.look(subject_of(context, "log.csv")).file)
    assert "wb-verdict-found" in parts["verdict"] and "every 25.0 steps" in parts["verdict"]
    assert [label in parts["verdict"] for label in (">Period<", ">Amplitude<", ">Remedy<")] == [True] * 3
    assert html.escape(report["verdict"]) in parts["figures"], "the whole of it is a fold below"
    drawn = "".join(parts[name] for name in ("spectrum", "residual", "figures"))
    for title in ("Periodogram", "Residual", "Folded", "Autocorrelation", "Forecast"):
        assert f"<title>{title}" in drawn
    assert drawn.count("<desc>") == drawn.count('<svg viewBox="0 0 1000') and "fig-is-shade" in parts["residual"]
    assert "<title>Loss</title>" in parts["loss"] and "fig-is-shade" in parts["loss"] and parts["of"] == []


def test_pulses_are_shown_with_their_period_cause_and_remedy(context, reports):
    rows = planted(steps=1600, amplitude=0).splitlines()
    for i in range(1, len(rows)):
        cells = rows[i].split(",")
        cells[-1] = str(float(cells[-1]) + (0.25 if i % 80 == 3 else 0))
        rows[i] = ",".join([*cells, "3.1" if i % 80 == 2 else ""])
    rows[0] += ",val_loss"
    parts, _ = analysed(context, reports, {"run": write(context, "pulses.csv", "\n".join(rows) + "\n")})
    assert "The loss jumps by 0.2" in parts["verdict"] and "every 80.0 steps" in parts["verdict"]
    assert "the evaluation interval" in parts["verdict"] and "No order of the data" in parts["verdict"]
    assert 'data-act="train"' not in parts["verdict"] and "Pulses of +0.2" in parts["figures"]


def test_crest_of_the_ripple_is_what_is_shaded(context, reports):
    analysed(context, reports, {"run": write(context, "log.csv", planted())})
    report = Report.of(reports.read(reports.look(subject_of(context, "log.csv")).file))
    for phase in (peaks(report)[0], peaks(replace(report, significant=False))[0]):
        assert abs(phase.period / PERIOD - 1) < 0.02
        middle = (phase.origin + phase.period / 4) % PERIOD
        assert min(middle, PERIOD - middle) < 2.0, phase
    spans = peaks(report)[0].spans(100, 200)
    assert len(spans) in (4, 5) and all(b - a <= PERIOD / 2 + 0.5 for a, b in spans)


def test_another_peak_is_shaded_without_a_new_analysis(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    parts, seen = analysed(context, reports, asked)
    other = parts["peak"]["choices"][1][1]
    found, _ = look(context, reports, asked, other, seen)
    assert found["peak"]["value"] == other and found["loss"] != parts["loss"]
    assert set(found) == {"peak", "chart", "loss", "residual"}


def test_another_report_begins_with_its_own_first_peak(context, reports):
    parts, seen = analysed(context, reports, {"run": write(context, "log.csv", planted())})
    other = {"run": write(context, "other.csv", planted(seed=3))}
    analysed(context, reports, other)
    found, seen = look(context, reports, other, parts["peak"]["choices"][1][1], seen)
    assert found["peak"]["value"] == found["peak"]["choices"][0][1]
    chosen = found["peak"]["choices"][1][1]
    assert look(context, reports, other, chosen, seen)[0]["peak"]["value"] == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CSV + "".join(f"{n},{n},3.{n}\n" for n in range(1, 9)), "usable points"),
        (CSV + "".join(f"{n},{n},3.5\n" for n in range(1, 300)), "at every step"),
        (CSV + "1,1,3.5\n" + "".join(f"{n},{n},nan\n" for n in range(2, 300)), "1 usable points"),
    ],
)
def test_logs_that_say_little_are_answered_with_a_sentence(context, reports, text, said):
    parts, _ = analysed(context, reports, {"run": write(context, "log.csv", text)})
    assert said in parts["verdict"]
    assert "Nothing can be said" in parts["verdict"] and "<figure" not in parts["figures"] + parts["loss"]


def test_log_that_cannot_be_read_is_told_in_the_engines_words(context, reports):
    parts, seen = settled(context, reports, {"run": write(context, "log.csv", "step,other\n1,2\n")})
    assert "wb-problem" in parts["status"] and "its columns: step, other" in parts["status"]
    assert "Traceback" not in parts["status"]
    assert look(context, reports, {"run": "log.csv"}, None, seen)[0] == {}, "it is not tried again by itself"


def test_gaps_and_non_finite_losses_are_told_and_do_not_hide_the_ripple(context, reports):
    lines = planted().splitlines()
    kept = [line for n, line in enumerate(lines) if n == 0 or n % 7]
    kept[50] = kept[50].rsplit(",", 1)[0] + ",nan"
    parts, _ = analysed(context, reports, {"run": write(context, "log.csv", "\n".join(kept))})
    assert "left out" in parts["figures"] and "missing" in parts["figures"]
    assert "wb-verdict-found" in parts["verdict"]


def test_names_and_words_of_a_log_are_text(context, reports):
    name = write(context, "<img src=x onerror=alert(1)>.csv", planted(200))
    parts, _ = analysed(context, reports, {"run": name})
    for part in ("status", "verdict", "loss", "figures", "spectrum", "residual"):
        assert "<img" not in parts[part]


def test_report_is_saved_as_json_and_as_one_page(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    with pytest.raises(UserError, match="no report yet"):
        view.file_text(context, reports, asked, "json")
    analysed(context, reports, asked)
    saved = json.loads(view.act(context, reports, asked, {"act": "save-json", "id": "log.csv"}))
    with pytest.raises(UserError, match=r"was for other\.csv, and log\.csv is chosen now"):
        view.act(context, reports, asked, {"act": "save-json", "id": "other.csv"})
    assert saved["name"] == "ripples-log.csv.json" and json.loads(saved["text"])["significant"]
    page = json.loads(view.file_text(context, reports, asked, "html"))["text"]
    assert page.startswith("<!doctype html>") and "http" not in page.replace("http-equiv", "")


def test_empty_page_says_what_to_do(context, reports):
    parts, _ = look(context, reports, {}, None, {})
    assert "no run in this folder yet" in parts["verdict"] and "Here you will see" in parts["verdict"]
    assert "Go to Train" in parts["verdict"] and not context.jobs.tasks.list(KIND)


def test_the_run_of_monitor_is_measured_without_a_choice_and_else_the_newest(context, reports, monkeypatch):
    started = []
    monkeypatch.setattr(context.jobs.tasks, "start", lambda kind, words, **how: started.append(words[4]))
    for age, name in ((1000, "older"), (0, "newer")):
        make_run(context.runs, name, 70)
        os.utime(context.runs / name / "metrics.jsonl", (1e9 - age,) * 2)
    parts, _ = look(context, reports, {"ticked": ["gone", "older", "newer"]}, None, {})
    assert started.pop().endswith("/older") and parts["run"]["value"] == "older"
    assert [parts[field]["value"] for field in ("first", "second")] == ["older", "newer"], "two ticked ones are a pair"
    parts, _ = look(context, reports, {}, None, {})
    assert started.pop().endswith("/newer") and parts["run"]["value"] == "newer"
    look(context, reports, {"link": True}, None, {})
    monkeypatch.setattr(view, "BY_ITSELF", 100)
    parts, _ = look(context, reports, {}, None, {})
    assert not started and "newer has not been measured" in parts["status"], "a large one waits, and so does a link"
    assert 'data-act="analyse"' in parts["status"]
    view.act(context, reports, {}, {"act": "analyse", "id": "newer"})
    assert started.pop().endswith("/newer")


def test_nothing_found_says_what_is_ruled_out(context, reports):
    parts, _ = analysed(context, reports, {"run": write(context, "log.csv", planted(amplitude=0))})
    report = Report.of(reports.read(reports.look(subject_of(context, "log.csv")).file))
    shown = report.figures["periodogram"]
    first, last, most = searched(report)
    assert (first, last, most) == (min(shown["period_steps"]), max(shown["period_steps"]), max(shown["level"]))
    assert "No ripple" in parts["verdict"] and f"over {most:.3g} nats would have stood out" in parts["verdict"]
    assert "none needed" in parts["verdict"] and 'data-act="train"' not in parts["verdict"]


def test_the_remedy_opens_train_with_the_setting(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    parts, _ = analysed(context, reports, asked)
    report = Report.of(reports.read(reports.look(subject_of(context, "log.csv")).file))
    assert remedy(report).settings == "data.order=lanes"
    assert 'data-act="train" data-id="data.order=lanes"' in parts["verdict"]
    click = {"act": "train", "id": "data.order=lanes"}
    assert view.act(context, reports, asked, click) == {"settings": "data.order=lanes"}
    click["id"] = "mine data.order=lanes"
    assert view.act(context, reports, asked, click) == {"from_run": "mine", "settings": "data.order=lanes"}
    assert "in lanes already" in remedy(replace(report, forecast=[], layout={"order": "lanes"})).words
