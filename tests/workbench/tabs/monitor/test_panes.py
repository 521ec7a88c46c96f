"""Alerts, events, samples, results, settings and the head: what they say, and that all of it is text."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from mygpt2.files import replace_json
from mygpt2.run_dir import state_of
from mygpt2.run_dir.stop import Outcome
from tests.run_dir.processes import record_rank, running
from tests.workbench.tabs.monitor.folders import run_folder
from workbench import words
from workbench.jobs import Alert
from workbench.jobs.gpus import DeviceWatch, parse_devices
from workbench.jobs.reading import starting
from workbench.tabs.monitor import chips, details, diff, head, panes
from workbench.tabs.monitor.glance import glance
from workbench.tabs.monitor.index import row_of
from workbench.tabs.monitor.trouble import trouble
from workbench.tabs.monitor.view import buttons

BAD = "<img src=x onerror=alert(1)>"


def alert(run="a", *, kind="crash", level="error", time=0.0, text="rank 1 exited with -9", tail=()):
    return Alert(f"{run}/{kind}/{time}", level, kind, run, 7, time, text, tuple(tail))


def shown_head(run, events=(), *, read_only=False, **place):
    """The head of a run as it is now, out of any queue."""
    state = state_of(run)
    return head.head(glance(run, state, events), head.Place(buttons(state, read_only=read_only), **place))


def what_went_wrong(run, alerts=()):
    return trouble(glance(run, state_of(run), []), alerts, None, may_resume=True)


def primary(markup):
    """The label of the one primary button, "" without one."""
    found = re.findall(r'<button[^>]*class="wb-mon-primary"[^>]*>([^<]*)<', markup)
    assert len(found) < 2
    return found[0] if found else ""


def items(markup):
    return re.findall(r'role="menuitem"[^>]*>([^<]+)<', markup)


def assert_all_text(markup):
    assert "<img" not in markup and "&lt;img" in markup


def test_nothing_of_a_run_becomes_markup(tmp_path):
    run = run_folder(tmp_path, "a", toml=f'[data]\nsource = "{BAD}"\n')
    replace_json(run.evals_dir / "x.json", {"model": BAD, "protocol": BAD, "loss": 1.0})
    replace_json(run.command_file, {"versions": {BAD: BAD}, "host": BAD, "git": {"commit": BAD}})
    sample = {"step": 1, "prompt": BAD, "text": BAD, "seed": BAD}
    for markup in (
        panes.alerts([alert(text=BAD, tail=[BAD])], "a"),
        panes.alerts([alert(text=BAD), alert("b", text=BAD)], "c"),
        panes.events([{"kind": BAD, BAD: BAD, "message": BAD}]),
        panes.samples(panes.moments([sample]), 1),
        panes.results(run),
        diff.table([run], all_rows=True),
    ):
        assert_all_text(markup)
    status = {"state": BAD, "phase": BAD, "step": 3, "steps": 9, "attempt": 1, "message": BAD, "loss": BAD, "eta": BAD}
    run.exit_file.unlink()
    replace_json(run.status_file, {**status, "state": "running"})
    record = {"pid": 999999, "start": BAD, "host": BAD, "device": BAD, "attempt": 1}
    replace_json(run.rank_file(0), record)
    state = state_of(run)
    assert_all_text(shown_head(run, [{"kind": "eval", "loss": BAD, "step": BAD}]))
    assert_all_text(details.ranks(state, []))
    chip = chips.alert_chips([alert(text=BAD, tail=[BAD]), alert("b", text=BAD)], "a")
    for markup in (*chip, what_went_wrong(run_folder(tmp_path, "f", state="failed"), [alert("f", tail=[BAD])])):
        assert_all_text(markup)


def test_alerts_of_the_run_and_the_folder_come_before_those_of_others():
    shown = panes.alerts([alert("b", time=3.0), alert("", kind="disk", time=2.0), alert("a", time=1.0)], "a")
    assert shown.index("disk") < shown.index("Other runs") < shown.index('data-wb-run="b"')
    assert shown.count('class="wb-mon-alert ') == 2


def test_a_crash_shows_the_end_of_its_log():
    shown = panes.alerts([alert(tail=["Traceback", "boom"])], "a")
    assert re.search(r"<pre[^>]*>Traceback\nboom</pre>", shown)


def test_samples_of_a_step_are_those_of_its_last_attempt():
    old = {"step": 5, "attempt": 1, "prompt": "p", "text": "old"}
    new = [{"step": 5, "attempt": 2, "prompt": p, "text": f"new {p}"} for p in ("p", "q")]
    timeline = panes.moments([old, {"step": 3, "text": "first"}, *new, {"text": "no step"}])
    assert [(step, [s["text"] for s in found]) for step, found in timeline] == [(3, ["first"]), (5, ["new p", "new q"])]
    assert "Step 5, 2 of 2" in panes.samples(timeline, 99) and "first" in panes.samples(timeline, -1)


def test_results_show_hellaswag_where_there_is_one(tmp_path):
    run = run_folder(tmp_path, "a")
    swag = {"completion": {"acc_norm": 0.2955, "acc": 0.28}, "harness": {"acc_norm": 0.29}}
    replace_json(run.evals_dir / "x.json", {"model": "a/step-9", "loss": 3.28123, "stderr": 0.01, "hellaswag": swag})
    (run.evals_dir / "broken.json").write_text("{")
    shown = panes.results(run)
    assert "3.2812" in shown and "29.55 %" in shown and "1 result in" in shown and "broken" not in shown


def test_only_settings_that_differ_are_shown_unless_asked(tmp_path):
    first = run_folder(tmp_path, "a", toml="[train]\nsteps = 5\nseed = 1\n[optimizer]\nlr = 0.1\n")
    second = run_folder(tmp_path, "b", toml="[train]\nsteps = 5\n[data]\nseed = 2\n[model]\nseed = 1\n")
    found = [diff.facts(first), diff.facts(second)]
    assert dict(diff.differences(found, all_rows=False)) == {"data.seed": ["1", "2"], "optimizer.lr": ["0.1", "–"]}
    assert ("train.steps", ["5", "5"]) in diff.differences(found, all_rows=True)


def test_differences_of_code_versions_tokenizer_and_data_are_settings_too(tmp_path):
    runs = []
    for name in ("a", "b"):
        run = run_folder(tmp_path, name)
        replace_json(run.command_file, {"git": {"commit": f"c-{name}", "changed": False}, "versions": {"torch": name}})
        checkpoint = run.checkpoints_dir / "step-00000003"
        checkpoint.mkdir()
        state = {"tokenizer": {"fingerprint": f"t-{name}"}, "data": {"fingerprint": {"data": f"d-{name}", "lanes": 4}}}
        (checkpoint / "state.json").write_text(json.dumps(state))
        runs.append(run)
    rows = dict(diff.differences([diff.facts(run) for run in runs], all_rows=False))
    assert rows == {
        "code: git commit": ["c-a", "c-b"], "version: torch": ["a", "b"], "tokenizer: hash": ["t-a", "t-b"],
        "data fingerprint: data": ["d-a", "d-b"],
    }  # fmt: skip


def test_the_head_says_how_far_how_fast_and_the_details_what_is_not_known(tmp_path):
    with running() as process:
        run = run_folder(tmp_path, "a", state="running")
        record_rank(run, 0, process.pid)
        state = state_of(run)
        event = {
            "kind": "eval",
            "loss": 4.4444,
            "step": 2,
            "bits_per_byte": 1.5,
            "yardstick": {"of": "gpt2", "loss": 3.2},
        }
        shown = shown_head(run, [event])
        table = details.details(glance(run, state, []), [])
    assert 'aria-valuenow="30"' in shown and "step 3 of 10, 30 %" in shown
    assert "4.4444" in shown and "1.5000 bits per byte · gpt2 3.2000" in shown and "mean of 3 steps 4.8000" in shown
    text = re.sub("<[^>]+>", " ", table)
    assert re.search(r"Data wait\s+10\.0 %", text) and re.search(r"MFU\s+n/a", text)
    assert str(process.pid) in table and "runs" in table


def test_each_state_has_the_one_button_that_fits_and_four_figures(tmp_path):
    ended = {state: run_folder(tmp_path, state, state=state) for state in ("finished", "stopped", "failed", "queued")}
    (ended["stopped"].checkpoints_dir / "step-00000003").mkdir()
    (ended["stopped"].checkpoints_dir / "step-00000003" / "MANIFEST.json").write_text("{}")
    found = {state: primary(shown_head(run)) for state, run in ended.items()}
    assert found == {"finished": "Sample it", "stopped": "Resume", "failed": "Start again", "queued": "Stop and save"}
    assert primary(shown_head(ended["queued"], waiting=1, queue=2)) == "Cancel"
    assert "1 of 2 in the queue" in shown_head(ended["queued"], waiting=1, queue=2)
    with running() as process:
        run = run_folder(tmp_path, "alive", state="running")
        record_rank(run, 0, process.pid)
        alive, watched = shown_head(run), shown_head(run, read_only=True)
        assert primary(alive) == "Stop and save" and primary(watched) == ""
        assert primary(shown_head(run, stopping=True)) == head.STOPPING
        assert {"Save a checkpoint now", "Stop now", "Kill …"} <= set(items(alive))
        assert not {"Save a checkpoint now", "Stop now", "Kill …"} & set(items(watched))
    for markup in (alive, *map(shown_head, ended.values())):
        assert markup.count('class="wb-figure"') == 4 and primary(markup) not in items(markup)
    assert "Time left" in alive and "Duration" in shown_head(ended["finished"])
    assert "Compare the first two step by step" in items(shown_head(ended["finished"], pair=True))


class Stop:
    how, done, stopped = "kill", True, False
    lines = (f"rank 0: {BAD}",)
    outcomes = (Outcome("rank 0", 3, "still running", False),)


def test_a_stop_that_left_something_behind_says_so():
    (shown,) = chips.stop_chips(Stop(), alive=True)
    assert "not everything ended" in shown and "wb-chip-bad" in shown
    assert_all_text(shown)
    assert chips.stop_chips(None, alive=False) == []


def test_the_report_of_a_stop_is_gone_once_the_run_is_at_work_again():
    done = type("Done", (Stop,), {"stopped": True})()
    assert "every process is gone" in chips.stop_chips(done, alive=False)[0]
    assert chips.stop_chips(done, alive=True) == []


def test_alerts_of_one_kind_are_one_chip_the_worst_first_and_can_be_dismissed():
    spikes = [alert(kind="spike", level="warning", time=float(n), text=f"spike {n}") for n in range(7)]
    found = chips.alert_chips([*spikes, alert(time=9.0, tail=["boom"]), alert("", kind="disk", time=8.0)], "a")
    labels = [re.sub("<[^>]+>", "", chip.partition("</summary>")[0]) for chip in found]
    assert labels == ["crash", "disk", "spike ×7"]
    assert "spike 4" in found[2] and "spike 5" not in found[2] and "… and 2 older ones in Events" in found[2]
    assert "boom" in found[0] and all("data-dismiss" in chip for chip in found)
    assert re.search(r'data-alerts="[^" ]+( [^" ]+){6}"', found[2]), "a key of each alert"


def test_more_kinds_of_alerts_than_fit_are_one_chip():
    found = chips.alert_chips([alert(kind=f"kind-{n}", level="warning") for n in range(6)], "a")
    assert len(found) == 4 and "3 more" in found[3]


def test_a_rank_that_is_gone_while_the_run_goes_on_is_said(tmp_path):
    with running() as process:
        run = run_folder(tmp_path, "a", state="running")
        record_rank(run, 0, process.pid)
        assert chips.rank_chips(state_of(run)) == []
        state = state_of(run)
        gone = replace(state, ranks=[*state.ranks, replace(state.ranks[0], rank=3, alive=False)])
        (shown,) = chips.rank_chips(gone)
    assert "rank 3 gone" in shown


def test_devices_as_the_driver_tells_them_and_what_it_does_not_know():
    text = (
        "0, NVIDIA H100 80GB HBM3, 97, 61234, 81559, 54, 612.30\n1, Tesla <T4>, [N/A], 0, 15360, 30, [N/A]\nnonsense\n"
    )
    first, second = parse_devices(text)
    assert (first.name, first.load, first.memory_used, first.watts) == ("cuda:0", 0.97, 61234 * 2**20, 612.3)
    assert second.load is None and second.watts is None


@pytest.mark.parametrize("command", [["/nonexistent/tool"], ["false"]])
def test_a_driver_tool_that_fails_is_no_devices_and_no_error(command):
    watch = DeviceWatch(command)
    assert watch.devices() == []
    watch._ask()
    assert watch.devices() == []


def test_a_harmless_alert_of_another_run_stands_on_no_other_page():
    assert "No alerts." in panes.alerts([alert("b", kind="spike", level="warning")], "a")
    assert "spike" in panes.alerts([alert("b", kind="spike", level="warning")], "b")
    assert 'data-wb-run="b"' in panes.alerts([alert("b", level="error")], "a")


def test_a_failed_run_says_in_one_sentence_which_rank_and_why(tmp_path):
    run = run_folder(tmp_path, "a", state="failed")
    record = {"attempt": 1, "state": "failed", "code": 70, "reason": "ValueError: no such column", "rank": 1}
    for reason in ("ValueError: no such column", "rank 1: ValueError: no such column"):
        replace_json(run.exit_file, {**record, "reason": reason})
        assert ">Failed at step 3: rank 1: ValueError: no such column.<" in what_went_wrong(run)
    replace_json(run.exit_file, {**record, "rank": 0, "reason": "data.source: there is no such file"})
    assert ">Failed at step 3: data.source: there is no such file.<" in what_went_wrong(run), "the same on every rank"


def test_a_failed_run_shows_what_to_do_and_the_end_of_its_log(tmp_path):
    run = run_folder(tmp_path, "a", state="failed")
    run.log_file(0).write_text("".join(f"line {n}\n" for n in range(50)))
    record = {"attempt": 1, "state": "failed", "code": 70, "rank": 0}
    advices = {
        (2, "data.source: nothing there"): "correct what the sentence names",
        (70, "non-finite: the loss of step 3 is not finite"): "a lower learning rate",
        (75, "the hub does not answer"): "Nothing is wrong with the run itself",
        (70, "ValueError"): "The end of its log says where",
    }
    for (code, reason), expected in advices.items():
        replace_json(run.exit_file, {**record, "code": code, "reason": reason})
        shown = what_went_wrong(run)
        assert expected in shown and "line 49" in shown and "line 40" in shown and "line 39" not in shown
    assert "non-finite" not in what_went_wrong(run)
    assert "from the alert" in what_went_wrong(run, [alert(tail=["from the alert"])])
    (run.checkpoints_dir / "step-00000002").mkdir()
    (run.checkpoints_dir / "step-00000002" / "MANIFEST.json").write_text("{}")
    assert "Resume goes on from the checkpoint of step 2" in what_went_wrong(run)
    queued = trouble(glance(run, state_of(run), []), [], None, may_resume=False, waits=True)
    assert "starts it again by itself, from the checkpoint of step 2; Cancel" in queued and "Resume" not in queued
    for state in ("finished", "stopped", "queued"):
        assert what_went_wrong(run_folder(tmp_path, state, state=state)) == ""


def test_what_is_left_out_is_counted_on_the_page(tmp_path):
    run = run_folder(tmp_path, "a")
    counts = {"empty": 390, "not_text": 10, "too_long": 0, "blocks": 1, "cache_entries": 2, "log_lines": 1200}
    event = {"kind": "left_out", "counts": counts, "of": {"documents": 800, "blocks": 40}, "share": 0.5}
    shown = details.details(glance(run, state_of(run), [{"kind": "left_out", "counts": {"empty": 1}}, event]), [])
    words = ("Left out so far: 400 of 800 documents (390 empty, 10 not text); 1 of 40 blocks that cannot be read; "
             "2 cached blocks, damaged and made anew; 1,200 lines of the logs, without room on the disk.")  # fmt: skip
    assert words in shown
    filtered = [{**event, "counts": {"empty": 3, f"score below 3{BAD}": 300, "blocks": 0}}]
    shown = details.details(glance(run, state_of(run), filtered), [])
    assert "303 of 800 documents (3 empty, 300 score below 3&lt;img" in shown and BAD not in shown
    none = [{"kind": "left_out", "counts": {"empty": 0}}]
    assert "Left out" not in details.details(glance(run, state_of(run), none), [])


def test_a_finished_run_that_diverged_is_not_simply_finished(tmp_path):
    toml = '[data]\ntokenizer = "gpt2:8192"\n[optimizer]\nlr = 1.5\n'
    sound, broken = (run_folder(tmp_path, name, toml=toml, steps=30) for name in ("sound", "broken"))
    with broken.metrics_file.open("a") as file:
        file.writelines(json.dumps({"attempt": 1, "step": n, "loss": 1186.0}) + "\n" for n in range(31, 61))
    for run, diverged in ((sound, False), (broken, True)):
        shown = what_went_wrong(run)
        assert ("diverged" in shown_head(run)) == ("is no result" in shown) == diverged
        assert primary(shown_head(run)) == ("Open in Train" if diverged else "Sample it")
        assert row_of(run, state_of(run))["diverged"] == diverged
    words = "1186 as the median of its last 10 steps, is no result: guessing every token alike costs 9.01, and this run"
    assert f"{words} began at 4.9" in shown and "a lower learning rate than its 1.5." in shown


def test_a_diverged_models_perplexity_fills_no_table():
    assert [words.fixed(x, 2) for x in (257.001, 1.0142e300, None)] == ["257.00", "1.01e+300", "n/a"]
    assert [words.fixed(x) for x in (-999_999.0, 1_092_708_992.0)] == ["-999,999.0000", "1.09e+09"]


def test_the_end_of_a_failed_runs_log_is_folded_as_the_log_itself_comes_first(tmp_path):
    run = run_folder(tmp_path, "a", steps=5, state="failed")
    assert "wb-trouble-log" not in what_went_wrong(run) and "<details" not in what_went_wrong(run)
    run.log_file(0).write_text("one\ntwo\n")
    assert "wb-trouble-log" in what_went_wrong(run) and "<summary>Last 2 lines of its log</summary>" in what_went_wrong(
        run
    )


def test_a_run_that_failed_before_its_first_step_has_no_figures_and_is_corrected_in_train(tmp_path):
    run = run_folder(tmp_path, "a", steps=0, state="failed")
    record = {"attempt": 1, "state": "failed", "reason": "data.source: nothing there", "rank": 0}
    for code, label in ((2, "Open in Train"), (70, "Start again")):
        replace_json(run.exit_file, {**record, "code": code})
        shown = shown_head(run)
        assert primary(shown) == label and "wb-figure" not in shown
        assert "Failed before its first step: data.source: nothing there." in what_went_wrong(run)
        assert "wb-trouble-bare" in what_went_wrong(run), "six empty charts say nothing"


def test_what_the_page_says_of_a_failure_is_no_chip_as_well(tmp_path):
    found = [alert(), alert(kind="spike", level="warning")]
    assert len(chips.alert_chips(found, "a")) == 2 and len(chips.alert_chips(found, "a", ("crash",))) == 1


def test_a_run_that_is_launched_has_no_time_left_and_is_not_said_to_wait(tmp_path):
    run = run_folder(tmp_path, "a", state="queued")
    status = json.loads(run.status_file.read_text()) | {"phase": "queued", "message": "waiting in the queue", "eta": 5}
    replace_json(run.status_file, status)
    launched = starting(state_of(run), True)
    markup = head.head(glance(run, launched, []), head.Place(buttons(launched, read_only=False)))
    assert "starting" in markup and "waiting in the queue" not in markup and "Time left" not in markup
    assert row_of(run, launched)["eta"] is None


def test_while_it_is_stopped_only_that_is_its_state(tmp_path):
    run = run_folder(tmp_path, "a", state="stopped")
    assert "wb-badge" in shown_head(run) and "wb-badge" not in shown_head(run, stopping=True)


def test_both_rates_of_a_run_with_muon_stand_together(tmp_path):
    found = [{"optimizer.name": "muon", "optimizer.lr": "0.006", "optimizer.muon_lr": "0.02", "train.steps": steps}
             for steps in ("5", "6")]  # fmt: skip
    assert [key for key, _ in diff.differences(found, all_rows=False)] == [
        "optimizer.lr", "optimizer.muon_lr", "train.steps"]  # fmt: skip
    assert diff.differences(found[:1] * 2, all_rows=False) == []


def test_while_a_run_is_started_again_nothing_is_said_of_its_last_attempt(tmp_path):
    run = run_folder(tmp_path, "a", state="running")
    with running() as process:
        record_rank(run, 0, process.pid)
    again = starting(replace(state_of(run), progress_age=9999.0), True)
    assert again.state == "starting" and chips.rank_chips(again) == []
    assert "no progress" not in head.head(glance(run, again, []), head.Place(buttons(again, read_only=False)))
