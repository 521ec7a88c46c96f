"""From the form to evaluations: what is refused, what is run, and one at a time on a device."""

from __future__ import annotations

import html
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mygpt2.errors import UserError
from tests.workbench.tabs.sample.places import small_place
from workbench.context import Context
from workbench.evaluations import cost
from workbench.evaluations.start import KIND, plans, start
from workbench.jobs import Jobs
from workbench.jobs.task_parent import WAITS
from workbench.live import REST_SECONDS, answered
from workbench.page import Page
from workbench.tabs.compare.tab import Measured, act, asked, begin, exported, look

CHOSEN: dict[str, Any] = {"models": ["first", "other"], "protocol": "text.txt", "hellaswag": "", "items": 0,
                          "device": "cpu", "precision": "fp32"}  # fmt: skip


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    runs, data = small_place(tmp_path)
    (data / "text.txt").write_text("A text to measure. " * 30)
    jobs = Jobs(runs, ["cpu"])
    yield Context(runs, (data,), jobs=jobs)
    for task in jobs.tasks.list():
        if task.running:
            jobs.tasks.stop(task.id, grace=0)
    until(lambda: not any(task.running for task in jobs.tasks.list()))


def until(done: Callable[[], bool], seconds: float = 180) -> None:
    ended, limit = threading.Event(), time.monotonic() + seconds
    while not done():
        assert time.monotonic() < limit, "it did not happen"
        ended.wait(0.05)


def planned(context: Context, **changes: Any) -> list[Any]:
    return plans(context, **{**CHOSEN, **changes})


def test_a_plan_is_the_command_a_person_could_type(context: Context) -> None:
    run, folder = planned(context)
    assert run.argv[:4] == (sys.executable, "-m", "mygpt2", "eval")
    assert run.result.parent == context.runs / "first" / "evals" and run.result.name.startswith("step-00000005-")
    assert folder.result.parent == context.runs / ".workbench" / "evals"
    for plan in (run, folder):
        assert plan.argv[plan.argv.index("--json") + 1] == str(plan.result)
        assert plan.argv[plan.argv.index("--protocol") + 1] == str(context.data_roots[0] / "text.txt")
    assert planned(context)[0].result == run.result  # the same again is the same file, and is taken up again
    assert planned(context, precision="bf16")[0].result != run.result
    assert len(planned(context, models=["first", "first/step-00000005", "first"])) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": []}, "0 models are chosen"),
        ({"models": ["../x"]}, "outside the folders"),
        ({"models": ["<img onerror=1>"]}, "not allowed"),
        ({"protocol": ""}, "nothing to evaluate"),
        ({"protocol": "/etc/passwd"}, "outside the folders"),
        ({"protocol": "missing.txt"}, "not a text here"),
        ({"protocol": "run:none"}, "no run"),
        ({"hellaswag": "../x.jsonl"}, "outside the folders"),
        ({"hellaswag": "missing.jsonl"}, "does not exist"),
        ({"device": "cuda:7"}, "no device"),
        ({"precision": "fp8; rm"}, "not known"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_nothing_is_written(
    context: Context, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        planned(context, **changes)
    assert "\n" not in str(refused.value)
    assert context.jobs.tasks.list() == [] and not list((context.runs / "first" / "evals").iterdir())


def test_hellaswag_with_few_items_is_in_the_command(context: Context) -> None:
    (context.data_roots[0] / "h.jsonl").write_text("{}\n")
    argv = planned(context, protocol="", hellaswag="h.jsonl", items=12.7)[0].argv
    assert argv[argv.index("--limit") + 1] == "12" and "--protocol" not in argv
    for all_of_them in (0, None, -3, 99_999_999, "x", float("inf")):
        assert "--limit" not in planned(context, hellaswag="h.jsonl", items=all_of_them)[0].argv


def test_a_read_only_page_starts_and_stops_nothing(context: Context) -> None:
    reading = Context(context.runs, context.data_roots, jobs=context.jobs, read_only=True)
    for attempt in (
        lambda: begin(reading, CHOSEN),
        lambda: act(reading, Measured(reading), {"id": "x", "act": "stop"}),
    ):
        with pytest.raises(UserError, match="read-only"):
            attempt()
    assert context.jobs.tasks.list() == []


def test_a_model_that_is_being_evaluated_is_not_started_twice_and_can_be_stopped(context: Context) -> None:
    found = planned(context, models=["first"])
    [task] = start(context, found)
    with pytest.raises(UserError, match="being evaluated already"):
        start(context, found)
    act(context, Measured(context), {"id": task.id, "act": "stop"})
    until(lambda: not context.jobs.tasks.get(task.id).running)
    assert context.jobs.tasks.get(task.id).state in ("stopped", "done")  # done if it was quicker
    act(context, Measured(context), {"id": task.id, "act": "forget"})
    assert context.jobs.tasks.list(KIND) == []


def test_an_evaluation_writes_its_result_where_the_run_keeps_them(context: Context) -> None:
    [task] = start(context, planned(context, models=["first"]))
    until(lambda: not context.jobs.tasks.get(task.id).running)
    ended = context.jobs.tasks.get(task.id)
    assert ended.state == "done", ended.log
    assert ended.result["loss"] > 0 and ended.result["details"]["run"] == str(context.runs / "first")
    assert ended.result_file is not None and ended.result_file.parent == context.runs / "first" / "evals"


def test_one_evaluation_at_a_time_on_a_device_and_the_other_says_that_it_waits(
    context: Context, tmp_path: Path
) -> None:
    order, gate = tmp_path / "order", tmp_path / "gate"
    code = ("import pathlib, sys, time\nwith open(sys.argv[1], 'a') as f: f.write(sys.argv[2])\n"
            "while sys.argv[2] == 'a' and not pathlib.Path(sys.argv[3]).exists(): time.sleep(0.02)\n"
            "with open(sys.argv[1], 'a') as f: f.write(sys.argv[2].upper())")  # fmt: skip
    tasks = context.jobs.tasks

    def run(name: str) -> str:
        command = [sys.executable, "-c", code, str(order), name, str(gate)]
        return tasks.start(KIND, command, label=name, devices=["cpu"], turn=True).id

    first = run("a")
    until(lambda: order.exists() and order.read_text() == "a")
    second, third = run("b"), run("c")
    until(lambda: all(tasks.get(id).progress for id in (second, third)))
    assert tasks.get(second).progress.title == WAITS and order.read_text() == "a"
    tasks.stop(third)
    until(lambda: not tasks.get(third).running)
    gate.touch()
    until(lambda: not any(tasks.get(id).running for id in (first, second)))
    assert [tasks.get(id).state for id in (first, second, third)] == ["done", "done", "stopped"]
    assert order.read_text() == "aAbB"


def test_a_question_without_news_is_answered_with_nothing(context: Context) -> None:
    view = partial(look, context, Measured(context))
    first = answered(view, {})
    assert first["pause"] == REST_SECONDS, "nothing is evaluated: nothing to be quick about"
    assert "press Measure" in first["markup"]["view"] and first["markup"]["tasks"] == ""
    assert first["fields"]["models"]["value"] == ["first"], "the run at hand; GPT-2 only where it need not be fetched"
    assert first["fields"]["protocol"]["value"] == "run:first", "its own validation text, never none"
    assert "value" not in answered(view, {"asked": {"models": ["other"], "protocol": ""}})["fields"].get("models", {})
    assert answered(view, {"digests": first["digests"]})["digests"] == {}
    folder = context.runs / "first" / "evals"
    (folder / "x.json").write_text(json.dumps({"model": "m", "protocol": "p", "loss": 3.0, "token_sha256": "s"}))
    news = answered(view, {"digests": first["digests"]})
    assert news["fields"]["set"]["value"] == "text s" and "wb-table" in news["markup"]["view"]
    assert "tasks" not in news["markup"]
    saved = json.loads(exported(Measured(context), "csv", "text s"))
    assert saved["name"] == "comparison.csv" and "m,measured,p,3.0" in saved["text"]


def test_nothing_to_save_is_said(context: Context) -> None:
    with pytest.raises(UserError, match="no result to save yet"):
        exported(Measured(context), "json", None)


def test_a_link_fills_the_models_and_the_text(context: Context) -> None:
    models, text, wanted = asked(context, Page.ask(models="first, other", protocol="texts"))
    assert models["value"] == ["first", "other"] and text["value"] == "texts"
    assert (wanted["models"], wanted["protocol"]) == (["first", "other"], "texts")
    fields = answered(partial(look, context, Measured(context)), {"asked": wanted})["fields"]
    assert fields["models"]["value"] == ["first", "other"] and fields["protocol"]["value"] == "texts", (
        "the run at hand does not take their place"
    )
    models, text, wanted = asked(context, Page.ask(), {"set": "x"})
    assert "value" not in models and "value" not in text and wanted["set"] == "x" and "models" not in wanted


def test_runs_that_are_missing_on_a_text_are_measured_there_by_one_click(context: Context) -> None:
    folder = context.runs / ".workbench" / "evals"
    folder.mkdir(parents=True)
    record = {"model": "m", "protocol": f"local:{context.data_roots[0] / 'text.txt'}", "loss": 3.0, "stderr": 0.1,
              "token_sha256": "s", "text": {"files": 1}}  # fmt: skip
    (folder / "x.json").write_text(json.dumps(record))
    measured = Measured(context)
    view = answered(partial(look, context, measured), {})["markup"]["view"]
    found = re.search('data-act="measure" data-id="([^"]*)"', view)
    assert "Not measured on this text: first." in view and found and html.unescape(found[1]).endswith("\nfirst")
    (folder / "newer.json").write_text(json.dumps(record | {"protocol": "run:first", "token_sha256": "t"}))
    act(context, measured, {"act": "measure", "id": html.unescape(found[1])})  # on the text shown, not on the newest
    [task] = context.jobs.tasks.list(KIND)
    assert "text.txt" in task.label and task.label.startswith("first/step-")
    assert "Not measured" not in answered(partial(look, context, measured), {})["markup"]["view"], "it is under way"


def test_the_time_is_told_before_from_what_validation_took(context: Context) -> None:
    event = {"kind": "eval", "step": 5, "protocol": "run", "loss": 3.0, "tokens": 1000, "bytes": 4000, "window": 8,
             "token_sha256": "a" * 64, "seconds": 2.0, "time": 1.0}  # fmt: skip
    own = Measured(context)
    assert cost.seconds(context, ["first"], "run:first", []) is None, "nothing is known of this machine"
    with (context.runs / "first" / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")
    own.sets()
    assert cost.seconds(context, ["first"], "run:first", own.own) == cost.START_SECONDS + 2.0
    text = context.data_roots[0] / "text.txt"
    expected = cost.START_SECONDS + 2.0 * text.stat().st_size / cost.BYTES_PER_TOKEN / 1000
    assert cost.seconds(context, ["first"], "text.txt", own.own) == pytest.approx(expected)
    assert cost.seconds(context, ["gpt2"], "edu-seed", own.own) > 1000 and cost.seconds(context, [], "x", []) is None
    for models, protocol in ((["none"], "run:first"), (["first"], "/etc/passwd"), (["first"], "run:other")):
        assert cost.seconds(context, models, protocol, own.own) is None
