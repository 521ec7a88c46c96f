"""Alerts without a browser: what a run folder must show for which alert, each once, and at what cost."""

import json
import os
import shutil
import time

import pytest

from mygpt2.run_dir import RunDir, RunWriter
from tests.run_dir.processes import record_rank, running
from workbench.jobs import Jobs
from workbench.jobs import watch as module
from workbench.jobs.alerts import AlertLog, new_alert
from workbench.jobs.spawn import log_of
from workbench.jobs.watch import Watch


class Clock:
    def __init__(self):
        self.now = time.time()

    def __call__(self):
        return self.now


class Folder:
    """A folder of runs that is watched by hand."""

    def __init__(self, path):
        self.runs, self.clock = path / "runs", Clock()
        self.runs.mkdir()
        self.log = AlertLog(self.runs / ".workbench" / "alerts.jsonl")
        self.watch = Watch(self.runs, self.log, self.clock)

    def run(self, name="a", attempt=1, **status):
        run = RunDir(self.runs / name)
        run = run if run.path.exists() else RunDir.create(self.runs, name)
        writer = RunWriter(run, attempt, clock=self.clock)
        writer.status(state="running", phase="training", **status)
        return run, writer

    def look(self, times=1):
        for _ in range(times):
            self.watch.look()
        return [(alert.kind, alert.run, alert.step) for alert in self.log.all()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=1 << 40))
    return Folder(tmp_path)


def train(writer, steps, **more):
    for step in steps:
        writer.metrics(**{"step": step, "loss": 3.0, "grad_norm": 1.0, "step_ms": 100.0, "data_wait_ms": 0.0, **more})


def test_a_spike_a_burst_and_a_value_that_is_not_finite_are_told_with_their_steps(folder):
    with running() as rank:
        run, writer = folder.run(step=300)
        record_rank(run, 0, rank.pid)
        train(writer, range(1, 100))
        assert folder.look() == []
        train(writer, [100], loss=9.0)
        train(writer, [101], grad_norm=500.0)
        train(writer, [102], loss=float("nan"))
        assert sorted(folder.look(3)) == [("gradient", "a", 101), ("nonfinite", "a", 102), ("spike", "a", 100)]
        writer.close()


def test_the_guards_stop_is_told_with_the_checkpoint_that_is_good(folder):
    _, writer = folder.run(step=30)
    writer.event("alert", level="error", message="non-finite: loss nan, gradient norm nan at step 30: stopped before")
    writer.finish("failed", 70, "non-finite: loss nan, gradient norm nan at step 30: stopped before")
    assert folder.look(3) == [("nonfinite", "a", 30)]
    assert "there is no whole checkpoint" in folder.log.all()[0].text


def test_a_killed_rank_is_told_as_its_launcher_wrote_it_with_its_last_forty_lines(folder):
    """Rank 0 writes of its broken connection first: that is a consequence, and is not told by itself."""
    with running() as launcher:
        run, writer = folder.run(step=20)
        record_rank(run, 0, launcher.pid, launcher=launcher.pid)
        (run.log_file(1)).write_text("".join(f"line {n}\n" for n in range(100)) + "of the next attempt\n")
        end = run.log_file(1).read_text().index("of the next")
        writer.event("alert", level="error", message="RuntimeError: connection reset by peer")
        writer.finish("failed", 70, "RuntimeError: connection reset by peer")
        assert folder.look(2) == [], "the launcher has not said anything yet"
        crash = {"attempt": 1, "kind": "crash", "step": 20, "rank": 1, "signal": "SIGKILL", "log_bytes": {"1": end},
                 "message": "rank 1 was killed by SIGKILL", "time": folder.clock()}  # fmt: skip
        with open(run.events_file, "a") as file:
            file.write(json.dumps(crash) + "\n")
        assert folder.look(3) == [("crash", "a", 20)]
    assert folder.look(3) == [("crash", "a", 20)]
    (alert,) = folder.log.all("a")
    assert alert.text == "rank 1 was killed by SIGKILL"
    assert alert.log_tail == tuple(f"line {n}" for n in range(60, 100))


def test_what_a_rank_said_is_found_in_the_log_of_its_node(folder):
    run, _ = folder.run(step=20)
    (run.logs_dir / "node-0.log").write_text("rank 1: of another node\n")
    run.node_log_file(1).write_text("".join(f"rank {8 + n % 2}: line {n}\n" for n in range(100)))
    assert log_of(run, 9, 3) == ["line 95", "line 97", "line 99"]
    assert log_of(run, 1, 3) == ["of another node"] and log_of(run, 17) == []


def test_a_silent_rank_is_told_with_the_log_of_rank_0(folder):
    run, writer = folder.run(step=20)
    run.log_file(0).write_text("step 19\nstep 20\nafterwards\n")
    end = run.log_file(0).read_text().index("afterwards")
    writer.event(
        "crash", step=20, rank=1, signal="SIGKILL", message="rank 1 was killed by SIGKILL", log_bytes={"0": end}
    )
    folder.look()
    assert folder.log.all()[0].log_tail[1:] == ("step 19", "step 20")
    assert "rank 0" in folder.log.all()[0].log_tail[0]
    writer.close()


def test_a_defect_of_rank_0_names_the_error(folder):
    _, writer = folder.run(step=20)
    writer.event("alert", level="error", message="ValueError: x")
    writer.event("crash", step=20, rank=0, signal=None, message="rank 0 exited 70")
    writer.finish("failed", 70, "ValueError: x")
    assert folder.look(3) == [("crash", "a", 20)]
    assert folder.log.all()[0].text == "rank 0 exited 70: ValueError: x"


def test_a_run_from_a_terminal_that_vanishes_or_fails_is_told_once(folder):
    with running() as rank:
        run, writer = folder.run("gone", step=7)
        record_rank(run, 0, rank.pid)
        assert folder.look(2) == []
    writer.close()
    _, other = folder.run("bad", step=0)
    other.finish("failed", 2, "data.source: there is no such file")
    assert sorted(folder.look(4)) == [("crash", "bad", None), ("crash", "gone", 7)]
    texts = {alert.run: alert.text for alert in folder.log.all()}
    assert "gone without a word" in texts["gone"] and "no such file" in texts["bad"]


@pytest.mark.parametrize("state", ["stopped", "finished"])
def test_an_ordinary_end_is_no_alert(folder, state):
    _, writer = folder.run(step=7)
    writer.finish(state, 85, "as asked")
    assert folder.look(3) == []


def test_a_kill_on_request_is_no_crash(folder):
    from mygpt2.run_dir.stop import record_kill

    with running() as rank:
        run, writer = folder.run(step=7)
        record_rank(run, 0, rank.pid)
        folder.look()
    assert folder.look() == [], "once lost, not yet judged: the stop writes down what it did"
    writer.close()
    record_kill(run)
    assert folder.look(3) == []


def test_a_run_made_again_under_the_name_of_a_removed_one_has_alerts_of_its_own(folder):
    jobs = Jobs(folder.runs, ["cpu"])
    for number in (1, 2):
        folder.clock.now += 10
        run, writer = folder.run(step=20)
        writer.command(["train"])
        writer.event("crash", step=20, rank=1, signal="SIGKILL", message=f"killed, run {number}")
        writer.finish("failed", 70, "x")
        folder.look(3)
        assert [alert.text for alert in jobs.alerts()] == [f"killed, run {number}"]
        assert jobs.alerts("a") == jobs.alerts()
        shutil.rmtree(run.path)
    assert len(folder.log.all()) == 2


def test_a_stall_is_told_once_and_again_after_it_got_on(folder):
    with running() as rank:
        run, writer = folder.run(step=50)
        record_rank(run, 0, rank.pid)
        train(writer, range(1, 50))
        assert folder.look() == []

        def stand_still():
            folder.clock.now += 61
            writer._write_status()  # a beat without progress

        stand_still()
        assert folder.look(2) == [("stall", "a", 50)]
        writer.status(step=51)
        assert len(folder.look(2)) == 1
        stand_still()
        assert folder.look(2)[0] == ("stall", "a", 51)
        writer.close()


def test_a_failed_save_is_told(folder):
    _, writer = folder.run(step=50)
    writer.event("save_failed", step=50, reason="no space left on device")
    assert folder.look() == [("save", "a", 50)]
    writer.close()


def test_low_disk_is_told_once_until_there_is_room_again(folder, monkeypatch):
    usage = shutil.disk_usage(folder.runs)
    free = [1 << 20]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage._replace(free=free[0]))
    assert folder.look(3) == [("disk", "", None)]
    for room, expected in ((3 << 30, 1), (8 << 30, 1), (1 << 20, 2)):  # barely above the limit is not room again
        free[0] = room
        folder.clock.now += 10
        assert len(folder.look(2)) == expected


def test_alerts_survive_a_restart_and_are_not_told_again(folder):
    _, writer = folder.run(step=50)
    writer.event("save_failed", step=50, reason="x")
    writer.event("crash", step=50, rank=0, signal="SIGSEGV", message="rank 0 was killed by SIGSEGV")
    before = sorted(folder.look())
    folder.log = AlertLog(folder.runs / ".workbench" / "alerts.jsonl")
    folder.watch = Watch(folder.runs, folder.log, folder.clock)
    assert sorted(folder.look(2)) == before and len(before) == 2
    lines = (folder.runs / ".workbench" / "alerts.jsonl").read_text().splitlines()
    assert len(lines) == 2
    writer.close()


def test_what_happened_long_before_anybody_watched_is_no_news(folder):
    folder.clock.now -= 3 * 86_400
    _, writer = folder.run(step=50)
    writer.event("crash", step=50, rank=0, signal="SIGKILL", message="rank 0 was killed by SIGKILL")
    writer.finish("failed", 70, "x")
    os.utime(writer.run.status_file, (folder.clock(), folder.clock()))
    folder.clock.now += 3 * 86_400
    assert folder.look(3) == []


def test_two_hundred_runs_that_have_ended_are_looked_into_only_at_first(folder):
    for number in range(200):
        _, writer = folder.run(f"r{number:03d}")
        writer.finish("finished", 0, "finished")
    folder.look(3)
    before = folder.watch.inspected
    folder.look(100)
    assert folder.watch.inspected == before
    _, writer = folder.run("r007", attempt=2)
    folder.look()
    assert folder.watch.inspected == before + 1, "one that was resumed is looked into again"
    writer.close()


def test_a_long_history_is_read_a_piece_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 4000)
    with running() as rank:
        run, writer = folder.run(step=300)
        record_rank(run, 0, rank.pid)
        train(writer, range(1, 300))
        train(writer, [300], loss=50.0)
        assert folder.look() == []
        assert folder.look(60) == [("spike", "a", 300)]
        writer.close()


def test_a_damaged_folder_disturbs_nothing(folder):
    run, writer = folder.run("a", step=1)
    run.events_file.write_text('{"kind": "crash"}\n[1]\nnot json\n{"kind": "crash", "rank": "x", "time": "y"}\n')
    run.metrics_file.write_text('{"step": []}\n{\n')
    (folder.runs / "file").write_text("no folder")
    (folder.runs / "b").mkdir()
    (folder.runs / "b" / "status.json").write_text("{")
    folder.look(4)
    writer.close()


def test_the_newest_alert_comes_first_and_of_one_run_only_its_own(tmp_path):
    log = AlertLog(tmp_path / "alerts.jsonl")
    for number, run in enumerate("abab"):
        assert log.add(new_alert("info", "spike", run, f"{number}", at=str(number), when=float(number)))
    assert not log.add(new_alert("info", "spike", "a", "again", at="0"))
    other = AlertLog(tmp_path / "alerts.jsonl")
    assert [alert.text for alert in other.all()] == ["3", "2", "1", "0"]
    assert [alert.text for alert in other.all("a")] == ["2", "0"]
    log.add(new_alert("info", "spike", "a", "4", at="4", when=4.0))
    assert other.all()[0].text == "4"
    log.close()


def test_a_run_that_diverges_raises_an_error_early_and_what_it_leaves_out_a_warning(folder):
    with running() as rank:
        run, writer = folder.run(step=10)
        record_rank(run, 0, rank.pid)
        assert folder.look() == [], "seen before it has written its configuration"
        writer.config('[data]\ntokenizer = "gpt2:8192"\n')
        for step, loss in enumerate((8.3, 20.0, 90.0, 400.0), 1):
            train(writer, [step], loss=loss)
        writer.event("alert", level="warning", about="left_out", step=3, message="50.00% left out at step 3: 400 empty")
        assert sorted(folder.look(2)) == [("divergence", "a", 4), ("left_out", "a", 3)]
        assert any("9.01" in alert.text for alert in folder.log.all())
        levels = {alert.kind: alert.level for alert in folder.log.all()}
        assert levels == {"divergence": "error", "left_out": "warning"}
        writer.close()


def test_one_run_that_cannot_be_watched_does_not_end_the_watch_over_others(folder, monkeypatch):
    for name in ("a", "b", "c"):
        _, writer = folder.run(name, step=50)
        writer.event("save_failed", step=50, reason="no space left on device")
        writer.finish("stopped", 85)
    real = module.state_of

    def broken(run, **more):
        if run.name == "b":
            raise RuntimeError("what nobody has thought of")
        return real(run, **more)

    monkeypatch.setattr(module, "state_of", broken)
    assert sorted(folder.look(2)) == [("save", "a", 50), ("save", "c", 50)]


def test_an_error_of_another_rank_is_told_with_the_end_of_that_ranks_log(folder):
    run, writer = folder.run(step=20)
    run.log_file(0).write_text("of rank 0\n")
    run.log_file(1).write_text("Traceback\nValueError: no such column\n")
    writer.event("alert", level="error", message="rank 1: ValueError: no such column", rank=1)
    writer.finish("failed", 70, "rank 1: ValueError: no such column")
    assert [kind for kind, _, _ in folder.look(3)] == ["crash"]
    (alert,) = folder.log.all()
    assert alert.text == "rank 1: ValueError: no such column" and alert.log_tail[-1] == "ValueError: no such column"


def test_the_disk_alert_counts_no_checkpoint_that_is_a_link(folder, tmp_path):
    run, writer = folder.run(step=50)
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "model.safetensors").write_bytes(b"x" * 1000)
    (run.checkpoints_dir / "step-00000040").mkdir(parents=True)
    (run.checkpoints_dir / "step-00000040" / "model.safetensors").write_bytes(b"x" * 10)
    assert module._newest_checkpoint_bytes(run) == 10
    (run.checkpoints_dir / "step-00000050").symlink_to(outside)
    assert module._newest_checkpoint_bytes(run) == 0
    writer.close()
