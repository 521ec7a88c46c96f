"""Builds the page: header, tabs, the ports between them, deep links and the public API."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr

from mygpt2.run_dir import list_runs
from workbench import api, html, look
from workbench.context import Context
from workbench.live import Asked, News
from workbench.page import QUIET, TABS, Act, Page

TITLE = "mygpt2 workbench"
_FOREIGN = "() => [document.querySelector('meta[name=\"wb-link\"]')?.content || '']"
MAX_PARAMETER = 4096  # characters of one value in a deep link
KEEP_UPLOADS = (600, 3600)  # seconds: an uploaded log or file of settings is read at once; look every, then remove
KEYS = (
    *((f"g {key}", f"open {name.capitalize()}") for name, key in TABS.items()),
    ("← and →", "go along the tabs, once one has the focus; Enter opens it"),
    ("/", "search in this tab"),
    ("[ and ]", "previous and next run"),
    ("l", "the table of all runs, and back"),
    ("?", "open and close this sheet; Esc closes it too"),
)


def build(context: Context) -> gr.Blocks:
    """The whole page as Blocks, ready to launch; nothing in it holds a run's state."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=KEEP_UPLOADS) as blocks:
        page = Page()
        gr.HTML(_header(context), elem_id="wb-header")
        page.part("app", "summary", elem_id="wb-summary")
        opened: dict[str, gr.Tab] = {}
        first = _first_tab(context)
        with gr.Tabs(selected=first, elem_id="wb-tabs") as page.tabs:
            for name in TABS:
                with gr.Tab(name.capitalize(), id=name, elem_id=f"wb-tab-{name}") as opened[name]:
                    import_module(f"workbench.tabs.{name}.tab").build(context, page)
        for name, tab in opened.items():
            _follow(page, tab, name)
        page.live("app", partial(_summary, context))

        def open_link(foreign: str, request: gr.Request) -> list[Any]:  # a partial would hide the request from Gradio
            query = dict(request.query_params)
            shown = query["tab"] if query.get("tab") in TABS else first  # document.py sees to it
            return _open_link(context, page, shown, query, bool(foreign))

        def go_back(to: Act) -> list[Any]:
            return _open_link(context, page, "", dict(parse_qsl(to.what.removeprefix("?"))), False)

        page.in_turn("back", [], go_back, None, [page.tabs, *page.ports], event=QUIET)  # see turns.js
        foreign = gr.Textbox(visible="hidden", container=False, label="opened by another site's link")
        link = blocks.load(open_link, foreign, [page.tabs, *page.ports], js=_FOREIGN, **QUIET)
        link.then(None, None, None, js="() => { window.workbench.linkFollowed(); return []; }", **QUIET)
        api.publish(context)
    return blocks


def _follow(page: Page, tab: gr.Tab, name: str) -> None:
    """A selected tab writes itself into the address, and gets what it asked for."""
    tab.select(None, None, None, js=f"() => {{ window.workbench.url({{tab: '{name}'}}); return []; }}", **QUIET)
    for event in page.openings(name):
        tab.select(**event)


def _first_tab(context: Context) -> str:
    """Someone without a run begins at Train, everyone else at what is going on."""
    return "monitor" if list_runs(context.runs) else "train"


def _open_link(context: Context, page: Page, shown: str, query: Mapping[str, str], foreign: bool) -> list[Any]:
    """The tab and its request from the address; an unknown tab is the first one.

    `shown`: the tab that the page opens with. It is not selected once more: someone may have gone on by then.
    `foreign`: another site's link asks. The tab learns it: such a link fills the form, and work waits for a click.
    """
    given: dict[str, Any] = {str(key): str(value)[:MAX_PARAMETER] for key, value in query.items()}
    if given.pop("link", "") or foreign:
        given["link"] = True
    tab = given.pop("tab", "")
    tab = tab if tab in TABS else _first_tab(context)
    ports = [page.ask(**given) if name == tab and given else gr.skip() for name in TABS]
    return [gr.skip() if tab == shown else gr.Tabs(selected=tab), *ports]


_LOG_OUT = (
    '<form method="post" action="logout"><button class="wb-icon" aria-label="Log out" title="Log out">'
    '<svg viewBox="0 0 20 20" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.6" '
    'stroke-linecap="round" stroke-linejoin="round"><path d="M8 3H4v14h4M12 6.5 15.5 10 12 13.5M7 10h8"/></svg>'
    "</button></form>"
)


def _header(context: Context) -> html.Markup:
    folder = html.escape(context.runs)
    mark = html.Markup((look.ASSETS / "icon.svg").read_text(encoding="utf-8").replace("<svg", '<svg class="wb-mark"'))
    leave = _LOG_OUT if context.door.has_password else ""
    return html.Markup(
        f'<header class="wb-head">{mark}<h1 class="wb-name">{TITLE}</h1>'
        f'<span class="wb-folder" title="Folder of runs: {folder}">{folder}</span>'
        '<span class="wb-grow"></span>'
        '<button type="button" class="wb-icon" data-wb="theme" aria-label="Dark or light" title="Dark or light">'
        '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" '
        'stroke-width="1.6"/><path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor"/></svg></button>'
        '<button type="button" class="wb-icon" data-wb="help" aria-haspopup="dialog" aria-label="Help and keys" '
        'title="Help and keys (?)">?</button>'
        f"{leave}</header>{_help(context)}"
    )


def _help(context: Context) -> html.Markup:
    keys = html.join(
        html.Markup(f"<dt><kbd>{html.escape(key)}</kbd></dt><dd>{html.escape(what)}</dd>") for key, what in KEYS
    )
    return html.Markup(
        f'<dialog class="wb-help" aria-label="Help and keys" data-tabs="{html.escape(json.dumps(TABS))}">'
        '<div><header><h2>Keys</h2><button type="button" class="wb-icon" data-wb="help" aria-label="Close">'
        f"×</button></header><dl>{keys}</dl><h2>Folder of runs</h2><p>{html.escape(context.runs)}</p></div></dialog>"
    )


def _summary(context: Context, asked: Asked, news: News) -> None:
    """One line for whoever only wants to know whether all is well."""
    jobs = context.jobs
    queue = jobs.queue()
    waiting = len([job for job in queue if job.state == "queued"])
    parts = [f"{waiting} queued" if waiting else "", "queue paused" if jobs.paused else ""]
    parts.append("" if jobs.owner else "another server owns this folder's queue; this one watches")
    parts.append("read only" if context.read_only else "")
    text = " · ".join(part for part in parts if part)
    news.show("summary", f'<p class="wb-muted" role="status">{html.escape(text)}</p>' if text else "")
    news.busy = bool(queue)
