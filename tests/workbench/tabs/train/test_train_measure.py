"""The Measure button: the steps `plan --measure` takes, as a task of the page, never beside other work on a device."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.planning import Measured, keep
from mygpt2.planning.speed import Speed
from mygpt2.verbs import plan as verb
from tests.workbench.jobs.helpers import PYTHON, until
from tests.workbench.tabs.train.test_train_tab import draft, make_context
from workbench import draft as drafts
from workbench.context import Context
from workbench.tabs.train import measure, outlook


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
    assert "starting" in measure.view(context.jobs.tasks.get(task.id)) and "Stop" in measure.view(task)
    measure.stop(context)
    until(lambda: not context.jobs.tasks.get(task.id).running)
    assert context.jobs.tasks.get(task.id).state == "stopped" and not measure.view(context.jobs.tasks.get(task.id))
    with pytest.raises(UserError, match="read-only"):
        measure.start(Context(context.runs, (), context.jobs, read_only=True), draft())


def test_what_was_measured_is_what_the_estimate_beside_start_says(
    context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    config = drafts.check(context, draft()).config
    assert config is not None

    def said() -> str:
        return outlook.line(drafts.estimate(context, drafts.check(context, draft(optimizer__lr="0.001"))))

    assert "rough estimate" in said() and ">measured<" not in said()
    speed = Speed(4000.0, 3900.0, 4100.0, "measured: 20 steps just now <img src=x>")
    keep(Measured(speed, 10**9, None, 20, speed.basis), config, world_size=2, device="cpu")
    assert ">measured<" in said() and "about 5 min" in said() and "<img" not in said()  # 1,146,880 tokens at 4,000/s
    assert "2.04 GB memory in 2 processes" in said(), "with the copies that saving makes, once"


def test_a_measurement_is_shown_while_it_goes_on_and_when_it_failed(context: Context) -> None:
    assert measure.view(None) == ""
    code = "import sys; print('error: no <b>room</b>'); sys.exit(3)"
    task = context.jobs.tasks.start(measure.KIND, [*PYTHON, code], label="Measuring tiny on 2 x cpu")
    until(lambda: not context.jobs.tasks.get(task.id).running)
    shown = measure.view(measure.newest(context))
    assert "Measuring tiny" in shown and "no &lt;b&gt;room" in shown and "Remove from the list" in shown
    with pytest.raises(UserError, match="allowed"):
        measure.act(context, "explode-measuring", task.id)
    measure.act(context, "forget-measuring", task.id)
    assert measure.newest(context) is None
