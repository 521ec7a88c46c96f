"""One question, one answer: what the page has is not sent again, and what it says is never trusted."""

from __future__ import annotations

import json
import threading
from functools import partial

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunWriter, state_of
from tests.experiments.made import looked
from tests.run_dir.processes import record_rank, running
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.context import Context
from workbench.jobs import Jobs, JobSpec
from workbench.jobs.alerts import AlertLog, new_alert
from workbench.live import BUSY_SECONDS, answered
from workbench.tabs.monitor import actions, labels
from workbench.tabs.monitor import index as index_module
from workbench.tabs.monitor.export import export
from workbench.tabs.monitor.view import Ask, Monitor, buttons, look

BAD = "<img src=x onerror=alert(1)>"


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MAX_AGE", 0.0)
    runs = (tmp_path / "runs").resolve()
    runs.mkdir()
    return Context(runs, (runs,), Jobs(runs, ["cpu"]))


class Page:
    """What a browser remembers between questions."""

    def __init__(self, context, **ask):
        self.view = partial(look, Monitor.over(context))
        self.ask, self.digests, self.busy = {"log": {}, **ask}, {}, None

    def poll(self, **more):
        """The parts that came, by name."""
        found = answered(self.view, {"asked": {**self.ask, **more}, "digests": self.digests})
        assert json.loads(json.dumps(found)) == found and found["problem"] == ""
        self.digests |= found["digests"]
        self.busy = found["pause"] == BUSY_SECONDS
        self.ask["log"] = found["data"].get("log", self.ask["log"])
        return {**found["markup"], **found["fields"], **found["data"]}


def test_a_second_poll_sends_nothing(context):
    run = run_folder(context.runs, "a")
    run.log_file(0).write_text("one\n")
    for pane in ("log", "samples", "notes", "settings", "results", "events", "details"):
        page = Page(context, focus="a", runs=["a"], pane=pane)
        first = page.poll()
        assert {"head", "trouble", "enabled", "note", "chart", "list"} <= first.keys()
        assert page.poll(at=first.get("slider", {}).get("value", 0)) == {}, pane


def test_new_log_lines_alone_are_sent_alone(context):
    run = run_folder(context.runs, "a")
    run.log_file(0).write_text("one\n")
    page = Page(context, focus="a", runs=["a"])
    assert page.poll()["log"]["lines"] == ["one"]
    with run.log_file(0).open("a") as file:
        file.write(f"{BAD}\n")
    found = page.poll()
    assert found.keys() == {"log"}
    assert found["log"]["lines"] == [BAD], "as text, which the page's script never parses"
    assert found["log"]["from"] == 4


def test_another_run_brings_its_own_log_and_note(context):
    for name in ("a", "b"):
        run = run_folder(context.runs, name)
        run.log_file(0).write_text(f"log of {name}\n")
        labels.write_note(run, f"note of {name}", labels.note_digest(""))
    page = Page(context, focus="a", runs=["a"])
    page.poll()
    page.ask |= {"focus": "b", "runs": ["b"]}
    found = page.poll()
    assert found["note"]["value"] == "note of b" and found["log"]["lines"] == ["log of b"]
    assert found["note_of"]["value"]["run"] == "b" and found["log"]["fresh"]
    assert found["chart"]["value"]["runs"] == ["b"]


def test_a_note_changed_elsewhere_does_not_replace_what_is_being_typed(context):
    run = run_folder(context.runs, "a")
    page = Page(context, focus="a")
    page.poll()
    labels.write_note(run, "from elsewhere", labels.note_digest(""))
    assert "note" not in page.poll()


def test_the_samples_follow_the_newest_until_someone_looks_back(context):
    run = run_folder(context.runs, "a")

    def sample(step):
        with RunWriter(run, 1) as writer:
            writer.sample(step=step, prompt="p", text=f"text of {step}", seed=1)

    sample(10), sample(20)
    page = Page(context, focus="a", pane="samples")
    first = page.poll()
    assert first["slider"] == {"maximum": 2, "value": 2, "visible": True} and "text of 20" in first["samples"]
    sample(30)
    newer = page.poll(at=2)
    assert (newer["slider"]["maximum"], newer["slider"]["value"]) == (3, 3) and "text of 30" in newer["samples"]
    assert "text of 10" in page.poll(at=1)["samples"]
    sample(40)
    back = page.poll(at=1)
    assert (back["slider"]["maximum"], back["slider"]["value"]) == (4, 1) and "samples" in back, "it is now 1 of 4"
    assert "text of 10" in back["samples"]


def test_a_request_from_outside_sets_the_chart_once(context):
    run_folder(context.runs, "a")
    page = Page(context, focus="a", runs=["a"], view={"x": "tokens"}, request=1)
    assert page.poll()["chart"]["value"] == {"runs": ["a"], "x": "tokens"}
    page.ask["view"] = {"x": "flops"}
    assert "chart" not in page.poll(), "an axis chosen on the page is not sent back to it"
    page.ask["request"] = 2
    assert page.poll()["chart"]["value"]["x"] == "flops"


@pytest.mark.parametrize("text", [
    "null", "[]", "7", '{"runs": 3, "focus": ["a"], "at": "x", "log": 1, "pane": "x", "view": 0}',
    '{"runs": ["../x", "/etc", "a;touch x", 5, null], "focus": "../../etc/passwd"}',
    '{"log": {"run": "a", "file": "../../config.toml", "offset": -5, "files": 3}, "focus": "a"}',
    '{"log": {"run": "a", "file": "rank 0", "offset": 99999999, "open": {}}, "focus": "a", "at": -7}',
    '{"focus": "a", "pane": "samples", "at": 1e300}',
])  # fmt: skip
def test_whatever_a_page_sends_is_answered(context, text):
    run_folder(context.runs, "a").log_file(0).write_text("one\n")
    question = {"asked": json.loads(text), "digests": {"list": "٣.٣", "slider": "a:3", "head": 7}}
    found = answered(partial(look, Monitor.over(context)), question)
    assert [row["name"] for row in found["data"]["list"]["rows"]] == ["a"]
    assert len(Ask.parse({"runs": [f"r{n}" for n in range(20)]}).runs) == 8


def test_a_run_that_was_removed_leaves_its_name_and_no_button(context):
    found = Page(context, focus="gone").poll()
    assert "There is no run gone." in found["head"] and not any(found["enabled"].values())


def test_buttons_are_those_that_make_sense(context):
    with running() as process:
        run = run_folder(context.runs, "live", state="running")
        record_rank(run, 0, process.pid)
        alive = buttons(state_of(run), read_only=False)
        watched = buttons(state_of(run), read_only=True)
    assert alive["stop"] and alive["kill"] and alive["ask"] and not alive["resume"]
    assert [name for name, on in watched.items() if on] == ["use", "weights"]
    ended = buttons(state_of(run_folder(context.runs, "a", state="stopped")), read_only=False)
    assert ended["resume"] and not ended["stop"] and not ended["kill"] and not ended["ask"]


def test_a_read_only_page_changes_nothing(context, tmp_path):
    run = run_folder(context.runs, "a")
    before = sorted(path.name for path in run.path.iterdir())
    only = Context(context.runs, (context.runs,), context.jobs, read_only=True)
    for action in (
        lambda: actions.stop(only, "a", "kill"), lambda: actions.ask(only, "a", "save"),
        lambda: actions.star(only, "a"), lambda: actions.resume(only, "a"), lambda: actions.save_tags(only, "a", "x"),
        lambda: actions.save_note(only, {"run": "a", "digest": ""}, "x"), lambda: actions.confirm_kill(only, "a", "a"),
    ):  # fmt: skip
        with pytest.raises(UserError, match="read-only"):
            action()
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_a_kill_is_for_the_run_that_was_asked_about(context):
    run_folder(context.runs, "a"), run_folder(context.runs, "b")
    for chosen, asked in (("b", "a"), ("a", ""), ("", "a")):
        with pytest.raises(UserError, match="press Kill again"):
            actions.confirm_kill(context, chosen, asked)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a;touch x", BAD, "", "nobody"])
def test_actions_refuse_names_that_are_no_run_here(context, name):
    for action in (actions.star, actions.resume, lambda c, n: actions.stop(c, n, "kill")):
        with pytest.raises(UserError):
            action(context, name)
    assert list(context.runs.glob("*x*")) == []


def test_a_note_goes_to_the_run_it_was_typed_for(context):
    a = run_folder(context.runs, "a")
    digest = actions.save_note(context, {"run": "a", "digest": labels.note_digest("")}, "mine")
    assert labels.read_note(a) == "mine" and digest == labels.note_digest("mine")
    assert actions.save_tags(context, "a", "x, y") == ("x", "y")


def test_csv_has_every_point_and_says_which_a_later_attempt_overwrote(context):
    run = run_folder(context.runs, "a", steps=5)
    with RunWriter(run, 2) as writer:
        writer.metrics(step=4, tokens=256, loss=float("nan"))
    lines = export(run, "csv")["text"].splitlines()
    header = lines[0].split(",")
    rows = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
    assert [(row["step"], row["attempt"], row["overwritten"]) for row in rows] == [
        ("1", "1", "0"), ("2", "1", "0"), ("3", "1", "0"), ("4", "2", "0"), ("4", "1", "1"), ("5", "1", "1"),
    ]  # fmt: skip
    assert float(rows[0]["loss"]) == 4.9 and rows[3]["loss"] == ""


def test_the_report_stands_alone_and_nothing_in_it_is_markup(context):
    run = run_folder(context.runs, "a", toml=f'[data]\nsource = "{BAD}"\n')
    run.plot_file.write_bytes(b"\x89PNG fake")
    labels.write_note(run, BAD, labels.note_digest(""))
    with RunWriter(run, 1) as writer:
        writer.sample(step=3, prompt=BAD, text=BAD, seed=1)
    text = export(run, "report")["text"]
    assert "<img src=x" not in text and text.count("&lt;img src=x") >= 3
    assert 'src="data:image/png;base64,' in text and "http" not in text and "<script" not in text


def test_exports_that_do_not_exist_are_refused(context):
    run = run_folder(context.runs, "a")
    run.config_file.unlink()
    for what in ("config", "checkpoint", "../x"):
        with pytest.raises(UserError):
            export(run, what)


def test_many_pages_at_once_get_the_same_answer(context):
    run_folder(context.runs, "a")
    page = Page(context, focus="a", runs=["a"])
    answers, threads = [], []
    for _ in range(8):
        threads.append(threading.Thread(target=lambda: answers.append(answered(page.view, {"asked": page.ask}))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len({found["markup"]["head"] for found in answers}) == 1


@pytest.mark.parametrize(("state", "may"), [("finished", False), ("stopped", True), ("failed", True)])
def test_every_part_of_the_page_has_one_rule_for_resume(context, state, may):
    from workbench.tabs.train import queue

    run = run_folder(context.runs, "a", state=state)
    context.jobs.store.prepare()
    assert buttons(state_of(run), read_only=False)["resume"] == may
    assert ("Resume a" in queue.resume_list(context)) == may
    for resume in (lambda: actions.resume(context, "a"), lambda: queue.resume(context, "a", "")):
        if may:
            resume()
            context.jobs.cancel(context.jobs.queue()[0].id)
        else:
            with pytest.raises(UserError, match="is finished; only a stopped, failed or lost run can be resumed"):
                resume()


def test_an_arm_that_its_sweep_stopped_is_not_first_of_all_resumed(context):
    looked(context.runs, "rates", {"lr1": f"worse than lr2 {BAD}"}, ["lr2"])
    primary = 'class="wb-mon-primary" data-press="wb-do-'
    for name, first in (("rates.lr1.1", "sample"), ("rates.lr2.1", "resume")):
        run = run_folder(context.runs, name, state="stopped")
        (run.checkpoints_dir / "step-00000003").mkdir(parents=True)
        (run.checkpoints_dir / "step-00000003" / "MANIFEST.json").write_text("{}")
        head = Page(context, focus=name, runs=[name]).poll()["head"]
        assert f"{primary}{first}" in head and ("lost at look 1 of 3" in head) == (first == "sample")
        assert head.count('data-press="wb-do-resume"') == 1, "all the same it can be"
        assert "<img" not in head


@pytest.mark.parametrize(("state", "news"), [("running", True), ("finished", False), ("stopped", False)])
def test_low_disk_is_news_to_a_run_at_work_and_for_one_that_has_ended_an_event(context, state, news):
    run = run_folder(context.runs, "a", state=state)
    log = AlertLog(context.jobs.store.folder / "alerts.jsonl")
    for moment in (1.0, 2.0):
        log.add(new_alert("error", "disk", "", "2 GB are free", at=f"{moment}", when=moment))
    with running() as rank:
        record_rank(run, 0, rank.pid)
        parts = Page(context, focus="a", runs=["a"], pane="events").poll()
    assert ("disk ×2" in parts["head"]) == news and parts["alerts"].count("2 GB are free") == 2


def test_where_a_run_goes_on_from_is_said_before_it_does(context):
    run = run_folder(context.runs, "a", state="failed")
    context.jobs.store.prepare()
    assert actions.resume(context, "a") == "a has no checkpoint: it starts again at step 0"
    context.jobs.cancel(context.jobs.queue()[0].id)
    (run.checkpoints_dir / "step-00000003").mkdir(parents=True)
    (run.checkpoints_dir / "step-00000003" / "MANIFEST.json").write_text("{}")
    assert actions.resume(context, "a") == "a goes on from its checkpoint of step 3"


def test_the_report_of_a_stop_goes_when_the_run_goes_on(context):
    """Started again from here or from a terminal: it then said of a running run that every process is gone."""
    run = run_folder(context.runs, "a", state="stopped")
    for again in (lambda: context.jobs.resume_run("a"), lambda: RunWriter(run, 2).close()):
        stop = context.jobs.stop("a", "save")
        assert stop.wait(60) and context.jobs.stop_of("a") is stop
        shown = Page(context, focus="a", runs=["a"]).poll()["head"]
        assert "every process is gone" in shown
        again()
        assert Page(context, focus="a", runs=["a"]).poll()["head"].count("every process is gone") == 0


def test_after_a_resume_the_page_tells_the_step_it_went_back_to(context):
    run = run_folder(context.runs, "a", steps=9, state="stopped")
    (run.checkpoints_dir / "step-00000005").mkdir()
    (run.checkpoints_dir / "step-00000005" / "MANIFEST.json").touch()
    with RunWriter(run, 2) as writer:
        for state, phase, step in (("starting", "starting", 0), ("running", "training", 5)):
            writer.status(state=state, phase=phase, step=step, steps=10)
            page = Page(context, focus="a", runs=["a"]).poll()
            assert page["list"]["rows"][0]["step"] == 5 and page["list"]["rows"][0]["loss"] is None
            assert "step 5" in page["head"] and "step 9" not in page["head"]
        writer.metrics(step=6, loss=4.0)
        writer.status(step=6)
    assert "step 6 of 10" in Page(context, focus="a", runs=["a"]).poll()["head"]


def test_a_folder_that_cannot_be_understood_is_listed_and_hides_no_other(context, monkeypatch):
    for name in ("a", "b", "c"):
        run_folder(context.runs, name)
    real = index_module.state_of

    def broken(run, **more):
        if run.name == "b":
            raise RuntimeError("what nobody has thought of")
        return real(run, **more)

    monkeypatch.setattr(index_module, "state_of", broken)
    monitor = Monitor.over(context)
    first = monitor.index.changes()
    assert {row["name"]: row["state"] for row in first["rows"]} == {"a": "finished", "b": "lost", "c": "finished"}
    assert monitor.index.changes(first["mark"])["rows"] == [], "and costs nothing while it does not change"


def test_a_page_that_is_told_of_another_ones_look_does_not_rest_on_it(context, monkeypatch):
    run = run_folder(context.runs, "a")
    page = Page(context, focus="a", runs=["a"])
    page.poll()
    monkeypatch.setattr(index_module, "MAX_AGE", 60.0)
    labels.write_tags(run, "since")
    assert "list" not in page.poll() and page.busy, "what has changed since the look is still to be told"
    monkeypatch.setattr(index_module, "MAX_AGE", 0.0)
    assert page.poll()["list"]["rows"][0]["tags"] == ["since"] and not page.busy


def test_a_page_is_told_whether_it_is_worth_asking_again_soon(context):
    run_folder(context.runs, "a")
    page = Page(context, focus="a", runs=["a"])
    page.poll()
    assert page.busy is False
    with running() as process:
        live = run_folder(context.runs, "live", state="running")
        record_rank(live, 0, process.pid)
        page.poll()
        assert page.busy is True
    page.poll()
    assert page.busy is False
    context.jobs.store.prepare()
    context.jobs.submit(JobSpec("b", ("true",)))
    page.poll()
    assert page.busy is True, "what waits may start at any moment"


def test_the_page_is_asked_anew_while_the_process_of_a_run_that_has_ended_is_still_there(context):
    run = run_folder(context.runs, "a", state="failed")
    page = Page(context, focus="a", runs=["a"])
    with running() as process:
        record_rank(run, 0, process.pid)
        assert page.poll()["enabled"]["wb-do-save"] and page.busy
    assert page.poll()["enabled"]["wb-do-save"] is False
    assert page.busy is False


def test_the_list_says_which_tokenizer_a_run_has(context):
    for name, spec in (("a", "gpt2:8192"), ("b", "gpt2:8192"), ("c", "gpt2"), ("d", "")):
        run_folder(context.runs, name, toml=f'[data]\ntokenizer = "{spec}"\n' if spec else "")
    page = Page(context, focus="a", runs=["a", "b", "c"]).poll()
    found = {row["name"]: row["tokenizer"] for row in page["list"]["rows"]}
    assert found == {"a": "gpt2:8192", "b": "gpt2:8192", "c": "gpt2", "d": ""}


@pytest.mark.parametrize(("job", "on"), [("", {"resume"}), ("running", {"stop", "kill"}), ("claimed", {"stop", "kill"}),
                                         ("waiting", {"stop"}), ("queued", {"stop"})])  # fmt: skip
def test_a_stopped_run_that_has_a_place_in_the_queue_can_be_stopped_and_not_resumed(context, job, on):
    """Its launcher ends in a moment, or it is started again in a minute: Resume was on, and the click refused."""
    state = state_of(run_folder(context.runs, "a", state="stopped"))
    found = buttons(state, read_only=False, job=job)
    assert {name for name in ("stop", "kill", "resume") if found[name]} == on
