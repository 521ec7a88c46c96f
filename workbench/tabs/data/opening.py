"""What the data tab does as it is opened: its lists of runs, and the run of Monitor where no other was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.run_dir.marks import current_runs
from workbench import html
from workbench.context import Context
from workbench.corpus.step import step_range
from workbench.page import Page

MOST_RUNS = 500  # in a list to choose from
SEEN: dict[str, Any] = {"names": [], "offered": "", "port": ""}  # what a page remembers, at first
WATCHED = "(...given) => [...given.slice(0, -1), window.workbench.watched()]"  # the last: the address, Monitor's runs
STEP_OF_RUN = "What a run trained on in one step, token by token, the rows it found hardest first."


def refresh(context: Context, seen: Mapping[str, Any]) -> Any:
    """(what is remembered, the lists of runs), where there is a new one."""
    names = runs_with_a_trace(context)
    if names == seen["names"]:
        return gr.skip()
    return {**seen, "names": names}, gr.update(choices=names), gr.update(choices=names)


def opened(context: Context, seen: Mapping[str, Any], run: str | None, port: str, address: str) -> tuple[Any, ...]:
    """(what is remembered, the lists of runs of a step and of an order, step, facts of the batch, its rows).

    Where nobody has chosen a run for `A step of a run`, by hand or by a link, it is the one that Monitor shows now,
    with its newest step; what stood there is of another run. Nothing is read before Show: data may lie on the hub.
    """
    names = runs_with_a_trace(context)
    lists = [gr.update(choices=names) if names != seen["names"] else gr.skip() for _ in range(2)]
    found = _offered(seen, run, port, Page.request(address))
    known = {"names": names, "offered": seen["offered"], "port": port}
    try:
        last = step_range(context.run(found))[1] if found in names and found != run else None
    except UserError:  # it is being written, or has just gone
        last = None
    if last is None:
        return known, *lists, *[gr.skip()] * 3
    told = html.empty(STEP_OF_RUN, f"Press Show for step {last:,} of {found}, the run in Monitor.")
    return {**known, "offered": found}, gr.update(choices=names, value=found), lists[1], last, "", told


def _offered(seen: Mapping[str, Any], run: str | None, port: str, address: Mapping[str, Any]) -> str:
    """The run that Monitor shows; "" where another was chosen, or is asked for just now."""
    asked = port != seen["port"] and "run" in Page.request(port)
    linked = not seen["offered"] and "run" in address
    if (run or "") != seen["offered"] or asked or linked:
        return ""
    return str(address.get("focus") or "") or str(address.get("runs") or "").partition(",")[0]


def runs_with_a_trace(context: Context) -> list[str]:
    """By name."""
    return [run.name for run in current_runs(context.runs) if run.trace_dir.is_dir()][:MOST_RUNS]
