"""The form's components, made from the schema: one per setting, and one for the notes below all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mygpt2.config.fields import Setting, settings
from workbench.forms import LISTS, MAX_TEXT
from workbench.html import Markup, escape
from workbench.tabs.train.groups import Group
from workbench.tabs.train.show import field_id

# A note of its own for each of eighty settings, in a column of its own, was half of the page's components; Gradio
# walks through all of them many times while a page opens. The page's script puts the notes at their fields.
SHOW_NOTES = "(shown, run) => [window.workbench.train.showNotes(shown, run)]"
ANSWERED = "() => { window.workbench.train.answered(); return []; }"
BEGUN = "(filled, run, branch) => window.workbench.train.begun(filled, run, branch)"


@dataclass
class Fields:
    """Components by dotted name (and those of the page that are not a setting), and the folds by group."""

    inputs: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, gr.Accordion] = field(default_factory=dict)
    editor: Any = None  # of the mixture

    def values(self, texts: Mapping[str, str]) -> dict[Any, Any]:
        """Updates that write these texts into the components."""
        return {self.inputs[name]: component_value(settings()[name], text) for name, text in texts.items()}

    def texts(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        """What the components of settings hold, by dotted name."""
        return {name: data[self.inputs[name]] for name in settings() if self.inputs[name] in data}


def component_value(setting: Setting, text: str) -> Any:
    """A text as the setting's component takes it: a tick for true and false, else the text itself."""
    return text == "true" if setting.kind == "bool" else text


def heading(group: Group) -> Markup:
    """The title of a group that is open on the page."""
    return Markup(f'<h3 class="wb-group-title">{escape(group.title)}</h3>')


def group_fields(fields: Fields, group: Group, texts: Mapping[str, str]) -> None:
    """The settings of a group, side by side as the width allows."""
    with gr.Column(elem_classes="wb-fields"):
        for name in group.names:
            place(fields, name, component(settings()[name], texts[name]))


def fold(fields: Fields, group: Group, texts: Mapping[str, str]) -> None:
    """A group that is folded until somebody opens it, a search does, or one of its settings is wrong."""
    with gr.Accordion(fold_label(group), open=False, elem_id=f"fold-{group.id}") as fields.folds[group.id]:
        group_fields(fields, group, texts)


def fold_label(group: Group, problems: int = 0, changes: int = 0) -> str:
    """`Everything else · 2 changed · 1 problem`."""
    words = [group.title]
    words += [f"{changes} changed"] if changes else []
    words += [f"{problems} problem{'s' if problems > 1 else ''}"] if problems else []
    return " · ".join(words)


def place(fields: Fields, name: str, made: Any) -> None:
    """Renders and registers a component that was just made."""
    made.render()
    fields.inputs[name] = made


def component(setting: Setting, text: str) -> Any:
    """A setting's component, not yet rendered. Numbers are text, so that a bad one gets the schema's answer."""
    common: dict[str, Any] = {
        "label": title(setting),
        "info": f"{setting.short_help} `{setting.name}`",
        "elem_id": field_id(setting.name),
        "interactive": True,
        "render": False,
    }
    if setting.kind == "bool":
        return gr.Checkbox(text == "true", **common)
    if setting.kind == "choice":
        return gr.Dropdown(list(setting.choices), value=text, allow_custom_value=True, **common)
    lines, most = (2, 6) if setting.kind in LISTS else (1, 1)  # a field that may grow is measured whenever it is set
    empty = ("automatic" if "Unset:" in setting.help else "none") if setting.optional else None
    return gr.Textbox(text, placeholder=empty, max_length=MAX_TEXT, lines=lines,
                      max_lines=most, **common)  # fmt: skip


def title(setting: Setting) -> str:
    """What a setting is called, with its unit where the name does not say it."""
    known = setting.unit is None or setting.unit.lower().rstrip("s") in setting.title.lower()
    return setting.title if known else f"{setting.title} ({setting.unit})"
