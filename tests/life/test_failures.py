"""What ends one rank ends all: one sentence that names it, the last good step saved, a true exit.json, its code."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from mygpt2.errors import UserError
from mygpt2.failures import failure_of
from tests import forks
from tests.life import harness

PLACES = {
    "opening the data": ("mygpt2.train.setup", "_data"),
    "building": ("mygpt2.train.setup", "_weights"),
    "the first batch": ("mygpt2.data.loader", "Loader.poll"),
    "a step": ("mygpt2.train.step", "TrainStep._accumulate"),
    "the update": ("mygpt2.train.optim", "Optimizer.step"),
    "validation": ("mygpt2.train.evaluate", "Evaluations.loss"),
    "sampling": ("mygpt2.train.trainer", "Trainer._sample"),
    "a save": ("mygpt2.train.trainer", "Trainer._write_checkpoint"),
    "the last save": ("mygpt2.train.trainer", "Trainer._check_saved"),
}
BEFORE = {"choosing a device": ("mygpt2.train.attempt", "choose_device")}  # there is no run's folder yet
CALL = {"a step": 4, "the update": 4, "validation": 2}  # which call fails, else the first
RESUMED = ("building", "a step", "the update", "a save", "the last save")  # cases whose run is then trained to its end
KINDS = {
    "defect": (lambda: ZeroDivisionError("division by zero"), 70, "ZeroDivisionError: division by zero"),
    "user": (lambda: UserError("documents.bin holds the id 70000"), 2, "documents.bin holds the id 70000"),
    "misleading": (lambda: RuntimeError("no peer of that name"), 70, "RuntimeError: no peer of that name"),
    "disk": (lambda: OSError(errno.ENOSPC, "No space left on device", "x.bin"), 75, "x.bin: No space left on device"),
}


def break_at(rank, victim, place, kind):
    """In a rank's process: makes one call fail there, or the process die there."""
    if rank != int(victim):
        return
    module, name = (PLACES | BEFORE)[place]
    owner = __import__(module, fromlist=["x"])
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), []

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) == CALL.get(place, 1):
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise KINDS[kind][0]()
        return original(*args, **kwargs)

    setattr(owner, name, broken)


SMALL = {
    "model.n_layer": 1, "model.n_embd": 32, "optimizer.name": "adamw", "train.steps": 6, "schedule.warmup_steps": 2,
    "schedule.name": "cosine", "eval.interval": 3, "eval.yardstick": "off", "checkpoint.interval": 2,
    "sample.interval": 4, "sample.prompts": '["lo"]',
}  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A corpus, a warm cache, and the losses of six undisturbed steps on two ranks."""
    folder = tmp_path_factory.mktemp("failures")
    source = harness.corpus(folder / "corpus", files=1, documents=120)
    values = harness.settings(source, folder / "cache") | SMALL
    assert forks.ends(forks.start(harness.command(values, folder / "runs", "calm"), folder / "calm")) == [0, 0]
    return folder, values, harness.losses(folder / "runs" / "calm")


CASES = [(place, victim, "defect") for place in PLACES for victim in (0, 1)] + [
    ("the first batch", 1, "user"), ("a step", 1, "disk"), ("a step", 0, "killed"), ("a step", 1, "killed"),
    ("a step", 1, "misleading"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "victim", "kind"), CASES)
def test_an_exception_on_any_rank_at_any_moment_ends_all_with_one_sentence_and_the_last_good_step(
    prepared, place, victim, kind
):
    folder, values, calm = prepared
    runs, out = folder / "runs", folder / "broken"
    words = harness.command(values, runs, "broken")
    shutil.rmtree(runs / "broken", ignore_errors=True)
    meddle = (__name__, "break_at", str(victim), place, kind)
    codes = forks.ends(forks.start(words, out, meddle=meddle))
    _, code, cause = KINDS.get(kind, (None, 70, f"rank {victim} (pid"))
    assert codes == [-9 if kind == "killed" and rank == victim else code for rank in (0, 1)]
    said = [line for rank in (0, 1) for line in (folder / f"broken-{rank}-err").read_text().splitlines()]
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1 and cause in errors[0] and (f"rank {victim}" in errors[0] or (victim, kind) == (0, "user"))
    assert not any("Traceback" in line or "gloo" in line for line in said)
    if (victim, kind) == (0, "killed"):
        return  # nobody is left who may write in the run's folder
    run = runs / "broken"
    ended, status = (json.loads((run / name).read_text()) for name in ("exit.json", "status.json"))
    assert (ended["code"], ended["rank"], ended["state"]) == (code, victim, status["state"])
    assert cause in ended["reason"] and status["state"] == ("stopped" if code == 75 else "failed")
    if kind == "defect":
        assert "Traceback" in (run / "logs" / f"rank-{victim}.log").read_text()
    steps = harness.losses(run) if (run / "metrics.jsonl").stat().st_size else {}
    saved = [int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")]
    if place != "the update" and place != "a save":
        assert max(saved, default=0) == max(steps, default=0), "the last good step is saved"
    if victim == 1 and place in RESUMED:
        assert forks.ends(forks.start(words, out)) == [0, 0]
        assert harness.losses(run) == calm


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_fails_before_they_are_connected_ends_all_with_its_sentence(prepared, victim):
    folder, values, _ = prepared
    meddle = (__name__, "break_at", str(victim), "choosing a device", "user")
    codes = forks.ends(forks.start(harness.command(values, folder / "runs", "never"), folder / "never", meddle=meddle))
    assert codes == [2, 2] and not (folder / "runs" / "never").exists()
    said = "".join((folder / f"never-{rank}-err").read_text() for rank in (0, 1))
    assert said == f"error: {'rank 1: ' if victim else ''}documents.bin holds the id 70000\n"


def break_join(rank, victim):
    """As where a system allows no further thread."""
    import threading

    start = threading.Thread.start

    def broken(self):
        if self.name == "board":
            raise RuntimeError("can't start new thread")
        start(self)

    if rank == int(victim):
        threading.Thread.start = broken


@pytest.mark.parametrize("victim", [0, 1])
def test_a_defect_while_they_meet_ends_all_at_once_with_its_sentence(prepared, victim):
    folder, values, _ = prepared
    meddle = (__name__, "break_join", str(victim))
    words = harness.command(values, folder / "runs", "apart")
    assert forks.ends(forks.start(words, folder / "apart", meddle=meddle)) == [70, 70]
    said = "".join((folder / f"apart-{rank}-err").read_text() for rank in (0, 1))
    assert said.count("error: ") == 1 and f"error: rank {victim}: RuntimeError: can't start new thread\n" in said


def stop_as_they_connect(rank):
    """Rank 1 is sent SIGTERM when the first has just seen that both are ready, and opens connections to it."""
    import time

    from mygpt2.board import Board
    from mygpt2.train.signals import Requests

    connect, check = Board.connect, Requests.check
    board = []

    def late(self, make):
        board.append(self)
        time.sleep(0.5 if rank == 0 else 0)
        connect(self, make)

    def check_late(self):
        while board and board[0].store.add("ready", 0) < 2:
            time.sleep(0.01)
        if board:
            os.kill(os.getpid(), signal.SIGTERM)
        check(self)

    Board.connect = late
    if rank == 1:
        Requests.check = check_late


def test_a_stop_as_the_ranks_connect_stops_them_all(prepared):
    folder, values, _ = prepared
    words = harness.command(values, folder / "runs", "stopped")
    meddle = (__name__, "stop_as_they_connect")
    assert forks.ends(forks.start(words, folder / "stopped", meddle=meddle)) == [85, 85]
    said = (folder / "stopped-0-err").read_text().splitlines()  # PyTorch may log that the other rank has gone
    assert [line for line in said if not re.match(r"\[E\d{4} .* ProcessGroupGloo\.cpp:", line)] == [
        "stopped on request while it was starting"
    ]
    assert not (folder / "runs" / "stopped").exists()


def hang_as_they_connect(rank):
    """Rank 1 meets a defect where the first cannot be interrupted."""
    from mygpt2.distributed import World

    def broken(self, timeout):
        raise ZeroDivisionError("division by zero")

    if rank == 1:
        World._connect = broken


def test_a_defect_as_the_ranks_connect_ends_them_at_once_with_its_sentence(prepared):
    folder, values, _ = prepared
    words = harness.command(values, folder / "runs", "cut")
    assert forks.ends(forks.start(words, folder / "cut", meddle=(__name__, "hang_as_they_connect"))) == [70, 70]
    errors = [line for line in (folder / "cut-0-err").read_text().splitlines() if line.startswith("error: ")]
    assert errors == ["error: rank 1: ZeroDivisionError: division by zero"]


def interrupt(rank):
    """Ctrl-C twice, that reached rank 1 alone, in the middle of an evaluation."""
    from mygpt2.train.evaluate import Evaluations

    def interrupted(self):
        raise KeyboardInterrupt

    if rank == 1:
        Evaluations.loss = interrupted


def test_what_was_saved_when_another_rank_was_interrupted_is_said_without_contradiction(prepared):
    folder, values, _ = prepared
    shutil.rmtree(folder / "runs" / "twice", ignore_errors=True)
    words = harness.command({**values, "checkpoint.interval": 100}, folder / "runs", "twice")
    assert forks.ends(forks.start(words, folder / "twice", meddle=(__name__, "interrupt"))) == [85, 85]
    reason = json.loads((folder / "runs" / "twice" / "exit.json").read_text())["reason"]
    assert reason == "interrupted twice; step 3 is saved"
    assert (folder / "runs" / "twice" / "checkpoints" / "step-00000003").exists()


class Wordless(Exception):
    exit_code = "two"

    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("problem", "code", "text"),
    [
        (Wordless(), 70, "rank 1: Wordless: it has no words"),
        (AssertionError(), 70, "rank 1: AssertionError"),
        (MemoryError(), 2, "rank 1: out of memory: lower train.micro_batch or model.block_size"),
    ],
)
def test_an_exception_that_says_nothing_of_use_is_told_all_the_same(problem, code, text):
    failure = failure_of(problem, rank=1, size=2)
    assert (failure.code, failure.text, failure.defect) == (code, text, code == 70)


def test_a_defect_before_there_is_a_log_leaves_its_stack_in_a_file_and_a_sentence(mygpt2, monkeypatch, tmp_path):
    from mygpt2.train import attempt

    monkeypatch.setattr(attempt, "_ended_already", lambda *_: {}["not there"])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = mygpt2("train", "--preset", "tiny", "--run", "early")
    first, second = ended.err.splitlines()
    assert ended.code == 70 and second == "error: KeyError: 'not there'"
    assert first.startswith("the stack of rank 0 is in ")
    assert "Traceback" in Path(first.removeprefix("the stack of rank 0 is in ")).read_text()


def busy(rank, how):
    """Rank 1 fails while rank 0 is somewhere that no broken exchange reaches: it computes, or it hangs for good."""
    import time

    from mygpt2 import board
    from mygpt2.train.trainer import Trainer

    board.LOOK_S, board.COME_S, board.LEAVE_S = 0.02, 0.1, 0.5

    def elsewhere(self):
        if rank == 1:
            raise KeyError("a token")
        if how == "hangs":
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        time.sleep(60)

    Trainer._sample = elsewhere


@pytest.mark.parametrize(("how", "what"), [("computes", "step 4 is saved"), ("hangs", "rank 0 hung")])
def test_a_first_rank_that_is_busy_is_interrupted_and_one_that_hangs_is_ended(prepared, how, what):
    folder, values, _ = prepared
    shutil.rmtree(folder / "runs" / "busy", ignore_errors=True)
    values = {**values, "checkpoint.interval": 100}
    words = harness.command(values, folder / "runs", "busy")
    codes = forks.ends(forks.start(words, folder / "busy", meddle=(__name__, "busy", how)))
    assert codes == [70, 70]
    ended = json.loads((folder / "runs" / "busy" / "exit.json").read_text())
    assert (ended["code"], ended["rank"]) == (70, 1)
    assert ended["reason"].startswith("rank 1: KeyError") and what in ended["reason"]
    errors = [line for line in (folder / "busy-0-err").read_text().splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and what in errors[0]
    assert (folder / "runs" / "busy" / "checkpoints" / "step-00000004").exists() == (how == "computes")


def silent(rank):
    """Rank 1 never comes to the rendezvous; the first is stopped meanwhile."""
    if rank == 1:
        os._exit(70)
    from mygpt2.train.signals import Requests

    listen = Requests.listen

    def listen_and_be_stopped(self):
        listen(self)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))

    Requests.listen = listen_and_be_stopped


def test_a_rank_that_never_comes_does_not_keep_the_first_from_being_stopped(prepared):
    folder, values, _ = prepared
    words = harness.command(values, folder / "runs", "silent")
    codes = forks.ends(forks.start(words, folder / "silent", meddle=(__name__, "silent")))
    assert codes == [85, 70]
    assert not (folder / "runs" / "silent").exists()


def break_evaluation(rank, victim):
    from mygpt2.evals import loss as session

    def broken(*args, **kwargs):
        raise UserError("the text holds the id 70000")

    if rank == int(victim):
        session.evaluate = broken


@pytest.mark.parametrize("victim", [0, 1])
def test_an_evaluation_that_fails_on_one_rank_ends_on_all_with_its_sentence(prepared, victim, monkeypatch):
    folder, values, _ = prepared
    words = ["eval", "--model", "calm", "--runs", str(folder / "runs"), "--protocol", "run", "--device", "cpu"]
    monkeypatch.setenv("MYGPT2_CACHE", str(values["data.cache_dir"]))
    codes = forks.ends(forks.start(words, folder / "eval", meddle=(__name__, "break_evaluation", str(victim))))
    assert codes == [2, 2]
    said = "".join((folder / f"eval-{rank}-err").read_text() for rank in (0, 1))
    assert said == f"error: {'rank 1: ' if victim else ''}the text holds the id 70000\n"
