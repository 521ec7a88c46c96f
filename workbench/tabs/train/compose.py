"""The Train tab's components, without what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr

from workbench import draft as drafts
from workbench.context import Context
from workbench.draft import BRANCH, DEVICES, FIRST_PRESET, NPROC, PRESET, RUN
from workbench.html import Markup
from workbench.page import Page
from workbench.tabs.train import fields as form
from workbench.tabs.train import fill, first, outlook, presets, there
from workbench.tabs.train.data_block import data_block
from workbench.tabs.train.groups import groups
from workbench.tabs.train.parts import Parts


def compose(context: Context, page: Page) -> tuple[Parts, dict[str, Any]]:
    """Those of the form, and the rest by name.

    What Start needs stands before the settings, so that the keyboard comes to it at once; the style puts it beside.
    """
    fields = form.Fields()
    parts = Parts(fields)
    made: dict[str, Any] = {}
    texts = fill.from_preset(FIRST_PRESET).values
    with gr.Column(elem_id="train", elem_classes="wb-train"):
        page.part("train", "first", elem_id="train-first", first=first.card(context))
        with gr.Row(elem_classes="wb-train-main", equal_height=False):
            with gr.Column(elem_classes="wb-train-side"):
                made |= _side(context, page, fields, parts)
            with gr.Column(elem_classes="wb-train-top"):
                form.place(fields, PRESET, _presets(context))
                with gr.Row(elem_classes="wb-train-about"):
                    parts.about = gr.HTML("", elem_id="train-about")
                    parts.changes = gr.HTML("", elem_id="train-changes", js_on_load=None)
                parts.message = gr.HTML("", elem_id="train-message")
            with gr.Column(elem_classes="wb-train-form"):
                gr.HTML(_search(), elem_id="train-search")
                _form(context, page, fields, parts, texts)
        page.part("train", "queue", elem_id="train-queue")
        made |= _resume(context, page)
        for name in ("shown", "filled", "kept", "file", "measurement"):
            box = gr.Textbox(visible="hidden", elem_id=f"train-{name}", label=f"train {name}", container=False)
            made[name] = box
        parts.shown, parts.filled, parts.kept, parts.file = (made[n] for n in ("shown", "filled", "kept", "file"))
    return parts, made


def _presets(context: Context) -> gr.Radio:
    return gr.Radio(presets.choices(context), value=FIRST_PRESET, label="Preset", elem_id="field-preset",
                    interactive=True, render=False)  # fmt: skip


def _side(context: Context, page: Page, fields: form.Fields, parts: Parts) -> dict[str, Any]:
    """Name, Start and what the run will take, on what; Start is the keyboard's second stop here."""
    devices = drafts.first_devices(context)
    own: dict[str, Any] = {"interactive": True, "render": False}
    run = gr.Textbox(drafts.free_name(context, FIRST_PRESET), label="Name", elem_id="field-run", max_length=200,
                     max_lines=1, **own)  # fmt: skip
    chosen = gr.CheckboxGroup(list(dict.fromkeys(context.jobs.slots)), value=devices, label="Devices",
                              elem_id="field-devices", **own)  # fmt: skip
    processes = gr.Textbox(str(drafts.first_processes(FIRST_PRESET, devices)), label="Processes", max_lines=1,
                           max_length=20, elem_id="field-processes", **own)  # fmt: skip
    branch = gr.Textbox("", label="Branch of", placeholder="NAME@STEP; empty: a new run",
                        elem_id="field-branch", max_length=100, max_lines=1, **own)  # fmt: skip
    with gr.Column(elem_classes=["wb-card", "wb-launch"]):
        form.place(fields, RUN, run)
        with gr.Column(elem_id="train-bar"):
            parts.line = gr.HTML(outlook.line("The estimate is being worked out."), elem_id="train-line")
            with gr.Row(elem_classes="wb-actions") as parts.acts_here:
                parts.start = gr.Button(
                    "Start", variant="primary", size="md", elem_id="train-start", elem_classes="wb-fit"
                )
                parts.queue_up = gr.Button("Queue", size="md", elem_id="train-queue-up", elem_classes="wb-fit")
                measure = gr.Button("Measure the time", size="sm", elem_id="train-measure", elem_classes="wb-fit")
            there.acts(parts)
            parts.reasons = gr.HTML("", elem_id="train-reasons")
        page.part("train", "measured", elem_id="train-measured")
        there.menu(fields)
        with gr.Row(elem_classes="wb-machine") as parts.machine:
            form.place(fields, DEVICES, chosen)
            form.place(fields, NPROC, processes)
        there.fields(fields, parts)
        form.place(fields, BRANCH, branch)
        parts.estimate = gr.HTML("", elem_id="train-estimate")
        parts.command = gr.HTML(outlook.command(""), elem_id="train-command")
        with gr.Row(elem_classes="wb-actions"):
            load = gr.UploadButton("Load TOML", file_types=[".toml"], size="sm", elem_id="train-load",
                                   elem_classes="wb-fit")  # fmt: skip
            save = gr.Button("Save TOML", size="sm", elem_id="train-save", elem_classes="wb-fit")
    return {"measure": measure, "load": load, "save": save}


def _search() -> Markup:
    """The box that searches all settings."""
    return Markup(
        '<div class="wb-search"><input type="search" id="train-find" placeholder="Search all settings" '
        'aria-label="Search all settings" autocomplete="off" maxlength="100">'
        '<span class="wb-muted" role="status"></span></div>'
    )


def _form(
    context: Context, page: Page, fields: form.Fields, parts: Parts, texts: Mapping[str, str]
) -> None:  # fmt: skip
    """All settings, in the order in which a person decides."""
    for group in groups():
        if group.folded:
            form.fold(fields, group, texts)
            continue
        with gr.Column(elem_classes=["wb-card", "wb-group"], elem_id=f"group-{group.id}"):
            gr.HTML(form.heading(group))
            if group.id == "data":
                data_block(context, page, fields, texts)
            else:
                form.group_fields(fields, group, texts)
            if group.id == "length":
                parts.length = gr.HTML("", elem_id="train-length")
            if group.id == "rate":
                parts.schedule = gr.HTML("", elem_id="train-schedule")


def _resume(context: Context, page: Page) -> dict[str, Any]:
    with gr.Column(elem_classes="wb-train-resume"):
        gr.HTML("<h2>Resume a run</h2>")
        processes = gr.Textbox("", label="Processes for the resumed run", placeholder="as before", max_lines=1,
                               max_length=20, elem_id="train-resume-processes",
                               visible=not context.read_only)  # fmt: skip
        page.part("train", "runs", elem_id="train-resume")
    return {"processes": processes}
