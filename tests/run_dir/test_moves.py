"""Rename, delete, restore, archive: a run is always whole in one place, and what named it follows."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from mygpt2.errors import UserError
from mygpt2.files import replace_json
from mygpt2.run_dir import RunDir, RunLock, RunWriter, list_runs
from mygpt2.run_dir.lock import holder
from mygpt2.run_dir.marks import current_runs, read_marks, set_group
from mygpt2.run_dir.mentions import present_name, renamed
from mygpt2.run_dir.moves import archive, delete, empty_trash, rename, restore, trash
from tests.run_dir.processes import record_rank, running

STEPS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.utime", "os.truncate", "open")


def ended(runs, name, steps=3):
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config("[data]\nsource = 'pydocs'\n")
        for step in range(1, steps + 1):
            writer.metrics(step=step, loss=5.0 - step)
        writer.status(state="running", phase="training", step=steps, steps=steps)
        writer.finish("finished", 0, "finished")
    (run.checkpoints_dir / "step-00000003").mkdir()
    (run.checkpoints_dir / "step-00000003" / "model.safetensors").write_bytes(b"w" * 1000)
    return run


def files(folder):
    """Every file of a run with its bytes, but the lock, which says who changed it last, and scratch of the killed."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".tmp"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.name != ".lock"}


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    ended(folder, "one")
    return folder


@pytest.fixture
def named(runs):
    """What the workbench wrote of run one: a job, an evaluation, a task, a study."""
    book = runs / ".workbench"
    for place in ("ended", "evals", "tasks/t", "ripples/studies"):
        (book / place).mkdir(parents=True)
    path = str(runs / "one")
    argv = ["python", "-m", "mygpt2.launch", "--runs", str(runs), "--run", "one"]
    replace_json(book / "ended" / "j.json", {"state": "stopped", "spec": {"run": "one", "argv": argv}})
    replace_json(book / "evals" / "e.json", {"model": "one/step-00000003", "details": {"run": path, "source": "one"}})
    words = ["eval", "--model", f"{path}/checkpoints/step-00000003", "--other", f"{path}-2/x"]
    replace_json(book / "tasks" / "t" / "task.json", {"label": "evaluation of one", "argv": words, "process": None})
    replace_json(book / "ripples" / "studies" / "s.json", {"runs": {"lanes": "one", "buffer": "other"}})
    return book


def read(path):
    return json.loads(path.read_bytes())


def test_a_rename_moves_the_folder_and_whatever_names_it_follows(runs, named):
    replace_json(runs / "one" / "evals" / "own.json", {"model": "one/step-00000003", "loss": 3.0})
    before, when = files(runs / "one"), os.stat(named / "evals" / "e.json").st_mtime
    renamed_run = rename(runs, "one", "two")
    assert renamed_run.path == runs / "two" and [run.name for run in list_runs(runs)] == ["two"]
    now = files(runs / "two")
    assert {name for name in before if before[name] != now[name]} == {"evals/own.json"} and before.keys() == now.keys()
    assert read(runs / "two" / "evals" / "own.json")["model"] == "two/step-00000003"

    assert read(named / "ended" / "j.json")["spec"]["run"] == "two"
    assert read(named / "ended" / "j.json")["spec"]["argv"][-2:] == ["--run", "two"]
    evaluation = read(named / "evals" / "e.json")
    assert evaluation == {"model": "two/step-00000003", "details": {"run": str(runs / "two"), "source": "one"}}
    assert abs(os.stat(named / "evals" / "e.json").st_mtime - when) < 0.01, "it was measured when it was"
    task = read(named / "tasks" / "t" / "task.json")
    assert task["label"] == "evaluation of two"
    assert task["argv"][2:] == [f"{runs}/two/checkpoints/step-00000003", "--other", f"{runs}/one-2/x"]
    assert read(named / "ripples" / "studies" / "s.json")["runs"] == {"lanes": "two", "buffer": "other"}
    assert present_name(runs, "one") == "two"


def test_links_follow_a_run_through_several_names_until_another_run_has_one(runs):
    rename(runs, "one", "two")
    rename(runs, "two", "three")
    assert present_name(runs, "one") == present_name(runs, "two") == "three"
    ended(runs, "one")
    assert present_name(runs, "one") == "one"
    rename(runs, "three", "two")
    assert renamed(runs) == {"one": "two", "three": "two"}


def test_a_name_that_is_taken_malformed_or_the_same_is_refused(runs):
    ended(runs, "two")
    (runs / "folder").mkdir()
    for name, why in (("two", "there is a 'two'"), ("folder", "there is a 'folder'"), ("one", "called that already"),
                      ("../x", "not allowed"), ("_trash", "not allowed"), ("a b", "not allowed")):  # fmt: skip
        with pytest.raises(UserError, match=why):
            rename(runs, "one", name)
    with pytest.raises(UserError, match="no run 'nine'"):
        rename(runs, "nine", "ten")
    assert [run.name for run in list_runs(runs)] == ["one", "two"]


def queue_it(runs):
    (runs / ".workbench" / "jobs").mkdir(parents=True)
    replace_json(runs / ".workbench" / "jobs" / "j.json", {"state": "queued", "spec": {"run": "one"}})


@pytest.mark.parametrize("act", [lambda runs: rename(runs, "one", "two"), lambda runs: delete(runs, "one")])
def test_a_run_at_work_queued_held_or_being_read_stays_as_it_is(runs, act):
    run = RunDir(runs / "one")
    with RunLock(run).acquire(), pytest.raises(UserError, match="held by a process; stop it first"):
        act(runs)
    with running() as rank:
        record_rank(run, 0, rank.pid)
        with pytest.raises(UserError, match=f"{rank.pid}"):
            act(runs)
        with RunWriter(run, 2) as writer:
            writer.status(state="running", phase="training", step=1, steps=3)
        record_rank(run, 0, rank.pid, attempt=2)
        with pytest.raises(UserError, match="'one' is running; stop it first: python -m mygpt2 runs stop one"):
            act(runs)
        with RunWriter(run, 2) as writer:
            writer.finish("stopped", 85, "stopped")
    task = runs / ".workbench" / "tasks" / "t"
    task.mkdir(parents=True)
    with running() as reader:
        from mygpt2.run_dir import Process

        process = Process.of(reader.pid)
        assert process
        words = ["eval", "--model", f"{run.path}/checkpoints/x"]
        replace_json(task / "task.json", {"label": "evaluation of one", "argv": words, "process": process.to_json()})
        with pytest.raises(UserError, match="being read"):
            act(runs)
    queue_it(runs)
    with pytest.raises(UserError, match="in the queue"):
        act(runs)
    assert [run.name for run in list_runs(runs)] == ["one"] and not trash(runs)


def test_a_run_whose_files_another_ones_settings_name_keeps_its_name(runs):
    other = ended(runs, "other")
    other.config_file.write_text(f'[data]\ntokenizer = "{runs}/one/tokenizer.json"\n')
    with pytest.raises(UserError, match="settings of run other name files of run 'one'"):
        rename(runs, "one", "two")


def test_a_link_to_another_folder_is_neither_renamed_nor_deleted(runs, tmp_path):
    ended(tmp_path / "elsewhere", "far")
    (runs / "far").symlink_to(tmp_path / "elsewhere" / "far")
    for act in (lambda: rename(runs, "far", "near"), lambda: delete(runs, "far")):
        with pytest.raises(UserError, match="link to another place"):
            act()
    (runs / "_trash").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link to another place"):
        delete(runs, "one")
    assert (runs / "one").is_dir() and trash(runs) == []


def test_deleted_runs_lie_in_the_trash_and_come_back_whole(runs):
    before = files(runs / "one")
    gone = delete(runs, "one")
    assert list_runs(runs) == [] and gone.path.parent == runs / "_trash" and gone.bytes > 1000
    ended(runs, "one", steps=2)
    second = delete(runs, "one")
    assert second.entry != gone.entry and [each.name for each in trash(runs)] == ["one", "one"]
    assert restore(runs, gone.entry).name == "one" and files(runs / "one") == before
    with pytest.raises(UserError, match=r"there is a 'one' in .* again; restore it under another name: .* --as NAME"):
        restore(runs, "one")
    assert restore(runs, second.entry, "again").name == "again" and trash(runs) == []
    with pytest.raises(UserError, match=r"no deleted run 'one'.*the trash is empty"):
        restore(runs, "one")


def test_emptying_the_trash_removes_what_is_named_or_all(runs):
    kept, other = delete(runs, "one"), ended(runs, "two")
    gone = delete(runs, other.name)
    assert [each.entry for each in empty_trash(runs, [gone.entry])] == [gone.entry]
    assert [each.entry for each in trash(runs)] == [kept.entry]
    (runs / "_trash" / ".going-half").mkdir()
    assert [each.entry for each in empty_trash(runs)] == [kept.entry]
    assert os.listdir(runs / "_trash") == []


def test_an_archived_run_is_hidden_from_pickers_and_keeps_what_else_is_said_of_it(runs):
    ended(runs, "two")
    replace_json(runs / "one" / "workbench.json", {"schema": 1, "star": True, "tags": ["x"]})
    set_group(RunDir(runs / "one"), " rate sweep ")
    assert archive(runs, "one") and not archive(runs, "one")
    assert [run.name for run in current_runs(runs)] == ["two"] and len(list_runs(runs)) == 2
    assert read_marks(RunDir(runs / "one")) == {"schema": 1, "star": True, "tags": ["x"], "group": "rate sweep",
                                               "archived": True}  # fmt: skip
    assert archive(runs, "one", False) and len(current_runs(runs)) == 2
    with pytest.raises(UserError, match="group '<b>' is not allowed"):
        set_group(RunDir(runs / "one"), "<b>")
    assert set_group(RunDir(runs / "one"), "") and "group" not in read_marks(RunDir(runs / "one"))
    with running() as rank, RunWriter(RunDir(runs / "two"), 2) as writer:
        writer.status(state="running", phase="training", step=1, steps=3)
        record_rank(RunDir(runs / "two"), 0, rank.pid, attempt=2)
        with pytest.raises(UserError, match="'two' is running; archive it once it has ended"):
            archive(runs, "two")


def killed_at(step, act):
    """Runs `act` in a process that is killed before its `step`-th change or opened file; whether it was."""
    child = os.fork()
    if not child:
        left = step

        def count(event, _):
            nonlocal left
            if event in STEPS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def places(runs):
    """Where runs lie, and their files."""
    found = [run.path for run in list_runs(runs)] + [each.path for each in trash(runs)]
    return {path: files(path) for path in found}


@pytest.mark.parametrize("what", ["rename", "delete", "restore", "empty", "archive"])
def test_killed_at_any_moment_a_run_is_whole_in_one_place(runs, named, what):
    entry = delete(runs, "one").entry if what in ("restore", "empty") else ""
    (before,) = places(runs).values()
    acts = {"rename": lambda: rename(runs, "one", "two"), "delete": lambda: delete(runs, "one"),
            "restore": lambda: restore(runs, entry), "empty": lambda: empty_trash(runs),
            "archive": lambda: archive(runs, "one")}  # fmt: skip
    back = {"rename": lambda: rename(runs, "two", "one"), "delete": lambda: restore(runs, "one"),
            "restore": lambda: delete(runs, "one")}  # fmt: skip
    for step in range(400):
        killed = killed_at(step, acts[what])
        now = places(runs)
        if what == "empty" and not now:
            if not killed:
                break
            continue  # it is on its way out, and nothing half removed is offered to be restored
        assert len(now) == 1, (step, list(now))
        ((path, content),) = now.items()
        marks = {"workbench.json": b""} if what == "archive" else {}
        assert {**content, **marks} == {**before, **marks}, step
        if what == "archive" and path.joinpath("workbench.json").exists():
            assert read_marks(RunDir(path)) == {"schema": 1, "archived": True}
        if not killed:
            break
        if what in back and not (path.name == "one" if what in ("rename", "delete") else path.name != "one"):
            back[what]()  # also completes what was cut short
            entry = trash(runs)[0].entry if what == "restore" else ""
    else:
        pytest.fail("it never ended")
    if what == "rename":
        assert read(named / "ended" / "j.json")["spec"]["run"] == "two"


def test_a_rename_that_was_cut_short_is_completed_by_the_next_change(runs, named):
    ended(runs, "bystander")
    step = 0
    while not (runs / "two").exists() or read(named / "renamed.json").get("moving") is None:
        killed = killed_at(step, lambda: rename(runs, "one", "two"))
        step += 1
        assert killed, "there is a moment between the folder's new name and that of what names it"
    assert read(named / "ended" / "j.json")["spec"]["run"] == "one"
    archive(runs, "bystander")
    delete(runs, "bystander")
    assert read(named / "ended" / "j.json")["spec"]["run"] == "two"
    assert read(named / "renamed.json") == {"schema": 1, "names": {"one": "two"}}


def test_a_rename_waits_for_no_pipe_and_takes_nothing_from_outside_the_run(runs, tmp_path):
    secret = tmp_path / "secret.json"
    secret.write_text('{"model": "one"}')
    os.mkfifo(runs / "one" / "evals" / "pipe.json")
    (runs / "one" / "evals" / "link.json").symlink_to(secret)
    words = (
        "import sys, pathlib; from mygpt2.run_dir.moves import rename; rename(pathlib.Path(sys.argv[1]), 'one', 'two')"
    )
    subprocess.run([sys.executable, "-c", words, str(runs)], check=True, timeout=60)
    assert (runs / "two" / "evals" / "link.json").is_symlink() and read(secret) == {"model": "one"}


@pytest.mark.parametrize("moving", [["gone", "../outside"], ["../x", "one"], ["one", "/"], [3, None], "one"])
def test_a_foreign_record_of_a_rename_leads_nowhere(runs, tmp_path, moving):
    other = tmp_path / "outside" / "evals" / "e.json"
    other.parent.mkdir(parents=True)
    (tmp_path / "outside" / "attempts").mkdir()
    other.write_text('{"model": "gone", "label": "one"}')
    (runs / ".workbench").mkdir()
    replace_json(runs / ".workbench" / "renamed.json", {"names": {"one": "../outside"}, "moving": moving})
    rename(runs, "one", "two")
    assert read(other) == {"model": "gone", "label": "one"} and renamed(runs) == {"one": "two"}


def test_a_link_in_the_place_of_the_trash_is_not_emptied(runs, tmp_path):
    kept = tmp_path / "elsewhere" / ".going-one"
    kept.mkdir(parents=True)
    (runs / "_trash").symlink_to(tmp_path / "elsewhere")
    assert empty_trash(runs) == [] and kept.is_dir()


def test_what_is_undone_is_the_run_of_that_entry_whatever_another_one_was_called(runs):
    gone = delete(runs, "one")
    ended(runs, gone.entry)
    delete(runs, gone.entry)
    assert restore(runs, gone.entry).name == "one"


def test_a_rename_whose_record_cannot_be_completed_is_done_and_followed_later(runs, named, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr("mygpt2.run_dir.mentions.follow", _raises(OSError(errno.ENOSPC, "No space left on device")))
        assert rename(runs, "one", "two").name == "two"
        ended(runs, "old")
        with pytest.raises(UserError, match="No space left"):
            delete(runs, "old")
        assert empty_trash(runs) == []
    delete(runs, "old")
    assert present_name(runs, "one") == "two" and read(named / "evals" / "e.json")["model"] == "two/step-00000003"


def test_a_run_without_a_lock_file_is_deleted_on_a_full_disk_and_held_meanwhile(runs, monkeypatch):
    RunDir(runs / "one").lock_file.unlink(missing_ok=True)
    held = []
    move = os.rename
    monkeypatch.setattr("mygpt2.run_dir.lock.os.pwrite", _raises(OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr(
        "mygpt2.run_dir.moves.os.rename", lambda *to: (held.append(holder(RunDir(to[0]))[0]), move(*to))
    )
    gone = delete(runs, "one")
    assert held == [True] and gone.path.is_dir() and not (runs / "one").exists()


def _raises(error):
    def refuse(*_):
        raise error

    return refuse
