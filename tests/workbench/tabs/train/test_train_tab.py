"""The Train tab without a browser: what is refused and where, what is started, and what fills the form."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import config_hash, load_config, preset_names, to_toml
from mygpt2.errors import UserError
from mygpt2.planning import Machine
from mygpt2.run_dir import RunDir, write_rank
from tests.workbench.bad_values import bad_values
from tests.workbench.conftest import make_run
from workbench import draft as drafts
from workbench import forms
from workbench.context import Context
from workbench.draft import Draft
from workbench.jobs import Jobs
from workbench.tabs.train import fill, first, outlook, presets, queue, show


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return make_context(tmp_path)


def make_context(folder: Path, slots: tuple[str, ...] = ("cpu",), read_only: bool = False) -> Context:
    """A context whose queue is never served: what is submitted stays queued."""
    runs, data = folder / "runs", folder / "data"
    runs.mkdir(exist_ok=True)
    data.mkdir(exist_ok=True)
    return Context(runs.resolve(), (data.resolve(),), Jobs(runs.resolve(), slots), read_only=read_only)


def draft(run: str = "new-1", preset: str = "tiny", devices: tuple[str, ...] = ("cpu",), processes: str = "2",
          **values: Any) -> Draft:  # fmt: skip
    given = {name.replace("__", "."): value for name, value in values.items()}
    return Draft(preset, {**forms.preset_texts(preset), **given}, run, devices, processes)


def everything(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


# Bad values


@pytest.mark.parametrize("name", bad_values())
def test_a_bad_value_keeps_start_off_and_nothing_is_written(name: str, context: Context) -> None:
    before = everything(context.runs)
    for text in bad_values()[name]:
        given = draft(**{name.replace(".", "__"): text})
        checked = drafts.check(context, given)
        assert checked.problems[name], f"{text!r} is told at its field"
        assert any(name in fields for _, fields in checked.reasons), "and among the reasons why Start is off"
        assert not checked.command
        with pytest.raises(UserError, match=name.partition(".")[2]):
            drafts.launch(context, given, at_once=True)
        assert f'data-field="{name}"' in show.reasons(checked), "a link to the field"
        assert "<p>" in show.note(name, checked.problems[name], None)
    assert everything(context.runs) == before and not context.jobs.queue()


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"run": ""}, "run", "not allowed"),
        ({"run": "../up"}, "run", "not allowed"),
        ({"run": "a;touch x"}, "run", "not allowed"),
        ({"run": "<img src=x onerror=alert(1)>"}, "run", "not allowed"),
        ({"run": "x" * 65}, "run", "not allowed"),
        ({"run": "taken"}, "run", "exists already; 'taken-1' is free"),
        ({"preset": "tinny"}, "preset", "did you mean tiny"),
        ({"devices": ()}, "devices", "no device was chosen"),
        ({"devices": ("cuda:7",)}, "devices", "there is no device 'cuda:7'"),
        ({"processes": ""}, "processes", "expected a whole number from 1"),
        ({"processes": "0"}, "processes", "expected a whole number from 1"),
        ({"processes": "two"}, "processes", "expected a whole number from 1"),
        ({"processes": "65"}, "processes", "expected a whole number from 1 to 64"),
        ({"processes": "3"}, "processes", "not a multiple of 3 ranks"),
        ({"processes": "3"}, "train.batch_tokens", "not a multiple of 3 ranks"),
        ({"data__lanes": "5"}, "data.lanes", "must divide the batch's 32 sequences"),
        ({"train__device": "cuda"}, "train.device", "not among the chosen devices"),
    ],
)
def test_what_is_not_a_setting_is_checked_too(given: dict[str, Any], field: str, words: str, context: Context) -> None:
    make_run(context.runs, "taken", 2)
    before = everything(context.runs)
    values = forms.preset_texts("tiny")
    made = draft(**({"preset": "tiny"} | {k: v for k, v in given.items() if k != "preset"}))
    made = Draft(given.get("preset", "tiny"), values | dict(made.values), made.run, made.devices, made.processes)
    checked = drafts.check(context, made)
    assert any(words in line for line in checked.problems[field])
    assert any(words in line and field in fields for line, fields in checked.reasons)
    assert "<img" not in show.reasons(checked) and "<img" not in show.note(field, checked.problems[field], None)
    with pytest.raises(UserError):
        drafts.launch(context, made, at_once=True)
    assert everything(context.runs) == before


def test_gpus_take_one_process_each_and_are_not_mixed_with_others(tmp_path: Path) -> None:
    context = make_context(tmp_path, ("cuda:0", "cuda:1", "cpu"))
    both = ("cuda:0", "cuda:1")
    assert not drafts.check(context, draft(devices=both)).reasons
    assert drafts.check(context, draft(devices=both)).environment == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert drafts.check(context, draft(devices=both[1:], processes="1")).command_line.startswith(
        "CUDA_VISIBLE_DEVICES=1 "
    )
    assert "2 GPUs" in drafts.check(context, draft(devices=both[:1])).problems["processes"][0]
    assert "different kinds" in drafts.check(context, draft(devices=("cuda:0", "cpu"))).problems["devices"][0]
    assert drafts.first_devices(context) == list(both)
    assert drafts.first_processes("tiny", both) == 2


def test_a_tracker_that_is_not_installed_is_told_before_the_start(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drafts, "find_spec", lambda package: None if package == "wandb" else object())
    checked = drafts.check(context, draft(log__wandb=True, log__trackio=True))
    assert list(checked.problems) == ["log.wandb"] and "needs the package wandb" in checked.problems["log.wandb"][0]


def test_paths_must_lie_inside_the_roots(context: Context, tmp_path: Path) -> None:
    inside = context.data_roots[0] / "text.txt"
    inside.write_text("once upon a time")
    (context.data_roots[0] / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("x")
    checked = drafts.check(context, draft(data__source="text.txt"))
    assert checked.config and checked.config.data.source == str(inside), "resolved, as the run has another folder"
    for text in ("link", "../secret", str(tmp_path / "secret"), "missing.txt"):
        assert drafts.check(context, draft(data__source=text)).problems["data.source"]


def test_a_read_only_workbench_starts_nothing(tmp_path: Path) -> None:
    context = make_context(tmp_path, read_only=True)
    assert any("--read-only" in line for line, _ in drafts.check(context, draft()).reasons)
    for change in (lambda: drafts.launch(context, draft(), True), lambda: queue.act(context, "cancel", "x"),
                   lambda: queue.resume(context, "x", "")):  # fmt: skip
        with pytest.raises(UserError, match="--read-only"):
            change()


# Start and the command


def test_the_command_shown_is_the_one_executed_and_makes_the_same_configuration(context: Context) -> None:
    given = draft(train__steps="9", data__text_column='it\'s a "text"', sample__prompts='["$(touch x)", "; ls"]')
    checked = drafts.check(context, given)
    job = drafts.launch(context, given, at_once=True)
    assert job.spec.argv == checked.command
    assert job.spec.config_hash == config_hash(checked.config)  # type: ignore[arg-type]
    shell = ["bash", "-c", f"{checked.command_line} --print-config"]  # as pasted in a terminal
    printed = subprocess.run(shell, capture_output=True, text=True, cwd=Path(__file__).parents[4], check=True).stdout
    file = context.runs / "printed.toml"
    file.write_text(printed)
    assert config_hash(load_config(None, file)) == job.spec.config_hash
    assert not list(Path(__file__).parents[4].glob("x"))


def test_what_is_queued_does_not_change_with_the_form(context: Context) -> None:
    values = dict(draft(train__steps="9").values)
    first = drafts.launch(context, Draft("tiny", values, "a", ["cpu"], "2"), at_once=False)
    values["train.steps"] = "11"
    drafts.launch(context, Draft("tiny", values, "b", ["cpu"], "1"), at_once=False)
    kept = context.jobs.queue()
    assert [(job.run, job.spec.nproc) for job in kept] == [("a", 2), ("b", 1)]
    assert kept[0].spec == first.spec and "9" in kept[0].spec.argv and "11" in kept[1].spec.argv


def test_the_same_name_cannot_be_started_twice(context: Context) -> None:
    drafts.launch(context, draft("a"), at_once=True)
    with pytest.raises(UserError, match="exists already"):
        drafts.launch(context, draft("a"), at_once=True)
    assert drafts.free_name(context, "a") == "a-1" and drafts.free_name(context, "tiny") == "tiny-1"
    assert drafts.free_name(context, "a-1-<b>") == "a-1-b-1"


def test_names_of_presets_give_way_and_names_of_people_stay() -> None:
    assert drafts.is_suggested("") and drafts.is_suggested("gpt2-3") and drafts.is_suggested("tiny-12")
    assert not drafts.is_suggested("my-run") and not drafts.is_suggested("tiny-lr-3")


# The estimate


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_has_an_estimate_and_a_preview(preset: str, context: Context) -> None:
    checked = drafts.check(context, draft(preset=preset))
    assert not checked.reasons
    plan = drafts.estimate(context, checked)
    assert not isinstance(plan, str)
    words = outlook.estimate(plan) + outlook.length(plan) + outlook.line(plan)
    for label in ("Parameters", "Tokens per step", "Passes over the data", "Memory", "Disk", "Time to finish"):
        assert label in words
    assert f"{plan['parameters.total'].value:,.0f}" in words
    assert "<polyline" in outlook.schedule(plan.rates) and "nan" not in outlook.schedule(plan.rates)


@pytest.mark.parametrize("steps", ["1", "2", "1000000000"])
def test_the_preview_holds_for_the_shortest_and_the_longest_run(steps: str, context: Context) -> None:
    plan = drafts.estimate(context, drafts.check(context, draft(train__steps=steps)))
    assert not isinstance(plan, str)
    assert "nan" not in outlook.schedule(plan.rates)


def test_absurd_numbers_are_answered(context: Context) -> None:
    for values in ({"eval__interval": "9" * 400}, {"train__batch_tokens": str(2**40)}, {"data__cache_gb": "1e308"},
                   {"optimizer__grad_clip": "1e308"}, {"checkpoint__keep_last": "9" * 400}):  # fmt: skip
        checked = drafts.check(context, draft(**values))
        assert outlook.line(drafts.estimate(context, checked))


# What fills the form


def test_other_tabs_can_fill_the_form(context: Context, tmp_path: Path) -> None:
    make_run(context.runs, "old", 3, settings=("--train.steps", "77"))
    loaded, stem = fill.from_request(context, {"from_run": "old"}, {}, "gpt2") or (None, "")
    assert loaded and (loaded.preset, loaded.values["train.steps"], stem) == ("tiny", "77", "old")
    now = {**forms.preset_texts("small"), "train.steps": "5", "model.bias": True}
    loaded, _ = fill.from_request(context, {"tokenizer": "my/tokenizer.json"}, now, "small") or (None, "")
    assert loaded and loaded.preset == "small" and loaded.values["train.steps"] == "5", "only the tokenizer changes"
    assert loaded.values["data.tokenizer"] == "my/tokenizer.json" and loaded.values["model.bias"] == "true"
    loaded, stem = fill.from_request(context, {"preset": "gpt2"}, now, "small") or (None, "")
    assert loaded and loaded.values == forms.preset_texts("gpt2")
    loaded, stem = fill.from_request(context, {"from_run": "old", "settings": "data.order=buffer"}, {}, "x") or (
        None,
        "",
    )
    assert loaded and (loaded.values["data.order"], loaded.values["train.steps"], stem) == ("buffer", "77", "old")
    loaded, _ = fill.from_request(context, {"settings": "data.order=lanes"}, now, "small") or (None, "")
    assert loaded and (loaded.values["data.order"], loaded.values["train.steps"]) == ("lanes", "5")
    assert fill.from_request(context, {"something": "else"}, now, "small") is None
    for request in (
        {"from_run": "none"}, {"from_run": "../x"}, {"preset": "nope"}, {"from_job": "x"},
        {"settings": "data.ordr=lanes"},
    ):  # fmt: skip
        with pytest.raises(UserError):
            fill.from_request(context, request, now, "small")


def test_a_file_of_settings_may_hold_anything_and_the_page_says_what_it_took(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        fill.from_upload(None)
    file = tmp_path / "x.toml"
    file.write_text('[train]\nsteps = "<b>"\n')
    assert fill.from_upload(str(file)).values["train.steps"] == "<b>"


def test_the_batches_that_are_advised_divide_by_the_processes_and_stand_at_the_field_that_was_changed(
    context: Context,
) -> None:
    """960 was advised for two processes, and then refused; the line stood at three fields and in the list."""
    checked = drafts.check(context, draft(processes="2", model__block_size="64", train__batch_tokens="1000"))
    (line, fields) = next(each for each in checked.reasons if "batch_tokens=1000" in each[0])
    assert "2 ranks x 64 = 128; nearest: 896, 1024" in line and len(checked.reasons) == 1
    assert set(fields) == {"train.batch_tokens", "model.block_size"}, "both were changed; micro_batch was not"
    for tokens in ("896", "1024"):
        again = drafts.check(context, draft(processes="2", model__block_size="64", train__batch_tokens=tokens))
        assert not again.reasons


def test_a_bad_path_is_not_said_to_follow_from_other_settings(context: Context) -> None:
    checked = drafts.check(context, draft(data__source="/etc/passwd"))
    (change,) = [change for change in checked.changes if change.name == "data.source"]
    assert not change.follows and "becomes" not in show.note("data.source", (), change)


@pytest.mark.parametrize(("names", "words"), [((), "without"), (("a.csv",), "without"), (("a.pt", "b.csv"), "without")])
def test_a_folder_that_cannot_be_trained_on_keeps_start_off(
    context: Context, names: tuple[str, ...], words: str
) -> None:
    (context.data_roots[0] / "texts").mkdir()
    for name in names:
        (context.data_roots[0] / "texts" / name).write_text("some text")
    checked = drafts.check(context, draft(data__source="texts"))
    assert re.search(words, checked.problems["data.source"][0]) and not checked.command
    with pytest.raises(UserError):
        drafts.launch(context, draft(data__source="texts"), at_once=True)


def test_the_newcomers_card_says_what_its_run_is_and_what_it_takes_here(context: Context) -> None:
    card = first.card(context)
    assert "4.3M-parameter model on built-in text: about " in card and "on this machine" in card
    assert "The run is called tiny-1" in card and 'data-act="first"' in card
    drafts.launch(context, draft("mine"), at_once=True)
    assert "mine is training" in first.card(context) and "Start here" not in first.card(context)


def test_the_newcomers_card_leads_on_from_the_first_run_and_goes_with_the_second(context: Context) -> None:
    make_run(context.runs, "tiny-1", 3)
    card = first.card(context)
    assert "tiny-1 is done" in card
    assert all(f'data-act="{act}" data-id="tiny-1"' in card for act in ("sample", "compare", "rate"))
    make_run(context.runs, "tiny-2", 3)
    assert first.card(context) == ""


def test_no_card_where_nothing_can_be_started(tmp_path: Path) -> None:
    assert first.card(make_context(tmp_path, read_only=True)) == ""


def test_each_preset_says_its_size_and_its_time_here_and_tiny_is_first(context: Context) -> None:
    labels = dict(presets.choices(context))
    assert next(iter(labels)).startswith("tiny\n4.27M\n") and len(labels) == len(preset_names())
    assert all(len(line) < 18 for label in labels for line in label.splitlines())
    assert {len(label.splitlines()) for label in labels} == {3}


def test_a_run_is_called_after_ones_own_text_until_somebody_names_it(context: Context) -> None:
    (context.data_roots[0] / "My stories.b.jsonl.gz").write_text("x")
    assert drafts.stem_of(context, "tiny", "My stories.b.jsonl.gz") == "My-stories"
    for source in ("pydocs", "fineweb-edu-10BT", "owner/some-set:config", "/etc/passwd", "missing.txt", ""):
        assert drafts.stem_of(context, "gpt2", source) == "gpt2"
    assert drafts.is_suggested("My-stories-2", "My stories") and not drafts.is_suggested("My-stories-2")


def test_the_head_says_the_range_the_run_it_comes_from_and_the_memory_of_all_processes(context: Context) -> None:
    config = load_config("tiny")
    for name, speed in (("quiet", 16_384.0), ("busy", 1_000.0)):
        run = RunDir.create(context.runs, name)
        run.config_file.write_text(to_toml(config))
        rows = [{"attempt": 1, "step": n, "tokens": n * 8192, "tokens_per_second": speed} for n in range(1, 21)]
        run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_rank(run, 0, world_size=2, device="cpu", attempt=1)
    plan = drafts.estimate(context, drafts.check(context, draft()))
    assert not isinstance(plan, str)
    line = outlook.line(plan)
    assert "about 70 s" in line and "as run quiet" in line and "memory in 2 processes of " in line
    assert " free here" in line and "70 s" in outlook.estimate(plan)
    tiny = next(label for label, name in presets.choices(context) if name == "tiny")
    assert tiny == "tiny\n4.27M\n70 s\nran here"
    assert "On this machine about 70 s, as run quiet." in presets.about(context, "tiny")
    other = drafts.estimate(context, drafts.check(context, draft(model__n_layer="6")))
    assert not isinstance(other, str)
    assert " to " in outlook.line(other) and "estimated from run quiet" in outlook.line(other)


def test_what_does_not_fit_says_so_in_the_head(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mygpt2.planning.estimate.this_machine", lambda: Machine(10**9, 10**9, ()))
    plan = drafts.estimate(context, drafts.check(context, draft()))
    assert "does not fit" in outlook.line(plan) and "of 1 GB free here" in outlook.line(plan)
