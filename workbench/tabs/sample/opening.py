"""What the tab is opened with: two models, and a prompt that fits what the first one was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.machine import cache_folder
from mygpt2.run_dir import state_of
from mygpt2.run_dir.divergence import came_to_nothing
from workbench.context import Context
from workbench.corpus.library import Library
from workbench.models import choices, defaults
from workbench.page import Page

ANY_PROMPT = "The history of"
PROMPT_CHARS, PROMPT_WORDS = 60, 6  # of the beginning of a document
LOOKED_AT = 20_000  # characters of a document in which its first line of prose is looked for
_PROSE = re.compile(r"[^\W\d_][^\n]{24,}")  # a line that begins with a letter and is no mere heading

Offer = Mapping[str, str]  # the hidden box: models `a` and `b` as they were chosen for the person; the rest see `offer`


def offered(text: Any) -> dict[str, str]:
    """The hidden box's value; empty if it is damaged."""
    try:
        found = json.loads(text or "{}")
    except (TypeError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def monitored(address: Any) -> str:
    """The run that Monitor shows, by the page's address."""
    found = Page.request(str(address or ""))
    return str(found.get("focus") or "") or str(found.get("runs") or "").partition(",")[0]


def ticked(address: Any) -> list[str]:
    """The runs that are ticked in Monitor, in the order of its chart."""
    return [name for name in str(Page.request(str(address or "")).get("runs") or "").split(",") if name]


def offer(
    context: Context, before: Offer, now: Mapping[str, Any], link: Mapping[str, Any]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """(the hidden box's next content, choices): `a` and `b` are in it if they are chosen for the person now.

    now: models `a` and `b` of the fields, the run in `monitor`, and those `ticked` there, of which another one is model
    B beside the first. link: what the address or another tab names just
    now. What a person has chosen stays, until another run is opened in Monitor: then that is model A. `for` is the
    model that the prompt is to fit.
    """
    known = choices(context)
    a, b, monitor = (str(now.get(key) or "") for key in ("a", "b", "monitor"))
    named = str(link.get("model_a") or "")
    moved = bool(before.get("monitor")) and monitor not in ("", before["monitor"])
    follows = not named and (a in ("", before.get("a", "")) or moved)
    first, second = defaults(known, named or (monitor if follows else a), partial(_worth_a_look, context))
    second = _other_ticked(context, known, now.get("ticked") or [], first) or second
    found = {"monitor": monitor, "for": named or (first if follows else a)}
    if follows:
        found["a"] = first
    if not link.get("model_b") and b in ("", before.get("b", "")):
        found["b"] = second
    return found, known


def _other_ticked(context: Context, known: list[tuple[str, str]], ticked: list[str], first: str) -> str:
    """The run that is ticked beside the one of model A; "" where A is none of them."""
    run, values = first.partition("/")[0], {value for _, value in known}
    if run not in ticked:
        return ""
    return next((name for name in ticked if name != run and name in values and _worth_a_look(context, name)), "")


def _worth_a_look(context: Context, name: str) -> bool:
    """Whether a run is proposed for a comparison: it neither failed nor diverged."""
    try:
        run = context.run(name)
        return state_of(run).state != "failed" and not came_to_nothing(run)
    except (UserError, OSError):
        return False


def prompt_for(context: Context, library: Library, model: str) -> str:
    """The first words of the text a run was trained on, where it lies on this machine; else one of its own samples'."""
    try:
        config = context.configuration(context.run(model.partition("/")[0]))
        prompts = [_beginning(library.open(config.data).read(0))] if all(map(_lies_here, config.data.named)) else []
        return next(filter(None, [*prompts, *config.sample.prompts[-1:]]), ANY_PROMPT)
    except (UserError, LookupError):
        return ANY_PROMPT


def _lies_here(source: str) -> bool:
    """Whether a source can be opened without the network, and without making it first."""
    return (cache_folder() / "pydocs").is_dir() if source == "pydocs" else Path(source).is_absolute()


def _beginning(documents: Any) -> str:
    for document in list(documents)[:8]:
        line = _PROSE.search(document[:LOOKED_AT]) if isinstance(document, str) else None
        if line:
            return " ".join(line[0].split()[:PROMPT_WORDS])[:PROMPT_CHARS].rstrip(" ,;:.([")
    return ""
