"""What the Train tab says at its fields, as markup: what is wrong, why Start is off, what differs from the preset."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mygpt2.config.fields import settings
from mygpt2.train.branching import lines
from workbench.draft import BRANCH, DEVICES, NPROC, PRESET, RUN, Checked
from workbench.elsewhere import FIELDS, FOLD, LABELS
from workbench.forms import Change
from workbench.html import Markup, button, escape, join
from workbench.tabs.train.groups import group_of

LONGEST = 120  # characters of a value in a list
SOURCE = re.compile(r"data\.mix, source (\d{1,4})(?: \([^)]*\))?: ")  # how a message on a source of a mixture begins
# Names of what is no setting.
NAMES = {
    PRESET: "Preset", RUN: "Name", DEVICES: "Devices", NPROC: "Processes", BRANCH: "Branch of", **LABELS,
}  # fmt: skip


def field_id(name: str) -> str:
    """The elem_id of a field: field-train-steps for train.steps."""
    return f"field-{name.replace('.', '-').replace('_', '-')}"


def title(name: str) -> str:
    """What a field is called on the page."""
    return settings()[name].title if name in settings() else NAMES.get(name, name)


def link(name: str) -> Markup:
    """A link that brings the keyboard to a field, also to one in a fold or left out by a search."""
    group = group_of(name)
    fold = f' data-fold="fold-{group.id}"' if group and group.folded else ""
    fold = f' data-fold="{FOLD}"' if any(each.name == name and each.folded for each in FIELDS) else fold
    return Markup(f'<a href="#{field_id(name)}" data-field="{escape(name)}"{fold}>{escape(title(name))}</a>')


def note(name: str, lines: Sequence[str], change: Change | None, see: Sequence[str] = ()) -> Markup:
    """What stands below a field: what is wrong with it, or how it differs from the preset; nothing otherwise.

    see: other fields, at which a message stands that is about this one too.
    """
    parts = []
    if lines:
        text = join(Markup(f"<p>{escape(line)}</p>") for line in dict.fromkeys(lines))
        free = any("exists already" in line for line in lines) and name == RUN
        text = join([text, button("suggest", "", "Use a free name", "Use a free name", "wb-link") if free else ""])
        parts.append(Markup(f'<div class="wb-field-note wb-field-problem" role="alert">{text}</div>'))
    elif see:
        others = Markup(", ").join(link(other) for other in dict.fromkeys(see))
        parts.append(Markup(f'<div class="wb-field-note wb-field-problem"><p>Does not fit: see {others}.</p></div>'))
    if change and change.follows:
        words = Markup(f"becomes {_value(change.text)}, as other settings changed")
        parts.append(Markup(f'<p class="wb-field-note wb-field-change">{words}</p>'))
    elif change:
        words = Markup(f"preset: {_value(change.preset)} {_reset(change)}")
        parts.append(Markup(f'<p class="wb-field-note wb-field-change">{words}</p>'))
    return join(parts)


def by_source(lines: Sequence[str]) -> dict[str, list[str]]:
    """What is wrong with a mixture's sources, by number from 0, without the words that say where."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if place := SOURCE.match(line):
            found.setdefault(str(int(place[1]) - 1), []).append(line[place.end() :])
    return found


def status(words: str) -> Markup:
    """One line about what just happened to the form; nothing for no words."""
    return Markup(f'<p class="wb-muted" role="status">{escape(words)}</p>' if words else "")


def _reset(change: Change) -> Markup:
    return button("reset", change.name, "Reset", f"Reset {title(change.name)} to the preset", "wb-link")


def _value(text: str) -> Markup:
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return Markup(f"<b>{escape(shown)}</b>" if shown and shown != "[]" else "<b>unset</b>")


def reasons(checked: Checked, button: str = "Start") -> Markup:
    """Why Start is off, or the button: the fields to mend, as links, and in words what no field can mend; nothing when
    it is on.

    What is wrong with a field stands at the field, and nowhere else.
    """
    if not checked.reasons:
        return Markup("")
    fields = dict.fromkeys(named[0] for _, named in checked.reasons if named)
    rows = [link(name) for name in fields] + [escape(line) for line, named in checked.reasons if not named]
    items = join(Markup(f"<li>{row}</li>") for row in rows)
    mend = f"{button} is off. To mend:" if fields else f"{button} is off:"
    return Markup(f'<div class="wb-problem wb-reasons" role="status"><p>{mend}</p><ul>{items}</ul></div>')


def branch(checked: Checked) -> Markup:
    """What a branch begins with and what is no longer its parent's; nothing for a run that begins by itself."""
    if checked.branch is None:
        return Markup("")
    origin = checked.branch.origin
    changes = "; ".join(lines(origin)) or "nothing is changed: it repeats its parent's steps"
    steps = checked.branch.config.train.steps
    left = f"{steps - origin.step:,} of {steps:,} steps left"
    words = f"Begins after step {origin.step:,} of {origin.parent}, with {left}: {changes}."
    told = (escape(note[:1].upper() + note[1:]) for note in checked.branch.notes)
    notes = join(Markup(f'<p class="wb-warn">{note}.</p>') for note in told)
    return Markup(f'<p class="wb-muted" role="status">{escape(words)}</p>{notes}')


def busy(devices: Sequence[str], runs: Sequence[str]) -> Markup:
    """That Start will wait, and for whom; nothing when the devices are free."""
    if not runs:
        return Markup("")
    words = f"{', '.join(devices)} is busy with {', '.join(runs)}. Started now, this run comes next."
    return Markup(f'<p class="wb-muted" role="status">{escape(words)}</p>')


def changes(checked: Checked) -> Markup:
    """How many settings differ from the preset, folded which, with a reset for each and for all; nothing for none."""
    if not checked.changes:
        return Markup("")
    rows = join(
        Markup(
            f"<li>{link(c.name)} <code>{escape(c.name)}</code> {_value(c.preset)} → {_value(c.text)} "
            f"{Markup('(follows)') if c.follows else _reset(c)}</li>"
        )
        for c in checked.changes
    )
    count = len(checked.changes)
    head = f"{count} setting{'s' if count > 1 else ''} changed from {escape(checked.draft.preset)}"
    everything = button("reset", "*", "Reset to preset", "Reset all settings to the preset", "wb-link")
    return Markup(
        f'<div class="wb-changes" data-live="train.changes"><details><summary>{head}</summary><ul>{rows}</ul></details>'
        f"{everything}</div>"
    )
