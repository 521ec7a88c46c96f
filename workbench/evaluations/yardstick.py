"""GPT-2 124M on the held-out text of a run: what is known of it, what measuring it costs, and the start of that.

It is measured by the same command, in the same precision and on the same documents as the run itself, never quoted from
elsewhere. Its windows are its own: 1,024 tokens.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mygpt2.config.summary import count_parameters
from mygpt2.errors import UserError
from mygpt2.records import number, whole
from mygpt2.run_dir import RunDir, parse_lines
from mygpt2.run_dir.lines import tail_lines
from mygpt2.run_dir.settings import vocabulary_of
from workbench import tasklist, words
from workbench.context import Context
from workbench.evaluations.results import Loss, Result, Results
from workbench.evaluations.start import KIND, PRECISIONS, plans, start
from workbench.jobs import Task

MODEL, NAME = "gpt2", "GPT-2 124M"
REPOSITORY = "openai-community/gpt2"
PARAMETERS = 124_439_808
WEIGHTS_BYTES = 548_105_171  # of model.safetensors on the hub
WEIGHTS_FILE = "model.safetensors"
MOST_RUNS = 8
TOLD_SECONDS = 3600.0  # for which a failed measurement is spoken of
FIRST_TOKEN = 64  # bytes: it is no target, and not as long in one tokenizer as in another
TAIL_BYTES = 1 << 20  # of events.jsonl: the last validation is within them


def known(context: Context, request: Any) -> dict[str, dict[str, Any]]:
    """What the chart shows of GPT-2 beside each of `request["runs"]`.

    found: {"of", "loss", "bits", "window", "same", "text"} or None; `same`: in the run's own tokens, otherwise only
    its bits per byte compare. running, words: a measurement that is under way. problem: why the last one failed.
    can, cost: whether it may be started here, and what it takes.
    """
    names = request.get("runs") if isinstance(request, Mapping) else None
    found = {}
    for name in (names if isinstance(names, list) else [])[:MOST_RUNS]:
        try:
            run = context.run(str(name))
        except UserError:
            continue
        if validated := _last_validation(run):
            found[run.name] = _of_run(context, run, validated)
    return found


def measure(context: Context, name: str) -> str:
    """Starts the evaluation of GPT-2 on the held-out text of a run. UserError where it cannot be."""
    context.changes()
    run = context.run(name)
    validated = _last_validation(run)
    if validated is None:
        raise UserError(f"run {run.name} has not validated yet, so its held-out text is not known; wait for its first")
    precision = validated.get("precision")
    device = context.jobs.devices.free("")
    found = plans(context, [MODEL], f"run:{run.name}", "", 0, device, precision if precision in PRECISIONS else "fp32")
    start(context, found)
    return f"{NAME} is being measured on the held-out text of {run.name}"


def _of_run(context: Context, run: RunDir, validated: Mapping[str, Any]) -> dict[str, Any]:
    task = next((one for one in context.jobs.tasks.list(KIND) if _is_of(one, run.name)), None)
    found = _measured(context, validated)
    lately = bool(task and time.time() - (task.ended or task.created) < TOLD_SECONDS)
    return {
        "found": found,
        "running": bool(task and task.running),
        "words": _where(task) if task and task.running else "",
        "problem": task.error if task and not task.running and not found and lately else "",
        "can": not context.read_only,
        "cost": "" if found else _cost(run, validated),
    }


def _is_of(task: Task, run: str) -> bool:
    return _after(task.argv, "--model") == MODEL and _after(task.argv, "--protocol") == f"run:{run}"


def _after(argv: tuple[str, ...], option: str) -> str:
    return argv[argv.index(option) + 1] if option in argv[:-1] else ""


def _where(task: Task) -> str:
    told, share = tasklist.progress(task)
    left = task.progress.seconds_left if task.progress else None
    if share is None:
        return told if task.progress or _is_cached() else "looking for GPT-2 on the hub …"
    return f"{100 * share:.0f} %" + (f", {words.seconds(left)} left" if left is not None else "")


def _measured(context: Context, validated: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest result of GPT-2 on the run's documents."""
    for result in _results(context.runs).read():
        loss = result.loss
        if loss and _is_gpt2(result) and _same_text(context, loss, result, validated):
            return {
                "of": NAME, "loss": loss.loss, "bits": loss.bits_per_byte, "window": loss.window, "text": loss.text,
                "same": loss.token_sha256 == validated.get("token_sha256"),
            }  # fmt: skip
    return None


@cache
def _results(runs: Path) -> Results:
    return Results(runs)


def _is_gpt2(result: Result) -> bool:
    return result.model.removeprefix("openai-community/").partition("@")[0] == MODEL


def _same_text(context: Context, loss: Loss, result: Result, validated: Mapping[str, Any]) -> bool:
    """The same tokens; or, in GPT-2's, the held-out set of this run or of one with the same: as many documents and,
    but for the first token, as many bytes."""
    own = validated.get("token_sha256")
    if loss.token_sha256 and loss.token_sha256 == own:
        return True
    try:
        measured = _last_validation(context.run(loss.protocol.removeprefix("run:"))) or {}
    except UserError:
        return False
    size = whole(validated.get("bytes"))
    near = size is not None and abs(loss.bytes - size) <= FIRST_TOKEN
    same = own is not None and measured.get("token_sha256") == own
    return same and near and result.raw.get("documents") == validated.get("documents")


def _last_validation(run: RunDir) -> dict[str, Any] | None:
    for record in reversed(parse_lines(tail_lines(run.events_file, TAIL_BYTES)[0])[0]):
        if record.get("kind") == "eval" and number(record.get("loss")) is not None:
            return record
    return None


def _cost(run: RunDir, validated: Mapping[str, Any]) -> str:
    """What has to be fetched and about how long it takes, by how long the run's own validation takes."""
    size = f"{NAME}'s weights ({WEIGHTS_BYTES / 1e6:.0f} MB) "
    fetch = size + ("are on this machine already." if _is_cached() else _fetched())
    text = whole(validated.get("documents"))
    of = f" It reads the {text:,} documents that {run.name} is validated on" if text else " It reads the held-out text"
    seconds, own = number(validated.get("seconds")), _parameters(run)
    takes = (
        f", about {words.seconds(max(5.0, seconds * PARAMETERS / own))} on the run's device" if seconds and own else ""
    )
    return f"{fetch}{of}{takes}."


def _fetched() -> str:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return "are not on this machine, and HF_HUB_OFFLINE forbids to fetch them."
    return "are fetched once from huggingface.co."


def _is_cached() -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(REPOSITORY, WEIGHTS_FILE), str)


def _parameters(run: RunDir) -> int | None:
    from mygpt2.config import load_config

    ids = vocabulary_of(run)
    try:
        return count_parameters(load_config(file=run.config_file).model, ids) if ids else None
    except (OSError, UserError):
        return None
