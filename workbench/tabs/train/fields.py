"""The form's components, made from the schema: one per setting, and one for the notes below all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from mygpt2.config.fields import Setting, sections, settings
from workbench.forms import MAX_TEXT, text_of
from workbench.tabs.train.show import field_id

# A note of its own for each of eighty settings, in a column of its own, was half of the page's components; Gradio
# walks through all of them many times while a page opens. The page's script puts the notes at their fields.
SHOW_NOTES = "(shown) => { window.workbench.train.showNotes(shown); return []; }"
TITLES = {"model": "Model", "data": "Data", "optimizer": "Optimizer", "schedule": "Schedule", "train": "Training",
          "eval": "Evaluation", "sample": "Samples", "checkpoint": "Checkpoints", "log": "Logs"}  # fmt: skip


@dataclass
class Fields:
    """Components by dotted name (and those of the page that are not a setting), and the folds by section."""

    inputs: dict[str, Any] = field(default_factory=dict)
    folds: dict[str, gr.Accordion] = field(default_factory=dict)

    def values(self, texts: Mapping[str, str]) -> dict[Any, Any]:
        """Updates that write these texts into the components."""
        return {self.inputs[name]: component_value(settings()[name], text) for name, text in texts.items()}

    def texts(self, data: Mapping[Any, Any]) -> dict[str, Any]:
        """What the components of settings hold, by dotted name."""
        return {name: data[self.inputs[name]] for name in settings() if self.inputs[name] in data}


def component_value(setting: Setting, text: str) -> Any:
    """A text as the setting's component takes it: a tick for true and false, else the text itself."""
    return text == "true" if setting.kind == "bool" else text


def essential(fields: Fields, texts: Mapping[str, str]) -> None:
    """The settings that are shown open."""
    with gr.Column(elem_classes="wb-fields"):
        for setting in settings().values():
            if setting.essential:
                place(fields, setting.name, component(setting, texts[setting.name]))


def folded(fields: Fields, texts: Mapping[str, str]) -> None:
    """All others, by section."""
    for section, model in sections().items():
        rest = [s for s in settings().values() if s.section == section and not s.essential]
        with gr.Accordion(fold_label(section), open=False, elem_id=f"fold-{section}") as fields.folds[section]:
            gr.HTML(f'<p class="wb-muted">{(model.__doc__ or "").strip()}</p>')
            with gr.Column(elem_classes="wb-fields"):
                for setting in rest:
                    place(fields, setting.name, component(setting, texts[setting.name]))


def fold_label(section: str, problems: int = 0, changes: int = 0) -> str:
    """`Schedule · 2 changed · 1 problem`."""
    words = [f"{TITLES.get(section, section)} · more settings"]
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
        "label": f"{setting.name} ({setting.unit})" if setting.unit else setting.name,
        "info": information(setting),
        "elem_id": field_id(setting.name),
        "interactive": True,
        "render": False,
    }
    if setting.kind == "bool":
        return gr.Checkbox(text == "true", **common)
    if setting.kind == "choice":
        return gr.Dropdown(list(setting.choices), value=text, allow_custom_value=True, **common)
    lines = 2 if setting.kind == "list" else 1
    return gr.Textbox(text, placeholder="unset" if setting.optional else None, max_length=MAX_TEXT, lines=lines,
                      max_lines=6, **common)  # fmt: skip


def information(setting: Setting) -> str:
    """Help, default and what is allowed, below the label."""
    default = text_of(setting, setting.default) or "unset"
    allowed = setting.allowed.replace(f" ({setting.unit})", "") if setting.kind not in ("bool", "choice") else ""
    return f"{setting.help} Default {default}{f'; {allowed}' if allowed else ''}."
