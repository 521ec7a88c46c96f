"""The tokenizer tab: a text as its tokens, how well tokenizers compress, their vocabularies, and some of one's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.live import Asked, News
from workbench.page import PRIVATE, QUIET, Page
from workbench.picker.component import picker
from workbench.tabs.tokenizer import bench as answers
from workbench.tabs.tokenizer import browse, merges, training
from workbench.tabs.tokenizer.bench import Bench
from workbench.tabs.tokenizer.trained import BESIDE_RUNS, choices, places, trained, trained_list
from workbench.tabs.tokenizer.training import BUDGETS, KIND, Order
from workbench.tokenizers import tokenizer_of

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
SAMPLE = "Tokenizers split text into pieces: common words stay whole, rare ones do not. 3.14159 \u00fcber na\u00efve"
WORD = " unbelievably"
BEGIN = "gpt2", ["gpt2:8192"]  # a tokenizer, and those beside it, to begin with
FORM = ("source", "text_column", "vocab_size", "pattern", "budget", "amount", "specials", "place", "name", "seed")
ADDRESS = """(_, ...rest) => {
  window.workbench.tokenizer.opening(rest[1]);
  const address = window.workbench.params(), focus = address.focus || window.workbench.monitor.focus();
  return [JSON.stringify({ ...address, focus }), ...rest];
}"""
OFFERED = f"""(offered, spec, beside) => window.workbench.tokenizer.chosenSince(spec) ? [spec, beside]
  : [offered, offered === {json.dumps(BEGIN[0])} ? {json.dumps(BEGIN[1])} : {json.dumps([BEGIN[0]])}]"""
_ON_LOAD = "window.workbench.tokenizer.mount({ element, props, server, watch });"


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    bench = Bench()
    c = SimpleNamespace()
    with gr.Row(elem_classes="wb-beside", elem_id="wb-tok-page"):
        with gr.Column(elem_classes="wb-results"):
            _text_part(context, bench, c)
            _replay_part(c)
        with gr.Column(elem_classes="wb-settings"):
            _compare_part(context, c)
            _own_part(context, page, c)
    _listen_text(context, page, bench, c)
    _listen_train(context, page, c)


# The parts


def _text_part(context: Context, bench: Bench, c: SimpleNamespace) -> None:
    spec, beside = BEGIN
    with gr.Row(elem_id="wb-tok-choice"):
        c.tokenizer = gr.Dropdown(
            choices([]), value=spec, label="Tokenizer", allow_custom_value=True, elem_id="wb-tok-spec", min_width=180
        )
        picker(context, "tokenizer", c.tokenizer)
        c.beside = gr.Dropdown(
            choices([]), value=beside, multiselect=True, allow_custom_value=True, label="Beside it",
            elem_id="wb-tok-beside", min_width=180,
        )  # fmt: skip
        c.use = gr.Button("Use in a new run", elem_id="wb-tok-use", elem_classes="wb-fit")
    c.text = gr.Textbox(SAMPLE, label="Text", lines=2, max_lines=8, elem_id="wb-tok-text")
    c.tokens = Fragment(elem_id="wb-tok-view")
    c.list = gr.HTML({"tokenizer": spec}, html_template='<div class="wb-vocab"></div>', js_on_load=_ON_LOAD,
                     apply_default_css=False, elem_id="wb-vocab", label="vocabulary", elem_classes="wb-search",
                     server_functions=browse.server_functions(context, bench))  # fmt: skip


def _replay_part(c: SimpleNamespace) -> None:
    with gr.Accordion("Replay the merges of a word", open=False, elem_id="wb-tok-replay"):
        with gr.Row(elem_classes="wb-tok-line"):
            c.word = gr.Textbox(WORD, label="Word or short text", max_length=merges.MOST_CHARS, scale=3)
            c.replay = gr.Button("Replay", elem_classes="wb-fit")
        with gr.Row(elem_classes="wb-tok-line"):
            c.back = gr.Button("One merge back", elem_classes="wb-fit")
            c.merge = gr.Slider(0, 1, value=0, step=1, label="Merges done", scale=4, elem_id="wb-merge")
            c.forward = gr.Button("One merge on", elem_classes="wb-fit")
        c.story = Fragment(html.note("Press Replay to watch bytes become tokens."), elem_id="wb-merges")


def _compare_part(context: Context, c: SimpleNamespace) -> None:
    Fragment('<h2 class="wb-h">Bytes per token beside GPT-2</h2>')
    c.table = Fragment(elem_id="wb-tok-table")
    with gr.Row(elem_classes="wb-tok-line"):
        c.prose = gr.Textbox("pydocs", label="English prose of", min_width=120, elem_id="wb-tok-prose")
        picker(context, "data", c.prose)
        c.compare = gr.Button("Add prose", elem_id="wb-tok-compare", elem_classes="wb-fit")
    c.reading = Fragment(elem_id="wb-tok-reading")


def _own_part(context: Context, page: Page, c: SimpleNamespace) -> None:
    Fragment('<h2 class="wb-h">Your own</h2>')
    page.part("tokenizer", "tasks", elem_id="wb-tok-tasks")
    page.part("tokenizer", "trained", elem_id="wb-tok-trained")
    with gr.Accordion("Train a tokenizer", open=False, elem_id="wb-tok-train"):
        _form(context, c)


def _form(context: Context, c: SimpleNamespace) -> None:
    c.source = gr.Textbox("pydocs", label="Source", elem_id="wb-tok-source",
                          info="pydocs, owner/name on the hub, or a file or folder inside the roots")  # fmt: skip
    picker(context, "data", c.source)
    with gr.Row():
        c.vocab_size = gr.Number(8192, label="Vocabulary size", elem_id="wb-tok-size", precision=0, info="ids in all",
                                 min_width=120)  # fmt: skip
        c.name = gr.Textbox("", label="Name", info="of its new folder", elem_id="wb-tok-name", min_width=120)
    c.start = gr.Button("Start", variant="primary", elem_id="wb-tok-start", interactive=not context.read_only,
                        elem_classes="wb-fit")  # fmt: skip
    c.said = Fragment(html.note("Give it a name, then press Start."), elem_id="wb-tok-said")
    with gr.Accordion("More", open=False):
        with gr.Row():
            c.budget = gr.Dropdown(list(BUDGETS), value=next(iter(BUDGETS)), label="How much to read", min_width=120)
            c.amount = gr.Number(None, label="Amount", info="in the unit beside it", min_width=120)
        c.pattern = gr.Radio(["gpt4", "gpt2"], value="gpt4", label="Pattern", info="how text is cut first")
        c.specials = gr.Textbox("", label="Special tokens", info="beside <|endoftext|>, separated by spaces")
        c.place = gr.Dropdown(places(context), value=BESIDE_RUNS, label="Place")
        with gr.Row():
            c.text_column = gr.Textbox("text", label="Text column", min_width=120)
            c.seed = gr.Number(1337, label="Seed", precision=0, info="which documents are read", min_width=120)


# What happens


def _listen_text(context: Context, page: Page, bench: Bench, c: SimpleNamespace) -> None:
    chosen = [c.tokenizer, c.beside]
    look = partial(answers.look, context, bench)
    compare = partial(answers.compared, context, bench)
    page.follow("tokens", [c.text.change, c.tokenizer.change, c.beside.change], look, [*chosen, c.text], c.tokens)
    page.follow("compared", [c.tokenizer.change, c.beside.change], compare, chosen, c.table)
    page.follow("vocabulary", [c.tokenizer.change], lambda spec: {"tokenizer": str(spec or "")}, c.tokenizer, c.list)
    c.offered = gr.Textbox(BEGIN[0], visible="hidden", label="tokenizer chosen for the person", container=False)
    c.address = gr.Textbox(visible="hidden", label="address", container=False)

    def begin_with(*given: Any) -> Any:
        found = of_monitor(context, *given)
        return found[0] if isinstance(found, tuple) else found

    page.on_open("tokenizer", begin_with, [c.address, c.offered, *chosen], c.offered, js=ADDRESS)
    c.offered.change(None, [c.offered, *chosen], chosen, js=OFFERED, **QUIET)
    page.asked_on_open("tokenizer", "tokens")
    page.asked_on_open("tokenizer", "compared")
    page.port("tokenizer").change(
        page.friendly(partial(asked, page)), page.port("tokenizer"), [c.text, c.tokenizer], **QUIET
    )
    prose = page.friendly(partial(answers.read_prose, context, bench))
    read = c.compare.click(prose, c.prose, c.reading, show_progress="hidden", concurrency_limit=2, **PRIVATE)
    read.then(**page.due("compared"))  # of what is chosen by then
    use = page.friendly(lambda spec: page.go("train", tokenizer=tokenizer_of(context, spec)))
    c.use.click(use, c.tokenizer, page.outputs("train"), **PRIVATE)
    done = [(c.replay.click, "begin"), (c.word.submit, "begin"), (c.merge.input, "at"), (c.back.click, "back"),
            (c.forward.click, "on")]  # fmt: skip
    replayed = partial(answers.replayed, context, bench)
    page.in_turn("merge", done, replayed, [c.tokenizer, c.word, c.merge], [c.story, c.merge])


def _listen_train(context: Context, page: Page, c: SimpleNamespace) -> None:
    form = {getattr(c, name) for name in FORM}
    live = page.live("tokenizer", partial(look, context), {"tokenizer": c.tokenizer, "beside": c.beside})
    now = page.now("tokenizer")

    def order(values: dict[Any, Any]) -> Order:
        return Order(**{name: values[getattr(c, name)] for name in FORM})

    def pressed(event: gr.EventData) -> Any:
        done = act(context, event._data)
        if isinstance(done, str):
            return {c.tokenizer: done}
        return dict(zip(page.outputs("train"), page.go("train", **done), strict=True)) if done else gr.skip()

    changes = [getattr(c, name).change for name in FORM]
    page.follow("training", changes, lambda values: training.check(context, order(values)), form, c.said)
    c.start.click(page.friendly(lambda values: start(context, order(values))), form, c.said, **PRIVATE).then(**now)
    page.acts("tokenizer", live, pressed, None, [c.tokenizer, *page.outputs("train")])


# Handlers over plain values


def of_monitor(context: Context, address: str, offered: str, spec: Any, beside: Any) -> Any:
    """(the tokenizer chosen for the person, tokenizer, beside it): that of the run in Monitor, with GPT-2 beside it.

    What a person, a link or another tab has chosen stays.
    """
    request = Page.request(address)
    run = str(request.get("focus") or "") or str(request.get("runs") or "").partition(",")[0]
    if not run or spec != offered or {"tokenizer", "text"} & set(request):
        return gr.skip()
    try:
        found = tokenizer_of(context, context.configuration(context.run(run)).data.tokenizer)
    except UserError:
        return gr.skip()  # a run that has gone, or whose tokenizer lies elsewhere
    if found == spec:
        return gr.skip()
    return found, found, BEGIN[1] if found == BEGIN[0] else [BEGIN[0]]


def asked(page: Page, port: str) -> Any:
    """What another tab or the address asked for: a text, or a tokenizer, to look at."""
    request = page.request(port)
    if not {"text", "tokenizer"} & set(request):
        return gr.skip()
    text, tokenizer = (str(request[key]) if key in request else gr.skip() for key in ("text", "tokenizer"))
    return text, tokenizer


def start(context: Context, order: Order) -> html.Markup:
    """Starts the training; what is wrong is said beside the button."""
    try:
        task = training.start(context, order)
    except UserError as error:
        return html.problem(str(error))
    return html.note(f"{task.label} was started; it goes on without this page.")


def look(context: Context, asked: Asked, news: News) -> None:
    """The trainings; and what was learnt, for which the roots are looked through when the tab is opened, and when a
    training has begun or ended."""
    tasks = context.jobs.tasks.list(KIND)
    news.busy = any(task.running for task in tasks)
    news.show("tasks", training.listed(tasks))
    if news.differs("roots", ([(task.id, task.state) for task in tasks], asked.get("opened")), "trained"):
        found = trained(context)
        news.show("trained", trained_list(found))
        for name in ("tokenizer", "beside"):
            news.set(name, choices=choices(found))


def act(context: Context, data: Mapping[str, Any]) -> str | dict[str, str] | None:
    """What the button of a training or of a tokenizer asks for: a tokenizer to look at, or a request to Train."""
    action, id = (str(data.get(key, "")) for key in ("act", "id"))
    if action in ("look", "use"):
        spec = tokenizer_of(context, id)
        return spec if action == "look" else {"tokenizer": spec}
    changes = {"stop": training.stop, "again": training.again, "forget": training.forget}
    if action not in changes:
        raise UserError(f"{action!r} cannot be done to a training; allowed: {', '.join(changes)}")
    changes[action](context, id)
    return None
