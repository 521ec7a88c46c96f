"""What an experiment lacks is trained once, by the ordinary command, or by the workbench that owns the folder."""

import fcntl
import json
import socket
import sys
import time

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.errors import TryAgain, UserError
from mygpt2.experiments.cost import beside_steps, cost, spent
from mygpt2.experiments.pieces import Outcome, Piece, outcome
from mygpt2.experiments.queueing import in_queue, owned, put
from mygpt2.experiments.running import Interrupted, call, command, missing, run_missing
from mygpt2.run_dir import RunDir
from mygpt2.run_dir.lock import RunLock
from mygpt2.run_dir.process import Process


def tiny(*words):
    return load_config("tiny", None, words)


def begun(runs, name, config, **exit):
    run = RunDir.create(runs, name)
    run.config_file.write_text(to_toml(config))
    if exit:
        record = {"schema": 1, "attempt": 1, "code": 0, "step": config.train.steps, **exit}
        run.exit_file.write_text(json.dumps(record))
        run.status_file.write_text(json.dumps({"attempt": 1, "state": "running", "step": config.train.steps}))
    return run


@pytest.mark.parametrize(
    ("exit", "over", "diverged"),
    [({"state": "finished"}, True, False), ({"state": "stopped", "step": 70}, False, False),
     ({"state": "failed"}, False, False),
     ({"state": "failed", "reason": "non-finite: loss at step 3", "code": 70}, True, True)],
)  # fmt: skip
def test_a_run_is_over_when_it_finished_or_diverged(tmp_path, exit, over, diverged):
    piece = Piece("e.base.1", tiny())
    assert missing([piece], tmp_path) == [piece]
    begun(tmp_path, "e.base.1", piece.config, **exit)
    assert missing([piece], tmp_path) == ([] if over else [piece])
    assert outcome(tmp_path, "e.base.1").diverged == diverged


@pytest.mark.parametrize("words", [("--optimizer.lr", "1e-3"), ("--model.seed", "4")])
def test_a_run_of_that_name_with_other_settings_is_never_taken_for_the_arm(tmp_path, words):
    begun(tmp_path, "e.base.1", tiny(*words), state="finished")
    with pytest.raises(UserError, match=r"'e\.base\.1' is there with other settings .*runs delete"):
        missing([Piece("e.base.1", tiny())], tmp_path)


def test_the_command_is_what_a_person_would_type_and_goes_on_from_the_runs_own_settings(tmp_path):
    piece = Piece("e.v.1", tiny("--optimizer.lr", "1e-3"))
    assert command(piece, tmp_path)[2:] == [
        "mygpt2", "train", "--runs", str(tmp_path), "--run", "e.v.1", "--preset", "tiny", "--optimizer.lr", "0.001",
    ]  # fmt: skip
    assert command(piece, tmp_path, 2)[1:5] == ["-m", "mygpt2.launch", "--nproc", "2"]
    begun(tmp_path, "e.v.1", piece.config)
    assert "--preset" not in command(piece, tmp_path)


def test_the_cost_is_of_what_is_missing_and_unknown_where_nothing_tells(tmp_path):
    assert str(cost([], tmp_path)) == "nothing is to be trained"
    told = str(cost([Piece("a.b.1", tiny()), Piece("a.b.2", tiny())], tmp_path))
    assert told.startswith("2 runs to train, 2,293,760 tokens; how long it takes is not known: no earlier run")


def test_the_cost_holds_the_start_of_each_run_and_only_what_is_left_of_one_that_has_begun(tmp_path, monkeypatch):
    config = tiny("--train.steps", "100")
    rows = [{"attempt": 1, "step": s, "tokens": 8192 * s, "loss": 3.0, "step_ms": 500.0, "data_wait_ms": 0.0,
             "tokens_per_second": 16384.0} for s in range(1, 101)]  # fmt: skip
    run = begun(tmp_path, "earlier", config, state="finished", time=1070.0)
    run.status_file.write_text(json.dumps({"attempt": 1, "state": "finished", "step": 100, "started": 1000.0}))
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.rank_file(0).write_text(json.dumps({"world_size": 1, "device": "cpu", "host": socket.gethostname()}))
    assert beside_steps(tmp_path) == 20.0  # 70 s from start to end, of which 50 in steps
    assert cost([Piece("a.b.1", config)], tmp_path).seconds == pytest.approx(70.0)
    begun(tmp_path, "a.b.1", config, state="stopped", step=40)
    found = cost([Piece("a.b.1", config)], tmp_path)
    assert found.seconds == pytest.approx(50.0) and found.tokens == 60 * 8192
    assert str(found).startswith("1 run to train, 491,520 tokens, about 50 s (50 s to 50 s; from run earlier")


def test_what_was_spent_counts_steps_that_were_trained_twice(tmp_path):
    run = begun(tmp_path, "a.b.1", tiny())
    rows = [{"attempt": a, "step": s, "tokens": 8192 * s, "loss": 3.0, "step_ms": 500.0, "data_wait_ms": 0.0}
            for a, s in ((1, 1), (1, 2), (2, 2), (2, 3))]  # fmt: skip
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = spent(["a.b.1", "a.b.2", "a.b.1"], tmp_path)
    assert (found.seconds, found.tokens, found.runs) == (2.0, 24576, 1)


def test_a_folder_is_owned_while_a_workbench_holds_its_lock(tmp_path):
    assert not owned(tmp_path)
    (tmp_path / ".workbench" / "jobs").mkdir(parents=True)
    lock = tmp_path / ".workbench" / "owner.lock"
    with open(lock, "w") as file:
        assert not owned(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX)
        assert owned(tmp_path)
    assert not owned(tmp_path)


def test_the_workbenchs_queue_takes_a_run_with_all_its_settings_and_says_why_not(tmp_path):
    piece = Piece("e.v.1", tiny("--train.steps", "7", "--optimizer.lr", "1e-3"))
    put(piece, tmp_path, 1)
    assert in_queue(tmp_path, "e.v.1") and not in_queue(tmp_path, "e.v.2")
    (job,) = (tmp_path / ".workbench" / "jobs").glob("*.json")
    argv = json.loads(job.read_text())["spec"]["argv"]
    words = command(piece, tmp_path / "elsewhere")
    assert argv[argv.index("--preset") :] == words[words.index("--preset") :] and "--optimizer.lr" in words
    with pytest.raises(UserError, match=r"does not queue 'e\.v\.1': .*in the queue already"):
        put(piece, tmp_path, 1)


def test_a_piece_until_a_step_is_done_there_and_asks_for_no_more(tmp_path):
    piece = Piece("e.v.1", tiny("--train.steps", "30"), until=12)
    assert (piece.steps, piece.tokens) == (12, 12 * 8192)
    words = command(piece, tmp_path)
    assert words[words.index("--until") + 1] == "12"
    put(piece, tmp_path, 1)
    (job,) = (tmp_path / ".workbench" / "jobs").glob("*.json")
    assert json.loads(job.read_text())["spec"]["argv"][-2:] == ["--until", "12"]
    for step, state, done in (
        (11, "stopped", False),
        (12, "stopped", True),
        (30, "finished", True),
        (12, "lost", False),
    ):
        assert piece.done(Outcome("e.v.1", state, step)) == done


def test_a_last_step_that_a_full_disk_did_not_take_is_trained_again_once_there_is_room(tmp_path, monkeypatch):
    piece, asked = Piece("e.v.1", tiny("--train.steps", "7")), []
    full = "the checkpoint of step 7 could not be saved (not enough space on the disk)"
    begun(tmp_path, piece.run, piece.config, state="stopped", code=75, reason=full)

    def call(words, watch):
        asked.append(words)
        return 75, full

    monkeypatch.setattr("mygpt2.experiments.running.call", call)
    with pytest.raises(TryAgain, match="stopped at step 7: the checkpoint of step 7 could not be saved"):
        run_missing([piece], tmp_path, say=lambda _: None)
    assert len(asked) == 1 and "train" in asked[0]


def test_a_run_in_a_queue_that_nobody_serves_is_told_and_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("mygpt2.experiments.running.HANDOVER_SECONDS", 0.0)
    piece = Piece("e.v.1", tiny())
    put(piece, tmp_path, 1)
    with pytest.raises(UserError, match=r"'e\.v\.1' waits in the queue of a workbench that is gone"):
        run_missing([piece], tmp_path, say=lambda _: None)


def test_ctrl_c_asks_the_child_to_save_once_and_waits_for_it(tmp_path):
    """The child ends 0.3 s after the signal, with the code of a stop, having counted how many it got."""
    got, ready = tmp_path / "got", tmp_path / "ready"
    script = (
        "import signal, sys, time\n"
        f"def stop(*_): open({str(got)!r}, 'a').write('x'); time.sleep(0.3); sys.exit(85)\n"
        f"signal.signal(signal.SIGTERM, stop); open({str(ready)!r}, 'w').close(); time.sleep(60)"
    )

    def watch():
        if ready.exists():  # its handler is there
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="goes on from there"):
        call([sys.executable, "-c", script], watch)
    assert got.read_text() == "x"


def test_a_child_that_dies_of_the_signal_is_an_interruption():
    def watch():
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="goes on from there"):
        call([sys.executable, "-c", "import time; time.sleep(60)"], watch)


@pytest.mark.parametrize("code", [2, 85], ids=["the lock was taken", "it came to its step, the other went on"])
def test_a_run_that_another_command_begins_at_the_same_moment_is_waited_for_and_said(tmp_path, monkeypatch, code):
    """The train command finds that another trainer, here this process, has the run, which finishes later."""
    piece, said, tells = Piece("e.v.1", tiny("--train.steps", "7")), [], []
    locks = []

    def call(words, watch, told=None):
        run = begun(tmp_path, piece.run, piece.config)
        locks.append(RunLock(run).acquire())
        if code == 85:
            run.rank_file(0).write_text(json.dumps({**Process.current().to_json(), "attempt": 2}))
            run.status_file.write_text(json.dumps({"attempt": 2, "state": "running", "heartbeat": time.time()}))
        return code, "run 'e.v.1' is being written by process 7 on here"

    def tell(title, done, total, unit):
        tells.append(done)
        if len(tells) == 2:
            record = {"schema": 1, "attempt": 2, "code": 0, "step": 7, "state": "finished"}
            run = RunDir(tmp_path / piece.run)
            run.exit_file.write_text(json.dumps(record))
            run.status_file.write_text(json.dumps({"attempt": 2, "state": "finished", "step": 7}))
            locks.pop().release()

    monkeypatch.setattr("mygpt2.experiments.running.call", call)
    monkeypatch.setattr("mygpt2.experiments.running.POLL_SECONDS", 0.001)
    found = run_missing([piece], tmp_path, say=said.append, progress=tell, each=False)
    assert found[piece.run].over and said == ["another command has begun e.v.1; waiting for it"]
