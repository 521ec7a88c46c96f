"""What the Train tab's handlers answer to the values of its components, without a browser."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mygpt2.config import config_hash, load_config
from mygpt2.config.fields import settings
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir
from tests.run_dir.processes import record_rank
from tests.workbench.conftest import make_run
from workbench import forms
from workbench.context import Context
from workbench.draft import BRANCH, DEVICES, NPROC, PRESET, RUN
from workbench.elsewhere import FIELDS, TARGET
from workbench.jobs import Jobs
from workbench.page import Page
from workbench.tabs.train import handlers
from workbench.tabs.train import tab as train
from workbench.tabs.train.parts import Parts


class Form:
    """The tab's components with what a browser would hold in them."""

    def __init__(self, folder: Path, slots: tuple[str, ...] = ("cpu",)) -> None:
        runs = folder / "runs"
        runs.mkdir()
        self.context = Context(runs.resolve(), (folder.resolve(),), Jobs(runs.resolve(), slots))
        with gr.Blocks():
            self.parts, self.made = train.compose(self.context, Page())
        self.data: dict[Any, Any] = {made: made.value for made in self.parts.form}
        self.data[self.parts.shown] = None
        self[NPROC] = "2"

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[self.parts.fields.inputs[name]] = value

    def __getitem__(self, name: str) -> Any:
        return self.data[self.parts.fields.inputs[name]]

    def apply(self, updates: dict[Any, Any]) -> dict[Any, Any]:
        """Updates arrive in the browser: values are taken over, a name in the place of the one it follows."""
        for made, value in updates.items():
            if made in self.data and isinstance(value, str | bool | list):
                self.data[made] = value
        for told in (updates.get(self.parts.shown), updates.get(self.parts.filled)):
            found = json.loads(told) if str(told).startswith("{") else {}
            if found.get("named", [None])[0] == self[RUN]:
                self[RUN] = found["named"][1]
            if found.get("branch") == self[BRANCH]:
                self[BRANCH] = ""
        return updates

    def refresh(self) -> dict[Any, Any]:
        return self.apply(handlers.refresh(self.context, self.parts, self.data))

    def note(self, updates: dict[Any, Any], name: str) -> str:
        """What stands below a field after these updates."""
        return str(self.notes(updates).get(name, ""))

    def notes(self, updates: dict[Any, Any]) -> dict[str, str]:
        return dict(json.loads(updates[self.parts.shown]).get("notes", {}))


@pytest.fixture
def form(tmp_path: Path) -> Form:
    return Form(tmp_path)


def is_on(button: Any) -> bool:
    return bool(button.interactive)


def test_every_setting_has_one_component_with_a_name_for_people_its_key_and_one_short_sentence(form: Form) -> None:
    fields = form.parts.fields
    assert fields.editor.elem_id == "field-data-mix" and "data.mix" in fields.editor.label  # what is seen of its field
    for name, setting in settings().items():
        made = fields.inputs[name]
        if name == "data.mix":
            continue
        assert made.elem_id == "field-" + name.replace(".", "-").replace("_", "-")
        assert made.label.startswith(setting.title) and name not in made.label
        assert (setting.unit or "").lower().rstrip("s") in made.label.lower()
        assert f"`{name}`" in made.info and setting.short_help in made.info
        assert len(setting.short_help) <= 90 and setting.help.startswith(setting.short_help.rstrip("."))
    titles = [setting.title for setting in settings().values()]
    assert len({*titles}) == len(titles), "no two settings have the same name"
    assert set(fields.inputs) == {
        *settings(), PRESET, RUN, DEVICES, NPROC, BRANCH, TARGET, *(each.name for each in FIELDS),
    }  # fmt: skip


def test_every_field_can_have_a_note(form: Form) -> None:
    for name in (name for name in settings() if not isinstance(form[name], bool)):
        form[name] = "\0"
    form[RUN], form[NPROC] = "a;touch x", "0"
    problems = form.notes(form.refresh())
    free_text = {name for name, setting in settings().items() if setting.kind in ("list", "bool")}
    assert {*settings(), RUN, NPROC} - free_text - set(problems) == set()


def test_the_page_opens_on_tiny_ready_to_start(form: Form) -> None:
    assert (form[PRESET], form[RUN], form[DEVICES]) == ("tiny", "tiny-1", ["cpu"])
    updates = form.refresh()
    assert is_on(updates[form.parts.start]) and is_on(updates[form.parts.queue_up])
    assert "--preset tiny" in updates[form.parts.command] and "--nproc 2" in updates[form.parts.command]
    assert not updates[form.parts.reasons] and "4,273,664" in updates[form.parts.estimate]
    assert "4.27M parameters · 1.15M tokens" in updates[form.parts.line] and "about" in updates[form.parts.line]
    assert "1,146,880</b> tokens in all" in updates[form.parts.length]
    assert "passes" not in updates[form.parts.length], "the look into the text says that, from its documents"
    assert not form.notes(updates), "no note on any field"


def test_a_bad_value_is_shown_at_its_field_and_taken_away_again(form: Form) -> None:
    form["train.steps"] = "0"
    updates = form.refresh()
    assert "expected a whole number from 1" in form.note(updates, "train.steps")
    assert 'role="alert"' in form.note(updates, "train.steps")
    assert not is_on(updates[form.parts.start]) and not is_on(updates[form.parts.queue_up])
    assert "Start is off" in updates[form.parts.reasons]
    assert '<a href="#field-train-steps" data-field="train.steps">Steps</a>' in updates[form.parts.reasons]
    assert "expected" not in updates[form.parts.reasons], "what is wrong is said once, at the field"
    assert "mygpt2" not in updates[form.parts.command]
    again = form.refresh()
    assert not [fold for fold in form.parts.fields.folds.values() if "open" in again[fold]._constructor_args[0]], (
        "a fold that was closed stays closed"
    )
    form["train.steps"] = "140"
    back = form.refresh()
    assert form.note(back, "train.steps") == "" and is_on(back[form.parts.start])


def test_a_fold_counts_what_is_in_it_and_opens_at_a_problem(form: Form) -> None:
    form["optimizer.beta1"] = "0.8"
    fold = form.refresh()[form.parts.fields.folds["rest"]]
    assert "1 changed" in fold.label and "open" not in fold._constructor_args[0]
    form["optimizer.beta2"] = "1"
    fold = form.refresh()[form.parts.fields.folds["rest"]]
    assert "1 problem" in fold.label and fold.open is True
    form["optimizer.beta1"] = "2"
    fold = form.refresh()[form.parts.fields.folds["rest"]]
    assert "2 problems" in fold.label and "open" not in fold._constructor_args[0], "a person may have closed it"


def test_what_is_typed_never_becomes_markup(form: Form) -> None:
    form["train.steps"] = form["data.source"] = form[RUN] = "<img src=x onerror=alert(1)>"
    updates = form.refresh()
    for made in (form.parts.reasons, form.parts.changes, form.parts.estimate, form.parts.line, form.parts.command):
        assert "<img" not in str(updates.get(made, ""))
    assert "<img" not in str(form.notes(updates))


def test_another_preset_fills_the_form_and_names_the_run(form: Form) -> None:
    form["train.steps"] = "9"
    form[PRESET] = "gpt2"
    updates = form.apply(handlers.choose_preset(form.context, form.parts, form.data))
    assert form["train.steps"] == "19073" and form["model.bias"] is True and form[RUN] == "gpt2-1"
    assert updates[form.parts.filled]
    form[RUN] = "my-own"
    form[PRESET] = "small"
    form.apply(handlers.choose_preset(form.context, form.parts, form.data))
    assert form[RUN] == "my-own", "a name somebody chose stays"


def test_one_setting_or_all_go_back_to_the_preset(form: Form) -> None:
    form["train.steps"], form["model.bias"], form["optimizer.beta1"] = "9", False, "0.5"
    assert "train.steps" in form.refresh()[form.parts.changes]
    form.apply(handlers.reset(form.context, form.parts, "train.steps", form.data))
    assert form["train.steps"] == "140" and form["model.bias"] is False
    form.apply(handlers.reset(form.context, form.parts, "*", form.data))
    assert form["model.bias"] is True and form["optimizer.beta1"] == "0.9"
    with pytest.raises(UserError):
        handlers.reset(form.context, form.parts, "no.such", form.data)


def test_other_gpus_change_the_number_of_processes_and_a_cpu_does_not(form: Form) -> None:
    answer = handlers.choose_devices(form.parts, form.data)
    assert not isinstance(answer, str), "nothing to do"
    form[DEVICES] = ["cuda:0", "cuda:1"]
    assert handlers.choose_devices(form.parts, form.data) == "2"
    form[DEVICES] = ["cuda:0"]
    assert handlers.choose_devices(form.parts, form.data) == "1"


def test_start_gives_the_run_and_a_form_for_the_next(form: Form) -> None:
    run, updates = handlers.launch(form.context, form.parts, True, form.data)
    form.apply(updates)
    assert run == "tiny-1" and form[RUN] == "tiny-2"
    assert [job.run for job in form.context.jobs.queue()] == ["tiny-1"]
    assert is_on(form.refresh()[form.parts.start])


def test_start_looks_at_the_values_again_whatever_the_page_showed(form: Form) -> None:
    form.refresh()
    form["train.steps"] = "0"
    for at_once in (True, False):
        with pytest.raises(UserError, match="expected a whole number"):
            handlers.launch(form.context, form.parts, at_once, form.data)
    form["train.steps"], form[DEVICES] = "5", None
    with pytest.raises(UserError, match="no device"):
        handlers.launch(form.context, form.parts, True, form.data)
    assert not form.context.jobs.queue() and not list(form.context.runs.iterdir())


def test_a_file_saved_from_the_page_is_what_the_command_line_reads(form: Form, tmp_path: Path) -> None:
    form["train.steps"] = "9"
    saved = json.loads(handlers.download(form.context, form.parts, form.data))
    assert saved["name"] == "tiny-1.toml"
    file = tmp_path / saved["name"]
    file.write_text(saved["text"], "utf-8")
    expected = load_config("tiny", None, ["--train.steps", "9"])
    assert config_hash(load_config(None, file)) == config_hash(expected)
    other = Form(_folder(tmp_path))
    other.apply(handlers.upload(other.context, other.parts, str(file)))
    checked = handlers.drafts.check(other.context, handlers.draft_of(other.parts, other.data))
    assert checked.config == expected
    form["train.steps"] = "x"
    with pytest.raises(UserError, match="not sound yet"):
        handlers.download(form.context, form.parts, form.data)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "other"
    folder.mkdir()
    return folder


def test_a_request_of_another_tab_fills_the_form_and_says_so(form: Form) -> None:
    make_run(form.context.runs, "old", 2, settings=("--train.steps", "77"))
    asked = Page.ask(from_run="old")
    updates = form.apply(handlers.answer_request(form.context, form.parts, asked, form.data))
    assert form["train.steps"] == "77" and form[RUN] == "old-1" and "old" in updates[form.parts.message]
    handlers.answer_request(form.context, form.parts, "not json", form.data)
    form.apply(handlers.answer_request(form.context, form.parts, Page.ask(tokenizer="t.json"), form.data))
    assert form["data.tokenizer"] == "t.json" and form["train.steps"] == "77"


def test_a_file_with_an_unknown_key_says_what_was_not_taken(form: Form, tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("[train]\nsteps = 3\nsteeps = 4\n")
    updates = handlers.upload(form.context, form.parts, str(file))
    assert "Not taken" in updates[form.parts.message] and "train.steeps" in updates[form.parts.message]


def test_components_hold_what_the_preset_says(form: Form) -> None:
    texts = forms.preset_texts("tiny")
    assert {name: forms.as_text(form[name]) for name in settings()} == texts
    assert isinstance(form.parts, Parts)


def test_the_newcomers_button_starts_the_run_it_shows_whatever_the_form_holds(form: Form) -> None:
    form["train.steps"], form["model.n_layer"], form[RUN], form[NPROC] = "x", "99", "mine", "1"
    name = handlers.launch_first(form.context)
    (job,) = form.context.jobs.queue()
    assert job.run == name == "tiny-1" and job.spec.argv[-2:] == ("--preset", "tiny"), "no override"


def test_a_copied_run_brings_its_devices_and_processes(tmp_path: Path) -> None:
    form = Form(tmp_path, ("cuda:0", "cuda:1", "cuda:2", "cuda:3"))
    run = RunDir(make_run(form.context.runs, "old", 2))
    for rank in range(2):
        record_rank(run, rank, os.getpid(), device=f"cuda:{rank + 1}")
    form.apply(handlers.answer_request(form.context, form.parts, Page.ask(from_run="old"), form.data))
    assert (form[RUN], form[DEVICES], form[NPROC]) == ("old-1", ["cuda:1", "cuda:2"], "2")
    form[DEVICES], form[NPROC] = ["cuda:0"], "1"
    record_rank(run, 1, os.getpid(), device="cuda:7")
    form.apply(handlers.answer_request(form.context, form.parts, Page.ask(from_run="old"), form.data))
    assert (form[DEVICES], form[NPROC]) == (["cuda:0"], "1"), "of another machine: they are not to be had here"


def test_a_settings_file_that_is_a_link_out_of_its_run_fills_no_form(form: Form, tmp_path: Path) -> None:
    run = RunDir(make_run(form.context.runs, "old", 2))
    secret = tmp_path / "secret.toml"
    run.config_file.rename(secret)
    run.config_file.symlink_to(secret)
    with pytest.raises(UserError, match="is a link out of the run"):
        handlers.answer_request(form.context, form.parts, Page.ask(from_run="old"), form.data)


def test_what_two_fields_are_about_is_said_at_one_of_them(form: Form) -> None:
    form[NPROC] = "3"
    notes = form.notes(form.refresh())
    assert "not a multiple of 3 ranks" in notes["train.batch_tokens"] and "ranks" not in notes[NPROC]
    assert 'data-field="train.batch_tokens"' in notes[NPROC], "and the other one leads to it"


def test_a_link_to_a_folded_field_names_its_fold(form: Form) -> None:
    form["optimizer.beta1"] = "2"
    assert 'data-field="optimizer.beta1" data-fold="fold-rest">Beta 1</a>' in form.refresh()[form.parts.reasons]


def test_a_run_that_nobody_named_is_called_after_the_text(form: Form, tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("once upon a time")
    form.refresh()
    form["data.source"] = "stori"
    form.refresh()
    assert form[RUN] == "tiny-1", "there is no such text, it is still being typed"
    form["data.source"] = "stories.txt"
    updates = form.refresh()
    assert form[RUN] == "stories-1" and "--run stories-1" in updates[form.parts.command]
    form["data.source"] = "pydocs"
    form.refresh()
    assert form[RUN] == "tiny-1"
    form[RUN] = "mine"
    form["data.source"] = "stories.txt"
    assert "named" not in json.loads(form.refresh()[form.parts.shown]) and form[RUN] == "mine"


def kept(form: Form) -> str:
    found = json.loads(form.refresh()[form.parts.shown])["form"]
    return json.dumps(found) if found else ""


def test_the_browser_keeps_what_differs_and_brings_it_back(form: Form, tmp_path: Path) -> None:
    assert kept(form) == "", "a form as it opens is not kept"
    form[PRESET] = "small"
    form.apply(handlers.choose_preset(form.context, form.parts, form.data))
    form["train.steps"], form["model.bias"], form[RUN], form[NPROC] = "x<b>", False, "mine", "1"
    text = kept(form)
    assert json.loads(text)["values"] == {"train.steps": "x<b>", "model.bias": "false"}
    other = Form(_folder(tmp_path))
    other.apply(handlers.restore(other.context, other.parts, text))
    assert (other[PRESET], other["train.steps"], other["model.bias"]) == ("small", "x<b>", False)
    assert (other[RUN], other[DEVICES], other[NPROC]) == ("mine", ["cpu"], "1")
    other.apply(handlers.reset(other.context, other.parts, "*", other.data))
    assert "values" not in json.loads(kept(other)), "reset to the preset forgets"


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"version": 0}', '{"version": 1, "preset": "no"}',
                                  '{"version": 1, "values": 3}', '{"version": 1, "values": {"no.such": "1"}}',
                                  '{"version": 1, "devices": ["cuda:9"], "values": {"train.steps": 7}}'])  # fmt: skip
def test_what_a_browser_gives_back_is_not_believed(form: Form, text: str) -> None:
    form.apply(handlers.restore(form.context, form.parts, text))
    assert (form[PRESET], form["train.steps"], form[RUN], form[DEVICES]) == ("tiny", "140", "tiny-1", ["cpu"])
    assert is_on(form.refresh()[form.parts.start])
