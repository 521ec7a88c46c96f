"""The form below the list of runs that imports the log of another program as a run without weights."""

from __future__ import annotations

from typing import Any

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.experiments.importing import import_log
from mygpt2.format import file_size
from workbench.context import Context
from workbench.page import ACTION, QUIET, Page
from workbench.picker.component import picker

# A log that was typed while another one was read stays.
DONE = "(asked, log) => [JSON.parse(asked || '{}').imported === log ? '' : log]"
MOST_BYTES = 256 << 20  # of a log that is imported while somebody waits; the command line takes more


def place(context: Context, page: Page) -> None:
    """Adds the form where it stands. Reading the log, its name and what is known of it come from the page."""
    with gr.Accordion("Import a log of another program", open=False, elem_id="wb-import"):
        log = gr.Textbox(label="Log", info="CSV, JSON, JSON lines, or the console lines of a program; drop it here",
                         elem_id="wb-import-log")  # fmt: skip
        picker(context, "log", log)
        name = gr.Textbox(label="Name of the run", info="the file's, if empty", elem_id="wb-import-name")
        protocol = gr.Textbox(label="Protocol", info="how its loss was measured; empty: unknown",
                              elem_id="wb-import-protocol")  # fmt: skip
        tokenizer = gr.Textbox(label="Tokenizer", info="what its losses are per token of; empty: unknown")
        tokens = gr.Textbox(label="Tokens per step", info="where the log has none")
        button = gr.Button("Import", size="sm", elem_id="wb-import-do", elem_classes="wb-fit")

    def bring(*values: Any) -> list[Any]:
        made = imported(context, *values)
        gr.Info(f"{made} stands among the runs now, without weights", duration=5)
        return page.go("monitor", runs=made, imported=values[0])

    fields, port = [log, name, protocol, tokenizer, tokens], page.port("monitor")
    button.click(page.friendly(bring), fields, page.outputs("monitor"), **ACTION)
    port.change(None, [port, log], log, js=DONE, **QUIET)


def imported(context: Context, log: Any, name: Any, protocol: Any, tokenizer: Any, tokens: Any) -> str:
    """Imports a log of the roots; the name of the run. UserError for what cannot be imported here."""
    context.changes()
    path = context.path(str(log or ""), "log")
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise UserError(
            f"{path.name} has {file_size(path.stat().st_size)}; the page imports up to {file_size(MOST_BYTES)}; "
            "python -m mygpt2 runs import takes larger ones"
        )
    known = _tokens(str(tokens or "").strip())
    run, _ = import_log(
        path, context.runs, str(name or "").strip() or None, protocol=str(protocol or ""),
        tokenizer=str(tokenizer or ""), batch_tokens=known,
    )  # fmt: skip
    return run.name


def _tokens(text: str) -> float | None:
    """The tokens of a step as they were typed, None for nothing."""
    plain = text.replace(",", "")
    if not plain:
        return None
    if not plain.isdecimal() or len(plain) > 15 or not int(plain):
        raise UserError(f"tokens per step {text[:40]!r} are not possible; give a whole number above 0, or nothing")
    return float(plain)
