"""Fragments of markup for gr.HTML. Everything that is not `Markup` is escaped here, once."""

from __future__ import annotations

import html as _html
import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

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


def empty(text: str, action: str = "") -> Markup:
    """What stands where there is nothing yet: why, and what to do."""
    then = f"<p>{escape(action)}</p>" if action else ""
    return Markup(f'<div class="wb-empty"><p>{escape(text)}</p>{then}</div>')


def problem(text: str) -> Markup:
    """Something that is wrong, one paragraph per line."""
    lines = "".join(f"<p>{escape(line)}</p>" for line in str(text).splitlines())
    return Markup(f'<div class="wb-problem" role="alert">{lines}</div>')


def note(text: str) -> Markup:
    return Markup(f'<p class="wb-muted">{escape(text)}</p>')
