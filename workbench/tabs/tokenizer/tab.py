"""The tokenizer tab: a text as its tokens, the merges behind them, tokenizers of one's own, and how they compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from workbench import html
from workbench.context import Context
from workbench.page import PRIVATE, QUIET, Page
from workbench.tabs.tokenizer import bench as show
from workbench.tabs.tokenizer import kinds, merges, training
from workbench.tabs.tokenizer.bench import Bench
from workbench.tabs.tokenizer.choose import tokenizer_of
from workbench.tabs.tokenizer.trained import BESIDE_RUNS, places, trained
from workbench.tabs.tokenizer.training import BUDGETS, KIND, Order

Fragment = partial(gr.HTML, apply_default_css=False)  # whose tables would not be ours
TICK_SECONDS, IDLE_SECONDS = 1.0, 15.0
SAMPLE = "Tokenizers split text into pieces: common words stay whole, rare ones do not. 3.14159 \u00fcber na\u00efve"
WORD = " unbelievably"
FORM = ("source", "text_column", "vocab_size", "pattern", "budget", "amount", "specials", "place", "name", "seed")


def build(context: Context, page: Page) -> None:
    """Placed inside its own gr.Tab by the app."""
    bench = Bench()
    c = SimpleNamespace()
    with gr.Tabs(selected="tokens", elem_id="wb-tokenizer-parts") as c.parts:
        with gr.Tab("Tokens of a text", id="tokens"):
            _text_part(context, c)
        with gr.Tab("Train", id="train"):
            _train_part(context, c)
        with gr.Tab("Compare", id="compare"):
            _compare_part(context, c)
    _listen_text(context, page, bench, c)
    _listen_train(context, page, c)
    _listen_compare(context, page, bench, c)


# The parts


def _text_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row():
        c.tokenizer = gr.Dropdown(
            show.choices(context), value="gpt2", label="Tokenizer", allow_custom_value=True, scale=1,
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


def _train_part(context: Context, c: SimpleNamespace) -> None:
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
            tasks = context.jobs.tasks.list(KIND)
            c.tasks = Fragment(show.task_list(tasks), elem_id="wb-tok-tasks")
            with gr.Row():
                c.task = gr.Dropdown(show.task_choices(tasks), value=_newest(tasks), label="Training", scale=2)
                c.stop = gr.Button("Stop", variant="stop", min_width=80, elem_classes="wb-act")
                c.again = gr.Button("Start again", min_width=80, elem_classes="wb-act")
                c.forget = gr.Button("Take off the list", min_width=80, elem_classes="wb-act")
            found = trained(context)
            c.trained = Fragment(show.trained_list(found), elem_id="wb-tok-trained")
            with gr.Row():
                c.own = gr.Dropdown(_own(found), value=_first(found), label="Tokenizer of your own", scale=2)
                c.view = gr.Button("Look at its tokens", min_width=80, elem_classes="wb-act")
                c.use = gr.Button(
                    "Use it in a new run", variant="primary", min_width=80, elem_id="wb-tok-use", elem_classes="wb-act"
                )
    c.seen = gr.State(("", "", ""))


def _compare_part(context: Context, c: SimpleNamespace) -> None:
    with gr.Row():
        c.several = gr.Dropdown(
            show.choices(context), value=["gpt2:8192"], multiselect=True, allow_custom_value=True, scale=2,
            label="Tokenizers", info="GPT-2 is always there",
        )  # fmt: skip
        c.prose = gr.Textbox("pydocs", label="Source of the English prose", info="its held-out documents", scale=1)
        c.compare = gr.Button("Compare", variant="primary", elem_id="wb-tok-compare", elem_classes="wb-act")
    c.table = Fragment(
        html.empty("Nothing compared yet.", "Choose tokenizers and press Compare."), elem_id="wb-tok-table"
    )


# What happens


def _listen_text(context: Context, page: Page, bench: Bench, c: SimpleNamespace) -> None:
    look = page.friendly(partial(show.look, context, bench))
    gr.on(
        [c.text.change, c.tokenizer.change], look, [c.tokenizer, c.text], [c.summary, c.tokens],
        trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    page.on_open("tokenizer", partial(show.look, context, bench), [c.tokenizer, c.text], [c.summary, c.tokens])
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
    timer = page.timer("tokenizer", TICK_SECONDS)
    lists = [c.seen, c.tasks, c.task, timer, c.trained, c.own, c.tokenizer, c.several]

    def order(values: dict[Any, Any]) -> Order:
        return Order(**{name: values[getattr(c, name)] for name in FORM})

    gr.on(
        [getattr(c, name).change for name in FORM], page.friendly(lambda values: show.check(context, order(values))),
        form, c.said, trigger_mode="always_last", **QUIET,
    )  # fmt: skip
    c.start.click(page.friendly(lambda values: _start(context, order(values))), form, [c.said, *lists], **PRIVATE)
    for button, act in ((c.stop, training.stop), (c.again, training.again), (c.forget, training.forget)):
        button.click(page.friendly(partial(_act, context, act)), c.task, lists, **PRIVATE)
    looked = [c.seen, c.task, c.own]
    timer.tick(page.friendly(partial(poll, context)), looked, lists, **QUIET)
    page.on_open("tokenizer", partial(refresh, context), looked, lists)
    c.use.click(page.friendly(partial(_use, context, page)), c.own, page.outputs("train"), **PRIVATE)
    c.view.click(page.friendly(partial(_view, context)), c.own, [c.parts, c.tokenizer], **PRIVATE)


def _listen_compare(context: Context, page: Page, bench: Bench, c: SimpleNamespace) -> None:
    compare = page.friendly(partial(_compare, context, bench))
    c.compare.click(compare, [c.several, c.prose], c.table, show_progress="hidden", concurrency_limit=2, **PRIVATE)


# Handlers over plain values


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


def _start(context: Context, order: Order) -> tuple[Any, ...]:
    """Starts the training; what is wrong is said beside the button."""
    try:
        task = training.start(context, order)
    except UserError as error:
        return html.problem(str(error)), *[gr.skip()] * 8
    return html.note(f"{task.label} was started; it goes on without this page."), *refresh(context, None, task.id, None)


def _act(context: Context, act: Callable[[Context, str], Any], id: str | None) -> tuple[Any, ...]:
    if not id:
        raise UserError("no training is chosen; start one first")
    done = act(context, id)
    return refresh(context, None, getattr(done, "id", None), None)


def refresh(context: Context, seen: Any, task: str | None, own: str | None) -> Any:
    """New lists where something changed since `seen`; None: all of them. A choice that is gone becomes the newest."""
    tasks, found = context.jobs.tasks.list(KIND), trained(context)
    now = (*_told(tasks), str(show.trained_list(found)))
    before = tuple(seen) if seen else ("", "", "")
    if now == before:
        return gr.skip()
    chosen = task if task in [t.id for t in tasks] else _newest(tasks)
    pace = gr.Timer(value=TICK_SECONDS if any(t.running for t in tasks) else IDLE_SECONDS)
    news: list[Any] = [now, show.task_list(tasks), gr.Dropdown(show.task_choices(tasks), value=chosen), pace]
    if now[2] == before[2]:
        return *news, *[gr.skip()] * 4
    kept = own if own in [str(t.path) for t in found] else _first(found)
    names = show.choices(context)
    return (
        *news, show.trained_list(found), gr.Dropdown(_own(found), value=kept), gr.Dropdown(names), gr.Dropdown(names)
    )  # fmt: skip


def poll(context: Context, seen: Any, task: str | None, own: str | None) -> Any:
    """`refresh` where a training got on or ended. What lies in the roots is looked through only when one ended."""
    before = tuple(seen) if seen else ("", "", "")
    told = _told(context.jobs.tasks.list(KIND))
    if told == before[:2]:
        return gr.skip()
    if told[1] != before[1]:
        return refresh(context, seen, task, own)
    tasks = context.jobs.tasks.list(KIND)
    return (*told, before[2]), show.task_list(tasks), *[gr.skip()] * 6


def _told(tasks: list[Any]) -> tuple[str, str]:
    """What is said of trainings: how far they are, and which there are in which state."""
    return str(show.task_list(tasks)), str(show.task_choices(tasks))


def _use(context: Context, page: Page, own: str | None) -> list[Any]:
    if not own:
        raise UserError("there is no tokenizer of your own yet; train one first")
    return page.go("train", tokenizer=tokenizer_of(context, own))


def _view(context: Context, own: str | None) -> tuple[Any, Any]:
    if not own:
        raise UserError("there is no tokenizer of your own yet; train one first")
    return gr.Tabs(selected="tokens"), tokenizer_of(context, own)


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


def _newest(tasks: list[Any]) -> str | None:
    return tasks[0].id if tasks else None


def _own(found: list[Any]) -> list[tuple[str, str]]:
    return [(t.name, str(t.path)) for t in found]


def _first(found: list[Any]) -> str | None:
    return str(found[0].path) if found else None
