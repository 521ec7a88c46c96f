"""The form in the browser over a reload: what of it is kept there, and what of that is believed when it comes back.

Each window keeps its own; a new one begins with what somebody changed last in any of them. See ui_assets/tab-train.js.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mygpt2.config import preset_names
from mygpt2.config.earlier import renewed_names
from mygpt2.launch.handed import TITLES
from workbench import draft as drafts
from workbench import forms
from workbench.context import Context
from workbench.draft import Draft
from workbench.elsewhere import FIELDS, LABELS, TARGET, Elsewhere
from workbench.forms import Loaded

KEPT_VERSION = 1  # of what a browser keeps; another one is not read
MOST_KEPT = 512 * 1024  # characters


@dataclass(frozen=True)
class Kept:
    """A form as the browser kept it: where it differs from what the page opens with. None: as it opens."""

    loaded: Loaded
    run: str | None
    devices: list[str] | None
    processes: str | None
    launch: dict[str, str]  # where it is to train, and what is asked of a cluster, by field
    branch: str = ""


def kept_form(now: Draft, context: Context, source: str) -> dict[str, Any] | None:
    """What a browser should keep of the form, None for a form as the page opens. source: the text in use so far."""
    if now.preset not in preset_names():
        return None
    base = forms.preset_texts(now.preset)
    values = {name: forms.as_text(value) for name, value in now.values.items() if forms.as_text(value) != base[name]}
    named = not drafts.is_suggested(now.run, drafts.stem_of(context, now.preset, source))
    devices = list(now.devices)
    own = {
        "values": values or None,
        "run": now.run if named else None,
        "devices": devices if devices != drafts.first_devices(context) else None,
        "processes": now.processes if now.processes != str(drafts.first_processes(now.preset, devices)) else None,
        "launch": _launch(now.elsewhere) or None,
        "preset": now.preset if now.preset != drafts.FIRST_PRESET else None,
        "branch": now.branch or None,
    }
    differs = {key: value for key, value in own.items() if value is not None}
    return {"version": KEPT_VERSION, **differs} if differs else None


def _launch(asked: Elsewhere) -> dict[str, str]:
    texts = {each.name: forms.as_text(asked.texts.get(each.option)) for each in FIELDS}
    target = {TARGET: asked.target} if asked.is_cluster else {}
    return target | {name: text for name, text in texts.items() if text}


def _launch_from(found: Any) -> dict[str, str]:
    """The fields of a launch elsewhere, as far as they are there."""
    kept = found if isinstance(found, dict) else {}
    texts = {name: kept[name] for name in LABELS if isinstance(kept.get(name), str) and name != TARGET}
    return texts | ({TARGET: kept[TARGET]} if kept.get(TARGET) in TITLES else {})


def from_kept(text: str | None) -> Kept | None:
    """A form that a browser kept; None for none, and for what is of another version or damaged."""
    if not text or len(text) > MOST_KEPT:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("version") != KEPT_VERSION:
        return None
    preset, values = found.get("preset", drafts.FIRST_PRESET), found.get("values", {})
    if preset not in preset_names() or not isinstance(values, dict):
        return None
    texts = forms.preset_texts(preset)
    texts |= {name: value for name, value in renewed_names(values).items() if name in texts and isinstance(value, str)}
    run, devices, processes = (found.get(key) for key in ("run", "devices", "processes"))
    chosen = [str(device) for device in devices] if isinstance(devices, list) else None
    branch = found.get("branch")
    return Kept(Loaded(preset, texts, []), run if isinstance(run, str) else None, chosen,
                processes if isinstance(processes, str) else None, _launch_from(found.get("launch")),
                branch if isinstance(branch, str) else "")  # fmt: skip
