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
from workbench.corpus.library import Library
from workbench.models import choices, resolve, short
from workbench.page import ACTION, PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.sample import opening
from workbench.tabs.sample.alternatives import alternatives
from workbench.tabs.sample.client import SAMPLING, Sampler
from workbench.tabs.sample.generation import as_text
from workbench.tabs.sample.settings import LIMITS, MAX_PROMPT, PRECISIONS, clamped, prompt_within

HELP = {
    "max_new_tokens": "at most",
    "temperature": "0: always the likeliest",
    "top_k": "0: all tokens",
    "top_p": "1: all tokens",
    "min_p": "0: off",
    "repetition_penalty": "1: off",
    "seed": "same seed, same text",
}
_ADDRESS = "(a, b, prompt, seed) => { window.workbench.sample.address(a, b, prompt, seed); return []; }"
_MONITOR = "(...given) => [...given.slice(0, -1), window.workbench.watched()]"  # the address, and Monitor's runs
_OFFERED = "(text, a, b) => window.workbench.sample.offered(text, a, b)"
_FIT = "(proposed, now) => [window.workbench.sample.fit(proposed, now)]"
# The settings in a line, for a narrow screen, where they are below the texts; the browser fills it, with numbers alone.
_NOW = """<button type="button" class="wb-sample-now" title="Go to the settings">
${value.max_new_tokens} tokens · temperature ${value.temperature} ·
top-k ${value.top_k || "off"}${value.top_p == 1 ? "" : " · top-p " + value.top_p}${value.min_p ? " · min-p " +
value.min_p : ""}${value.repetition_penalty == 1 ? "" : " · repetition penalty " + value.repetition_penalty} ·
seed ${value.seed}</button>"""
_TOLD = f"(...values) => [Object.fromEntries({json.dumps(list(LIMITS))}.map((name, at) => [name, values[at]]))]"
_ON_LOAD = "window.workbench.sample.mount({ element, props, server, watch });"
_START = html.join([html.Markup('<div class="wb-sample">'), html.empty(
    "Both texts will appear here, side by side: every token coloured by how much it surprised its model, and the ten "
    "likeliest at any of them by a click.", "Press Generate, or Ctrl+Enter."), html.Markup("</div>")])  # fmt: skip
ALONE = "There is no second model yet: train another run, or choose a GPT-2 as model B, which is fetched from the hub."


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    sampler = Sampler()
    context.jobs.devices.add(sampler)
    with gr.Row(elem_classes="wb-beside", elem_id="wb-sample-page"):
        with gr.Column(elem_classes="wb-results"):
            prompt = gr.Textbox(
                label="Prompt", lines=3, max_lines=8, max_length=2 * MAX_PROMPT, elem_id="wb-sample-prompt",
                placeholder="Empty: the models begin a text of their own.",
            )  # fmt: skip
            with gr.Row(elem_id="wb-sample-actions"):
                model_a, model_b = _model(context, "a"), _model(context, "b")
                generate = gr.Button("Generate", variant="primary", elem_id="wb-sample-generate", elem_classes="wb-fit")
                stop = gr.Button("Stop", variant="stop", elem_id="wb-sample-stop", elem_classes="wb-fit")
            now = gr.HTML(
                {name: limit.default for name, limit in LIMITS.items()}, html_template=_NOW, elem_id="wb-sample-now",
                apply_default_css=False,
            )  # fmt: skip
            notice = gr.HTML(elem_id="wb-sample-notice", apply_default_css=False)
            panes = _panes(sampler)
        with gr.Column(elem_classes="wb-settings", elem_id="wb-sample-settings"):
            fields = _settings(context)
    fields |= {"model_a": model_a, "model_b": model_b, "prompt": prompt}
    fields["running"] = gr.Textbox(visible="hidden", label="generation", elem_id="wb-sample-id")
    listed = gr.State([])

    def pressed(values: dict[Any, Any]) -> dict[Any, Any]:
        changed = begin(context, sampler, {name: values[field] for name, field in fields.items()})
        shown: dict[Any, Any] = {panes: changed.pop("panes"), notice: changed.pop("notice")}
        new = refreshed(context, values[listed])  # the labels say what is loaded now
        if isinstance(new, tuple):
            shown |= dict(zip((model_a, model_b, listed), new, strict=True))
        return shown | {fields[name]: value for name, value in changed.items()}

    outputs = [panes, notice, fields["running"], model_a, model_b, listed, *(fields[name] for name in LIMITS)]
    begun = generate.click(page.friendly(pressed), {*fields.values(), listed}, outputs, **ACTION)
    begun.then(None, [model_a, model_b, prompt, fields["seed"]], None, js=_ADDRESS, **PRIVATE)
    stop.click(page.friendly(partial(end, sampler)), fields["running"], None, **ACTION)
    page.port("sample").change(
        page.friendly(partial(asked, context)), page.port("sample"),
        [model_a, model_b, prompt, fields["seed"]], **QUIET,
    )  # fmt: skip
    for model in (model_a, model_b):
        model.focus(page.friendly(partial(refreshed, context)), listed, [model_a, model_b, listed], **QUIET)
    numbers = [fields[name] for name in LIMITS]
    gr.on([field.change for field in numbers], None, numbers, now, js=_TOLD, **QUIET)
    _listen_opening(context, page, fields, listed, notice)


def _listen_opening(context: Context, page: Page, fields: dict[str, Any], listed: gr.State, notice: gr.HTML) -> None:
    """Whenever the tab is opened: models, then a prompt that fits, unless somebody chose them.

    The browser decides whether a prompt was typed meanwhile: to read a source may take a second.
    """
    model_a, model_b, device, prompt = (fields[name] for name in ("model_a", "model_b", "device", "prompt"))
    offer = gr.Textbox(visible="hidden", label="offered models", elem_id="wb-sample-offer")
    proposed = gr.Textbox(visible="hidden", label="offered prompt")
    address = gr.Textbox(visible="hidden", label="address")
    library = Library()
    opened = _opened(context, page)

    def offering(port: Any, a: Any, b: Any, device: Any, before: Any, address: Any, request: gr.Request) -> Any:
        return leaving_choices(a, b, *opened(port, a, b, device, before, address, request))

    page.on_open(
        "sample", offering, [page.port("sample"), model_a, model_b, device, offer, address],
        [model_a, model_b, device, notice, offer, listed], js=_MONITOR,
    )  # fmt: skip

    def fit(text: str, link: str, running: str) -> Any:
        if running or "prompt" in page.request(link):
            return gr.skip()
        return opening.prompt_for(context, library, opening.offered(text).get("for", ""))

    offer.change(None, [offer, model_a, model_b], [model_a, model_b], js=_OFFERED, **QUIET)
    offer.change(page.friendly(fit), [offer, page.port("sample"), fields["running"]], proposed, **QUIET)
    proposed.change(None, [proposed, prompt], prompt, js=_FIT, **QUIET)


def _settings(context: Context) -> dict[str, Any]:
    """The fields beside the texts, by name."""
    names = list(LIMITS)
    fields: dict[str, Any] = {}
    with gr.Group():
        for pair in (names[i : i + 2] for i in range(0, len(names), 2)):
            with gr.Row():
                fields |= {name: _number(name) for name in pair}
                if len(pair) == 1:
                    fields["precision"] = gr.Dropdown(
                        list(PRECISIONS), label="Precision", info="smaller is faster", min_width=110,
                        elem_id="wb-sample-precision",
                    )  # fmt: skip
        fields["device"] = gr.Dropdown(context.jobs.devices.names, label="Device")
        fields["stop"] = gr.Textbox(label="Stop strings", lines=1, max_lines=8, info=r"one a line; \n is a new line")
    return fields


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
        gr.update(choices=known, value=str(request[name])) if name in request else gr.skip()
        for name in ("model_a", "model_b")
    ]
    prompt = prompt_within(request["prompt"])[0] if "prompt" in request else gr.skip()
    seed = LIMITS["seed"].clamp(request["seed"])[0] if "seed" in request else gr.skip()
    return [*models, prompt, seed]


def _opened(context: Context, page: Page) -> Callable[..., Any]:
    def opened(port: Any, a: Any, b: Any, device: Any, offer: Any, address: Any, request: gr.Request) -> Any:
        """What can be chosen now, and what is chosen unless a person or a link did. `address`: its query, as JSON."""
        before = opening.offered(offer)
        link = {**({} if before else dict(request.query_params)), **({} if port == before.get("port") else
                page.request(port))}  # fmt: skip
        now = {"a": a, "b": b, "monitor": opening.monitored(address), "ticked": opening.ticked(address)}
        found, known = opening.offer(context, before, now, link)
        values: list[dict[str, Any]] = [{"value": found[key] or None} if key in found else {} for key in "ab"]
        updates = [gr.update(choices=known, **value) for value in values]
        said = "" if found.get("b", b) or link.get("model_b") else html.note(ALONE)
        kept = json.dumps({**before, **found, "port": str(port or "")})
        return [*updates, page.free_device(context.jobs.devices, device), said, kept, known]

    return opened


def leaving_choices(was_a: Any, was_b: Any, a: dict[str, Any], b: dict[str, Any], *rest: Any) -> tuple[Any, ...]:
    """What `_opened` answers, with the values of the models beside those that the page had, in the hidden box: the
    browser takes them unless somebody chose meanwhile."""
    device, said, offer, known = rest
    now = {key: field.pop("value") for key, field in (("a", a), ("b", b)) if "value" in field}
    sets = json.dumps({"was": {"a": was_a, "b": was_b}, "now": now})
    return a, b, device, said, json.dumps({**json.loads(offer), "sets": sets}), known


def refreshed(context: Context, listed: list[Any]) -> Any:
    """New checkpoints and folders in both lists; nothing when there are none.

    Asked for when a list is opened or Generate is pressed: looking through the roots is not for a timer.
    """
    known = choices(context)
    if [tuple(item) for item in listed or []] == known:
        return gr.skip()
    return gr.update(choices=known), gr.update(choices=known), known


def _panes(sampler: Sampler) -> gr.HTML:
    """The texts. As an output it takes {"id": a generation}, follows it, and fetches new tokens by their count."""
    return gr.HTML(
        html_template=str(_START), js_on_load=_ON_LOAD, apply_default_css=False, elem_id="wb-sample-panes",
        label="Samples", server_functions=server_functions(sampler),
    )  # fmt: skip


def _model(context: Context, side: str) -> gr.Dropdown:
    """Empty until the tab is opened: what there is when the server starts may be gone, or old, by then."""
    field = gr.Dropdown([], value=None, label=f"Model {side.upper()}", allow_custom_value=True, min_width=140,
                        elem_id=f"wb-sample-{side}")  # fmt: skip
    picker(context, "model", field)
    return field


def _number(name: str) -> gr.Number:
    limit = LIMITS[name]
    return gr.Number(
        limit.default, label=limit.label, precision=0 if limit.kind is int else None, min_width=110,
        info=HELP[name],
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
