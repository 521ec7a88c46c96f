"""A run folder may name any process of this machine: only those that work on the run are ever sent a signal."""

import subprocess
import sys

import pytest

from mygpt2.run_dir import RunDir, RunWriter, state_of, stop
from mygpt2.run_dir.background_stop import BackgroundStop
from mygpt2.run_dir.process import Process, belongs
from tests.run_dir.processes import OBEDIENT, record_rank


@pytest.fixture
def run(tmp_path):
    return RunDir.create(tmp_path / "runs", "one")


@pytest.fixture
def start():
    started = []

    def start(*words, **more):
        process = subprocess.Popen([sys.executable, "-S", "-c", OBEDIENT, *words], stdout=subprocess.PIPE, **more)
        started.append(process)
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def forged(run, bystander):
    with RunWriter(run, 1) as writer:
        writer.status(state="running", phase="training", step=3)
    record_rank(run, 0, bystander.pid, launcher=bystander.pid)


@pytest.mark.parametrize(
    "words", [("a",), ("mygpt2.notes.txt/x",), ("mygpt2", "--run", "two"), ("mygpt2", "--run=two")]
)
def test_a_process_of_something_else_is_never_signalled(run, start, words):
    """Named with its true pid and start time, as whoever made the folder could look them up."""
    bystander = start(*words)
    forged(run, bystander)
    assert state_of(run).state == "lost" and not state_of(run).processes
    assert stop(run, "now", grace=0.0).stopped
    for how in ("now", "kill"):
        assert BackgroundStop(run, how, grace=0.0).start().wait(60)
    assert bystander.poll() is None


@pytest.mark.parametrize(
    "words", [("mygpt2",), ("mygpt2.launch",), ("mygpt2", "--run", "one"), ("mygpt2", "--run=one")]
)
def test_a_rank_of_the_run_belongs_to_it(run, start, words):
    assert belongs(run, Process.of(start(*words).pid))


def test_whoever_has_a_file_of_the_run_open_belongs_to_it(run, start):
    """A program of one's own that trains through the library names nothing on its command line."""
    with open(run.lock_file, "w") as file:
        holds = start(stderr=file)
    assert belongs(run, Process.of(holds.pid)) and not belongs(run, Process.of(start().pid))
