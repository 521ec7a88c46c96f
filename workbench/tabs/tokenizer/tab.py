"""The tokenizer tab: a text as its tokens, the merges behind them, tokenizers of one's own, and how they compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer
from workbench import html
from workbench.context import Context
from workbench.live import Asked, News
from workbench.page import PRIVATE, QUIET, Page
from workbench.tabs.tokenizer import kinds, merges, training
from workbench.tabs.tokenizer.tokens import coloured, summary, tokens_of
from workbench.tabs.tokenizer.trained import BESIDE_RUNS, choices, places, trained, trained_list
from workbench.tabs.tokenizer.training import BUDGETS, KIND, Order
from workbench.tokenizers import Tokenizers, tokenizer_of

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
SAMPLE = "Tokenizers split text into pieces: common words stay whole, rare ones do not. 3.14159 \u00fcber na\u00efve"
WORD = " unbelievably"
FORM = ("source", "text_column", "vocab_size", "pattern", "budget", "amount", "specials", "place", "name", "seed")


@dataclass
class Bench:
    """Loaded tokenizers, and the prose that was last read for a comparison. Made once per server."""

    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    stories: merges.Stories = field(default_factory=merges.Stories)
    prose: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def load(self, context: Context, text: str) -> Tokenizer:
        return self.tokenizers.get(tokenizer_of(context, text))


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    bench = Bench()
    c = SimpleNamespace()
    with gr.Tabs(selected="tokens", elem_id="wb-tokenizer-parts") as c.parts:
        with gr.Tab("Tokens of a text", id="tokens"):
            _text_part(c)
        with gr.Tab("Train", id="train"):
            _train_part(context, page, c)
        with gr.Tab("Compare", id="compare"):
            _compare_part(c)
    _listen_text(context, page, bench, c)
    _listen_train(context, page, c)
    _listen_compare(context, page, bench, c)


# The parts


def _text_part(c: SimpleNamespace) -> None:
    with gr.Row():
        c.tokenizer = gr.Dropdown(
            choices([]), value="gpt2", label="Tokenizer", allow_custom_value=True, scale=1,
            info="gpt2, gpt2:N, one trained here, or the path of a tokenizer.json",
        )  # fmt: skip
        c.text = gr.Textbox(
            SAMPLE, label="Text", lines=4, max_lines=12, scale=3, elem_id="wb-tok-text", elem_classes="wb-search"
        )
    c.summary = Fragment(elem_id="wb-tok-summary")
    c.tokens = Fragment(html.empty("No text yet.", "Type or paste one above."), elem_id="wb-tok-view")
    Fragment('<h3 class="wb-h">Replay of the merges</h3>')
    with gr.Row():
        c.word = gr.Textbox(WORD, label="Word or short text", max_length=merges.MOST_CHARS, scale=3)
        c.replay = gr.Button("Replay the merges", scale=1, elem_classes="wb-act")
    with gr.Row():
        c.back = gr.Button("One merge back", min_width=80, elem_classes="wb-act")
        c.merge = gr.Slider(0, 1, value=0, step=1, label="Merges done", scale=4, elem_id="wb-merge")
        c.forward = gr.Button("One merge on", min_width=80, elem_classes="wb-act")
    c.story = Fragment(html.empty("Nothing to replay yet.", "Press Replay the merges."), elem_id="wb-merges")


def _train_part(context: Context, page: Page, c: SimpleNamespace) -> None:
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            c.source = gr.Textbox(
                "pydocs",
                label="Source",
                elem_id="wb-tok-source",
                info="pydocs, owner/name on the hub, or a file or folder inside the roots",
            )
            with gr.Row():
                c.vocab_size = gr.Number(
                    8192, label="Vocabulary size", elem_id="wb-tok-size", precision=0, info="ids in all, 257 to 100277"
                )
                c.pattern = gr.Radio(["gpt4", "gpt2"], value="gpt4", label="Pattern", info="how text is cut first")
            with gr.Row():
                c.budget = gr.Dropdown(list(BUDGETS), value=next(iter(BUDGETS)), label="How much to read")
                c.amount = gr.Number(None, label="Amount", info="of the budget; unused for the first gigabyte")
            c.specials = gr.Textbox("", label="Special tokens", info="beside <|endoftext|>, separated by spaces")
            with gr.Row():
                c.name = gr.Textbox("", label="Name", info="the folder it is kept in", elem_id="wb-tok-name")
                c.place = gr.Dropdown(places(context), value=BESIDE_RUNS, label="Place")
            with gr.Accordion("More", open=False):
                c.text_column = gr.Textbox("text", label="Text column")
                c.seed = gr.Number(1337, label="Seed", precision=0, info="which documents a budget takes")
            c.start = gr.Button(
                "Start",
                variant="primary",
                elem_id="wb-tok-start",
                interactive=not context.read_only,
                elem_classes="wb-act",
            )
            c.said = Fragment(html.note("Give it a name, then press Start."), elem_id="wb-tok-said")
        with gr.Column(scale=2, min_width=320):
            page.part("tokenizer", "tasks", elem_id="wb-tok-tasks")
            page.part("tokenizer", "trained", elem_id="wb-tok-trained")


def _compare_part(c: SimpleNamespace) -> None:
    with gr.Row():
        c.several = gr.Dropdown(
            choices([]), value=["gpt2:8192"], multiselect=True, allow_custom_value=True, scale=2,
            label="Tokenizers", info="GPT-2 is always there",
        )  # fmt: skip
        c.prose = gr.Textbox("pydocs", label="Source of the English prose", info="its held-out documents", scale=1)
        c.compare = gr.Button("Compare", variant="primary", elem_id="wb-tok-compare", elem_classes="wb-act")
    c.table = Fragment(
        html.empty("Nothing compared yet.", "Choose tokenizers and press Compare."), elem_id="wb-tok-table"
    )


# What happens


def _listen_text(context: Context, page: Page, bench: Bench, c: SimpleNamespace) -> None:
    look = page.friendly(partial(_look, context, bench))
    gr.on(
        [c.text.change, c.tokenizer.change], look, [c.tokenizer, c.text], [c.summary, c.tokens],
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    page.on_open("tokenizer", partial(_look, context, bench), [c.tokenizer, c.text], [c.summary, c.tokens])
    page.port("tokenizer").change(
        page.friendly(partial(_asked, page)), page.port("tokenizer"), [c.parts, c.text, c.tokenizer], **QUIET
    )
    begin = page.friendly(partial(_replay, context, bench, 0))
    gr.on([c.replay.click, c.word.submit], begin, [c.tokenizer, c.word], [c.story, c.merge], **PRIVATE)
    at = page.friendly(partial(_at, context, bench, 0))
    c.merge.input(at, [c.tokenizer, c.word, c.merge], [c.story, c.merge], trigger_mode="always_last", **QUIET)
    for button, by in ((c.back, -1), (c.forward, 1)):
        step = page.friendly(partial(_at, context, bench, by))
        button.click(step, [c.tokenizer, c.word, c.merge], [c.story, c.merge], **QUIET)


def _listen_train(context: Context, page: Page, c: SimpleNamespace) -> None:
    form = {getattr(c, name) for name in FORM}
    live = page.live("tokenizer", partial(look, context), {"tokenizer": c.tokenizer, "several": c.several})
    now = page.now("tokenizer")

    def order(values: dict[Any, Any]) -> Order:
        return Order(**{name: values[getattr(c, name)] for name in FORM})

    def pressed(event: gr.EventData) -> Any:
        done = act(context, event._data)
        if isinstance(done, str):
            return {c.parts: gr.Tabs(selected="tokens"), c.tokenizer: done}
        return dict(zip(page.outputs("train"), page.go("train", **done), strict=True)) if done else gr.skip()

    gr.on(
        [getattr(c, name).change for name in FORM],
        page.friendly(lambda values: training.check(context, order(values))),
        form, c.said, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    c.start.click(page.friendly(lambda values: _start(context, order(values))), form, c.said, **PRIVATE).then(**now)
    outputs = [c.parts, c.tokenizer, *page.outputs("train")]
    live.act(page.friendly(pressed), None, outputs, **PRIVATE).then(**now)


def _listen_compare(context: Context, page: Page, bench: Bench, c: SimpleNamespace) -> None:
    compare = page.friendly(partial(_compare, context, bench))
    c.compare.click(compare, [c.several, c.prose], c.table, show_progress="hidden", concurrency_limit=2, **PRIVATE)


# Handlers over plain values


def _look(context: Context, bench: Bench, spec: str, text: str) -> tuple[html.Markup, html.Markup]:
    """(the counts, the coloured tokens) of a typed text; what is wrong with the tokenizer stands in their place."""
    try:
        tokenizer = bench.load(context, spec)
    except UserError as error:
        return html.Markup(""), html.problem(str(error))
    tokens = tokens_of(tokenizer, str(text or ""))
    gpt2 = None
    if tokens.ids and spec.strip() != "gpt2":
        gpt2 = len(bench.tokenizers.get("gpt2").encode(str(text)[: len(str(text)) - tokens.cut]))
    name = str(spec).strip().rstrip("/").rpartition("/")[2]
    return summary(tokens, name, tokenizer.vocab_size, gpt2), coloured(tokens)


def _asked(page: Page, port: str) -> Any:
    """What another tab or the address asked for: a text, or a tokenizer, to look at."""
    request = page.request(port)
    if not {"text", "tokenizer"} & set(request):
        return gr.skip()
    text, tokenizer = (str(request[key]) if key in request else gr.skip() for key in ("text", "tokenizer"))
    return gr.Tabs(selected="tokens"), text, tokenizer


def _replay(context: Context, bench: Bench, step: int, spec: str, word: str) -> tuple[Any, Any]:
    told = bench.stories.get(bench.load(context, spec), str(word or ""))
    return merges.shown(told, step), gr.Slider(maximum=max(1, told.steps), value=step)


def _at(context: Context, bench: Bench, by: int, spec: str, word: str, step: Any) -> tuple[Any, Any]:
    """The state `by` merges further on; the slider follows, within what there is."""
    told = bench.stories.get(bench.load(context, spec), str(word or ""))
    step = max(0, min(int(step or 0) + by, told.steps))
    moved = gr.Slider(maximum=max(1, told.steps), value=step) if by else gr.skip()
    return merges.shown(told, step), moved


def _start(context: Context, order: Order) -> html.Markup:
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
        for name in ("tokenizer", "several"):
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


def _compare(context: Context, bench: Bench, specs: list[str] | None, source: str) -> Iterator[Any]:
    """Yields what is being done, then the table. Prose is read once per source."""
    names = kinds.chosen([tokenizer_of(context, spec) for spec in specs or []])
    place = context.source(source)
    yield html.note("loading the tokenizers")
    loaded = [bench.tokenizers.get(name) for name in names]
    prose, missing = bench.prose.get((place, "text"), []), html.Markup("")
    if not prose:
        try:
            for doing, found in kinds.held_out_prose(place):
                prose = found
                yield html.note(doing)
            bench.prose.clear()
            bench.prose[place, "text"] = prose
        except UserError as error:
            missing = html.note(f"without English prose: {error}")
    yield html.note("counting")
    rows = kinds.compared(loaded, prose)
    yield html.join([missing, kinds.table([name.rpartition("/")[2] for name in names], loaded, rows)])
