"""The table of runs on the page: what stands still of it, what it is told, and the one event by which it acts.

Rows, columns, sorting and groups are the browser's: ui_assets/tab-monitor-rows.js and tab-monitor-table.js.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import gradio as gr

from mygpt2.config.fields import settings
from mygpt2.errors import UserError
from mygpt2.run_dir import moves
from workbench.context import Context
from workbench.live import News
from workbench.look import ASSETS
from workbench.page import ACTION, QUIET, Page
from workbench.tabs.monitor.changes import change, needed
from workbench.tabs.monitor.index import RunIndex

# All of it but the rows, which tab-monitor-table.js makes: no data is in here.
TABLE = (ASSETS / "tab-monitor-table.html").read_text(encoding="utf-8")
MOUNT = "window.workbench.table.mount(element, server);"
WIRE = """window.workbench.table.wire(trigger, ['act', 'go']);
watch('value', () => window.workbench.table.told(props.value));"""
SIZES_KEPT = 2000
MOST_COMPARED = 16


class Trash:
    """What lies in the trash. A deleted run changes no more: its size is measured once."""

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}

    def rows(self, runs: Path) -> list[dict[str, Any]]:
        """{"entry", "name", "time": when it was deleted (s), "bytes"}, the latest deleted first."""
        found = moves.trash(runs, sizes=False)
        for each in found[:SIZES_KEPT]:
            if each.entry not in self._sizes:
                self._sizes[each.entry] = moves.size_of(each.path)
        self._sizes = {each.entry: self._sizes[each.entry] for each in found if each.entry in self._sizes}
        return [{"entry": each.entry, "name": each.name, "time": each.time, "bytes": self._sizes.get(each.entry, 0)}
                for each in found]  # fmt: skip


def tell(index: RunIndex, trash: Trash, runs: Path, news: News) -> None:
    """What the table needs beside the rows of the list: settings, their titles, the trash."""
    digest, spread = index.settings()
    news.known_by("data", "settings", digest, lambda: spread)
    news.tell("titles", titles, stamp="titles")
    news.tell("trash", trash.rows(runs))


def titles() -> dict[str, list[str]]:
    """By setting: its title and what it is, for heads and the column picker."""
    return {name: [setting.title, setting.short_help] for name, setting in settings().items()}


def place(context: Context, page: Page, index: RunIndex) -> None:
    """Puts the table on the page, hidden until it is asked for."""

    def needed_by(request: Any) -> dict[str, Any]:
        """Runs that need files of others which someone is about to delete. Reads only."""
        try:
            return {"needed": needed(context, (request or {}).get("runs") if isinstance(request, dict) else [])}
        except UserError as error:
            return {"problem": str(error)}

    gr.HTML(html_template=TABLE, js_on_load=MOUNT, apply_default_css=False, server_functions=[needed_by],
            elem_id="wb-monitor-table")  # fmt: skip
    acts = gr.HTML({}, html_template="", js_on_load=WIRE, apply_default_css=False, label="acts on runs",
                   elem_id="wb-table-acts")  # fmt: skip

    def act(event: gr.EventData) -> dict[str, Any]:
        asked = event._data if isinstance(event._data, dict) else {}
        try:
            answer = change(context, asked)
        except UserError as error:
            answer = {"say": "", "done": [], "failed": [["", str(error)]], "undo": None}
        index.look_again()
        return {**answer, "asked": str(asked.get("act", "")), "nonce": secrets.token_hex(4)}

    def go(event: gr.EventData) -> Any:
        asked = event._data if isinstance(event._data, dict) else {}
        given = asked.get("runs")
        names = [str(name) for name in given[:MOST_COMPARED]] if isinstance(given, list) else []
        names = [context.run(name).name for name in names]  # one that was deleted meanwhile is told
        if asked.get("tab") == "sample":
            models = dict(zip(("model_a", "model_b"), names, strict=False))
            return [gr.Tabs(selected="sample"), gr.skip(), page.ask(**models)]
        return [gr.Tabs(selected="compare"), page.ask(models=",".join(names)), gr.skip()]

    acts.act(page.friendly(act), None, acts, trigger_mode="multiple", **ACTION).then(**page.now("monitor"))
    acts.go(page.friendly(go), None, [page.tabs, page.port("compare"), page.port("sample")], trigger_mode="multiple",
            **QUIET)  # fmt: skip
