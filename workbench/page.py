"""What tabs share: how one sends the person to another, a live view of each, and friendly errors."""

from __future__ import annotations

import functools
import json
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import gradio as gr

from mygpt2.errors import UserError
from workbench import live
from workbench.html import Markup, escape

if TYPE_CHECKING:
    from workbench.jobs.ledger import Ledger

# The tabs in their order, each with the key that opens it after g. A tab is the package workbench.tabs.NAME, whose
# `tab.build(context, page)` is called within it; its script and style are ui_assets/tab-NAME.js and .css, if any.
TABS = {
    "train": "t", "monitor": "m", "experiments": "e", "ripples": "r", "compare": "c", "sample": "s", "tokenizer": "k",
    "data": "d",
}  # fmt: skip
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# Gradio tells every component that showed an event's progress of every later event, each time by a search through the
# whole page: with the outputs of our polls among them that was a third of the work of opening a page.
HIDDEN: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
QUIET: dict[str, Any] = {"queue": False, **HIDDEN, **PRIVATE}
ACTION: dict[str, Any] = {**QUIET, "queue": True, "concurrency_limit": None}  # only what is queued can show a toast

DOWNLOAD = """(file) => {
  if (file) { const { name, text } = JSON.parse(file); window.workbench.download(name, text); }
  return [];
}"""  # takes what is JSON of a file's name and text
# What is answered one at a time: changes of forms, and what is done in a part of a page.
TURNS = ("form", "tokens", "compared", "vocabulary", "training", "merge", "source", "order", "step", "back")
_TURNS = f"window.workbench.turns.mount({{ trigger, events: {[f'{name}_due' for name in TURNS]} }});"
_LIVE = "window.workbench.live.mount({ name: '%s', element, props, server, watch, trigger, events: ['apply', 'act'] });"

log = logging.getLogger("workbench")


class Act(NamedTuple):
    """What was done in a part of a page. waited: another one was under way, whose answer may have set the fields."""

    what: str
    waited: bool = False


class Page:
    """Made once per Blocks, before its tabs. Tabs know each other only through their ports."""

    def __init__(self) -> None:
        self._ports = {
            name: gr.Textbox(visible="hidden", elem_id=f"wb-port-{name}", label=f"request to {name}", container=False)
            for name in TABS
        }
        self._turns = gr.HTML("", js_on_load=_TURNS, label="turns", apply_default_css=False, elem_id="wb-turns",
                              elem_classes="wb-hidden")  # fmt: skip
        self._openings: list[tuple[str, dict[str, Any]]] = []
        self.tabs: gr.Tabs = None  # type: ignore[assignment]  # set by the app, before any tab is built

    def port(self, tab: str) -> gr.Textbox:
        """The hidden box that holds what was last asked of a tab, as JSON; listen to its `change`."""
        return self._ports[tab]

    @property
    def ports(self) -> list[gr.Textbox]:
        return list(self._ports.values())

    def outputs(self, tab: str) -> list[Any]:
        """The outputs of an event that sends the person to `tab`; their values come from `go`."""
        return [self.tabs, self.port(tab)]

    def go(self, tab: str, **request: Any) -> list[Any]:
        """Values for `outputs(tab)`: selects the tab and asks it for something."""
        return [gr.Tabs(selected=tab), self.ask(**request)]

    @staticmethod
    def ask(**request: Any) -> str:
        """A port's value. The nonce makes the same request twice two changes."""
        return json.dumps({**request, "nonce": secrets.token_hex(4)})

    @staticmethod
    def request(text: str | None) -> dict[str, Any]:
        """A port's value as a dict without the nonce; empty if it is damaged."""
        try:
            found = json.loads(text or "{}")
        except ValueError:
            return {}
        return {key: value for key, value in found.items() if key != "nonce"} if isinstance(found, dict) else {}

    def live(self, tab: str, view: live.View, fields: Mapping[str, Any] | None = None) -> gr.HTML:
        """Keeps `tab` up to date while it is looked at: `view(asked, news)` puts into `news` what is to be seen.

        `asked` is this component's value (an event sets it, and is answered at once) and what the tab's script adds.
        Markup goes to the elements that `part` makes, `fields` are components of Gradio's that a view may change. Its
        event `act` has the action and the id of a button with data-act and data-id in one of its parts, see `acts`;
        `now` asks anew after an event that changes something.
        """
        shown = dict(fields or {})

        def live_news(request: Any) -> dict[str, Any]:
            answer = live.answered(view, request)
            made = {name: live.update(shown[name], given) for name, given in answer["fields"].items()}
            return {**answer, "fields": made}

        made = gr.HTML({}, html_template="", js_on_load=_LIVE % tab, server_functions=[live_news], label=f"live {tab}",
                       apply_default_css=False, elem_id=f"wb-live-{tab}", elem_classes="wb-live")  # fmt: skip
        if shown:
            # In the browser: answers of the server to several would come in any order, after what was chosen meanwhile.
            take = f"() => window.workbench.live.fields('{tab}', {json.dumps(list(shown))})"
            made.apply(None, None, list(shown.values()), js=take, trigger_mode="multiple", **QUIET)
        return made

    def acts(self, tab: str, made: gr.HTML, handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
        """Answers the buttons in the parts of a tab's live view, see `live`, and has it ask anew.

        By itself Gradio leaves out a click while the one before is answered, though it was on another button; the page
        leaves out only the same one.
        """
        done = made.act(self.friendly(handler), inputs, outputs, trigger_mode="multiple", **ACTION)
        done.then(**self.acted(tab))

    @staticmethod
    def acted(tab: str) -> dict[str, Any]:
        """Arguments of an event after one that `acts` or a script's `live.press` began: it may be pressed again."""
        script = f"() => {{ window.workbench.live.acted('{tab}'); return []; }}"
        return {"fn": None, "inputs": None, "outputs": None, "js": script, "trigger_mode": "multiple", **QUIET}

    @staticmethod
    def free_device(devices: Ledger, chosen: Any) -> Any:
        """An update of a list of devices: the one that is chosen, unless somebody is at work on it."""
        free = devices.free(str(chosen or ""))
        return gr.skip() if free == chosen else gr.update(value=free)

    @staticmethod
    def part(tab: str, name: str, *, elem_id: str | None = None, first: str = "") -> gr.HTML:
        """The place of a part of the tab's live view, and what stands there before the first answer."""
        content = Markup(f'<div data-live="{tab}.{name}">{first}</div>')
        return gr.HTML(content, js_on_load=None, apply_default_css=False, elem_id=elem_id, label=name)

    @staticmethod
    def now(tab: str) -> dict[str, Any]:
        """Arguments of an event that has the tab's live view ask anew."""
        ask = f"() => {{ window.workbench.live.ask('{tab}'); return []; }}"
        return {"fn": None, "inputs": None, "outputs": None, "js": ask, **QUIET}

    def follow(self, name: str, changes: Sequence[Any], handler: Callable[..., Any], inputs: Any, outputs: Any) -> Any:
        """Answers changes with `handler`: one call at a time, and one more after it if something changed meanwhile, so
        that the last answer is about what the page holds. Returns that event, for its `then`.

        name: one of TURNS. changes: listeners, such as `box.change`.
        """
        gr.on(list(changes), **self.due(name))
        return self._called(name, handler, inputs, outputs, None, QUIET)

    def in_turn(
        self, name: str, acts: Sequence[tuple[Any, str]], handler: Callable[..., Any], inputs: Any, outputs: Any,
        js: str = "window.workbench.turns.due", event: Mapping[str, Any] = ACTION,
    ) -> Any:  # fmt: skip
        """Answers what is done in a part of a page with `handler(act, *values)`: one call at a time, and one more for
        the last act that came meanwhile, with the values that the inputs had when it was done. Returns that event.

        name: one of TURNS. acts: (listener, what it is called). js: what the browser does with (name, what, values) of
        an act, in the end `turns.due`. A handler that is a generator needs an event with a queue.
        """
        for listener, what in acts:
            script = f"(...values) => {{ {js}('{name}', '{what}', values); return []; }}"
            listener(None, inputs, None, js=script, trigger_mode="multiple", **QUIET)
        values = f"(...now) => window.workbench.turns.values('{name}') ?? now" if inputs else None
        return self._called(name, _told_act(handler), inputs, outputs, values, event)

    def _called(
        self, name: str, handler: Callable[..., Any], inputs: Any, outputs: Any, js: str | None,
        event: Mapping[str, Any],
    ) -> Any:  # fmt: skip
        due = getattr(self._turns, f"{name}_due")
        called = due(self.friendly(handler), inputs, outputs, js=js, trigger_mode="multiple", **event)
        done = {**self.due(name), "js": f"() => {{ window.workbench.turns.done('{name}'); return []; }}"}
        called.then(**done)
        called.failure(**done)
        return called

    def asked_on_open(self, tab: str, name: str) -> None:
        """Has what `follow` answers asked whenever `tab` is selected, in the same turn."""
        self._openings.append((tab, self.due(name)))

    @staticmethod
    def due(name: str) -> dict[str, Any]:
        """Arguments of an event that has what `follow` answers asked anew."""
        script = f"() => {{ window.workbench.turns.due('{name}'); return []; }}"
        return {"fn": None, "inputs": None, "outputs": None, "js": script, "trigger_mode": "multiple", **QUIET}

    def on_open(self, tab: str, handler: Callable[..., Any], inputs: Any, outputs: Any, js: str | None = None) -> None:
        """Calls a handler whenever `tab` is selected, by a person, a link or as the first one; not before.

        What a tab needs at first belongs here: an event at the page's load makes everyone wait for it. js: what the
        browser makes of the inputs before they are sent.
        """
        event = {"fn": self.friendly(handler), "inputs": inputs, "outputs": outputs, "js": js, **QUIET}
        self._openings.append((tab, event))

    def openings(self, tab: str) -> list[dict[str, Any]]:
        """The arguments of the events that `on_open` asked for."""
        return [event for name, event in self._openings if name == tab]

    @staticmethod
    def friendly(handler: Callable[..., Any]) -> Callable[..., Any]:
        """A handler whose UserError is a toast that leaves the page as it is, and whose defects are one short line.

        The traceback of a defect goes to the server's own log, never into the page.
        """

        def told(error: Exception) -> None:
            if isinstance(error, UserError):
                gr.Warning(escape(str(error)), title="Not done")  # a toast takes its message for markup
                return
            log.exception("a handler failed", exc_info=error)
            gr.Warning("This is a defect of the workbench; its log has the details.", title="Something broke")

        if _is_generator(handler):

            @functools.wraps(handler)
            def stream(*args: Any, **kwargs: Any) -> Any:
                try:
                    yield from handler(*args, **kwargs)
                except Exception as error:
                    told(error)
                    yield gr.skip()

            return stream

        @functools.wraps(handler)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return handler(*args, **kwargs)
            except Exception as error:
                told(error)
                return gr.skip()

        return call


def _told_act(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler that is given first what was done, which comes with the event."""

    def told(event: gr.EventData) -> Act:
        given = event._data if isinstance(event._data, dict) else {}
        return Act(str(given.get("what", "")), bool(given.get("waited")))

    if _is_generator(handler):

        def stream(event: gr.EventData, *values: Any) -> Any:
            yield from handler(told(event), *values)

        return stream

    def call(event: gr.EventData, *values: Any) -> Any:
        return handler(told(event), *values)

    return call


def _is_generator(handler: Callable[..., Any]) -> bool:
    import inspect

    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.isgeneratorfunction(handler)
