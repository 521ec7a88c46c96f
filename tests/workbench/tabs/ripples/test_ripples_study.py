"""The study of orders: queued whole or not at all, taken on from files after any restart, compared in words."""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from mygpt2.__main__ import main
from mygpt2.config import ConfigError, to_toml
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunWriter
from tests.workbench.jobs.helpers import until
from tests.workbench.tabs.data.data_runs import context_of
from workbench.live import News
from workbench.tabs.ripples import measure, studies, tab, view
from workbench.tabs.ripples.reports import Reports, command
from workbench.tabs.ripples.study_view import study_view

PERIOD, STEPS = 20.0, 300
LEFT = {"sequential": 0.2, "buffer-1k": 0.1, "buffer-10k": 0.02, "lanes": 0.0}


@pytest.fixture
def context(tmp_path):
    return context_of(tmp_path)


def finished(context, study, order, amplitude, seed):
    """A run folder as the trainer leaves it, with a ripple of this amplitude."""
    noise = random.Random(seed)
    run = RunDir.create(context.runs, study.runs[order])
    with RunWriter(run, 1) as writer:
        writer.config(to_toml(studies.config(study.source, study.steps, study.settings, order)))
        for step in range(1, STEPS + 1):
            wave = amplitude * math.cos(2 * math.pi * step / PERIOD)
            loss = 4 + 2 / (1 + step / 40) + wave + noise.gauss(0, 0.03)
            writer.metrics(step=step, tokens=step * 2048, loss=loss, lr=1e-3)
        writer.status(state="running", phase="training", step=STEPS, steps=STEPS, tokens=STEPS * 2048, loss=4.0)
        writer.finish("finished", 0, "finished")


def trained(context, study):
    """The study's runs as if the queue had been worked off."""
    for job in context.jobs.queue():
        context.jobs.cancel(job.id)
    for seed, (order, amplitude) in enumerate(LEFT.items()):
        finished(context, study, order, amplitude, seed)


def analysed(context, reports, study, orders=tuple(LEFT)):
    """What the tasks of some orders would make, in this process."""
    for part in studies.standing(context, reports, study).parts:
        if part.order not in orders:
            continue
        file = reports.file(part.subject)
        file.parent.mkdir(parents=True, exist_ok=True)
        assert main(command(part.subject, file)[3:]) == 0


def ended(context, task):
    deadline = time.monotonic() + 120
    while (now := context.jobs.tasks.get(task.id)).running:
        assert time.monotonic() < deadline, "the task did not end"
        time.sleep(0.1)
    return now


def test_one_click_queues_four_runs_that_differ_in_order_alone(context):
    study = studies.begin(context, "pydocs", STEPS, "model.n_layer=1")
    queue = {job.run: job for job in context.jobs.queue()}
    assert set(queue) == {f"study-{study.id}-{order}" for order in ("sequential", "buffer-1k", "buffer-10k", "lanes")}
    configs = [studies.config(study.source, study.steps, study.settings, order).model_dump() for order in study.runs]
    differing = {key for config in configs for key in config if config[key] != configs[0][key]}
    assert differing == {"data"}
    inside = {key for config in configs for key in config["data"] if config["data"][key] != configs[0]["data"][key]}
    assert inside <= {"order", "buffer_documents", "lanes"}
    assert all(config["train"]["steps"] == STEPS and config["model"]["n_layer"] == 1 for config in configs)
    assert "0 of 4 runs are trained" in study_view(studies.standing(context, Reports(context), study))


@pytest.mark.parametrize(
    ("source", "steps", "own", "error"),
    [
        ("/etc", 300, "", UserError),
        ("pydocs", 3, "", UserError),
        ("pydocs", float("nan"), "", UserError),
        ("pydocs", 300, "model.n_layer", UserError),
        ("pydocs", 300, "model.no_such=1", ConfigError),
        ("pydocs", 300, "data.order=lanes", ConfigError),
        ("pydocs", 300, "model.n_head=3", ConfigError),
    ],
)
def test_study_that_cannot_be_trained_is_refused_and_nothing_is_queued(context, source, steps, own, error):
    with pytest.raises(error):
        studies.begin(context, source, steps, own)
    assert not context.jobs.queue() and not studies.studies(context)


def test_run_that_cannot_be_queued_takes_the_others_back(context, monkeypatch):
    submit, calls = studies.submit_config, []

    def third_fails(*words, **options):
        calls.append(words)
        if len(calls) == 3:
            raise UserError("no room")
        return submit(*words, **options)

    monkeypatch.setattr(studies, "submit_config", third_fails)
    with pytest.raises(UserError, match="no room"):
        studies.begin(context, "pydocs", STEPS)
    assert not context.jobs.queue() and not studies.studies(context)


def test_from_trained_runs_to_a_verdict_across_restarts(context):
    study = studies.begin(context, "pydocs", STEPS)
    trained(context, study)
    reports = Reports(context)
    first = studies.advance(context, reports, studies.standing(context, reports, study))
    assert first is not None and first.label.endswith("-sequential")
    assert studies.advance(context, reports, studies.standing(context, reports, study)) is None, "one at a time"
    context.jobs.tasks.stop(first.id)
    ended(context, first)
    analysed(context, reports, study)

    reports = Reports(context)  # another server, which knows only the files
    (found,) = studies.studies(context)
    assert found == study
    at = studies.standing(context, reports, found)
    assert all(part.report for part in at.parts) and not at.done
    comparison = studies.advance(context, reports, at)
    assert comparison is not None and comparison.label == f"comparison of study {study.id}"
    assert ended(context, comparison).state == "done"
    news = News()
    view.look(context, reports, {}, news)
    assert news.changed["fields"]["study"]["value"] == study.id
    words = news.changed["markup"]["standing"]
    assert "Verdict" in words and "In file order the loss has a ripple of 20.0 steps" in words
    assert "Lanes leave nothing that can be told from noise" in words
    assert "A buffer of 1,000 documents leaves" in words and "measured at 20.0 steps" in words
    again = News(news.digests)
    view.look(context, reports, {"study": study.id}, again)
    assert not any(again.changed.values())
    assert studies.advance(context, reports, studies.standing(context, reports, found)) is None
    at = studies.standing(context, reports, found)
    rows = {row["order"]: row for row in reports.read(at.comparison)["orders"]}
    for order, amplitude in LEFT.items():
        assert abs(rows[order]["at_period"]["amplitude"] - amplitude) < 0.01
    assert rows["sequential"]["significant"] and rows["lanes"]["at_period"]["p_value"] > 0.05

    tab.remove(context, study.id)
    assert not studies.studies(context) and RunDir(context.runs / study.runs["lanes"]).exists()


def test_study_whose_runs_have_ended_is_analysed_and_compared_without_a_page(context):
    """Three reports are there; the last one and the comparison are the server's to make."""
    study = studies.begin(context, "pydocs", STEPS)
    trained(context, study)
    reports = Reports(context)
    analysed(context, reports, study, ("sequential", "buffer-1k", "buffer-10k"))
    context.jobs.add_chore(studies.Keeper(context))
    context.jobs.start()
    try:
        until(lambda: studies.standing(context, reports, study).done, 120)
    finally:
        context.jobs.close()
    assert "Verdict" in study_view(studies.standing(context, reports, study))


def test_studies_are_taken_on_one_task_at_a_time_the_oldest_first(context):
    first, second = (studies.begin(context, "pydocs", STEPS) for _ in range(2))
    for study in (first, second):
        trained(context, study)
    keeper = studies.Keeper(context)
    keeper()
    keeper()
    (task,) = context.jobs.tasks.list("ripples")
    assert task.label == f"ripples of study-{first.id}-sequential"
    context.jobs.tasks.stop(task.id)
    ended(context, task)


def test_run_taken_out_of_the_queue_is_told(context):
    study = studies.begin(context, "pydocs", STEPS)
    context.jobs.cancel(next(job.id for job in context.jobs.queue() if job.run.endswith("lanes")))
    reports = Reports(context)
    at = studies.standing(context, reports, study)
    assert "left the queue" in study_view(at) and studies.advance(context, reports, at) is None


def report(order, *, significant, p=0.3, can_say=True):
    return {
        "significant": significant, "can_say": can_say, "p_value": p if can_say else None, "period_steps": PERIOD,
        "period_tokens": 40_960.0, "amplitude": 0.2, "amplitude_ci": [0.19, 0.21], "share_of_file": 1 / 3,
        "between_steps": None, "verdict": "The log has 3 usable points.", "layout": {"document_tokens": 40.96},
    }  # fmt: skip


def compared(monkeypatch, measured, **which):
    monkeypatch.setattr(measure, "at_period", lambda run, period: measured)
    orders = {order: report(order, **which.get(order.replace("-", "_"), {"significant": False})) for order in LEFT}
    return measure.compare(orders, {order: Path(order) for order in LEFT})


def test_forecast_stands_beside_what_was_measured(monkeypatch):
    found = compared(monkeypatch, {"amplitude": 0.03, "p_value": 0.001}, sequential={"significant": True, "p": 1e-5})
    rows = {row["order"]: row for row in found["orders"]}
    law = 1 / math.sqrt(1 + (2 * math.pi * 1000 / 1000) ** 2)
    assert rows["buffer-1k"]["forecast"]["amplitude"] == pytest.approx(0.2 * law)
    assert rows["sequential"]["forecast"]["amplitude"] == 0.2 and rows["lanes"]["forecast"]["amplitude"] == 0.0
    assert f"leaves 15% of it (p = 0.001; forecast {law:.0%})" in found["verdict"]
    assert "(0.333 of a file)" in found["verdict"]


def test_nothing_found_and_nothing_to_say_are_told_apart(monkeypatch):
    assert "No ripple stands out in any" in compared(monkeypatch, None)["verdict"]
    silent = {"significant": False, "can_say": False}
    all_silent = {order.replace("-", "_"): silent for order in LEFT}
    found = compared(monkeypatch, None, **all_silent)
    assert found["verdict"] == "Nothing can be said of any of the orders. The log has 3 usable points."
    other = compared(monkeypatch, {"amplitude": 0.2, "p_value": 1e-3}, lanes={"significant": True, "p": 0.01})
    assert "The file order has none that stands out" in other["verdict"]
