"""`python -m mygpt2 runs`: what it prints, how it ends, and that it never needs torch."""

import json
import resource
import shutil
import subprocess
import sys

import pytest

from mygpt2.__main__ import main
from mygpt2.checkpoint import write
from mygpt2.run_dir import RunDir, RunWriter
from mygpt2.verbs import runs as module
from tests.run_dir.processes import POLITE, record_rank, running

POLITE_HOLDER = """
import fcntl, os, sys, time
held = open(os.path.join(sys.argv[1], ".lock"), "a")
fcntl.flock(held, fcntl.LOCK_EX)
print(flush=True)
while not os.path.exists(os.path.join(sys.argv[1], "control", "stop")):
    time.sleep(0.01)
"""  # as quick to start as a program without imports


def make(runs, name, *, steps=3, total=10):
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config("")
        writer.command(["train", "--preset", "tiny"], {})
        for step in range(1, steps + 1):
            writer.metrics(step=step, tokens=step * 64, loss=4.5 - step, tokens_per_second=12_345.6)
        writer.event("eval", step=steps, loss=1.25)
        writer.status(state="running", phase="training", step=steps, steps=total, tokens=steps * 64, eta=7384.0)
    return run


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    finished = make(folder, "done", steps=10)
    with RunWriter(finished, 1) as writer:
        writer.status(state="running", phase="training", step=10, steps=10)
        writer.finish("finished", 0, "all steps done")
    write(finished.checkpoints_dir, 10, {}, {}, {})
    make(folder, "vanished")
    return folder


def runs_verb(*words):
    return main(["runs", *(str(word) for word in words)])


def test_list_shows_state_progress_loss_speed_and_checkpoints(runs, capsys):
    with running() as rank:
        record_rank(make(runs, "busy"), 0, rank.pid)
        assert runs_verb("list", "--runs", runs) == 0
    header, busy, done, vanished = capsys.readouterr().out.splitlines()
    assert header.split() == ["run", "state", "step", "loss", "tokens/s", "left", "checkpoints"]
    assert busy.split() == ["busy", "running", "3/10", "30%", "1.5000", "12,346", "2", "h", "3", "min", "none"]
    assert done.split()[:5] == ["done", "finished", "10/10", "100%", "-5.5000"] and "1, " in done
    assert vanished.split()[:2] == ["vanished", "lost"] and "12,346" not in vanished


def test_list_as_json(runs, capsys):
    assert runs_verb("list", "--runs", runs, "--json") == 0
    rows = {row["run"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["done"]["checkpoints"] == [10] and rows["done"]["checkpoint_bytes"] > 0
    assert rows["vanished"]["state"] == "lost" and "no process of attempt 1" in rows["vanished"]["reason"]


def test_a_run_whose_loss_came_to_nothing_is_not_simply_finished(runs, capsys):
    for name, losses in (("broken", (8.3, 900.0)), ("good", (8.3, 4.0))):
        run = RunDir.create(runs, name)
        with RunWriter(run, 1) as writer:
            writer.config('[data]\ntokenizer = "gpt2:4096"\n')
            for step, loss in enumerate(losses, 1):
                writer.metrics(step=step, loss=loss)
            writer.finish("finished", 0, "finished")
    runs_verb("list", "--runs", runs, "--json")
    why = {row["run"]: row["diverged"] for row in json.loads(capsys.readouterr().out)}
    assert why.pop("broken").startswith("its loss at the end, 454.1 as the median of its last 2 steps, is no result")
    assert not any(why.values())
    runs_verb("list", "--runs", runs)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "finished, diverged" in lines["broken"] and "diverged" not in lines["good"]
    runs_verb("show", "broken", "--runs", runs)
    assert capsys.readouterr().out.startswith("broken: finished, diverged: its loss at the end, 454.1")


def test_an_empty_folder_says_what_to_do(tmp_path, capsys):
    assert runs_verb("list", "--runs", tmp_path) == 0
    assert "python -m mygpt2 train" in capsys.readouterr().out


def test_show_tells_the_whole_story(runs, capsys):
    assert runs_verb("show", "done", "--runs", runs) == 0
    text = capsys.readouterr().out
    for part in (
        "done: finished (all steps done)",
        "10/10 100%",
        "train --preset tiny",
        "exit code",
        "eval",
        "loss=1.25",
    ):
        assert part in text
    columns = {line.index(word) for line in text.splitlines()
               for label, word in (("  step ", "10/10"), ("  folder ", str(runs)), ("  exit code", "0"))
               if line.startswith(label)}  # fmt: skip
    assert len(columns) == 1, "one table"
    assert runs_verb("show", "done", "--runs", runs, "--json") == 0
    full = json.loads(capsys.readouterr().out)
    assert full["exit"]["code"] == 0 and full["events"][0]["kind"] == "eval" and full["command"]["argv"][0] == "train"


def test_an_event_tells_the_losses_by_source_and_nothing_that_is_not_there():
    sources = {"docs": {"loss": 5.1264, "tokens": 3}, "own": {"loss": 4.26251, "tokens": 2}}
    event = {"kind": "eval", "step": 30, "yardstick": None, "deleted": [], "by_source": sources, "counts": {"empty": 3}}
    assert module._event_line(event) == "  eval  step=30, by_source=(docs 5.1264, own 4.2625), counts=(empty 3)"


def test_stop_waits_with_progress_and_reports_each_process(runs, capsys):
    run = make(runs, "busy")
    with running(POLITE, str(run.control_dir / "stop")) as rank:
        record_rank(run, 0, rank.pid)
        assert runs_verb("stop", "busy", "--runs", runs) == 0
    text = capsys.readouterr().out
    assert "asking busy to save and stop" in text and f"rank 0 (pid {rank.pid}): ended as asked" in text


def test_stop_now_kills(runs, capsys):
    run = make(runs, "busy")
    with running() as rank:
        record_rank(run, 0, rank.pid)
        assert runs_verb("stop", "busy", "--runs", runs, "--now", "--grace", "5") == 0
    assert "ended after SIGTERM" in capsys.readouterr().out


def test_stopping_what_does_not_run_is_no_error(runs, capsys):
    assert runs_verb("stop", "done", "--runs", runs) == 0
    assert capsys.readouterr().out == "run done is not running: finished\n"


def test_verify_names_each_problem_and_exits_2_when_nothing_is_whole(runs, capsys):
    done = RunDir.open(runs, "done")
    write(done.checkpoints_dir, 20, {}, {}, {})
    (done.checkpoints_dir / "step-00000020" / "state.json").unlink()
    assert runs_verb("verify", "done", "--runs", runs) == 0
    newer, older = capsys.readouterr().out.splitlines()
    assert newer.endswith("state.json is missing") and older.endswith("whole")
    (done.checkpoints_dir / "step-00000010" / "MANIFEST.json").write_text("{}")
    assert runs_verb("verify", "done", "--runs", runs) == 2
    assert "none of the 2 checkpoints of done is whole" in capsys.readouterr().err
    assert runs_verb("verify", "--runs", runs) == 2  # all runs


@pytest.mark.parametrize(
    "words, message",
    [
        (["show", "dome"], "no run 'dome' in .*nearest: done"),
        (["show", "../x"], "run name '../x' is not allowed"),
        (["stop"], "runs stop needs the name of a run"),
        (["dance"], "there is no action 'dance'; allowed: list"),
        ([], "required: action"),
        (["list", "--ruins", "x"], "'--ruins' is not an option here; did you mean --runs"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(runs, capsys, words, message):
    import re

    assert runs_verb(*words, *(["--runs", runs] if "--ruins" not in words else [])) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.startswith("error: ") and error.count("\n") == 1


def test_two_hundred_runs_are_listed_in_two_seconds_without_torch(tmp_path):
    template = make(tmp_path, "r", steps=200)
    for i in range(199):
        shutil.copytree(template.path, tmp_path / f"r-{i}")
    code = "import sys; from mygpt2.__main__ import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "runs", "list", "--runs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 201
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime < 2  # seconds of processor; 0.4 measured


@pytest.mark.parametrize("wrong", ["status", "ranks", "both", "finished"])
def test_stop_reaches_a_trainer_whatever_its_files_say(runs, capsys, wrong):
    """The lock tells that somebody is at work, when the records do not."""
    run = make(runs, "busy")
    with running(POLITE_HOLDER, str(run.path)) as trainer:
        record_rank(run, 0, trainer.pid)
        run.lock_file.write_bytes(run.rank_file(0).read_bytes())
        if wrong in ("status", "both"):
            run.status_file.write_bytes(b"\x00" * 100)
        if wrong in ("ranks", "both"):
            run.rank_file(0).write_text("{}")
        if wrong == "finished":
            run.status_file.write_text('{"state": "finished", "attempt": 1}')
        assert runs_verb("stop", "busy", "--runs", runs) == 0
        assert trainer.wait() == 0
    who = "rank 0" if wrong in ("status", "finished") else "trainer"
    assert f"{who} (pid {trainer.pid}): ended as asked" in capsys.readouterr().out
    assert not list(run.control_dir.iterdir())


def test_show_counts_what_was_left_out(runs, capsys):
    run = RunDir.open(runs, "done")
    counts = {"empty": 1400, "not_text": 0, "too_long": 2, "blocks": 3, "cache_entries": 0, "log_lines": 0}
    with RunWriter(run, 2) as writer:
        writer.event("left_out", step=5, counts={"empty": 1}, share=0.1)
        writer.event("left_out", step=9, counts=counts, of={"documents": 2804, "blocks": 60}, share=0.5)
        for step in range(30):
            writer.event("eval", step=step, loss=1.0)
    assert runs_verb("show", "done", "--runs", runs) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  left out ")]
    assert line.endswith("  1,400 empty, 2 too long, 3 blocks, at most 50.00% of a kind (until step 9)")
    assert runs_verb("show", "done", "--runs", runs, "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_out"]["counts"] == counts


def test_rename_delete_restore_and_the_trash_in_words(runs, capsys):
    assert runs_verb("rename", "done", "better", "--runs", runs) == 0
    assert capsys.readouterr().out == "run done is now better\n"
    assert runs_verb("rename", "done", "--runs", runs) == 2
    assert "takes two names: python -m mygpt2 runs rename OLD NEW" in capsys.readouterr().err
    (runs / "vanished" / "config.toml").write_text(f'[data]\ntokenizer = "{runs}/better/tokenizer.json"\n')
    assert runs_verb("delete", "better", "nothing", "--runs", runs) == 2
    told = capsys.readouterr()
    assert told.out.startswith("run better is in the trash (") and f"runs restore better --runs {runs}" in told.out
    assert "vanished began from files of it and cannot go on without them" in told.out
    assert "error: no run 'nothing'" in told.err

    assert runs_verb("trash", "--runs", runs, "--json") == 0
    (gone,) = json.loads(capsys.readouterr().out)
    assert gone["name"] == "better" and gone["bytes"] > 0
    assert runs_verb("trash", "--runs", runs) == 0
    assert capsys.readouterr().out.startswith(f"{gone['entry']}  better  ")
    assert runs_verb("restore", "better", "--as", "done", "--runs", runs) == 0
    assert capsys.readouterr().out == "run done is back\n"
    assert runs_verb("delete", "done", "--runs", runs) == 0
    assert runs_verb("trash", "--empty", "wrong", "--runs", runs) == 2
    assert runs_verb("trash", "--empty", "--runs", runs) == 0
    assert "removed 1 deleted run for good, " in capsys.readouterr().out
    assert runs_verb("trash", "--runs", runs) == 0
    assert capsys.readouterr().out == f"the trash of {runs} is empty\n"


def test_an_archived_run_is_listed_on_request(runs, capsys):
    assert runs_verb("archive", "done", "--runs", runs) == 0
    assert capsys.readouterr().out == "run done is archived: runs list --all shows it\n"
    assert runs_verb("list", "--runs", runs) == 0
    assert "done" not in capsys.readouterr().out
    assert runs_verb("list", "--all", "--runs", runs) == 0
    assert "done" in capsys.readouterr().out
    assert runs_verb("unarchive", "done", "vanished", "--runs", runs) == 0
    assert capsys.readouterr().out == "run done is in the list again\nrun vanished was in the list already\n"
    assert runs_verb("delete", "--runs", runs) == 2
    assert "runs delete needs the name of a run" in capsys.readouterr().err
