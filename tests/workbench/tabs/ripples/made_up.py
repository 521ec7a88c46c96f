"""Logs with a planted ripple, and the ripples tab as a page asks it."""

from __future__ import annotations

import math
import random
import time

from mygpt2.__main__ import main
from workbench.live import News
from workbench.tabs.ripples import view
from workbench.tabs.ripples.reports import command

PERIOD, AMPLITUDE = 25.0, 0.1
CSV = "step,tokens,train_loss\n"


def planted(steps=600, amplitude=AMPLITUDE, seed=0):
    """A CSV whose loss swings with PERIOD, its crest at the steps 0, PERIOD, ..."""
    noise = random.Random(seed)
    lines = []
    for step in range(1, steps + 1):
        wave = amplitude * math.cos(2 * math.pi * step / PERIOD)
        lines.append(f"{step},{step * 1000},{3 + 2 / (1 + step / 50) + wave + noise.gauss(0, 0.03)}")
    return CSV + "\n".join(lines) + "\n"


def write(context, name, text):
    path = context.data_roots[0] / name
    path.write_text(text)
    return name


def look(context, reports, asked, peak=None, seen=None):
    """A page's question and its answer: (the parts that came by name, what the page shows)."""
    news = News(seen)
    view.look(context, reports, {**asked, "peak": peak}, news)
    parts = news.changed["markup"] | news.changed["fields"] | news.changed["data"]
    return {name: str(part) if name in news.changed["markup"] else part for name, part in parts.items()}, {
        **(seen or {}), **news.digests
    }  # fmt: skip


def analysed(context, reports, asked):
    """Makes the report that a task would make, with the same words to the same verb, in this process; then looks."""
    subject = view.subject_asked(context, asked)
    file = reports.file(subject)
    file.parent.mkdir(parents=True, exist_ok=True)
    assert main(command(subject, file)[3:]) == 0
    return look(context, reports, asked, None, {})


def settled(context, reports, asked, seen=None):
    """Polls as a page does until no analysis is under way: (all parts that came, what the page shows)."""
    parts, seen = {}, dict(seen or {})
    deadline = time.monotonic() + 120
    while True:
        found, seen = look(context, reports, asked, None, seen)
        parts |= found
        if not reports.look(view.subject_asked(context, asked)).running:
            found, seen = look(context, reports, asked, None, seen)
            return parts | found, seen
        assert time.monotonic() < deadline, "the analysis did not end"
        time.sleep(0.1)
