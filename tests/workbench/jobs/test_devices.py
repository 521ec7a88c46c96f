"""One ledger of devices: runs, evaluations and sampling know of each other, so that none takes another's memory."""

import sys

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunWriter
from tests.run_dir.processes import record_rank, running
from tests.workbench.jobs.helpers import PYTHON, WAITS, spec, until
from workbench.jobs import Jobs

SLOTS = ["cuda:0", "cuda:1"]


class Sampling:
    """A sampler that generates on some devices."""

    def __init__(self, *devices):
        self.devices, self.released = devices, []

    def at_work(self):
        return dict.fromkeys(self.devices, "sampling")

    def release(self, devices):
        self.released += devices


@pytest.fixture
def jobs(tmp_path):
    jobs = Jobs(tmp_path / "runs", SLOTS)
    jobs.store.prepare()
    yield jobs
    for job in jobs.queue():
        if job.launcher:
            jobs.stop(job.run, "kill").wait(60)
    for task in jobs.tasks.list():
        jobs.tasks.stop(task.id, grace=0.0)
    until(lambda: not any(task.running for task in jobs.tasks.list()))
    jobs.close()


@pytest.fixture
def evaluation(jobs):
    words = [*PYTHON, "import time; time.sleep(600)"]
    return jobs.tasks.start("eval", words, label="a on texts", devices=["cuda:0"])


def test_nobody_at_work_holds_nothing(jobs):
    assert jobs.devices.held() == {} and jobs.devices.free() == "cuda:0"
    jobs.devices.take("cuda:0")


def test_a_run_holds_its_device_and_another_is_chosen_by_itself(jobs, tmp_path):
    jobs.submit(spec("a", WAITS, tmp_path / "note", devices=("cuda:0",)))
    jobs._supervisor.tick()
    assert jobs.devices.held() == {"cuda:0": "run a"} and jobs.devices.free() == "cuda:1"
    with pytest.raises(UserError, match="cuda:0 is at work for run a; wait for it, or choose from: cuda:1, cpu"):
        jobs.devices.take("cuda:0")


def test_a_run_from_a_terminal_holds_the_device_its_ranks_recorded(jobs):
    from mygpt2.run_dir import RunDir

    run = RunDir.create(jobs.runs, "outside")
    with running() as rank, RunWriter(run, 1) as writer:
        writer.status(state="running", phase="training", step=3)
        record_rank(run, 0, rank.pid, device="cuda:1")
        assert jobs.devices.held() == {"cuda:1": "run outside"}
        record_rank(run, 0, rank.pid, device="cpu")
        assert jobs.devices.held() == {}, "a CPU is shared"


def test_no_run_starts_where_an_evaluation_or_sampling_is_at_work(jobs, evaluation, tmp_path):
    sampling = Sampling("cuda:1")
    jobs.devices.add(sampling)
    assert jobs.devices.held() == {"cuda:0": "a on texts", "cuda:1": "sampling"}
    assert jobs.devices.free() == "cpu"
    for device in SLOTS:
        jobs.submit(spec(device.replace(":", "-"), WAITS, tmp_path / "note", devices=(device,)))
    jobs._supervisor.tick()
    assert {job.state for job in jobs.queue()} == {"queued"}
    sampling.devices = ()
    jobs._supervisor.tick()
    assert {job.run: job.state for job in jobs.queue()} == {"cuda-0": "queued", "cuda-1": "running"}
    assert sampling.released == ["cuda:1"], "models that lie there idle make room"


def test_work_of_one_kind_waits_for_itself_and_is_not_refused(jobs, evaluation):
    jobs.devices.take("cuda:0", but="eval")
    jobs.devices.add(Sampling("cuda:1"))
    jobs.devices.take("cuda:1", but="sampling")
    for device in SLOTS:
        with pytest.raises(UserError, match="is at work for"):
            jobs.devices.take(device, but="another")
    assert sys.executable in evaluation.argv
