"""A launch that was handed over: once, seen as what its engine says of it, and taken back."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mygpt2.errors import TryAgain, UserError
from mygpt2.launch import handover
from mygpt2.launch.command import NoAnswer, ask
from mygpt2.launch.handed import ENDED, GONE, PENDING, RUNNING, Handed, JobState, Told, is_open, read, seen, write
from mygpt2.launch.handover import refuse_handed, submit, take_back
from mygpt2.launch.spec import LaunchSpec
from mygpt2.launch.watching import EVERY_S, Watching
from mygpt2.run_dir import RunDir, RunState, RunWriter, state_of, write_queued
from mygpt2.run_dir.moves import delete
from tests.launch.programs import Put, asked, putting
from tests.launch.test_answers import job
from tests.run_dir.processes import record_rank, running

SLURM = Handed("r", "slurm", "17", "r", 1.0, 0)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    return tmp_path / "bin"


@pytest.fixture
def put(bin: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    yield putting(bin, monkeypatch)


def spec(runs: Path, run: str = "r") -> LaunchSpec:
    return LaunchSpec(run, runs, ("--preset", "tiny"), runs.parent)  # type: ignore[arg-type]


def squeue(runs: Path, word: str, reason: str, job: str = "17") -> str:
    return f"echo '{job}|{word}|{reason}|{runs}/_launch/r.sbatch'"


# Once


def test_the_run_is_there_before_the_job_and_waits(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", f"test -f {runs}/r/status.json && test -f {runs}/_launch/r.json && echo 17")
    assert submit("slurm", spec(runs), runs, "[train]\nsteps = 5\n") == "17"
    assert (runs / "r" / "config.toml").read_text() == "[train]\nsteps = 5\n", "it can be looked at before it begins"
    assert state_of(RunDir(runs / "r")).state == "queued"
    record = read(runs, "r")
    assert record is not None and (record.job, record.attempt, record.ended) == ("17", 0, "")
    assert asked(bin, "sbatch") == [f"--parsable {runs}/_launch/r.sbatch"]


def test_of_two_clicks_one_hands_over(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "sleep 0.5; echo 17")
    put("squeue", squeue(runs, "PENDING", "Priority"))
    said: list[str] = []

    def click() -> None:
        try:
            said.append(submit("slurm", spec(runs), runs))
        except UserError as error:
            said.append(str(error))

    threads = [threading.Thread(target=click) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked(bin, "sbatch")) == 1
    assert sorted(words.partition(":")[0] for words in said) == ["17", *["run 'r' is handed over already"] * 2]


@pytest.mark.parametrize("script", ["echo sbatch: error: no >&2; exit 1", "exit 3"])
def test_what_is_refused_leaves_no_run(script: str, runs: Path, put: Put) -> None:
    put("sbatch", script)
    for _ in range(2):
        with pytest.raises(TryAgain, match=r"sbatch refused: (sbatch: error: no|it exited 3); mend that"):
            submit("slurm", spec(runs), runs)
        assert not (runs / "r").exists() and read(runs, "r") is None
    put("sbatch", "echo 18")
    assert submit("slurm", spec(runs), runs) == "18"


def test_sbatch_that_does_not_answer_is_ended_and_its_job_is_not_handed_over_again(
    runs: Path, bin: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(handover.TARGETS["slurm"], seconds=0.3)
    monkeypatch.setitem(handover.TARGETS, "slurm", slow)
    put("sbatch", "sleep 60 & wait")
    began = time.monotonic()
    with pytest.raises(TryAgain, match="`sbatch` did not answer within 0 s and was ended, so it is not known whether"):
        submit("slurm", spec(runs), runs)
    assert time.monotonic() - began < 30, "what sbatch itself had started was not waited for"
    put("squeue", squeue(runs, "PENDING", "Resources", "21"))  # it had taken the job
    with pytest.raises(UserError, match="is handed over already: the job of SLURM is pending"):
        submit("slurm", spec(runs), runs)
    put("squeue", "echo '22|PENDING|None|/other/_launch/r.sbatch'")  # it had not
    put("sbatch", "echo 23")
    assert submit("slurm", spec(runs), runs) == "23"
    assert asked(bin, "squeue")[0] == "--noheader --me --states=all --format=%i|%T|%r|%o"


def test_while_the_engine_cannot_be_asked_nothing_is_handed_over_twice(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    submit("slurm", spec(runs), runs)
    put("squeue", "echo squeue: error: no controller >&2; exit 1")
    with pytest.raises(TryAgain, match=r"cannot be asked what became of it: squeue failed: .* remove .*r\.json"):
        submit("slurm", spec(runs), runs)
    assert len(asked(bin, "sbatch")) == 1


def test_a_run_at_work_or_in_the_workbenchs_queue_is_not_handed_over(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    run = RunDir.create(runs, "r")
    with running() as rank, RunWriter(run, 1) as writer:
        writer.config("")
        writer.status(state="running", phase="training", step=1)
        record_rank(run, 0, rank.pid)
        with pytest.raises(UserError, match="'r' is at work already"):
            submit("slurm", spec(runs), runs)
    write_queued(RunDir.create(runs, "q"))
    (runs / ".workbench" / "jobs").mkdir(parents=True)
    (runs / ".workbench" / "jobs" / "1.json").write_text(json.dumps({"spec": {"run": "q"}, "state": "queued"}))
    with pytest.raises(UserError, match="'q' is in the workbench's queue"):
        submit("slurm", spec(runs, "q"), runs)
    assert asked(bin, "sbatch") == [] and (runs / "q").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    runs.mkdir()
    (runs / "_launch").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*_launch/r\.sbatch"):
        submit("slurm", spec(runs), runs)
    assert asked(bin, "sbatch") == [] and not (runs / "r").exists()
    (runs / "x").mkdir()
    (runs / "x" / "mine").touch()
    with pytest.raises(UserError, match="is not a run: it holds mine"):
        submit("slurm", spec(runs, "x"), runs)
    (runs / "y").symlink_to("/tmp")
    with pytest.raises(UserError, match="'y' is a link to another place"):
        submit("slurm", spec(runs, "y"), runs)


def test_a_container_may_write_where_the_folder_of_runs_lets_it(runs: Path, put: Put) -> None:
    put("kubectl", "echo made")
    runs.mkdir()
    runs.chmod(0o777)
    submit("kubernetes", replace(spec(runs), image="i", volumes=(("c", "/runs"),)), runs)
    assert {(path.stat().st_mode & 0o777) for path in (runs / "r", runs / "r" / "checkpoints")} == {0o777}


# Seen


def state(word: str, attempt: int = 0, **exit_: object) -> RunState:
    return RunState(word, "", [], None, None, {"attempt": attempt}, dict(exit_) or None)


@pytest.mark.parametrize(
    ("now", "job", "word", "part"),
    [
        (state("queued"), None, "queued", "handed to SLURM, which is being asked"),
        (state("queued"), JobState(PENDING, "Resources"), "queued", "SLURM job 17 is pending: Resources"),
        (state("queued"), JobState(RUNNING), "starting", "SLURM job 17 runs; nothing of it is in this folder yet"),
        (state("queued"), JobState(ENDED, "FAILED"), "lost", "SLURM job 17 ended before the run began: FAILED"),
        (state("queued"), JobState(GONE), "lost", "SLURM job 17 is not known there any more"),
        (state("running", 1), JobState(PENDING, "x"), "running", ""),
        (state("lost", 1), JobState(PENDING, "BeginTime"), "queued", "waits to be started again: BeginTime"),
        (state("stopped", 1, code=85), JobState(PENDING), "queued", "SLURM job 17 waits to be started again"),
        (state("stopped", 1, code=85, asked="folder"), JobState(PENDING), "stopped", ""),
        (state("stopped", 1, code=85), JobState(RUNNING), "stopped", ""),
        (state("lost", 1), JobState(GONE), "lost", ""),
        (state("lost", 1), None, "lost", ""),
        (state("finished", 1), JobState(PENDING, "x"), "finished", ""),
    ],
)
def test_a_run_is_what_its_job_is(now: RunState, job: JobState | None, word: str, part: str) -> None:
    found = seen(now, Told(SLURM, job))
    assert found.state == word
    assert part in found.reason if part else found.reason == now.reason
    assert seen(now, None) is now and seen(now, Told(replace(SLURM, ended="taken back"), job)) is now


def test_an_engine_that_does_not_answer_says_so_and_how_often() -> None:
    found = seen(state("queued"), Told(SLURM, None, "`squeue` did not answer within 10 s", 3))
    assert found.reason == (
        "handed to SLURM, which cannot be asked, 3 times in a row: `squeue` did not answer within 10 s"
    )


def test_a_damaged_record_or_one_of_an_earlier_run_is_none(runs: Path) -> None:
    run = RunDir.create(runs, "r")
    file = runs / "_launch" / "r.json"
    file.parent.mkdir()
    good = {**SLURM.as_json(), "folder": os.stat(run.path).st_ino}
    file.write_text(json.dumps(good))
    assert read(runs, "r") == replace(SLURM, folder=good["folder"])
    for bad in ({"job": "--help"}, {"job": "1 2"}, {"target": "x"}, {"label": "-l"}, {"folder": 1}):
        file.write_text(json.dumps({**good, **bad}))
        assert read(runs, "r") is None, bad
    file.write_text("[")
    assert read(runs, "r") is None
    file.write_text(json.dumps({"schema": 1, "target": "slurm", "job": "17", "said": "17"}))  # of an earlier version
    assert read(runs, "r") == Handed("r", "slurm", "17", "17", 0.0, 0, None, "17")


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path, put: Put) -> None:
    put("squeue", f"sleep 300 & echo $! > {tmp_path}/pid; wait")
    with pytest.raises(NoAnswer, match="`squeue` did not answer within 1 s"):
        ask(["squeue"], 1.0)
    pid = int((tmp_path / "pid").read_text())
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(30)


# Asked while somebody looks


class Engine:
    """Answers once `let` is set; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.let = threading.Event()
        self.problem = ""
        self.word = PENDING

    def __call__(self, runs: Path, target: str, handed: object) -> dict[str, JobState]:
        names = [each.run for each in handed]  # type: ignore[attr-defined]
        self.asked.append(names)
        assert self.let.wait(30)
        if self.problem:
            raise TryAgain(self.problem)
        return {name: JobState(self.word, "x") for name in names}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def handed_over(runs: Path, *names: str) -> None:
    (runs / "_launch").mkdir(parents=True, exist_ok=True)
    for name in names:
        run = RunDir.create(runs, name)
        write_queued(run)
        write(runs, replace(SLURM, run=name, folder=os.stat(run.path).st_ino))


def test_a_look_never_waits_and_asks_once_for_all(runs: Path) -> None:
    handed_over(runs, "a", "b")
    engine, clock = Engine(), Clock()
    watching = Watching(runs, engine, clock)
    assert {run: told.job for run, told in watching.look().items()} == {"a": None, "b": None}
    watching.look()
    clock.now += 10 * EVERY_S
    watching.look()  # its answer is still awaited
    engine.let.set()
    assert {run: told.job for run, told in watching.now().items()} == dict.fromkeys("ab", JobState(PENDING, "x"))
    assert [sorted(names) for names in engine.asked] == [["a", "b"]] and watching.questions == 1
    clock.now += EVERY_S - 0.1
    watching.now()
    assert len(engine.asked) == 1
    clock.now += 0.2
    watching.now()
    assert len(engine.asked) == 2


def test_what_is_over_is_not_asked_for(runs: Path) -> None:
    handed_over(runs, "gone", "back", "done")
    write(runs, replace(read(runs, "back") or SLURM, ended="taken back"))
    with RunWriter(RunDir(runs / "done"), 1) as writer:
        writer.finish("finished", 0, "finished")
    engine, clock = Engine(), Clock()
    engine.let.set()
    engine.word = GONE
    watching = Watching(runs, engine, clock)
    for _ in range(3):
        watching.now()
        clock.now += 2 * EVERY_S
    assert engine.asked == [["gone"]]
    watching.again("gone")
    watching.now()
    assert len(engine.asked) == 2


def test_questions_without_an_answer_are_counted(runs: Path) -> None:
    handed_over(runs, "a")
    engine, clock = Engine(), Clock()
    engine.let.set()
    engine.problem = "squeue failed"
    watching = Watching(runs, engine, clock)
    for _ in range(3):
        told = watching.now()["a"]
        clock.now += 2 * EVERY_S
    assert (told.job, told.problem, told.unanswered) == (None, "squeue failed", 3)
    assert (watching.questions, watching.unanswered) == (3, 3)
    engine.problem = ""
    told = watching.now()["a"]
    assert (told.job, told.problem, told.unanswered) == (JobState(PENDING, "x"), "", 0)


# Taken back


def test_a_job_is_taken_back_once(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    put("squeue", squeue(runs, "PENDING", "Resources"))
    put("scancel", "")
    submit("slurm", spec(runs), runs)
    with pytest.raises(UserError, match="was handed to SLURM and may begin there; stop it first"):
        refuse_handed(runs, "r")
    with pytest.raises(UserError, match="was handed to a cluster and has not begun"):
        delete(runs, "r")
    assert take_back(runs, "r") == "SLURM job 17: taken back from SLURM"
    assert asked(bin, "scancel") == ["17"]
    assert state_of(RunDir(runs / "r")).state == "stopped"
    with pytest.raises(UserError, match="or was taken back already"):
        take_back(runs, "r")
    refuse_handed(runs, "r")
    delete(runs, "r")


def test_a_job_of_somebody_else_with_its_number_is_left_alone(runs: Path, bin: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    put("squeue", "echo '17|RUNNING|None|/somebody/else.sh'")
    put("scancel", "")
    submit("slurm", spec(runs), runs)
    assert take_back(runs, "r") == "SLURM job 17: SLURM had ended it already"
    assert asked(bin, "scancel") == []


def test_a_job_that_cannot_be_taken_back_stays_handed_over(runs: Path, put: Put) -> None:
    put("sbatch", "echo 17")
    put("squeue", squeue(runs, "PENDING", "Resources"))
    put("scancel", "echo scancel: error: denied >&2; exit 1")
    submit("slurm", spec(runs), runs)
    with pytest.raises(TryAgain, match="SLURM did not take SLURM job 17 back: scancel: error: denied"):
        take_back(runs, "r")
    record = read(runs, "r")
    assert record is not None and is_open(record, state_of(RunDir(runs / "r")))


@pytest.mark.parametrize(
    ("target", "words"),
    [("kubernetes", "delete jobs,services --selector=app=r --wait=false"),
     ("kubeflow", "delete trainjobs --selector=app=r --wait=false")],
)  # fmt: skip
def test_kubernetes_takes_it_back_by_its_label(target: str, words: str, runs: Path, bin: Path, put: Put) -> None:
    put("kubectl", f"""[ $1 = get ] && echo '{json.dumps({"items": [job()]})}'; exit 0""")
    submit(target, replace(spec(runs), image="i", volumes=(("c", "/runs"),)), runs)
    assert take_back(runs, "r").endswith(
        f"taken back from {'Kubernetes' if target == 'kubernetes' else 'Kubeflow Trainer'}"
    )
    assert asked(bin, "kubectl")[-1] == words
