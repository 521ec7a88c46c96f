"""Questions put to `mygpt2 judge` as tasks, and what is known of their verdicts. Knows nothing of Gradio."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mygpt2.config import preset_names
from mygpt2.config.earlier import names_of
from mygpt2.errors import UserError
from mygpt2.evals.protocols import PROTOCOLS
from mygpt2.experiments.arms import Spec
from mygpt2.experiments.folder import ExperimentDir, list_experiments
from mygpt2.experiments.judge import Prepared, Question, prepare
from mygpt2.experiments.telling import verdict_text
from mygpt2.run_dir.paths import NAME, RunDir
from workbench import forms
from workbench.context import Context
from workbench.jobs import RESULT, Task
from workbench.jobs.records import ID

KIND = "judge"
LABEL = "experiment "  # of the tasks of experiments, before the name
LOOKS = 50  # of an answer, the latest


@dataclass(frozen=True)
class Asked:
    """A question as it came: names of runs or presets, settings by dotted name, and of mixtures the source that the
    verdict is on. Nothing in it is believed."""

    base: str
    variant: str = ""
    base_settings: Mapping[str, Any] = field(default_factory=dict)
    variant_settings: Mapping[str, Any] = field(default_factory=dict)
    replicates: int = 3
    protocol: str = "run"
    source: str = ""


def prepared(context: Context, asked: Asked) -> Prepared:
    """What the question takes: arms, runs, cost. Starts nothing. UserError for what cannot be asked here."""
    base = _spec(context, asked.base, asked.base_settings)
    if asked.variant:
        variant = _spec(context, asked.variant, asked.variant_settings)
    else:
        variant = Spec(base.what, (*base.words, *_words(context, asked.variant_settings)))
        if variant == base:
            raise UserError("there is no variant; name one, or give settings of it that differ from the base's")
    if type(asked.replicates) is not int:
        raise UserError(f"replicates={str(asked.replicates)[:40]!r} is not a whole number; give 1 or more")
    protocol = _protocol(context, str(asked.protocol))
    return prepare(Question(base, variant, context.runs, asked.replicates, protocol, source=source_name(asked.source)))


def ask(context: Context, asked: Asked) -> tuple[Task, Prepared]:
    """Starts the question as a task, whose runs wait in the queue like any others. UserError says why it cannot."""
    context.changes()
    found = prepared(context, asked)
    found.cost()  # says which runs are in the way
    return context.jobs.tasks.start(KIND, command(context, found), label=LABEL + found.experiment), found


def command(context: Context, found: Prepared) -> list[str]:
    """The one command of a question, as a person would type it."""
    question = found.question
    words = [sys.executable, "-m", "mygpt2", "judge", question.base.what, question.variant.what]
    for head, spec in (("--base.", question.base), ("--variant.", question.variant)):
        words += [f"{head}{word.removeprefix('--')}" for word in spec.words]
    words += ["--source", question.source] if question.source else []
    return [*words, "--replicates", str(question.replicates), "--protocol", question.protocol,
            "--runs", str(context.runs), "--json", RESULT]  # fmt: skip


def source_name(given: Any) -> str:
    """A name as one of a mixture's sources may have it; whether the arms do have it, the question checks."""
    if not isinstance(given, str) or len(given) > forms.MAX_TEXT or not given.isprintable() or given.startswith("-"):
        raise UserError(
            f"source={str(given)[:40]!r} is no name of a source; give one of the mixtures', or none for all"
        )
    return given.strip()


def verdict(context: Context, name: str) -> dict[str, Any]:
    """What is known of a question: of a task by its id, or all looks of an experiment by its name."""
    if ID.fullmatch(name):
        task = context.jobs.tasks.get(name)
        if task.kind != KIND:
            raise UserError(f"task {name!r} is no question that was judged; give the task that judge answered with")
        found = task.result if isinstance(task.result, dict) else None
        progress = task.progress
        return {
            "task": task.id, "state": task.state, "error": task.error, "verdict": found,
            "words": verdict_text(found) if found else "",
            "progress": {"title": progress.title, "done": progress.done, "total": progress.total} if progress else None,
        }  # fmt: skip
    folder = ExperimentDir.open(context.runs, name)
    ledger = folder.ledger()
    return {
        "experiment": folder.name, "settings": folder.settings(), "arms": folder.arms(), "questions": len(ledger),
        "damaged_lines": ledger.damaged, "looks": folder.looks()[-LOOKS:],
    }  # fmt: skip


def experiments(context: Context) -> list[str]:
    """Names of all experiments of the folder."""
    return [each.name for each in list_experiments(context.runs)]


def _spec(context: Context, name: str, settings: Mapping[str, Any]) -> Spec:
    """A run of this folder or a preset, never a file: paths are the command line's."""
    name = str(name or "").strip()
    words = _words(context, settings)
    if NAME.fullmatch(name) and (RunDir(context.runs / name).exists() or name not in preset_names()):
        run = context.run(name)
        context.configuration(run)
        return Spec(f"run:{run.name}", words)
    if name in preset_names():
        return Spec(f"preset:{name}", words)
    raise UserError(f"{name[:80]!r} is neither a run nor a preset; presets: {', '.join(preset_names())}")


def _words(context: Context, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings as words of a command line; what names data, models or folders must be allowed here."""
    if not isinstance(settings, Mapping):
        raise UserError('settings are an object such as {"optimizer.lr": 0.003}')
    known = forms.settings()
    words: list[str] = []
    for name, value in settings.items():
        setting = known.get(names_of(str(name))[0])
        if setting is None:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else "see python -m mygpt2 train --help"
            raise UserError(f"setting {str(name)[:80]!r} is not known; {hint}")
        if not isinstance(value, str | int | float | list | None):
            raise UserError(f"setting {name} is an object; give text, a number, true or false, a list or null")
        text = "none" if value is None else forms.text_of(setting, value)
        if len(text) > forms.MAX_TEXT or "\0" in text:
            raise UserError(f"setting {name} is too long, or holds a character that no command can; give another")
        if setting.name in forms.NAMING and value:
            text = forms.NAMING[setting.name](context, text)
        words.append(f"--{name}={text}")
    return tuple(words)


def _protocol(context: Context, name: str) -> str:
    """A published protocol or the held-out set of a run, never a path."""
    if name.startswith("run:"):
        return f"run:{context.run(name.partition(':')[2]).name}"
    if name != "run" and name not in PROTOCOLS:
        raise UserError(f"protocol {name[:80]!r} is not known; allowed: run, run:NAME, {', '.join(PROTOCOLS)}")
    return name
