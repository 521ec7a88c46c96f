"""What the Train tab answers: values of its components in, updates of some of them out.

`data` is keyed by component. One handler, `refresh`, writes every note, so that no two answers can mix.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gradio as gr

from mygpt2.config import to_toml
from mygpt2.errors import UserError
from mygpt2.planning import Plan
from workbench import draft as drafts
from workbench import forms
from workbench.context import Context
from workbench.draft import BRANCH, DEVICES, NPROC, PRESET, RUN, Checked, Draft
from workbench.forms import Change, Loaded
from workbench.html import join
from workbench.page import Page
from workbench.tabs.train import fill, look, outlook, show, there
from workbench.tabs.train.fields import fold_label
from workbench.tabs.train.first import first_draft
from workbench.tabs.train.groups import groups
from workbench.tabs.train.keep import from_kept, kept_form
from workbench.tabs.train.parts import Parts
from workbench.tabs.train.presets import about

Data = Mapping[Any, Any]
Updates = dict[Any, Any]


def draft_of(parts: Parts, data: Data) -> Draft:
    """The page's values as a draft."""
    own = parts.fields.inputs
    devices = data.get(own[DEVICES]) or []
    return Draft(
        preset=str(data.get(own[PRESET]) or ""),
        values=parts.fields.texts(data),
        run=str(data.get(own[RUN]) or "").strip(),
        devices=[str(device) for device in devices] if isinstance(devices, list | tuple) else [str(devices)],
        processes=str(data.get(own[NPROC]) or ""),
        elsewhere=there.asked_of(parts.fields, data),
        branch=str(data.get(own[BRANCH]) or "").strip(),
    )


def refresh(context: Context, parts: Parts, data: Data) -> Updates:
    """After every change: notes at fields, what it will take, the command, and whether Start is on.

    A run that nobody named is called after the text it is trained on, as soon as that is another one.
    """
    before, now = _dictionary(data.get(parts.shown)), draft_of(parts, data)
    run = _named_after_text(context, now, str(before.get("source") or ""))
    checked = drafts.check(context, replace(now, run=run or now.run))
    plan = drafts.estimate(context, checked)
    told = checked.config is not None and not any(map(look.cost_of, checked.config.data.named))
    ready = not checked.reasons
    named = _named(now.run, run) if run else {}
    return {
        **_notes(context, parts, before, checked, named | {"filled": str(data.get(parts.filled) or "")}),
        parts.about: "" if PRESET in checked.problems else show.status(about(context, checked.draft.preset)),
        parts.changes: show.changes(checked),
        **there.place(parts, checked),
        **(
            _there(context, parts, checked, plan)
            if now.elsewhere.is_cluster
            else _here(context, parts, checked, plan, told)
        ),
        parts.length: outlook.length(plan, told),
        parts.schedule: outlook.schedule(plan.rates) if isinstance(plan, Plan) else "",
        parts.start: gr.Button(interactive=ready),
        parts.queue_up: gr.Button(interactive=ready),
    }


def _here(context: Context, parts: Parts, checked: Checked, plan: Plan | str, told: bool) -> Updates:
    """What it takes on this machine, and the command."""
    busy = show.busy(checked.draft.devices, drafts.busy(context, checked.draft))
    return {
        parts.line: outlook.line(plan),
        parts.reasons: show.reasons(checked) or join([show.branch(checked), busy]),
        parts.estimate: outlook.estimate(plan, told),
        parts.command: outlook.command(checked.command_line),
    }


def _there(context: Context, parts: Parts, checked: Checked, plan: Plan | str) -> Updates:
    """What is known of it on a cluster, and the file for that."""
    return {
        parts.line: outlook.line_there(plan, there.line(checked)),
        parts.reasons: show.reasons(checked, "Submit"),
        parts.estimate: "",
        parts.command: there.file(context, checked),
    }


def _named_after_text(context: Context, now: Draft, before: str) -> str | None:
    """The name of a run that nobody named once another text is chosen; None where the name stays.

    before: the last text that could be trained on, "" when the page has just been opened or filled.
    """
    source = forms.trained_on(now.values)
    if not before or source == before or not drafts.is_suggested(now.run, drafts.stem_of(context, now.preset, before)):
        return None
    try:
        forms.NAMING["data.mix" if forms.mixture(source) else "data.source"](context, source)
    except UserError:
        return None
    return drafts.free_name(context, drafts.stem_of(context, now.preset, source))


def _named(was: str, run: str) -> dict[str, Any]:
    return {"named": [was, run]}


def _notes(
    context: Context, parts: Parts, before: Mapping[str, Any], checked: Checked, more: Mapping[str, Any]
) -> Updates:
    """All notes and what the browser is to keep, for the page's script; and the labels of the folds.

    more: what else the script is told, such as which filling of the form the answer is about.
    """
    changes = {change.name: change for change in checked.changes}
    notes = {name: str(text) for name in parts.fields.inputs
             if (text := show.note(name, *_told_at(checked, name, changes)))}  # fmt: skip
    now: dict[str, Any] = {**more, **({"notes": notes} if notes else {})}
    source, wrong = forms.trained_on(checked.draft.values), {"data.source", "data.mix"} & checked.problems.keys()
    now["source"] = str(before.get("source") or "") if wrong else source
    now["usual"] = forms.preset_texts(checked.draft.preset)["data.source"] if PRESET not in checked.problems else ""
    now["sources"] = show.by_source(checked.problems.get("data.mix", ()))
    now["target"] = checked.draft.elsewhere.target
    now["form"] = kept_form(checked.draft, context, now["source"])
    folded = [group for group in groups() if group.folded]
    for group in folded:
        problems, changed = (sum(n in found for n in group.names) for found in (checked.problems, changes))
        if problems or changed:
            now[f"fold {group.id}"] = [problems, changed]
    updates: Updates = {parts.shown: json.dumps(now)}
    for group in folded:
        key, fold = f"fold {group.id}", parts.fields.folds[group.id]
        problems, changed = now.get(key, (0, 0))
        # Sent every time: what the browser said it had may be from before an answer that was still on its way.
        label = fold_label(group, problems, changed)
        had = _had_problems(before.get(key))
        updates[fold] = gr.Accordion(label=label, open=True) if problems and not had else gr.Accordion(label=label)
    return updates


def _told_at(checked: Checked, name: str, changes: Mapping[str, Change]) -> tuple[list[str], Change | None, list[str]]:
    """What stands at a field: lines, its change, and the fields at which lines stand that name this one too."""
    first = {line: fields[0] for line, fields in checked.reasons if fields}
    lines = checked.problems.get(name, ())
    own = [line for line in lines if first.get(line, name) == name and not show.SOURCE.match(line)]
    return own, changes.get(name), [first[line] for line in lines if first.get(line, name) != name]


def _had_problems(counts: Any) -> bool:
    return isinstance(counts, list) and bool(counts) and bool(counts[0])


def _dictionary(text: Any) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def filled(context: Context, parts: Parts, loaded: Loaded, run: str | None, message: str = "") -> Updates:
    """Updates that fill the form. `run`: the new name of the run, None to leave it."""
    own = parts.fields.inputs
    updates: Updates = {own[PRESET]: loaded.preset, **parts.fields.values(loaded.values)}
    if run is not None:
        updates[own[RUN]] = run
    left = "; ".join(loaded.left_out)
    read = "".join(f"{line}. " for line in loaded.notices)
    words = " ".join(part for part in (message, f"Not taken: {left}." if left else "", read.strip()) if part)
    updates[parts.message] = show.status(words)
    return {**updates, parts.filled: secrets.token_hex(4)}


def choose_preset(context: Context, parts: Parts, data: Data) -> Updates:
    """Another preset: its values, and its name for a run that had no name of its own. Which one is chosen is not set:
    it may be another one by the time of the answer."""
    now, own = draft_of(parts, data), parts.fields.inputs
    source = forms.trained_on(now.values)
    suggested = drafts.is_suggested(now.run, drafts.stem_of(context, now.preset, source))
    named = _named(now.run, drafts.free_name(context, now.preset)) if suggested else {}
    updates = filled(context, parts, fill.from_preset(now.preset), None)
    del updates[own[PRESET]]
    return updates | {own[BRANCH]: "", parts.filled: json.dumps({**named, "nonce": secrets.token_hex(4)})}


def choose_devices(parts: Parts, data: Data) -> Any:
    """Other GPUs: one process on each. On anything else the number stays."""
    now = draft_of(parts, data)
    if drafts.device_kind(now.devices) != "cuda":
        return gr.skip()
    return str(drafts.first_processes(now.preset, now.devices))


def reset(context: Context, parts: Parts, name: str, data: Data) -> Updates:
    """One setting as in the preset, or with `*` all of them."""
    texts = fill.from_preset(draft_of(parts, data).preset).values
    if name != "*":
        if name not in texts:
            raise UserError(f"{name!r} is not a setting")
        texts = {name: texts[name]}
    own: Updates = {parts.fields.inputs[BRANCH]: "", parts.message: ""} if name == "*" else {}  # no branch any more
    return {**parts.fields.values(texts), **own, parts.filled: secrets.token_hex(4)}


def answer_request(context: Context, parts: Parts, text: str, data: Data) -> Updates:
    """What another tab, or the address, asked for."""
    now = draft_of(parts, data)
    request = Page.request(text)
    found = fill.from_request(context, request, dict(now.values), now.preset)
    if found is None:
        return {parts.message: gr.skip()}
    loaded, stem = found
    changed = f" with {request['settings']}" if request.get("settings") else ""
    told = {
        "from_run": f"Copied from run {stem}{changed}: change what you like, then start or queue it.",
        "from_job": f"Copied from {stem}: change what you like, then start or queue it.",
        "tokenizer": "The new run uses this tokenizer.",
        "train_on": "The new run reads this text.",
        "settings": f"The form is as it was,{changed}.",
    }
    message = next((words for key, words in told.items() if key in request), "")
    run = drafts.free_name(context, stem) if not {"tokenizer", "train_on"} & request.keys() else None
    devices, processes = fill.machine_of(context, request)
    own = parts.fields.inputs
    machine: Updates = {own[DEVICES]: list(devices)} if devices else {}
    machine |= {own[NPROC]: str(processes)} if processes else {}
    branch = fill.place(context, request) if "branch" in request else None
    if branch:
        message = fill.branch_said(branch, str(request.get("at") or ""))
    names_run = {"from_run", "from_job", "preset"} & request.keys()
    own_branch = {own[BRANCH]: f"{branch[0]}@{branch[1]}" if branch else ""} if branch or names_run else {}
    return filled(context, parts, loaded, run, message) | machine | own_branch


def upload(context: Context, parts: Parts, file: str | None) -> Updates:
    """A TOML file into the form, bad values and all."""
    loaded = fill.from_upload(file)
    return filled(context, parts, loaded, None, "The file's settings are in the form.")


def download(context: Context, parts: Parts, data: Data) -> str:
    """The form as the TOML file that the command line reads, for the browser to save."""
    checked = drafts.check(context, draft_of(parts, data))
    if checked.config is None:
        raise UserError("the settings are not sound yet: " + "; ".join(line for line, _ in checked.reasons))
    name = f"{checked.draft.run or 'settings'}.toml" if RUN not in checked.problems else "settings.toml"
    return json.dumps({"name": name, "text": to_toml(checked.config), "nonce": secrets.token_hex(4)})


def launch(context: Context, parts: Parts, at_once: bool, data: Data) -> tuple[str, Updates]:
    """Starts or queues the form's run; the name, and a form ready for the next. UserError with every reason why not."""
    draft = draft_of(parts, data)
    job = drafts.launch(context, draft, at_once)
    return job.run, {parts.filled: _next(context, draft)}


def hand_over(context: Context, parts: Parts, data: Data) -> tuple[str, Updates]:
    """Hands the form's run to its cluster; the name, and a form ready for the next. The name is "" where it was not
    handed over, and the engine's own words are shown."""
    draft = draft_of(parts, data)
    said, problem = there.hand_over(context, draft)
    if not said and problem:
        return "", {parts.handing: problem}
    return draft.run, {parts.filled: _next(context, draft)}


def _next(context: Context, begun: Draft) -> str:
    """For `filled`: what follows a draft that was begun, a run of its own under the next name."""
    named = _named(begun.run, drafts.free_name(context, begun.run))
    return json.dumps({**named, "branch": begun.branch, "nonce": secrets.token_hex(4)})


def launch_first(context: Context) -> str:
    """Starts the newcomer's run, whatever the form holds by now; its name."""
    return drafts.launch(context, first_draft(context), True).run


def restore(context: Context, parts: Parts, kept: str | None) -> Updates:
    """The form as the browser kept it, bad values and all; without one, as it opens under a name that is free now."""
    found, own = from_kept(kept), parts.fields.inputs
    if found is None:
        return {own[RUN]: drafts.free_name(context, drafts.FIRST_PRESET), parts.filled: secrets.token_hex(4)}
    preset, values = found.loaded.preset, found.loaded.values
    run = found.run or drafts.free_name(context, drafts.stem_of(context, preset, forms.trained_on(values)))
    devices = [device for device in found.devices or [] if device in context.jobs.slots]
    devices = devices or drafts.first_devices(context)
    processes = found.processes or str(drafts.first_processes(preset, devices))
    machine: Updates = {own[DEVICES]: devices, own[NPROC]: processes}
    machine |= {own[name]: text for name, text in found.launch.items() if name in own}
    return filled(context, parts, found.loaded, run) | machine | {own[BRANCH]: found.branch}


def suggest_name(context: Context, parts: Parts, data: Data) -> Updates:
    """A free name after the one there is."""
    now = draft_of(parts, data)
    run = parts.fields.inputs[RUN]
    return {run: drafts.free_name(context, now.run or now.preset), parts.filled: secrets.token_hex(4)}
