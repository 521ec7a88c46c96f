"""The queue as its users see it, without a process: order, freezing, cancelling, and files that are always whole."""

import json
import os
import threading

import pytest

from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, RunLock, RunWriter, list_runs, state_of, write_rank
from tests.run_dir.processes import record_rank
from tests.workbench.jobs.helpers import job, spec
from workbench.jobs import Jobs, default_devices, default_nproc, submit_config
from workbench.jobs.records import Job
from workbench.jobs.store import KEPT, Store


@pytest.fixture
def jobs(tmp_path):
    """A server that is not started: it puts in and takes out, and launches nothing."""
    return Jobs(tmp_path / "runs", ["cpu", "cuda:0"])


def order(jobs):
    return [each.run for each in jobs.queue()]


def test_jobs_keep_the_order_they_came_in_and_one_may_come_first(jobs):
    for name in "abc":
        jobs.submit(spec(name))
    jobs.submit(spec("d"), at_once=True)
    assert order(jobs) == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    ("by", "expected"), [(-1, "acbd"), (-2, "cabd"), (-9, "cabd"), (1, "abdc"), (9, "abdc"), (0, "abcd")]
)
def test_a_job_moves_by_places(jobs, by, expected):
    ids = [jobs.submit(spec(name)).id for name in "abcd"]
    assert "".join(each.run for each in jobs.move(ids[2], by)) == expected


def test_a_hundred_moves_between_two_neighbours_lose_no_order(jobs):
    """Numbers between two numbers run out; then all are numbered anew."""
    a, b, c = (jobs.submit(spec(name)).id for name in "abc")
    for _ in range(60):
        jobs.move(c, -1)
        assert order(jobs) == ["a", "c", "b"]
        jobs.move(b, -1)
        assert order(jobs) == ["a", "b", "c"]
    assert {a, b, c} == {each.id for each in jobs.queue()}


def test_what_is_queued_is_frozen(jobs):
    words = ["python", "-c", "1"]
    queued = jobs.submit(spec("a").__class__("a", words, ["cpu"]))
    words[2] = "2"
    assert jobs.queue()[0].spec.argv == ("python", "-c", "1") == queued.argv


def test_a_queued_run_is_listed_as_queued_and_leaves_nothing_when_cancelled(jobs):
    queued = jobs.submit(spec("a"))
    assert [(run.name, state_of(run).state) for run in list_runs(jobs.runs)] == [("a", "queued")]
    assert jobs.cancel(queued.id).state == "cancelled"
    assert jobs.queue() == [] and list_runs(jobs.runs) == []
    assert [each.state for each in jobs.history()] == ["cancelled"]


def test_cancelling_does_not_touch_a_run_that_was_there_before(jobs):
    run = RunDir.create(jobs.runs, "a")
    with RunLock(run), RunWriter(run, 1) as writer:
        writer.finish("stopped", 85, "stopped on request")
    jobs.cancel(jobs.submit(spec("a")).id)
    assert state_of(run).state == "stopped"


def test_what_runs_is_not_cancelled_but_stopped(jobs):
    queued = jobs.submit(spec("a"))
    with jobs.store.locked():
        jobs.store.change(queued.id, ("queued",), state="running")
    with pytest.raises(UserError, match="is running"):
        jobs.cancel(queued.id)
    with pytest.raises(UserError, match="does not wait"):
        jobs.move(queued.id, 1)
    assert jobs.at_work() == {"a"}


def test_stopping_a_run_that_waits_takes_it_out(jobs):
    jobs.submit(spec("a"))
    stop = jobs.stop("a", "save")
    assert stop.wait(20) and stop.stopped
    assert jobs.queue() == [] and state_of(RunDir(jobs.runs / "a")).state == "stopped"
    assert "taken out" in stop.lines[0]


@pytest.mark.parametrize("id", ["", "../../x", "20260101-000000-00000000", "a" * 300])
def test_an_unknown_job_is_said_to_be_unknown(jobs, id):
    with pytest.raises(UserError, match="there is no job"):
        jobs.cancel(id)


def test_bad_submissions_are_refused_and_write_nothing(jobs):
    for bad, words in (
        (spec("../a"), "not allowed"), (spec("a", devices=("cuda:9",)), "choose from: cpu, cuda:0"),
        (spec("a", devices=()), "no device"), (spec("a", devices=("cpu", "cpu")), "twice"),
        (spec("a", "x\0"), "no command can"), (spec("a", nproc=0), "allowed: 1 to"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=words):
            jobs.submit(bad)
    assert not jobs.runs.exists()


def test_a_link_to_another_place_is_not_a_run(jobs, tmp_path):
    elsewhere = RunDir.create(tmp_path / "other", "x")
    with RunLock(elsewhere), RunWriter(elsewhere, 1) as writer:
        writer.config("")
    jobs.runs.mkdir()
    (jobs.runs / "a").symlink_to(elsewhere.path)
    for refused in (
        lambda: jobs.submit(spec("a")), lambda: jobs.stop("a", "kill"), lambda: jobs.resume_run("a"),
        lambda: jobs.ask("a", "save"),
    ):  # fmt: skip
        with pytest.raises(UserError, match="link to another place"):
            refused()
    assert jobs.queue() == [] and not elsewhere.control_dir.joinpath("save").exists()


def test_one_run_is_in_the_queue_once(jobs):
    jobs.submit(spec("a"))
    with pytest.raises(UserError, match="in the queue already"):
        jobs.submit(spec("a"))


def test_a_run_at_work_is_not_queued(jobs):
    run = RunDir.create(jobs.runs, "a")
    with RunLock(run), RunWriter(run, 1) as writer:
        write_rank(run, 0, world_size=1, device="cpu", attempt=1)
        writer.status(state="running")
        with pytest.raises(UserError, match="at work already"):
            jobs.submit(spec("a"))


def test_a_configuration_that_does_not_divide_is_refused_before_anything_is_written(jobs):
    from mygpt2.config import load_config

    with pytest.raises(UserError, match="nearest"):
        submit_config(jobs, load_config("tiny"), "tiny", "a", nproc=3)
    assert not jobs.runs.exists()


def test_settings_become_a_run_of_that_configuration(jobs):
    from mygpt2.config import config_hash, load_config

    settings = {"optimizer.lr": 1e-3, "train": {"steps": 99}}
    job = submit_config(jobs, load_config("tiny", None, settings), "tiny", "a")
    config = load_config("tiny", None, ["--optimizer.lr", "0.001", "--train.steps", "99"])
    assert job.spec.config_hash == config_hash(config)
    assert job.argv[-4:] == ("--optimizer.lr", "0.001", "--train.steps", "99")
    assert order(jobs) == ["a"]


def test_the_number_of_processes_is_the_launchers_own_choice():
    from mygpt2.config import load_config
    from mygpt2.launch.plan import plan_launch

    for config in (load_config("tiny"), load_config("tiny", None, {"train.device": "cpu"}), load_config("gpt2")):
        for devices in (0, 1, 3, 8):
            slots = [f"cuda:{n}" for n in range(devices)] or ["cpu"]
            ours = default_nproc(config, slots)
            assert ours == plan_launch(config, {}, devices=lambda n=devices: n).nproc
            assert default_devices(slots, ours) == tuple(slots[:ours])


def test_processes_that_outnumber_their_devices_are_refused(tmp_path):
    from mygpt2.config import load_config

    jobs = Jobs(tmp_path / "runs", ["cuda:0", "cuda:1"])
    with pytest.raises(UserError, match="2 processes need 2 devices"):
        submit_config(jobs, load_config("tiny"), "tiny", "a", 2, ["cuda:1"])
    on_cpu = load_config("tiny", None, {"train.device": "cpu"})
    assert submit_config(jobs, on_cpu, "tiny", "a", 2, ["cuda:1"]).spec.devices == ("cuda:1",)


def test_a_run_goes_on_on_the_devices_it_had_unless_their_number_changes(tmp_path):
    from mygpt2.config import load_config, to_toml

    jobs = Jobs(tmp_path / "runs", ["cuda:0", "cuda:1", "cuda:2"])
    run = RunDir.create(jobs.runs, "a")
    with RunLock(run), RunWriter(run, 1) as writer:
        writer.config(to_toml(load_config("tiny")))
        writer.finish("stopped", 85)
    for rank, device in enumerate(("cuda:1", "cuda:2")):
        record_rank(run, rank, os.getpid(), device=device, start="long gone")
    for nproc, devices in ((None, ("cuda:1", "cuda:2")), (2, ("cuda:1", "cuda:2")), (1, ("cuda:0",))):
        queued = jobs.resume_run("a", nproc)
        assert (queued.spec.devices, queued.spec.nproc) == (devices, nproc or 2)
        jobs.cancel(queued.id)


def test_pausing_is_remembered_and_seen_by_other_servers(jobs):
    jobs.pause()
    other = Jobs(jobs.runs, ["cpu"])
    assert other.paused
    other.resume()
    assert not jobs.paused


def test_a_job_comes_back_from_its_file_the_same(tmp_path):
    store = Store(tmp_path)
    with store.locked():
        made = store.add(spec("a", "print('ü')", restarts=5, config_hash="00ff"), new_run=True)
    assert store.active() == [made] and store.get(made.id) == made


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"id": 3}', '{"schema": 1, "state": "queued"}'])
def test_a_damaged_file_hides_its_job_and_no_other(tmp_path, content):
    store = Store(tmp_path)
    with store.locked():
        kept, broken = store.add(spec("a")), store.add(spec("b"))
    (store.jobs_dir / f"{broken.id}.json").write_text(content)
    assert store.active() == [kept]


@pytest.mark.parametrize(
    "change",
    [{"state": "dancing"}, {"id": "../x"}, {"order": "first"}, {"order": float("nan")}, {"spec": {"run": "a"}}],
)
def test_a_record_with_a_wrong_field_is_no_job(change):
    record = json.loads(json.dumps(job().to_json()))
    assert Job.from_json(record) is not None
    assert Job.from_json(record | change) is None


def test_an_unknown_field_of_a_later_version_is_passed_over():
    assert Job.from_json(job().to_json() | {"colour": "blue"}) == job()


def test_a_move_to_the_ended_ones_that_a_crash_interrupted_is_finished(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    ended = job(1, "failed")
    (store.jobs_dir / f"{ended.id}.json").write_text(json.dumps(ended.to_json()))
    assert store.active() == []
    assert store.ended() == [ended], "what has left the queue is in the history, moved or not"
    store.tidy()
    assert store.ended() == [ended] and list(store.jobs_dir.iterdir()) == []


def test_ended_jobs_are_kept_up_to_a_number_and_their_logs_go_with_them(tmp_path):
    store = Store(tmp_path)
    with store.locked():
        for number in range(KEPT + 3):
            ended = job(number, "failed", launches=1)
            store.save(ended)
            store.log_file(ended).write_text("x")
    store.tidy()
    assert len(store.ended()) == KEPT == len(list(store.logs_dir.iterdir()))
    assert store.ended(1)[0].run == f"run-{KEPT + 2}"


def test_many_threads_that_submit_lose_nothing(jobs):
    threads = [threading.Thread(target=jobs.submit, args=(spec(f"r{n}"),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.run for each in jobs.queue()} == {f"r{n}" for n in range(12)}
    assert len({each.order for each in jobs.queue()}) == 12
