"""A branch in the form: what it is filled with, what it may not change, and that Start makes it and queues it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt2 import checkpoint
from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, state_of
from mygpt2.run_dir.family import origin_of
from tests.workbench.tabs.monitor.folders import run_folder
from tests.workbench.tabs.train.test_train_handlers import Form
from workbench.draft import BRANCH, RUN
from workbench.page import Page
from workbench.tabs.monitor import family, told
from workbench.tabs.monitor.index import RunIndex
from workbench.tabs.train import handlers


@pytest.fixture
def form(tmp_path: Path) -> Form:
    """The tab over a run `old` with checkpoints of the steps 4 and 8, whose settings differ from tiny's in the rate."""
    torch = pytest.importorskip("torch")
    found = Form(tmp_path)
    run = run_folder(found.context.runs, "old", toml="[optimizer]\nlr = 0.5\n")
    state = {"config": load_config("tiny", None, {"optimizer.lr": 0.003, "train.steps": 20}).model_dump(mode="json")}
    for step in (4, 8):
        checkpoint.write(run.checkpoints_dir, step, {"w": torch.zeros(2)}, {"w/exp_avg": torch.zeros(2)}, state)
    return found


def asked(form: Form, **request: Any) -> dict[Any, Any]:
    updates = form.apply(handlers.answer_request(form.context, form.parts, Page.ask(**request), form.data))
    return updates | form.refresh()


def test_a_run_and_a_step_fill_the_form_with_the_settings_of_the_checkpoint(form: Form) -> None:
    updates = asked(form, branch="old")
    assert (form[BRANCH], form[RUN], form["optimizer.lr"], form["train.steps"]) == ("old@8", "old-1", "0.003", "20")
    assert "Begins after step 8 of old, with 12 of 20 steps left: nothing is changed" in updates[form.parts.reasons]
    for at, step in (("7", 4), ("100", 8), ("2", 4), ("x", 8)):
        asked(form, branch="old", at=at)
        assert form[BRANCH] == f"old@{step}"
    with pytest.raises(UserError, match="no checkpoint of step 5; it has 4, 8"):
        asked(form, branch="old@5")
    asked(form, from_run="old")
    assert form[BRANCH] == "", "a copy of a run's settings is no branch of it"


def test_what_a_branch_cannot_change_is_told_at_its_field_and_other_batches_are_told(form: Form) -> None:
    asked(form, branch="old@4")
    form["train.steps"] = "4"
    assert "the branch begins after step 4" in form.note(form.refresh(), "train.steps")
    form["train.steps"], form["model.n_layer"] = "20", "2"
    assert "keeps its model" in form.note(form.refresh(), "model.n_layer")
    form["model.n_layer"], form["data.seed"] = "4", "5"
    told_now = form.refresh()[form.parts.reasons]
    assert "the batches are no longer those of old, because of data.seed" in told_now
    form[BRANCH] = "nobody@4"
    assert "nobody" in form.note(form.refresh(), BRANCH)


def test_the_form_says_where_a_step_was_not_kept_and_what_the_steps_that_are_left_take(form: Form) -> None:
    said = asked(form, branch="old", at="7")
    assert "step 4, as no checkpoint of step 7 is kept: what" in said[form.parts.message]
    whole = 20 * load_config("tiny").train.batch_tokens
    assert f"{whole * 16 // 20 // 1000}k tokens" in said[form.parts.line], "16 of 20 steps are left"
    assert "step 8: what" in asked(form, branch="old", at="8")[form.parts.message]


def test_all_settings_as_in_the_preset_are_no_branch_any_more(form: Form) -> None:
    asked(form, branch="old@4")
    form.apply(handlers.reset(form.context, form.parts, "optimizer.lr", form.data))
    assert form[BRANCH] == "old@4"
    updates = handlers.reset(form.context, form.parts, "*", form.data)
    form.apply(updates)
    assert (form[BRANCH], updates[form.parts.message]) == ("", ""), "nor does the page speak of one"


def test_start_makes_the_branch_and_queues_it_and_the_form_is_a_run_of_its_own_again(form: Form) -> None:
    asked(form, branch="old@4")
    form["optimizer.lr"] = "0.001"
    command = form.refresh()[form.parts.command]
    assert "runs branch old@4 --run old-1" in command and "--optimizer.lr=0.001" in command
    name, updates = handlers.launch(form.context, form.parts, False, form.data)
    form.apply(updates)
    run = RunDir(form.context.runs / name)
    origin = origin_of(run)
    assert name == "old-1" and origin is not None
    assert (origin.parent, origin.step, origin.changes) == ("old", 4, {"optimizer.lr": (0.003, 0.001)})
    (job,) = form.context.jobs.queue()
    assert (job.run, job.spec.argv[-2:]) == ("old-1", ("--run", "old-1")) and "--preset" not in job.spec.argv
    assert state_of(run).state == "stopped" and form[BRANCH] == ""


def test_a_form_that_is_kept_stays_a_branch(form: Form) -> None:
    from workbench.tabs.train.keep import from_kept, kept_form

    asked(form, branch="old@4")
    draft = handlers.draft_of(form.parts, form.data)
    kept = kept_form(draft, form.context, "pydocs")
    found = from_kept(json.dumps(kept))
    assert found is not None and found.branch == "old@4"


def test_the_list_knows_whose_branch_a_run_is_and_names_a_parent_that_is_gone(form: Form) -> None:
    asked(form, branch="old@4")
    handlers.launch(form.context, form.parts, False, form.data)
    rows = {row["name"]: row for row in RunIndex(form.context.runs).changes()["rows"]}
    assert (rows["old"]["parent"], rows["old"]["branch"]) == ("", "")
    assert (rows["old-1"]["parent"], rows["old-1"]["step"]) == ("old", 4)
    assert rows["old-1"]["branch"] == "branch of old at step 4: nothing changed"
    run = RunDir(form.context.runs / "old-1")
    assert 'data-wb-run="old"' in family.chip(run)[0] and family.chip(RunDir(form.context.runs / "old")) == []
    (form.context.runs / "old").rename(form.context.runs / "elsewhere")
    assert family.row(run)["parent"] == "" and "that run is gone" in family.chip(run)[0]


def test_a_branch_is_a_sentence_among_the_events() -> None:
    event = {"kind": "branch", "parent": "old", "step": 4, "changes": {"optimizer.lr": [0.003, 0.001]}}
    assert told.sentence(event) == (
        "Branched off old at the checkpoint of step 4; changed optimizer.lr from 0.003 to 0.001."
    )
