"""The sample tab's handlers: what a press starts, what is refused, what a link fills in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunWriter
from tests.exchange.folders import saved_run
from tests.run_dir.processes import record_rank, running
from tests.workbench.tabs.sample.places import small_place
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.models import defaults
from workbench.page import Page
from workbench.tabs.sample.client import Sampler
from workbench.tabs.sample.settings import LIMITS
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
    assert "value" not in model_b and model_b["choices"] == model_a["choices"]
    assert asked(context, "damaged")[2]["__type__"] == "update"


def test_new_checkpoints_appear_and_the_first_of_all_is_chosen(context: Context, tmp_path: Path) -> None:
    hub = [("gpt2 · OpenAI, from the hub", "gpt2")]
    assert defaults(hub) == ("gpt2", "")
    first, second, known = refreshed(context, hub, choose=True)
    assert (first["value"], second["value"]) == ("first", "other")
    assert refreshed(context, [list(item) for item in known]) == gr.skip()
    saved_run(context.runs, "second")
    later, _, _ = refreshed(context, known)
    assert "value" not in later, "what a person chose stays"
    assert "second" in [value for _, value in later["choices"]]
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


def test_a_tab_that_is_opened_offers_what_there_is_now_and_chooses_for_nobody_who_has_chosen(context: Context) -> None:
    """The models to begin with were those of the server's start, for some seconds or for good."""
    from workbench.tabs.compare import tab as compare
    from workbench.tabs.sample import tab as sample

    with gr.Blocks():
        page = Page()
    nobody, hub = Page.ask(), [("gpt2 · OpenAI, from the hub", "gpt2")]
    opened = sample._opened(context, page)
    a, b, device, known = opened(nobody, "gpt2", "cuda:0", hub, Asked())
    assert (a["value"], b["value"], device) == ("first", "other", gr.skip()) and known[0][1] == "first"
    for port, model, request in ((nobody, "other", Asked()), (Page.ask(model_a="other"), "gpt2", Asked()),
                                 (nobody, "gpt2", Asked(model_a="other"))):  # fmt: skip
        a, _, _, _ = opened(port, model, "cuda:0", hub, request)
        assert "value" not in a and a["choices"] == known
    opened = compare._opened(context, page)
    models, _, _, device = opened(nobody, ["gpt2"], "cuda:0", hub, Asked())
    assert models["value"] == ["first"] and device == gr.skip()
    models, *_ = opened(nobody, ["other"], "cuda:0", hub, Asked())
    assert "value" not in models
