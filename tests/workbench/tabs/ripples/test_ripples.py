"""The ripples tab without a browser: what is analysed when, and what may be asked of it."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunWriter, state_of, write_rank
from tests.workbench.conftest import make_run
from tests.workbench.tabs.data.data_runs import context_of, parquet_folder, small_config, traced_run
from tests.workbench.tabs.ripples.made_up import AMPLITUDE, PERIOD, analysed, look, planted, settled, write
from workbench.tabs.ripples import tab, view
from workbench.tabs.ripples.reports import KIND, Reports, command
from workbench.tabs.ripples.subject import subject_of


@pytest.fixture
def context(tmp_path):
    return context_of(tmp_path)


@pytest.fixture
def reports(context):
    return Reports(context)


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
    assert "Measuring log.csv" in first["status"] and 'data-act="stop"' in first["status"] and first["verdict"] == ""
    with pytest.raises(UserError, match="being measured already"):
        view.act(context, reports, asked, {"act": "analyse"})
    parts, seen = settled(context, reports, asked)
    report = reports.read(reports.look(subject_of(context, "log.csv")).file)
    assert report["significant"] and abs(report["period_steps"] / PERIOD - 1) < 0.02
    assert abs(report["amplitude"] / AMPLITUDE - 1) < 0.2
    assert look(context, reports, asked, parts["peak"]["value"], seen)[0] == {}, "nothing new, nothing sent"
    again, _ = look(context, Reports(context), asked, None, {})
    assert again["verdict"] == parts["verdict"] and "Measure again" in again["status"], (
        "another server finds it at once"
    )


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
        assert "Measuring live" in parts["status"]
        view.act(context, reports, asked, {"act": "stop"})
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
        ("", "is chosen"),
        ("no-such-run", "no run"),
        ("/etc/passwd", "outside"),
        ("../other", "outside"),
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
    assert "have not been compared yet" in parts["pair"] and not context.jobs.tasks.list(KIND)
    view.compare(context, reports, first, second)
    deadline = time.monotonic() + 120
    while "Difference over the run" not in parts["pair"]:
        assert time.monotonic() < deadline
        parts, _ = look(context, reports, {"first": first, "second": second})
        time.sleep(0.1)
    assert "a.csv − b.csv" in parts["pair"] and "until 0.001 nats is resolved" in parts["pair"]
    assert parts["pair"].index("of a.csv to b.csv") < parts["pair"].index("wb-figures") < parts["pair"].index("<svg")


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


def test_read_only_reads_and_starts_nothing(tmp_path):
    context = context_of(tmp_path, read_only=True)
    name = write(context, "log.csv", planted())
    parts, _ = look(context, Reports(context), {"run": name}, None, {})
    assert "read only" in parts["status"] and not context.jobs.tasks.list()
    with pytest.raises(UserError, match="read-only"):
        view.act(context, Reports(context), {"run": name}, {"act": "analyse"})


def test_request_fills_the_fields_and_forgets_what_was_said_of_another_log():
    from workbench.page import Page

    fields = ["run", "reference", *view.FIELDS]
    values = tab.asked(Page, fields, json.dumps({"run": "mine", "batch_tokens": "1000", "nonce": "x"}))
    assert values[:2] == ["mine", ""] and values[fields.index("batch_tokens")] == 1000.0
    assert values[len(fields)] == {"run": "mine", "batch_tokens": 1000.0}
    assert tab.asked(Page, fields, "{}")[0] != "mine"


def test_many_pages_at_once_start_one_analysis_and_see_no_error(context, reports):
    asked = {"run": write(context, "log.csv", planted())}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: look(context, reports, asked, None, {})[0], range(8)))
    assert len(context.jobs.tasks.list(KIND)) == 1
    assert all("Measuring log.csv" in answer["status"] for answer in answers)
    view.act(context, reports, asked, {"act": "stop"})
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
