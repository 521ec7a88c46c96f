"""The Measure button: the steps `plan --measure` takes, as a task of the page, never beside other work on a device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.verbs import plan as verb
from tests.workbench.jobs.helpers import PYTHON, until
from tests.workbench.tabs.train.test_train_tab import draft, make_context
from workbench.context import Context
from workbench.tabs.train import measure


@pytest.fixture
def context(tmp_path: Path) -> Context:
    context = make_context(tmp_path)
    context.jobs.store.prepare()
    return context


def test_it_measures_what_the_form_holds_by_the_command_of_the_terminal(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    real = context.jobs.tasks.start

    def start(kind: str, argv: list[str], **more: object) -> object:
        started.append(argv)
        return real(kind, [*PYTHON, "pass"], **more)  # type: ignore[arg-type]

    monkeypatch.setattr(context.jobs.tasks, "start", start)
    task = measure.start(context, draft(run="taken or not", processes="1", train__steps="30"))
    until(lambda: not context.jobs.tasks.get(task.id).running)
    argv = started[0]
    assert argv[:5] == [sys.executable, "-m", "mygpt2", "plan", "--measure"]
    assert argv[argv.index("--nproc") + 1] == "1" and argv[-2:] == ["--train.steps", "30"]
    assert "train.steps 30 on 1 x cpu" in task.label and verb.TAKES_SETTINGS


def test_one_at_a_time_never_with_bad_settings_and_never_read_only(context: Context) -> None:
    with pytest.raises(UserError, match=r"train\.steps = 0"):
        measure.start(context, draft(train__steps="0"))
    task = context.jobs.tasks.start(measure.KIND, [*PYTHON, "import time; time.sleep(600)"], label="x")
    with pytest.raises(UserError, match="under way already"):
        measure.start(context, draft())
    assert "starting" in measure.view(context.jobs.tasks.get(task.id))
    measure.stop(context)
    until(lambda: not context.jobs.tasks.get(task.id).running)
    assert "stopped" in measure.view(context.jobs.tasks.get(task.id))
    with pytest.raises(UserError, match="read-only"):
        measure.start(Context(context.runs, (), context.jobs, read_only=True), draft())


def test_its_figures_are_shown_with_where_they_come_from_and_nothing_of_them_is_markup(context: Context) -> None:
    figure = '{"label": "Speed", "text": "4,000 tokens/s", "basis": "measured <img src=x>", "value": 4000}'
    code = f"import sys; open(sys.argv[1], 'w').write('{{\"figures\": {{\"time.speed\": {figure}}}}}')"
    task = context.jobs.tasks.start(measure.KIND, [*PYTHON, code, measure.RESULT], label="tiny on 2 x cpu")
    until(lambda: not context.jobs.tasks.get(task.id).running)
    shown = measure.view(measure.newest(context))
    assert "4,000 tokens/s" in shown and "tiny on 2 x cpu" in shown and "<img" not in shown
    assert measure.view(None) == ""


@pytest.mark.parametrize("result", ["", "[]", '{"figures": 3}', '{"figures": {"time.speed": 7}}'])
def test_a_damaged_result_is_said_to_be_one(context: Context, result: str) -> None:
    code = f"import sys; open(sys.argv[1], 'w').write({result!r})"
    task = context.jobs.tasks.start(measure.KIND, [*PYTHON, code, measure.RESULT], label="x")
    until(lambda: not context.jobs.tasks.get(task.id).running)
    assert "cannot be read" in measure.view(context.jobs.tasks.get(task.id))
