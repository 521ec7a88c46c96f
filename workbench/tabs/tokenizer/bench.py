"""What the tokenizer tab's handlers share, and their markup: tasks, what was learnt, and texts as tokens."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, field

from mygpt2.errors import UserError
from mygpt2.tokenizer import Tokenizer
from workbench import html
from workbench.context import Context
from workbench.jobs import Task, TaskProgress
from workbench.tabs.tokenizer.choose import Tokenizers, tokenizer_of
from workbench.tabs.tokenizer.merges import Stories
from workbench.tabs.tokenizer.tokens import coloured, summary, tokens_of
from workbench.tabs.tokenizer.trained import Trained, trained
from workbench.tabs.tokenizer.training import Order, command_of, in_words, out_of

SHOWN_TASKS = 8
BADGES = {"running": "running", "done": "finished", "failed": "failed", "stopped": "stopped", "lost": "lost"}


@dataclass
class Bench:
    """Loaded tokenizers, and the prose that was last read for a comparison. Made once per server."""

    tokenizers: Tokenizers = field(default_factory=Tokenizers)
    stories: Stories = field(default_factory=Stories)
    prose: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def load(self, context: Context, text: str) -> Tokenizer:
        return self.tokenizers.get(tokenizer_of(context, text))


def look(context: Context, bench: Bench, spec: str, text: str) -> tuple[html.Markup, html.Markup]:
    """(the counts, the coloured tokens) of a typed text; what is wrong with the tokenizer stands in their place."""
    try:
        tokenizer = bench.load(context, spec)
    except UserError as error:
        return html.Markup(""), html.problem(str(error))
    tokens = tokens_of(tokenizer, str(text or ""))
    gpt2 = None
    if tokens.ids and spec.strip() != "gpt2":
        gpt2 = len(bench.tokenizers.get("gpt2").encode(str(text)[: len(str(text)) - tokens.cut]))
    name = str(spec).strip().rstrip("/").rpartition("/")[2]
    return summary(tokens, name, tokenizer.vocab_size, gpt2), coloured(tokens)


def check(context: Context, order: Order) -> html.Markup:
    """The command that Start would run, or what is wrong with the form."""
    try:
        words = command_of(context, order)
    except UserError as error:
        return html.problem(str(error))
    shown = shlex.join(["python", *words[1:]])
    return html.Markup(f'<pre class="wb-command wb-mono" tabindex="0">{html.escape(shown)}</pre>')


def choices(context: Context) -> list[tuple[str, str]]:
    """(label, value) of the tokenizers to choose from."""
    ours = [(f"{t.name} ({t.report.get('vocab_size', '?')} ids)", str(t.path)) for t in trained(context)]
    return [("gpt2 (50257 ids)", "gpt2"), ("gpt2:8192", "gpt2:8192"), *ours]


def task_choices(tasks: list[Task]) -> list[tuple[str, str]]:
    return [(f"{task.label}, {task.state}", task.id) for task in tasks[:SHOWN_TASKS]]


def task_list(tasks: list[Task]) -> html.Markup:
    """Trainings, newest first, with how far they are."""
    if not tasks:
        return html.empty("No tokenizer has been trained from this page yet.", "Fill in the form and press Start.")
    rows = [
        (html.badge(BADGES.get(t.state, "lost")), t.label, _progress(t), _clock(t.created), out_of(t) or "")
        for t in tasks[:SHOWN_TASKS]
    ]
    return html.table(["state", "tokenizer", "progress", "started (UTC)", "folder"], rows, caption="Trainings")


def _progress(task: Task) -> html.Markup:
    if task.state == "failed" or task.state == "lost":
        return html.Markup(f'<span class="wb-bad">{html.escape(in_words(task.error))}</span>')
    if task.state == "stopped":
        return html.escape("stopped; nothing was left behind")
    if task.state == "done":
        return html.escape(next((line for line in reversed(task.log) if "bytes per token" in line), "done"))
    if task.progress is None:
        return html.escape("starting")
    return _bar(task.progress)


def _bar(progress: TaskProgress) -> html.Markup:
    """A bar with its figures in words beside it."""
    unit = "bytes" if progress.unit == "B" else progress.unit
    amount = f"{progress.done:,.0f}" + (f" of {progress.total:,.0f}" if progress.total else "")
    parts = [progress.title, f"{amount} {unit}"]
    if progress.rate:
        parts.append(f"{progress.rate:,.0f} {unit} a second")
    if progress.seconds_left is not None:
        parts.append(f"{_duration(progress.seconds_left)} left")
    words = html.escape(" \u00b7 ".join(parts))
    share = progress.share
    value = f' value="{share:.4f}"' if share is not None else ""
    return html.Markup(f'<progress class="wb-bar" max="1"{value} aria-label="{words}"></progress> {words}')


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(seconds))


def trained_list(found: list[Trained]) -> html.Markup:
    """What was learnt here, newest first, with the report's figures."""
    if not found:
        return html.empty("No tokenizer of your own yet.", "Train one: the built-in documentation takes a few seconds.")
    headers = ["name", "ids", "pattern", "source", "documents", "text", "bytes per token", "made (UTC)", "folder"]
    rows = []
    for each in found:
        r = each.report
        rows.append((
            each.name, _figure(r.get("vocab_size")), r.get("pattern"), r.get("source"), _figure(r.get("documents")),
            f"{r['bytes'] / 1e6:,.1f} MB" if isinstance(r.get("bytes"), int) else None,
            f"{r['bytes_per_token']:.3f}" if isinstance(r.get("bytes_per_token"), float) else None,
            _clock(each.time), each.path,
        ))  # fmt: skip
    return html.table(headers, rows, {1, 4, 5, 6}, "Tokenizers learnt here, and in the data roots")


def _figure(value: object) -> str | None:
    return f"{value:,}" if isinstance(value, int) else None
