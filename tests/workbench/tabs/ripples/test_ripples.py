"""The ripples tab without a browser: what is analysed when, what is shown of it, and how logs that say little read."""

from __future__ import annotations

import json
import math
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.ripples.report import Report
from mygpt2.run_dir import RunDir, RunWriter, state_of, write_rank
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import context_of, parquet_folder, small_config, traced_run
from workbench import html
from workbench.live import News
from workbench.tabs.ripples import subject as subjects
from workbench.tabs.ripples import tab, view
from workbench.tabs.ripples.peaks import peaks
from workbench.tabs.ripples.reports import KIND, Reports, command
from workbench.tabs.ripples.subject import IMPORT, choices, subject_of, take_in

PERIOD, AMPLITUDE = 25.0, 0.1
CSV = "step,tokens,train_loss\n"


@pytest.fixture
def context(tmp_path):
    return context_of(tmp_path)


@pytest.fixture
def reports(context):
    return Reports(context)


def planted(steps=600, amplitude=AMPLITUDE, seed=0):
    """A CSV whose loss swings with PERIOD, its crest at the steps 0, PERIOD, ..."""
    noise = random.Random(seed)
    lines = []
    for step in range(1, steps + 1):
        wave = amplitude * math.cos(2 * math.pi * step / PERIOD)
        lines.append(f"{step},{step * 1000},{3 + 2 / (1 + step / 50) + wave + noise.gauss(0, 0.03)}")
    return CSV + "\n".join(lines) + "\n"


def write(context, name, text):
    path = context.data_roots[0] / name
    path.write_text(text)
    return name


def look(context, reports, asked, peak=None, seen=None):
    """A page's question and its answer: (the parts that came by name, what the page shows)."""
    news = News(seen)
    view.look(context, reports, {**asked, "peak": peak}, news)
    parts = news.changed["markup"] | news.changed["fields"] | news.changed["data"]
    return {name: str(part) if name in news.changed["markup"] else part for name, part in parts.items()}, {
        **(seen or {}), **news.digests
    }  # fmt: skip


def analysed(context, reports, asked):
    """Makes the report that a task would make, with the same words to the same verb, in this process; then looks."""
    subject = view.subject_asked(context, asked)
    file = reports.file(subject)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert main(command(subject, file)[3:]) == 0
    return look(context, reports, asked, None, {})


def settled(context, reports, asked, seen=None):
    """Polls as a page does until no analysis is under way: (all parts that came, what the page shows)."""
    parts, seen = {}, dict(seen or {})
    deadline = time.monotonic() + 120
    while True:
        found, seen = look(context, reports, asked, None, seen)
        parts |= found
        if not reports.look(view.subject_asked(context, asked)).running:
            found, seen = look(context, reports, asked, None, seen)
            return parts | found, seen
        assert time.monotonic() < deadline, "the analysis did not end"
        time.sleep(0.1)


def test_a_folder_of_event_files_changes_when_one_grows_or_comes(context):
    folder = context.data_roots[0] / "events"
    folder.mkdir()
    states = [subject_of(context, "events").state]
    for name, text in (("1", "a"), ("1", "ab"), ("2", "c")):
        (folder / f"events.out.tfevents.{name}").write_text(text)
        states.append(subject_of(context, "events").state)
    (folder / "notes.txt").write_text("of no consequence")
    assert [size for size, _ in states] == [0, 1, 2, 3] and len(set(states)) == 4
    assert subject_of(context, "events").state == states[-1]


def test_chosen_log_is_analysed_by_a_task_and_what_it_made_is_kept(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    first, _ = look(context, reports, asked, None, {})
    assert "Analysing log.csv" in first["status"] and first["enabled"]["wb-ripples-stop"] and first["verdict"] == ""
    with pytest.raises(UserError, match="being analysed already"):
        view.analyse(context, reports, asked)
    parts, seen = settled(context, reports, asked)
    report = reports.read(reports.look(subject_of(context, "log.csv")).file)
    assert report["significant"] and abs(report["period_steps"] / PERIOD - 1) < 0.02
    assert abs(report["amplitude"] / AMPLITUDE - 1) < 0.2
    assert look(context, reports, asked, parts["peak"]["value"], seen)[0] == {}, "nothing new, nothing sent"
    again, _ = look(context, Reports(context), asked, None, {})
    assert again["verdict"] == parts["verdict"] and not again["enabled"]["wb-ripples-stop"], (
        "another server finds it at once"
    )


def test_report_is_shown_with_every_figure_and_its_verdict_first(context, reports):
    parts, _ = analysed(context, reports, {"run": write(context, "log.csv", planted())})
    report = reports.read(reports.look(subject_of(context, "log.csv")).file)
    assert html.escape(report["verdict"]) in parts["verdict"] and "wb-verdict-found" in parts["verdict"]
    for title in ("Periodogram", "Residual", "Folded", "Autocorrelation", "Forecast"):
        assert f"<title>{title}" in parts["figures"]
    assert parts["figures"].count("<desc>") == parts["figures"].count('<svg viewBox="0 0 1000')
    assert "<title>Loss</title>" in parts["loss"] and "fig-is-shade" in parts["loss"] and parts["of"] == []


def test_pulses_are_shown_with_their_period_cause_and_remedy(context, reports):
    rows = planted(steps=1600, amplitude=0).splitlines()
    for i in range(1, len(rows)):
        cells = rows[i].split(",")
        cells[-1] = str(float(cells[-1]) + (0.25 if i % 80 == 3 else 0))
        rows[i] = ",".join([*cells, "3.1" if i % 80 == 2 else ""])
    rows[0] += ",val_loss"
    parts, _ = analysed(context, reports, {"run": write(context, "pulses.csv", "\n".join(rows) + "\n")})
    assert "Pulses of +0.2" in parts["verdict"] and "every 80" in parts["verdict"]
    assert "the evaluation interval" in parts["verdict"] and "no order of the data" in parts["verdict"]


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
    assert set(found) == {"peak", "chart", "loss"}


def test_another_report_begins_with_its_own_first_peak(context, reports):
    parts, seen = analysed(context, reports, {"run": write(context, "log.csv", planted())})
    other = {"run": write(context, "other.csv", planted(seed=3))}
    analysed(context, reports, other)
    found, seen = look(context, reports, other, parts["peak"]["choices"][1][1], seen)
    assert found["peak"]["value"] == found["peak"]["choices"][0][1]
    chosen = found["peak"]["choices"][1][1]
    assert look(context, reports, other, chosen, seen)[0]["peak"]["value"] == chosen


def test_changed_log_is_due_again_and_options_are_another_analysis(context, reports):
    name = write(context, "log.csv", planted())
    analysed(context, reports, {"run": name})
    subject = subject_of(context, name)
    assert reports.look(subject).fresh and not reports.wants(subject, reports.look(subject))
    write(context, "log.csv", planted(700))
    assert not reports.look(subject).fresh and reports.wants(subject, reports.look(subject))
    part = subject_of(context, name, "", {"steps": "100:500"})
    assert part.key != subject.key and reports.look(part).file is None
    analysed(context, reports, {"run": name, "steps": "100:500"})
    assert reports.read(reports.look(part).file)["signal"]["last_step"] == 500


def test_run_at_work_is_analysed_again_when_it_has_grown_by_a_tenth(context, reports):
    run = RunDir.create(context.runs, "live")

    def write_steps(first, last):
        for step in range(first, last + 1):
            loss = 3 + AMPLITUDE * math.cos(2 * math.pi * step / PERIOD) + 0.03 * math.sin(step**2)
            writer.metrics(step=step, tokens=step * 1000, loss=loss, lr=1e-3)
        writer.status(state="running", phase="training", step=last, steps=1000, tokens=last * 1000, loss=3.0)

    with RunWriter(run, 1) as writer:
        writer.config(to_toml(load_config("tiny")))
        write_rank(run, 0, world_size=1, device="cpu", attempt=1)
        write_steps(1, 200)
        assert state_of(run).alive
        asked = {"run": "live"}
        _, seen = analysed(context, reports, asked)
        write_steps(201, 210)
        parts, seen = look(context, reports, asked, None, seen)
        assert "grown by" in parts["status"] and not reports.look(subject_of(context, "live")).running
        write_steps(211, 250)
        parts, seen = look(context, reports, asked, None, seen)
        assert "Analysing live" in parts["status"]
        view.stop(context, reports, asked)
        settled(context, reports, asked, seen)
        write_steps(251, 255)
        found = reports.look(subject_of(context, "live"))
        assert not reports.wants(subject_of(context, "live"), found), "a stopped one waits for another tenth"
        writer.finish("finished", 0, "finished")
    subject = subject_of(context, "live")
    assert reports.wants(subject, reports.look(subject)), "a run that has ended is analysed whole"


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
    assert "left out" in parts["verdict"] and "missing" in parts["verdict"]
    assert "wb-verdict-found" in parts["verdict"]


def test_uploads_are_kept_by_content_and_capped(context, monkeypatch, tmp_path):
    source = tmp_path / "my log <b>.csv"
    source.write_text(planted())
    choice = take_in(context, source)
    assert choice.startswith(IMPORT) and take_in(context, source) == choice
    assert (f"{choice.rsplit('/', 1)[1]} · imported", choice) in choices(context)
    assert subject_of(context, choice).path.read_text() == planted()
    with pytest.raises(UserError, match="upload it again"):  # uploads go after an hour
        take_in(context, tmp_path / "gone.csv")
    monkeypatch.setattr(subjects, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="at most"):
        take_in(context, source)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is chosen"),
        ("no-such-run", "no run"),
        ("/etc/passwd", "outside"),
        ("../other", "outside"),
        (f"{IMPORT}../../../../etc/passwd", "not there any more"),
        ("nothing.csv", "does not exist|no run"),
    ],
)
def test_what_is_no_run_and_no_log_is_refused(context, text, said):
    with pytest.raises(UserError, match=said):
        subject_of(context, text)


@pytest.mark.parametrize(
    "options",
    [{"steps": "9:3"}, {"steps": ":"}, {"steps": "a:b"}, {"batch_tokens": -1}, {"file_tokens": "x"},
     {"dataset": "mine"}, {"files": 1e300}, {"column": "a\nb"}],
)  # fmt: skip
def test_options_that_are_not_possible_are_refused(context, options):
    name = write(context, "log.csv", planted())
    with pytest.raises(UserError):
        subject_of(context, name, "", options)


def test_reference_is_another_run_and_part_of_the_command(context):
    first, second = (write(context, name, planted(seed=n)) for n, name in enumerate(("a.csv", "b.csv")))
    with pytest.raises(UserError, match="twice"):
        subject_of(context, first, first)
    subject = subject_of(context, first, second, {"dataset": "fineweb-edu", "streams": 8})
    words = command(subject, context.runs / "out.json")
    assert words[words.index("--against") + 1].endswith("b.csv")
    assert words[words.index("--dataset") + 1] == "fineweb-edu" and words[words.index("--streams") + 1] == "8"


def test_two_runs_are_compared_when_asked(context, reports):
    logs = (("a.csv", 0.1), ("b.csv", 0.0))
    first, second = (write(context, name, planted(seed=1, amplitude=amplitude)) for name, amplitude in logs)
    parts, _ = look(context, reports, {"first": first, "second": second})
    assert "has not been analysed" in parts["pair"] and not context.jobs.tasks.list(KIND)
    view.compare(context, reports, first, second)
    deadline = time.monotonic() + 120
    while "Difference over the run" not in parts["pair"]:
        assert time.monotonic() < deadline
        parts, _ = look(context, reports, {"first": first, "second": second})
        time.sleep(0.1)
    assert "a.csv − b.csv" in parts["pair"] and "until 0.001 nats is resolved" in parts["pair"]


def test_names_and_words_of_a_log_are_text(context, reports):
    name = write(context, "<img src=x onerror=alert(1)>.csv", planted(200))
    parts, _ = analysed(context, reports, {"run": name})
    for part in ("status", "verdict", "loss", "figures"):
        assert "<img" not in parts[part]


def test_step_names_file_row_group_and_first_document(context, tmp_path):
    source = parquet_folder(context.data_roots[0] / "corpus")
    traced_run(context.runs, "traced", small_config(source, order="sequential"), tmp_path / "cache")
    words = view.about_step(context, "traced", 1)
    assert words.startswith("Step 1: file part-0.parquet, row group 0, first document 0; ")
    assert "is not in the trace" in view.about_step(context, "traced", 10_000)
    make_run(context.runs, "plain", 70)
    assert "no trace yet" in view.about_step(context, "plain", 3)
    tell = view.teller(context)
    assert "not a step" in tell({"run": "traced", "step": "x"}) and "no run" in tell({"run": "none", "step": 1})
    assert isinstance(tell(None), str)


def test_report_is_saved_as_json_and_as_one_page(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    with pytest.raises(UserError, match="no report yet"):
        view.file_text(context, reports, asked, "json")
    analysed(context, reports, asked)
    saved = json.loads(view.file_text(context, reports, asked, "json"))
    assert saved["name"] == "ripples-log.csv.json" and json.loads(saved["text"])["significant"]
    page = json.loads(view.file_text(context, reports, asked, "html"))["text"]
    assert page.startswith("<!doctype html>") and "http" not in page.replace("http-equiv", "")


def test_read_only_reads_and_starts_nothing(tmp_path):
    context = context_of(tmp_path, read_only=True)
    name = write(context, "log.csv", planted())
    parts, _ = look(context, Reports(context), {"run": name}, None, {})
    assert "read only" in parts["status"] and not context.jobs.tasks.list()
    with pytest.raises(UserError, match="read-only"):
        view.analyse(context, Reports(context), {"run": name})
    with pytest.raises(UserError, match="read-only"):
        take_in(context, context.data_roots[0] / name)


def test_request_fills_the_fields_and_forgets_what_was_said_of_another_log():
    from workbench.page import Page

    fields = ["run", "reference", *view.FIELDS]
    values = tab.asked(Page, fields, json.dumps({"run": "mine", "batch_tokens": "1000", "nonce": "x"}))
    assert values[:2] == ["mine", ""] and values[fields.index("batch_tokens")] == 1000.0
    assert values[len(fields)] == {"run": "mine", "batch_tokens": 1000.0}
    assert tab.asked(Page, fields, "{}")[0] != "mine"


def test_empty_page_says_what_to_do(context, reports):
    parts, seen = look(context, reports, {}, None, {})
    assert "no run in this folder yet" in parts["status"]
    make_run(context.runs, "mine", 70)
    parts, _ = look(context, reports, {}, None, seen)
    assert "Choose a run above" in parts["status"] and ("mine", "mine") in parts["run"]["choices"]


def test_many_pages_at_once_start_one_analysis_and_see_no_error(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: look(context, reports, asked, None, {})[0], range(8)))
    assert len(context.jobs.tasks.list(KIND)) == 1
    assert all("Analysing log.csv" in answer["status"] for answer in answers)
    view.stop(context, reports, asked)
    settled(context, reports, asked)


def test_data_that_a_trace_names_outside_the_roots_is_not_opened(context, reports, tmp_path, monkeypatch):
    config = small_config(parquet_folder(context.data_roots[0] / "data"))
    run = traced_run(context.runs, "of-others", config, tmp_path / "cache")
    started = []
    monkeypatch.setattr(context.jobs.tasks, "start", lambda kind, words, **how: started.append(words))
    reports.start(view.subject_asked(context, {"run": "of-others"}))
    outside = parquet_folder(tmp_path / "outside") / "part-0.parquet"
    manifest = json.loads((run.trace_dir / "manifest.json").read_text())
    manifest["files"][0][3] = str(outside)
    (run.trace_dir / "manifest.json").write_text(json.dumps(manifest))
    reports.start(view.subject_asked(context, {"run": "of-others"}))
    assert ["--no-attribution" in words for words in started] == [False, True]


def test_the_verb_opens_no_data_where_it_is_told_so(context, monkeypatch):
    make_run(context.runs, "one", steps=100, state="finished")
    asked = []

    def analyse(log, *, attribution, **how):
        asked.append(attribution)
        raise UserError("looked at")

    monkeypatch.setattr("mygpt2.ripples.analyse", analyse)
    for words in ([], ["--no-attribution"]):
        assert main(["ripples", str(context.runs / "one"), *words]) == 2
    assert asked == [True, False]


def test_a_forged_trace_is_told_in_place_of_the_step(context, tmp_path):
    config = small_config(parquet_folder(context.data_roots[0] / "data"))
    run = traced_run(context.runs, "of-others", config, tmp_path / "cache")
    file = next(run.trace_dir.glob("*.parquet"))
    table = pq.read_table(file)
    blocks = pa.array([[10**6 for _ in row] for row in table["block"].to_pylist()], table["block"].type)
    pq.write_table(table.set_column(table.schema.get_field_index("block"), "block", blocks), file)
    assert view.teller(context)({"run": "of-others", "step": 1}) == "The trace of this run cannot be read."
    file.rename(tmp_path / file.name)
    file.symlink_to(tmp_path / file.name)
    assert view.teller(context)({"run": "of-others", "step": 1}) == "The trace of this run cannot be read."
