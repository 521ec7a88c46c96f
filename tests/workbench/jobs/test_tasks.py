"""Long work besides runs: it outlives the server, tells how far it is, and ends when it is told to."""

import errno
import json
import signal
import sys

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import Process
from tests.workbench.jobs.helpers import PYTHON, until
from workbench.jobs import RESULT, Tasks, spawn

PROGRESS = (
    "import json, os, sys, time; p = os.environ['MYGPT2_PROGRESS'];"
    "open(p, 'w').write(json.dumps({'title': 'reading', 'done': 3, 'total': 12, 'unit': 'files', 'rate': 1.5,"
    "'seconds_left': 6.0, 'time': 1.0})); print('began', flush=True); time.sleep(600)"
)
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


@pytest.fixture
def tasks(tmp_path):
    tasks = Tasks(tmp_path / "tasks")
    yield tasks
    for task in tasks.list():
        for process in spawn.marked(spawn.TASK, task.id):
            process.send(signal.SIGKILL)


def ended(tasks, id):
    until(lambda: not tasks.get(id).running)
    return tasks.get(id)


def test_a_task_that_is_done_has_its_result_and_its_log(tasks):
    code = "import json, sys; print('hello'); json.dump({'loss': 3.2}, open(sys.argv[1], 'w'))"
    task = ended(tasks, tasks.start("eval", [*PYTHON, code, RESULT], label="gpt2 on edu-bn").id)
    assert (task.state, task.result, task.log, task.code) == ("done", {"loss": 3.2}, ("hello",), 0)
    assert (task.kind, task.label, task.error) == ("eval", "gpt2 on edu-bn", "")


def test_who_looks_while_a_task_is_being_started_sees_it_running(tasks, monkeypatch):
    """Between its record and its process a task was told to be lost."""
    seen, real = [], spawn.child_environment

    def look(*words, **more):
        seen.extend(task.state for task in tasks.list())
        return real(*words, **more)

    monkeypatch.setattr(spawn, "child_environment", look)
    ended(tasks, tasks.start("eval", [*PYTHON, "pass"], label="x").id)
    assert seen == ["running"]


def test_the_result_may_lie_elsewhere(tasks, tmp_path):
    out = tmp_path / "out.json"
    code = f"open({str(out)!r}, 'w').write('[1, 2]')"
    assert ended(tasks, tasks.start("eval", [*PYTHON, code], label="x", result=out).id).result == [1, 2]


def test_a_task_that_fails_says_why_in_its_own_words(tasks):
    code = "import sys; print('warming up'); print('error: there is no such model', file=sys.stderr); sys.exit(2)"
    task = ended(tasks, tasks.start("eval", [*PYTHON, code], label="x").id)
    assert (task.state, task.code, task.error) == ("failed", 2, "there is no such model")
    killed = ended(tasks, tasks.start("eval", [*PYTHON, "import os; os.kill(os.getpid(), 9)"], label="x").id)
    assert (killed.state, killed.code) == ("failed", 137) and "137" in killed.error


def test_a_command_that_does_not_exist_fails_with_a_word(tasks):
    task = ended(tasks, tasks.start("eval", ["/does/not/exist"], label="x").id)
    assert task.state == "failed" and "cannot start /does/not/exist" in task.error


def test_progress_is_what_the_command_last_wrote(tasks):
    task = tasks.start("tokenizer", [*PYTHON, PROGRESS], label="x")
    until(lambda: tasks.get(task.id).progress)
    progress = tasks.get(task.id).progress
    assert (progress.title, progress.share, progress.rate, progress.seconds_left) == ("reading", 0.25, 1.5, 6.0)
    assert tasks.get(task.id).running


def test_a_stop_is_passed_on_and_the_task_ends_as_stopped(tasks):
    task = tasks.start("tokenizer", [*PYTHON, PROGRESS], label="x")
    until(lambda: tasks.get(task.id).log)
    tasks.stop(task.id)
    assert ended(tasks, task.id).state == "stopped"
    until(lambda: spawn.marked(spawn.TASK, task.id) == [])


def test_one_that_does_not_listen_is_killed_after_the_grace_with_everything_it_started(tasks):
    code = f"import subprocess, sys; c = subprocess.Popen([sys.executable, '-S', '-c', {DEAF!r}]); {DEAF}"
    task = tasks.start("tokenizer", [*PYTHON, code], label="x")
    until(lambda: len(tasks.get(task.id).log) == 2)
    tasks.stop(task.id, grace=0.2)
    assert ended(tasks, task.id).state == "stopped"
    until(lambda: spawn.marked(spawn.TASK, task.id) == [])


def test_a_task_goes_on_without_its_server_and_is_found_by_the_next(tasks, tmp_path):
    code = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('through')"
    task = tasks.start("ripples", [*PYTHON, code, str(tmp_path / "go")], label="x")
    again = Tasks(tmp_path / "tasks")
    assert again.get(task.id).running
    (tmp_path / "go").touch()
    assert ended(again, task.id).state == "done" and again.get(task.id).log == ("through",)


def test_a_task_killed_with_its_runner_is_lost_and_leaves_nobody(tasks):
    task = tasks.start("eval", [*PYTHON, PROGRESS], label="x")
    until(lambda: tasks.get(task.id).log)
    runner = spawn.marked(spawn.TASK, task.id)[0]
    runner.send(signal.SIGKILL)
    task = ended(tasks, task.id)
    assert task.state == "lost" and "without a word" in task.error
    if sys.platform == "linux":
        until(lambda: spawn.marked(spawn.TASK, task.id) == [])


def test_a_reused_pid_is_not_a_running_task(tasks):
    task = ended(tasks, tasks.start("eval", [*PYTHON, "pass"], label="x").id)
    folder = tasks._folder / task.id
    (folder / "exit.json").unlink()
    tasks = Tasks(tasks._folder)
    record = json.loads((folder / "task.json").read_text())
    mine = {**Process.current().to_json(), "start": "another boot:1"}
    (folder / "task.json").write_text(json.dumps({**record, "process": mine}))
    assert tasks.get(task.id).state == "lost"


def test_what_is_over_is_read_once(tasks, tmp_path, monkeypatch):
    done = ended(tasks, tasks.start("eval", [*PYTHON, "open('{result}', 'w').write('1')"], label="x").id)
    monkeypatch.setattr(spawn, "tail", lambda *_: pytest.fail("its log was read again"))
    assert tasks.list() == [done] and tasks.get(done.id).result == 1
    tasks.forget(done.id)
    assert tasks.list() == []


def test_tasks_are_listed_by_kind_newest_first_and_forgotten_on_request(tasks):
    ids = [ended(tasks, tasks.start(kind, [*PYTHON, "pass"], label=kind).id).id for kind in ("eval", "ripples", "eval")]
    assert {task.id for task in tasks.list("eval")} == {ids[0], ids[2]}
    assert [task.created for task in tasks.list()] == sorted((task.created for task in tasks.list()), reverse=True)
    tasks.forget(ids[0])
    assert len(tasks.list()) == 2
    with pytest.raises(UserError, match="there is no task"):
        tasks.get(ids[0])


def test_one_that_runs_is_not_forgotten_nor_pruned(tasks):
    task = tasks.start("eval", [*PYTHON, PROGRESS], label="the long one")
    for _ in range(3):
        ended(tasks, tasks.start("eval", [*PYTHON, "pass"], label="x").id)
    with pytest.raises(UserError, match="the long one is still running"):
        tasks.forget(task.id)
    tasks.prune(keep=1)
    assert len(tasks.list()) == 2 and tasks.get(task.id).running


@pytest.mark.parametrize("id", ["", "..", "../../etc", "20260101-000000-zzzzzzzz"])
def test_an_id_that_is_none_is_unknown(tasks, id):
    with pytest.raises(UserError, match="there is no task"):
        tasks.stop(id)


def test_the_hubs_token_reaches_the_task_and_no_file(tasks, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "q" * 30)
    code = "import os; assert os.environ['HF_TOKEN'].startswith('hf_q')"
    assert ended(tasks, tasks.start("eval", [*PYTHON, code], label="x").id).state == "done"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"hf_qq" in p.read_bytes()]


def test_an_engine_verb_tells_its_progress(tasks, tmp_path, monkeypatch):
    """A real one: a small tokenizer, learnt from a text file."""
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("\n\n".join(f"the quick brown fox number {n} jumps" for n in range(4000)))
    argv = [sys.executable, "-m", "mygpt2", "tokenizer", "train", "--source", str(text), "--vocab-size", "300",
            "--out", str(tmp_path / "tok")]  # fmt: skip
    task = ended(tasks, tasks.start("tokenizer", argv, label="x").id)
    assert task.state == "done", task.log
    assert task.progress and task.progress.title == "merge" and task.progress.share == 1.0


def test_without_file_locks_too_one_that_does_not_listen_is_killed_after_the_grace(tasks, monkeypatch):
    def no_lock(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(spawn.fcntl, "flock", no_lock)
    task = tasks.start("eval", [*PYTHON, DEAF], label="x")
    until(lambda: tasks.get(task.id).log == ("deaf",))
    tasks.stop(task.id, grace=0.2)
    assert ended(tasks, task.id).state == "stopped"


@pytest.mark.parametrize(
    "damage",
    [
        {"created": "yesterday"}, {"created": 10**400}, {"created": float("nan")}, {"argv": 7}, {"kind": None},
        {"result": "a\0b"}, {"process": {"pid": 10**400, "start": "x", "host": "y"}},
    ],
)  # fmt: skip
def test_a_damaged_task_hides_no_other(tasks, damage):
    bad, good = (ended(tasks, tasks.start("eval", [*PYTHON, "pass"], label=label).id) for label in ("bad", "good"))
    file = tasks._folder / bad.id / "task.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **damage}))
    fresh = Tasks(tasks._folder)
    assert good.label in [task.label for task in fresh.list()]
    fresh.prune(0)
    assert fresh.list() == []


@pytest.mark.parametrize("record", [{"code": 10**400}, {"code": "0", "time": "x"}, {"code": 0, "time": float("inf")}])
def test_a_damaged_end_of_a_task_is_no_crash_of_the_list(tasks, record):
    task = ended(tasks, tasks.start("eval", [*PYTHON, "pass"], label="x").id)
    (tasks._folder / task.id / "exit.json").write_text(json.dumps(record))
    (tasks._folder / task.id / "progress.json").write_text(json.dumps(
        {"title": "x", "done": 10**400, "total": 1e999, "unit": "files", "time": "z"}))  # fmt: skip
    assert [found.label for found in Tasks(tasks._folder).list()] == ["x"]
