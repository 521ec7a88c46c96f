"""From the form to the one command that trains a tokenizer, and the tasks that run it."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from workbench import html, tasklist
from workbench.context import Context
from workbench.jobs import Task
from workbench.tabs.tokenizer.trained import new_place

KIND = "tokenizer"
SHOWN_ENDED = 8
AGAIN = ("again", "Start again")
COMMAND = ("-m", "mygpt2", "tokenizer", "train")
BUDGETS = {
    "the first gigabyte": "", "documents": "--documents", "bytes of text": "--bytes",
    "share of all documents (0 to 1)": "--share",
}  # fmt: skip
MOST_SPECIALS = 64
OPTION = re.compile(r"--[a-z-]+")
FIELDS = {
    "--vocab-size": "vocabulary size", "--pattern": "pattern", "--seed": "seed", "--special": "special tokens",
    "--documents": "documents", "--bytes": "bytes of text", "--share": "share of all documents", "--out": "the folder",
    "--source": "source",
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """What the form asks for, as it was typed."""

    source: str
    text_column: str
    vocab_size: Any
    pattern: str
    budget: str
    amount: Any
    specials: str
    place: str
    name: str
    seed: Any = 1337


def command_of(context: Context, order: Order) -> list[str]:
    """The command, after everything the engine would refuse is refused. UserError with the reason in our words."""
    try:
        return _command_of(context, order)
    except UserError as error:
        raise UserError(in_words(str(error))) from None


def in_words(text: str) -> str:
    """A line of the command line in the words of the form, which has no options."""
    return OPTION.sub(lambda found: FIELDS.get(found[0], found[0]), text)


def _command_of(context: Context, order: Order) -> list[str]:
    from mygpt2.tokenizer.training.corpus import Budget
    from mygpt2.tokenizer.training.create import Recipe

    source = context.source(order.source)
    specials = order.specials.replace(",", " ").split()
    if len(specials) > MOST_SPECIALS:
        raise UserError(f"{len(specials)} special tokens are given; at most {MOST_SPECIALS}")
    budget, words = _budget(order)
    recipe = Recipe(_whole(order.vocab_size, "vocabulary size"), order.pattern, tuple(specials), Budget(**budget),
                    _whole(order.seed, "seed"))  # fmt: skip
    out = new_place(context, order.place, order.name)
    column = str(order.text_column or "text").strip()
    return [
        sys.executable, *COMMAND, f"--source={source}", "--vocab-size", str(recipe.vocab_size), "--pattern",
        recipe.pattern, "--seed", str(recipe.seed), *words, *(["--special", *specials] if specials else []),
        f"--data.text_column={column}", "--out", str(out),
    ]  # fmt: skip


def check(context: Context, order: Order) -> html.Markup:
    """The command that Start would run, or what is wrong with the form."""
    try:
        words = command_of(context, order)
    except UserError as error:
        return html.problem(str(error))
    shown = shlex.join(["python", *words[1:]])
    return html.Markup(f'<pre class="wb-command wb-mono" tabindex="0">{html.escape(shown)}</pre>')


def start(context: Context, order: Order) -> Task:
    """Starts the training as a task that outlives the page. UserError where something is in the way."""
    context.changes()
    return _start(context, command_of(context, order))


def again(context: Context, id: str) -> Task:
    """The same command as a task that ended without a tokenizer."""
    context.changes()
    task = context.jobs.tasks.get(id)
    argv = list(task.argv)
    if tuple(argv[1:5]) != COMMAND or "--out" not in argv:
        raise UserError(f"task {id!r} is not the training of a tokenizer")
    if task.running:
        raise UserError(f"{task.label} is still running; stop it first")
    out = context.path(argv[argv.index("--out") + 1], "the new tokenizer's folder")
    if (out / "tokenizer.json").exists():
        raise UserError(f"{out} holds a tokenizer already; choose another name")
    return _start(context, [sys.executable, *argv[1:]])


def stop(context: Context, id: str) -> Task:
    context.changes()
    return context.jobs.tasks.stop(id)


def forget(context: Context, id: str) -> None:
    """Takes an ended task off the list; a tokenizer it made stays."""
    context.changes()
    context.jobs.tasks.forget(id)


def listed(tasks: list[Task]) -> html.Markup:
    """Trainings with how far they are; those that made no tokenizer can be started again."""
    if not tasks:
        return html.Markup("")

    def can(task: Task) -> list[tasklist.Action]:
        return [*([] if task.running or task.state == "done" else [AGAIN]), *tasklist.actions(task)]

    return tasklist.listed(tasks, SHOWN_ENDED, said=_said, error=in_words, actions=can)


def _said(task: Task) -> str:
    found = {"stopped": "stopped; nothing was left behind"}.get(task.state, "")
    if task.state == "done":
        found = next((line for line in reversed(task.log) if "bytes per token" in line), "done")
    return " · ".join(filter(None, (found, str(out_of(task) or ""))))


def out_of(task: Task) -> Path | None:
    """Where a task's tokenizer goes."""
    argv = list(task.argv)
    return Path(argv[argv.index("--out") + 1]) if "--out" in argv[:-1] else None


def _start(context: Context, argv: list[str]) -> Task:
    out = Path(argv[argv.index("--out") + 1])
    for task in context.jobs.tasks.list(KIND):
        if task.running and out_of(task) == out:
            raise UserError(f"{out.name} is being trained already; stop that first or choose another name")
    size = argv[argv.index("--vocab-size") + 1]
    return context.jobs.tasks.start(KIND, argv, label=f"{out.name} ({int(size):,} ids)")


def _budget(order: Order) -> tuple[dict[str, Any], list[str]]:
    """(the engine's budget, its words on the command line)."""
    if order.budget not in BUDGETS:
        raise UserError(f"budget {order.budget!r} is not known; allowed: {', '.join(BUDGETS)}")
    option = BUDGETS[order.budget]
    if not option:
        return {}, []
    key = option.removeprefix("--")
    if key == "share":
        value: float = _number(order.amount, order.budget)
    else:
        value = _whole(order.amount, order.budget)
    return {key: value}, [option, f"{value:g}" if key == "share" else str(value)]


def _whole(value: Any, what: str) -> int:
    number = _number(value, what)
    if number != int(number) or abs(number) > 2**53:
        raise UserError(f"{what} {value!r} is not a whole number; give one such as 8192")
    return int(number)


def _number(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{what}: {value!r} is not a number; give one") from None
    if number != number or number in (float("inf"), float("-inf")):
        raise UserError(f"{what}: {value!r} is not a number; give one")
    return number
