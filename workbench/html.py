"""Fragments of markup for gr.HTML. Everything that is not `Markup` is escaped here, once."""

from __future__ import annotations

import html as _html
import itertools
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

Tone = Literal["neutral", "good", "warn", "bad"]
STATES = ("queued", "starting", "running", "saving", "stopped", "finished", "failed", "lost")


class Markup(str):
    """A string that is markup already, made by a function of this module."""


def escape(value: Any) -> Markup:
    """The value as text that no browser takes for markup; markup stays as it is, None becomes n/a."""
    if isinstance(value, Markup):
        return value
    return Markup("n/a" if value is None else _html.escape(str(value)))


def join(parts: Iterable[Any]) -> Markup:
    return Markup("".join(escape(part) for part in parts))


def badge(state: str) -> Markup:
    """A run's state as a word in its colour."""
    colour = f" wb-{state}" if state in STATES else ""
    return Markup(f'<span class="wb-badge{colour}">{escape(state)}</span>')


def card(title: str, rows: Sequence[tuple[Any, Any]], note: Any = "") -> Markup:
    """A titled list of label and value."""
    body = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in rows)
    below = f'<p class="wb-muted">{escape(note)}</p>' if note else ""
    return Markup(f'<section class="wb-card"><h3>{escape(title)}</h3><dl>{body}</dl>{below}</section>')


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], numeric: Collection[int] = (), caption: str = "",
    keys: Sequence[str] = (),
) -> Markup:  # fmt: skip
    """A table that scrolls sideways in its own box. `numeric`: columns set to the right. `keys`: what tells rows apart
    in a live view."""

    def cell(tag: str, column: int, value: Any) -> str:
        kind = ' class="wb-number"' if column in numeric else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{kind}{scope}>{escape(value)}</{tag}>"

    head = "".join(cell("th", i, header) for i, header in enumerate(headers))
    named = (f' data-key="{escape(key)}"' for key in keys) if keys else itertools.repeat("")
    body = "".join(
        f"<tr{name}>{''.join(cell('td', i, value) for i, value in enumerate(row))}</tr>"
        for row, name in zip(rows, named, strict=False)
    )
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Markup(
        f'<div class="wb-scroll" tabindex="0" role="region" aria-label="{escape(caption or "table")}">'
        f'<table class="wb-table">{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def button(act: str, target: str, text: str, label: str, kind: str = "wb-small") -> Markup:
    """A button of a part: its click carries the action and what it is done to, see `Page.live`."""
    return Markup(
        f'<button type="button" class="{kind}" data-act="{escape(act)}" data-id="{escape(target)}" '
        f'aria-label="{escape(label)}">{escape(text)}</button>'
    )


def item(
    text: str, act: str = "", target: str = "", *, href: str = "", press: str = "", key: str = "",
    tone: Tone = "neutral", note: str = "", disabled: bool = False,
) -> Markup:  # fmt: skip
    """One entry of a `menu`. It does one of three things.

    act, target: the action and id of a live part's button, see `button`. href: a link. press: the elem_id of a button
    of Gradio's, which may be hidden; the entry is disabled while that button is, and gone while there is none.
    key: what tells entries apart in a live view. tone: "bad" for what cannot be taken back. note: a second, small line.
    """
    more = f"<small>{escape(note)}</small>" if note else ""
    said = (
        f'class="wb-item wb-item-{tone}" role="menuitem" tabindex="-1" data-key="{escape(key or act or press or href)}"'
    )
    if href:
        return Markup(f'<a {said} href="{escape(href)}">{escape(text)}{more}</a>')
    does = f'data-press="{escape(press)}"' if press else f'data-act="{escape(act)}" data-id="{escape(target)}"'
    off = " disabled" if disabled else ""
    return Markup(f'<button type="button" {said} {does}{off}>{escape(text)}{more}</button>')


def menu(label: Any, items: Iterable[Markup], *, name: str = "", primary: bool = False) -> Markup:
    """A button that opens a list of `item`s: rarely used acts belong there. pieces.js gives it its keys.

    Enter opens it, the arrows move, Escape and a click elsewhere close it. name: what a screen reader says instead of
    the label, where that is a mere sign. It stays open when a live view patches it.
    """
    spoken = f' aria-label="{escape(name)}"' if name else ""
    kind = " wb-menu-primary" if primary else ""
    return Markup(
        f'<details class="wb-menu{kind}" data-key="menu {escape(name or label)}">'
        f'<summary aria-haspopup="menu"{spoken}>{escape(label)}</summary>'
        f'<div class="wb-menu-list" role="menu" aria-label="{escape(name or label)}">{join(items)}</div></details>'
    )


def dot(place: int, name: str = "") -> Markup:
    """The colour that a source of a mixture has on every page. `name`: what it is called, where no word says it."""
    said = f' role="img" aria-label="{escape(name)}" title="{escape(name)}"' if name else ' aria-hidden="true"'
    return Markup(f'<span class="wb-source-dot" style="background:var(--wb-run-{place % 12 + 1})"{said}></span> ')


def chip(text: Any, tone: Tone = "neutral", title: str = "") -> Markup:
    """A state or an alert in a word or two. The title says more, and is a word for it rather than the only one."""
    more = f' title="{escape(title)}"' if title else ""
    return Markup(f'<span class="wb-chip wb-chip-{tone}"{more}>{escape(text)}</span>')


def when(epoch: float | None, *, exact: bool = False) -> Markup:
    """A time in the reader's own zone: "12 min ago" with the date as title, or the date itself if `exact`.

    epoch: seconds since 1970. The browser writes it, see pieces.js; what stands here is UTC, for a page without script.
    """
    try:
        then = time.gmtime(float(epoch)) if epoch is not None else None
    except (OverflowError, ValueError, OSError, TypeError):
        then = None
    if then is None:
        return Markup("n/a")
    kind = ' exact=""' if exact else ""
    return Markup(
        f'<wb-when at="{float(epoch or 0):.0f}"{kind}><time datetime="{time.strftime("%Y-%m-%dT%H:%M:%SZ", then)}">'
        f"{time.strftime('%Y-%m-%d %H:%M', then)} UTC</time></wb-when>"
    )


def figures(found: Iterable[tuple[Any, Any] | tuple[Any, Any, Any]]) -> Markup:
    """A row of label and large number; a third value is a small line below, such as what it is compared with."""

    def one(label: Any, value: Any, below: Any = "") -> str:
        more = f'<dd class="wb-figure-below">{escape(below)}</dd>' if below else ""
        return f'<div class="wb-figure"><dt>{escape(label)}</dt><dd>{escape(value)}</dd>{more}</div>'

    return Markup(f'<dl class="wb-figures">{"".join(one(*each) for each in found)}</dl>')


def empty(text: str, action: Any = "") -> Markup:
    """What stands where there is nothing yet: what will be here, and what to do; as words, or as markup of a button."""
    then = (action if isinstance(action, Markup) else f"<p>{escape(action)}</p>") if action else ""
    return Markup(f'<div class="wb-empty"><p>{escape(text)}</p>{then}</div>')


def problem(text: str) -> Markup:
    """Something that is wrong, one paragraph per line."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in str(text).splitlines())
    return Markup(f'<div class="wb-problem" role="alert">{lines}</div>')


def note(text: str) -> Markup:
    return Markup(f'<p class="wb-muted">{escape(text)}</p>')
