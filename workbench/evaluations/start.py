"""From what a person chose to the evaluations to start: models, texts and files checked, one command for each model."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mygpt2.errors import UserError
from mygpt2.evals.protocols import PROTOCOLS
from mygpt2.run_dir.ghost import check_weights, ghost_of
from mygpt2.run_dir.marks import current_runs
from workbench.context import Context
from workbench.jobs import Task
from workbench.models import resolve, short

KIND = "eval"
MOST_MODELS = 16
ITEMS = 10_042
PRECISIONS = ("fp32", "bf16", "fp16", "tf32")


@dataclass(frozen=True)
class Plan:
    """One evaluation: `argv` is the command a person could type, `result` the file it writes."""

    label: str
    argv: tuple[str, ...]
    result: Path
    device: str


def protocols(context: Context) -> list[tuple[str, str]]:
    """(label, value) of the texts: held-out sets of runs, the published ones, and none."""
    runs = [(f"held-out text of run {run.name}", f"run:{run.name}") for run in current_runs(context.runs)
            if ghost_of(run) is None]  # fmt: skip
    published = [(f"{protocol.name}: {protocol.what}", protocol.name) for protocol in PROTOCOLS.values()]
    return [*runs, *published]


def plans(
    context: Context, models: Sequence[Any], protocol: Any, hellaswag: Any, items: Any, device: Any, precision: Any
) -> list[Plan]:
    """One evaluation for each different model. UserError for anything that cannot be evaluated."""
    specs = list(dict.fromkeys(resolve(context, model) for model in models or () if str(model).strip()))
    if not 1 <= len(specs) <= MOST_MODELS:
        raise UserError(f"{len(specs)} models are chosen; choose 1 to {MOST_MODELS} at the top")
    context.jobs.devices.check(device)
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is not known; choose from: {', '.join(PRECISIONS)}")
    text, choice_file = protocol_of(context, protocol), hellaswag_of(context, hellaswag)
    if not text and not choice_file:
        raise UserError("nothing to evaluate is chosen; choose a text, HellaSwag, or both")
    options = ["--protocol", text] if text else []
    if choice_file:
        count = items_of(items)
        options += ["--hellaswag", choice_file, *(["--limit", str(count)] if count else [])]
    options += ["--device", device.partition(":")[0], "--precision", precision, "--runs", str(context.runs)]
    measure = _measure(text, choice_file, options)
    what = " and ".join([*([_called(context, text)] if text else []), *(["HellaSwag"] if choice_file else [])])
    found = []
    for spec in specs:
        label, result = short(context, spec), result_file(context, spec, measure)
        argv = (sys.executable, "-m", "mygpt2", "eval", "--model", spec, *options, "--json", str(result))
        found.append(Plan(f"{label} on {what}", argv, result, device))
    return found


def start(context: Context, found: Sequence[Plan]) -> list[Task]:
    """Starts them as tasks; those of one device wait for each other. UserError for one that is going on already."""
    context.changes()
    tasks = context.jobs.tasks
    going = {task.result_file: task for task in tasks.list(KIND) if task.running}
    for plan in found:
        if plan.result in going:
            raise UserError(f"{plan.label} is being evaluated already; wait for it, or stop it first")
        context.jobs.devices.take(plan.device, but=KIND)  # evaluations wait for each other
    started = []
    for plan in found:
        plan.result.parent.mkdir(exist_ok=True)
        more: dict[str, Any] = {"result": plan.result, "devices": [plan.device], "turn": True}
        started.append(tasks.start(KIND, plan.argv, label=plan.label, **more))
    return started


def protocol_of(context: Context, text: Any) -> str:
    """A published name, run:NAME, the absolute path of a text, or "" for none. UserError otherwise."""
    text = str(text or "").strip()
    if not text or text in PROTOCOLS or text == "run":
        return text
    if text.startswith("run:"):
        run = context.run(text.removeprefix("run:"))
        check_weights(run)
        return f"run:{run.name}"
    path = context.path(text, "text")
    if not path.exists():
        raise UserError(
            f"{text!r} is not a text here; choose from: {', '.join(PROTOCOLS)}, run:NAME, or a path inside the roots"
        )
    return str(path)


def _called(context: Context, text: str) -> str:
    """A text in a person's words."""
    return f"the held-out text of {text[4:]}" if text.startswith("run:") else short(context, text)


def hellaswag_of(context: Context, text: Any) -> str:
    """`hub`, the absolute path of a file, or "" for none. UserError otherwise."""
    text = str(text or "").strip()
    if text in ("", "hub"):
        return text
    path = context.path(text, "HellaSwag file")
    if not path.exists():
        raise UserError(f"HellaSwag file {text!r} does not exist; give hub, or a file inside the roots")
    return str(path)


def items_of(value: Any) -> int:
    """How many items of HellaSwag, 0 for all: clamped."""
    try:
        number = int(float(value or 0))
    except (TypeError, ValueError, OverflowError):
        return 0
    return number if 0 < number < ITEMS else 0


def result_file(context: Context, spec: str, measure: str) -> Path:
    """Where a result lies: with its run, or, of a model without one, with the workbench."""
    path = Path(spec)
    if path.parent.name == "checkpoints" and path.is_relative_to(context.runs):
        return path.parent.parent / "evals" / f"{path.name}-{measure}.json"
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", short(context, spec))[-60:].strip("-.")
    return own_folder(context) / f"{name}-{_digest(spec)}-{measure}.json"


def own_folder(context: Context) -> Path:
    """Results of models that have no run."""
    folder = context.runs / ".workbench" / "evals"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _measure(text: str, choice_file: str, options: Sequence[str]) -> str:
    """A name for what is measured: the same for the same, so that a stopped HellaSwag is taken up again."""
    name = text if re.fullmatch(r"[\w-]*", text) else re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-40:].strip("-.")
    parts = [name] if name else []
    parts += ["hellaswag"] if choice_file else []
    return "-".join([*parts, _digest(repr([*options]))])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
