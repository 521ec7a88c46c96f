"""Training elsewhere: the menu of targets, the fields of a cluster, and what is done with the file it gets."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from mygpt2.errors import UserError
from mygpt2.launch.handover import file_of
from workbench import draft as drafts
from workbench import elsewhere, html
from workbench.context import Context
from workbench.draft import Checked
from workbench.elsewhere import CHOICES, FIELDS, FOLD, HERE, LABELS, TARGET, Elsewhere, Field
from workbench.html import Markup, escape
from workbench.tabs.train.show import field_id

if TYPE_CHECKING:
    from workbench.tabs.train.fields import Fields
    from workbench.tabs.train.parts import Parts

MAX_TEXT = 32_768


def menu(fields: Fields) -> None:
    """Where the run is to train."""
    made = gr.Dropdown(list(CHOICES), value=HERE, label=LABELS[TARGET], elem_id=field_id(TARGET), interactive=True)
    fields.inputs[TARGET] = made


def fields(fields: Fields, parts: Parts) -> None:
    """What a cluster is asked for; the style hides what does not go with the one that is chosen."""
    with gr.Column(visible=False, elem_id="train-there") as parts.there:
        with gr.Column(elem_classes="wb-fields"):
            _place(fields, [each for each in FIELDS if not each.folded])
        with gr.Accordion("More for the engine", open=False, elem_id=FOLD), gr.Column(elem_classes="wb-fields"):
            _place(fields, [each for each in FIELDS if each.folded])


def _place(fields: Fields, chosen: Sequence[Field]) -> None:
    for each in chosen:
        fields.inputs[each.name] = gr.Textbox(
            "", label=each.label, info=each.info or None, placeholder=each.empty, elem_id=field_id(each.name),
            lines=2 if each.several else 1, max_lines=6 if each.several else 1, max_length=MAX_TEXT, interactive=True,
            elem_classes="wb-several" if each.several else None,
        )  # fmt: skip


def acts(parts: Parts) -> None:
    """In the place of Start and Queue."""
    with gr.Row(visible=False, elem_classes="wb-actions", elem_id="train-there-acts") as parts.acts_there:
        parts.submit = gr.Button("Submit", variant="primary", size="md", elem_id="train-submit", elem_classes="wb-fit")
        parts.save_file = gr.Button("Download", size="md", elem_id="train-download", elem_classes="wb-fit")
    parts.handing = gr.HTML("", elem_id="train-handing")


def asked_of(fields: Fields, data: Mapping[Any, Any]) -> Elsewhere:
    """What the components ask of a cluster."""
    own = fields.inputs
    target = str(data.get(own[TARGET]) or HERE)
    return Elsewhere(target, {each.option: data.get(own[each.name]) or "" for each in FIELDS})


def place(parts: Parts, checked: Checked) -> dict[Any, Any]:
    """Updates that show this machine's fields or a cluster's, and say whether it can be handed over from here."""
    asked, ready = checked.draft.elsewhere, not checked.reasons and bool(checked.file)
    there = asked.target != HERE
    why = elsewhere.missing(asked.target) if asked.is_cluster else ""
    submit = f"Submit to {asked.title}" if asked.is_cluster else "Submit"
    return {
        parts.machine: gr.Row(visible=not there),
        parts.acts_here: gr.Row(visible=not there),
        parts.there: gr.Column(visible=there),
        parts.acts_there: gr.Row(visible=there),
        parts.submit: gr.Button(submit, interactive=ready and not why),
        parts.save_file: gr.Button(interactive=ready),
        parts.handing: html.note(f"{why[:1].upper()}{why[1:]}.") if why else "",
    }


def file(context: Context, checked: Checked) -> Markup:
    """The file that the cluster gets, with a button that copies it."""
    asked = checked.draft.elsewhere
    if not checked.file:
        body = '<p class="wb-muted">shown once nothing is to mend</p>'
        return Markup(
            f'<details class="wb-command" open><summary>File for {escape(asked.title)}</summary>{body}</details>'
        )
    path = file_of(asked.target, checked.draft.run, context.runs)
    return Markup(
        f'<details class="wb-command" open><summary>File for {escape(asked.title)}</summary>'
        f'<p class="wb-muted">{escape(path)}</p>'
        f'<button type="button" class="wb-small" data-copy>Copy</button>'
        f'<pre tabindex="0">{escape(checked.file)}</pre></details>'
    )


def line(checked: Checked) -> str:
    """What is known of the run elsewhere, in the place of an estimate of this machine."""
    asked = checked.asked
    if asked is None:
        return ""
    nodes = f"{asked.nodes} node{'s' if asked.nodes > 1 else ''}"
    return (
        f"{asked.ranks} process{'es' if asked.ranks > 1 else ''} on {nodes}. How long it takes there is not known here."
    )


def download(context: Context, parts: Parts, draft: drafts.Draft) -> str:
    """The file for the browser to save. UserError while something is to mend."""
    checked = drafts.check(context, draft)
    if not checked.file:
        raise UserError("there is no file yet: " + "; ".join(text for text, _ in checked.reasons))
    name = file_of(draft.elsewhere.target, draft.run, context.runs).name
    return json.dumps({"name": name, "text": checked.file, "nonce": secrets.token_hex(4)})


def hand_over(context: Context, draft: drafts.Draft) -> tuple[str, Markup]:
    """Hands the run over: what the engine said, or "" and why it was not."""
    try:
        return drafts.hand_over(context, draft), Markup("")
    except UserError as error:
        return "", html.problem(str(error))
