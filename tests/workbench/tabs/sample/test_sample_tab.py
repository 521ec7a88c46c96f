"""The sample tab's handlers: what a press starts, what is refused, what a link fills in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.generate.decode import KINDS
from mygpt2.run_dir import RunDir, RunWriter
from tests.exchange.folders import saved_run
from tests.run_dir.processes import record_rank, running
from tests.workbench.tabs.sample.places import folder_model, small_place
from workbench import models
from workbench.context import Context
from workbench.corpus.library import Library
from workbench.jobs import Jobs
from workbench.models import choices, defaults
from workbench.page import Page
from workbench.tabs.sample import opening, tab
from workbench.tabs.sample.client import Sampler
from workbench.tabs.sample.settings import LIMITS, PRECISIONS
from workbench.tabs.sample.tab import asked, begin, refreshed

PRESSED: dict[str, Any] = {
    **{name: limit.default for name, limit in LIMITS.items()},
    "model_a": "first", "model_b": "other", "prompt": "Hi", "stop": "", "device": "cpu", "running": "",
}  # fmt: skip


class Idle:
    """A desk that starts nothing."""

    def __init__(self) -> None:
        self.stopped: list[Any] = []

    def start(self, generation: Any) -> None: ...

    def stop(self, generation: Any) -> None:
        self.stopped.append(generation.id)


@pytest.fixture
def desk() -> Idle:
    return Idle()


@pytest.fixture
def sampler(desk: Idle) -> Sampler:
    return Sampler(lambda device: desk)  # type: ignore[arg-type, return-value]


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    runs, data = small_place(tmp_path)
    yield Context(runs, (data,), jobs=Jobs(runs, ["cuda:0"]))


def test_a_press_starts_both_models_with_the_same_settings(context: Context, sampler: Sampler) -> None:
    changed = begin(context, sampler, {**PRESSED, "temperature": -1, "prompt": "Hé"})
    generation, _ = sampler.get(changed["running"])
    assert [pane.label for pane in generation.panes] == ["first/step-00000005", "other"]
    assert generation.prompt == "Hé" and generation.settings.temperature == 0.0
    assert changed["temperature"] == 0.0 and "seed" not in changed and "is used" in changed["notice"]
    assert changed["panes"] == {"id": generation.id}


def test_the_second_model_may_be_left_out_and_the_earlier_generation_ends(
    context: Context, sampler: Sampler, desk: Idle
) -> None:
    first = begin(context, sampler, {**PRESSED, "model_b": None})["running"]
    assert len(sampler.get(first)[0].panes) == 1
    begin(context, sampler, {**PRESSED, "running": first})
    assert desk.stopped == [first]
    begin(context, sampler, {**PRESSED, "running": "of an earlier server"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_a": "", "model_b": ""}, "no model is chosen"),
        ({"model_a": "../../etc"}, "outside the folders"),
        ({"model_b": "<img onerror=1>"}, "not allowed"),
        ({"device": "cuda:5"}, "no device 'cuda:5'; choose from: cuda:0, cpu"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(
    context: Context, sampler: Sampler, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        begin(context, sampler, {**PRESSED, **changes})
    assert "\n" not in str(refused.value)


def test_a_read_only_page_starts_no_process(context: Context, sampler: Sampler) -> None:
    reading = Context(context.runs, context.data_roots, jobs=context.jobs, read_only=True)
    with pytest.raises(UserError, match="read-only"):
        begin(reading, sampler, PRESSED)


def test_markup_in_a_number_is_text_in_the_notice(context: Context, sampler: Sampler) -> None:
    notice = begin(context, sampler, {**PRESSED, "top_k": "<img onerror=1>"})["notice"]
    assert "<img" not in notice and "&lt;img" in notice


def test_a_link_fills_what_it_names_and_leaves_the_rest(context: Context) -> None:
    model_a, model_b, prompt, seed = asked(context, Page.ask(model_a="first", prompt="Hi", seed="-4"))
    assert (model_a["value"], prompt, seed) == ("first", "Hi", 0)
    assert ("first · newest (step 5)", "first") in model_a["choices"] and "value" not in model_b
    assert asked(context, "damaged")[2]["__type__"] == "update"


def test_new_checkpoints_appear_and_what_was_chosen_stays(context: Context) -> None:
    _, _, known = refreshed(context, [])
    assert refreshed(context, [list(item) for item in known]) == gr.skip()
    saved_run(context.runs, "second")
    later, _, _ = refreshed(context, known)
    assert "value" not in later and "second" in [value for _, value in later["choices"]]
    assert context.jobs.devices.names == ["cuda:0", "cpu"]


def test_a_device_that_trains_is_neither_chosen_nor_taken(context: Context, sampler: Sampler) -> None:
    run = RunDir.create(context.runs, "trains")
    assert Page.free_device(context.jobs.devices, "cuda:0") == gr.skip()
    with running() as rank, RunWriter(run, 1) as writer:
        writer.status(state="running", phase="training", step=3)
        record_rank(run, 0, rank.pid, device="cuda:0")
        assert Page.free_device(context.jobs.devices, "cuda:0")["value"] == "cpu"
        with pytest.raises(UserError, match="cuda:0 is at work for run trains; wait for it, or choose from: cpu"):
            begin(context, sampler, {**PRESSED, "device": "cuda:0"})
        begin(context, sampler, PRESSED)


class Asked:
    """The request of a page, as far as the handler looks at it."""

    def __init__(self, **query: str) -> None:
        self.query_params = query


class Opened:
    """The tab's fields through several openings, as the page keeps them."""

    def __init__(self, context: Context) -> None:
        with gr.Blocks():
            page = Page()
        self._opened = tab._opened(context, page)
        self.a: Any = None
        self.b: Any = None
        self.offer = self.said = ""
        self.known: list[tuple[str, str]] = []

    def __call__(self, port: str = "", *, query: dict[str, str] | None = None, **address: str) -> tuple[Any, Any]:
        request = Asked(**(query or {}))
        told = self._opened(port, self.a, self.b, "cuda:0", self.offer, json.dumps(address), request)
        a, b, _, self.said, self.offer, self.known = tab.leaving_choices(self.a, self.b, *told)
        sets = json.loads(json.loads(self.offer)["sets"])
        assert "value" not in a and "value" not in b and sets["was"] == {"a": self.a, "b": self.b}
        self.a, self.b = sets["now"].get("a", self.a), sets["now"].get("b", self.b)
        return self.a, self.b


def test_the_run_that_monitor_shows_is_chosen_and_beside_it_what_there_is(context: Context) -> None:
    """The models to begin with were those of the server's start, for some seconds or for good."""
    saved_run(context.runs, "second")
    os.utime(context.runs / "first" / "checkpoints" / "step-00000005", (1, 1))
    opened = Opened(context)
    assert opened() == ("second", "first"), "the newest run, and the newest other one"
    assert opened(runs="first,second") == ("first", "second")
    assert opened(runs="first,second", focus="second") == ("second", "first")
    saved_run(context.runs, "third")
    assert opened(runs="first") == ("first", "third"), "a run that came later needs no new server"


def test_the_other_run_that_is_ticked_is_model_b(context: Context) -> None:
    for name in ("second", "third"):
        saved_run(context.runs, name)
    opened = Opened(context)
    assert opened(runs="first,second") == ("first", "second"), "and not the newest, which is the third"
    opened.a = "second"  # as the request's own event leaves it
    assert opened(Page.ask(model_a="second"), runs="first,second") == ("second", "first"), "Sample it, of the other one"
    opened.a = "third"
    assert opened(Page.ask(model_a="third"), runs="first,second")[1] != "third", "a run that is ticked nowhere"
    context.run("second").status_file.write_text(json.dumps({"state": "failed"}))
    assert Opened(context)(runs="first,second") == ("first", "third"), "a failed run is proposed to nobody"


def test_what_a_person_or_a_link_has_chosen_stays(context: Context) -> None:
    opened = Opened(context)
    opened(runs="first")
    opened.a = "other"
    assert opened(runs="first")[0] == "other"
    linked = Opened(context)
    linked.a = "wide"  # as the link's own event leaves it
    assert linked(query={"model_a": "wide"}) == ("wide", "first")
    assert linked(Page.ask(model_a="wide"))[0] == "wide"
    saved_run(context.runs, "second")
    linked.offer = json.dumps({**json.loads(linked.offer), "monitor": "first"})
    assert linked(runs="second")[0] == "second", "another run was opened in Monitor since"


def test_without_a_second_model_a_sentence_says_what_to_do(context: Context) -> None:
    for name in ("other", "wide"):
        shutil.rmtree(context.data_roots[0] / name)
    opened = Opened(context)
    assert opened() == ("first", None) and "choose a GPT-2 as model B" in opened.said
    opened.b = "gpt2"
    opened()
    assert opened.said == ""


def test_gpt2_stands_beside_a_run_where_it_is_to_be_had(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    known = choices(context)
    assert defaults(known) == ("first", "other")
    assert defaults([item for item in known if item[1].startswith("gpt2")]) == ("gpt2", ""), "a download is nobody's"
    monkeypatch.setattr(models, "is_here", lambda name: name == "gpt2")
    known = choices(context)
    assert ("gpt2 · OpenAI, on this machine", "gpt2") in known and defaults(known, "first") == ("first", "gpt2")
    assert defaults(known, "gpt2") == ("gpt2", "first")
    folder_model(context.data_roots[0] / "gpt2-mine")
    assert defaults(choices(context), "first/step-00000005")[1] == "gpt2"
    monkeypatch.undo()
    assert defaults(choices(context), "first") == ("first", "gpt2-mine")


def test_compare_too_offers_what_there_is_now_and_chooses_for_nobody_who_has_chosen(context: Context) -> None:
    from workbench.tabs.compare import tab as compare

    with gr.Blocks():
        page = Page()
    opened = compare._opened(context, page)
    models, texts, known, device = opened("cuda:0", [("gpt2 · OpenAI, from the hub", "gpt2")])
    assert ("first · newest (step 5)", "first") in models["choices"] and models["choices"] == known
    assert "value" not in models and "value" not in texts and device == gr.skip()
    assert opened("cuda:0", known)[:3] == (gr.skip(),) * 3


def test_the_prompt_is_a_beginning_of_what_the_run_was_trained_on(context: Context) -> None:
    text = context.data_roots[0] / "text.jsonl"
    line = "The river, and the light on it, (seen from the bridge) in the morning"
    text.write_text("".join(json.dumps({"text": f"# A\n\n{line}\nnumber {n}"}) + "\n" for n in range(20)))
    run = context.run("first")
    config = load_config("tiny", None, {"data.source": str(text), "sample.prompts": ["Once upon"]})
    run.config_file.write_text(to_toml(config))
    library = Library(context.runs / "cache")
    assert opening.prompt_for(context, library, "first/step-00000005") == "The river, and the light on"
    text.unlink()
    assert opening.prompt_for(context, Library(context.runs / "cache"), "first") == opening.ANY_PROMPT
    run.config_file.write_text(
        to_toml(load_config("tiny", None, {"data.source": "owner/name", "sample.prompts": ["Once"]}))
    )
    assert opening.prompt_for(context, library, "first") == "Once", "the hub is not asked for a prompt"
    for model in ("gpt2", "other", "<b>", ""):
        assert opening.prompt_for(context, library, model) == opening.ANY_PROMPT


def test_precision_is_one_the_engine_has(context: Context, sampler: Sampler) -> None:
    assert set(PRECISIONS.values()) == set(KINDS)
    changed = begin(context, sampler, {**PRESSED, "precision": "bfloat16"})
    assert sampler.get(changed["running"])[0].settings.weights == "bf16"
    changed = begin(context, sampler, {**PRESSED, "precision": "<b>"})
    assert sampler.get(changed["running"])[0].settings.weights == "fp32"
    assert "is not one of float32, bfloat16, int8" in changed["notice"] and "<b>" not in changed["notice"]
