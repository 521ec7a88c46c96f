"""The sample tab: one prompt, two models under the same seed, side by side."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.models import ONLY_HUB, choices, defaults, resolve, short
from workbench.page import ACTION, PRIVATE, QUIET, Page
from workbench.tabs.sample.alternatives import alternatives
from workbench.tabs.sample.client import SAMPLING, Sampler
from workbench.tabs.sample.generation import as_text
from workbench.tabs.sample.settings import LIMITS, MAX_PROMPT, clamped, prompt_within

HELP = {
    "max_new_tokens": "how many at most; a text may end sooner by itself",
    "temperature": "0 is greedy; lower is safer, higher is wilder",
    "top_k": "choose among the K likeliest; 0: all",
    "top_p": "choose among the likeliest that make up this probability; 1: all",
    "min_p": "leave out what is less than P times as likely as the likeliest; 0: nothing",
    "repetition_penalty": "above 1: what was there before becomes less likely",
    "seed": "the same seed gives the same text, and two models the same luck",
}
_ADDRESS = "(a, b, prompt, seed) => { window.workbench.sample.address(a, b, prompt, seed); return []; }"
_ON_LOAD = "window.workbench.sample.mount({ element, props, server, watch });"
_START = '<div class="wb-sample"><p class="wb-muted">Choose two models, write a prompt and press Generate.</p></div>'


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    sampler = Sampler()
    context.jobs.devices.add(sampler)
    known = choices(context)
    first, second = defaults(known)
    with gr.Row(equal_height=False):
        model_a = _model("Model A", known, first)
        model_b = _model("Model B", known, second)
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=12, max_length=2 * MAX_PROMPT, elem_id="wb-sample-prompt",
        info="Shift+Enter generates. Empty: the models begin a text of their own.",
    )  # fmt: skip
    with gr.Accordion("Settings", open=False, elem_id="wb-sample-settings"):
        with gr.Row():
            numbers = {name: _number(name) for name in LIMITS if name != "seed"}
        stop_text = gr.Textbox(label="Stop strings", lines=2, info=r"One a line; \n stands for a new line.")
    with gr.Row(elem_id="wb-sample-actions"):
        numbers["seed"] = _number("seed")
        device = gr.Dropdown(context.jobs.devices.names, label="Device", info="one generation at a time on each")
        generate = gr.Button("Generate", variant="primary", elem_id="wb-sample-generate")
        stop = gr.Button("Stop", elem_id="wb-sample-stop")
    notice = gr.HTML(elem_id="wb-sample-notice")
    panes = _panes(sampler)
    running = gr.Textbox(visible="hidden", label="generation", elem_id="wb-sample-id")
    listed = gr.State(known)

    fields = {"model_a": model_a, "model_b": model_b, "prompt": prompt, "stop": stop_text, "device": device,
              "running": running, **numbers}  # fmt: skip

    def pressed(values: dict[Any, Any]) -> dict[Any, Any]:
        changed = begin(context, sampler, {name: values[field] for name, field in fields.items()})
        shown = {panes: changed.pop("panes"), notice: changed.pop("notice"), running: changed.pop("running")}
        return shown | {fields[name]: value for name, value in changed.items()}

    outputs = [panes, notice, running, *numbers.values()]
    for event in (generate.click, prompt.submit):
        begun = event(page.friendly(pressed), set(fields.values()), outputs, **ACTION)
        begun.then(None, [model_a, model_b, prompt, numbers["seed"]], None, js=_ADDRESS, **PRIVATE)
    stop.click(page.friendly(partial(end, sampler)), running, None, **ACTION)
    page.port("sample").change(
        page.friendly(partial(asked, context)), page.port("sample"),
        [model_a, model_b, prompt, numbers["seed"]], **QUIET,
    )  # fmt: skip
    lists = [model_a, model_b, device, listed]
    page.on_open("sample", _opened(context, page), [page.port("sample"), model_a, device, listed], lists)
    for model in (model_a, model_b):
        model.focus(page.friendly(partial(refreshed, context)), listed, [model_a, model_b, listed], **QUIET)


def begin(context: Context, sampler: Sampler, values: Mapping[str, Any]) -> dict[str, Any]:
    """Starts a generation from what the fields hold. What the page then shows, by name; numbers only where changed.

    The page's earlier generation ends. UserError for a model that cannot be used.
    """
    context.changes()
    models = [(spec, short(context, spec)) for name in ("model_a", "model_b") if values[name]
              for spec in [resolve(context, values[name])]]  # fmt: skip
    if not models:
        raise UserError("no model is chosen; choose one or two above the prompt")
    device = values["device"]
    context.jobs.devices.check(device)
    context.jobs.devices.take(device, but=SAMPLING)  # generations wait for each other
    settings, words = clamped(values, values["stop"])
    prompt, word = prompt_within(values["prompt"])
    if values["running"]:
        with contextlib.suppress(UserError):  # it was of an earlier server, or is long forgotten
            sampler.stop(values["running"])
    generation = sampler.start(models, prompt, settings, device)
    words += [word] if word else []
    notice = html.Markup("".join(html.note(text) for text in words))
    used = {name: getattr(settings, name) for name in LIMITS}
    changed = {name: value for name, value in used.items() if value != values[name]}
    return {"panes": {"id": generation.id}, "running": generation.id, "notice": notice, **changed}


def end(sampler: Sampler, running: str) -> None:
    """Stops the page's generation, if there is one."""
    if running:
        sampler.stop(running)


def asked(context: Context, text: str) -> list[Any]:
    """Model A, model B, prompt and seed of a request, each left as it is where the request says nothing."""
    request = Page.request(text)
    known = choices(context)
    models = [
        gr.update(choices=known, value=str(request[name])) if name in request else gr.update(choices=known)
        for name in ("model_a", "model_b")
    ]
    prompt = prompt_within(request["prompt"])[0] if "prompt" in request else gr.skip()
    seed = LIMITS["seed"].clamp(request["seed"])[0] if "seed" in request else gr.skip()
    return [*models, prompt, seed]


def _opened(context: Context, page: Page) -> Callable[..., Any]:
    def opened(port: str | None, model_a: Any, device: Any, listed: list[Any], request: gr.Request) -> Any:
        """What can be chosen now, and what is chosen unless a person or a link did."""
        asked = "model_a" in page.request(port) or "model_a" in request.query_params
        lists = refreshed(context, listed, choose=not asked and model_a in (None, "", ONLY_HUB[0]))
        a, b, known = lists if isinstance(lists, tuple) else (gr.skip(), gr.skip(), gr.skip())
        return a, b, page.free_device(context.jobs.devices, device), known

    return opened


def refreshed(context: Context, listed: list[Any], choose: bool = False) -> Any:
    """New checkpoints and folders in both lists; nothing when there are none. `choose`: also the models to begin with.

    Asked for when the tab is opened and when a list is: looking through the roots is not for a timer.
    """
    before, known = [tuple(item) for item in listed or []], choices(context)
    first, second = defaults(known)
    if choose and (first, second) != ONLY_HUB:
        return gr.update(choices=known, value=first), gr.update(choices=known, value=second or None), known
    if before == known:
        return gr.skip()
    return gr.update(choices=known), gr.update(choices=known), known


def _panes(sampler: Sampler) -> gr.HTML:
    """The texts. As an output it takes {"id": a generation}, follows it, and fetches new tokens by their count."""
    return gr.HTML(
        html_template=_START, js_on_load=_ON_LOAD, apply_default_css=False, elem_id="wb-sample-panes", label="Samples",
        server_functions=server_functions(sampler),
    )  # fmt: skip


def _model(label: str, known: list[tuple[str, str]], value: str) -> gr.Dropdown:
    return gr.Dropdown(
        known, value=value or None, label=label, allow_custom_value=True,
        info="a run, one of its checkpoints, a folder inside the roots, or a GPT-2",
    )  # fmt: skip


def _number(name: str) -> gr.Number:
    limit = LIMITS[name]
    return gr.Number(
        limit.default, label=limit.label, precision=0 if limit.kind is int else None, min_width=110,
        info=f"{HELP[name]} ({limit.low:g} to {limit.high:g})" if name != "seed" else HELP[name],
        elem_id=f"wb-sample-{name.replace('_', '-')}",
    )  # fmt: skip


def server_functions(sampler: Sampler) -> list[Any]:
    """What the page asks for while it shows a generation; each answers {"error": ...} for what it cannot do."""

    def sample_tokens(request: Any) -> dict[str, Any]:
        return _told(lambda: sampler.poll(request.get("id"), [int(n) for n in request.get("counts", [])][:2]))

    def sample_likeliest(request: Any) -> dict[str, Any]:
        return _told(lambda: alternatives(sampler, request.get("id"), int(request["pane"]), int(request["at"])))

    def sample_saved(request: Any) -> dict[str, Any]:
        return _told(lambda: _saved(sampler, request.get("id"), request.get("kind")))

    return [sample_tokens, sample_likeliest, sample_saved]


def _told(answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return answer()
    except UserError as error:
        return {"error": str(error)}
    except (AttributeError, KeyError, TypeError, ValueError):
        return {"error": "the page asked for something this server does not know; reload it"}


def _saved(sampler: Sampler, id: Any, kind: Any) -> dict[str, Any]:
    records = sampler.get(id)[0].records()
    name = f"sample-seed-{records[0]['seed']}"
    if kind == "json":
        return {"name": f"{name}.json", "text": json.dumps(records, indent=1, ensure_ascii=False) + "\n"}
    return {"name": f"{name}.txt", "text": as_text(records)}
