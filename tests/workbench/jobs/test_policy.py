"""Who goes next and who is started again."""

from dataclasses import replace

import pytest

from tests.workbench.jobs.helpers import job, spec
from workbench.jobs.ending import End
from workbench.jobs.policy import FIRST_DELAY, HELD_SECONDS, LONGEST_DELAY, next_jobs, verdict
from workbench.jobs.records import Job

DIED = End("died", -9, "the launcher was killed by SIGKILL")
AGAIN = End("again", 75, "the source is out of reach")


def on(number: int, *devices: str, state: str = "queued", **more: object) -> Job:
    return job(number, state, spec=spec(f"run-{number}", devices=devices), **more)


def names(jobs: list[Job]) -> list[str]:
    return [each.run for each in jobs]


def test_a_device_serves_one_job_and_the_first_in_the_queue_gets_it():
    assert names(next_jobs([on(1, "cpu"), on(2, "cpu")], ["cpu"], 0)) == ["run-1"]
    assert names(next_jobs([on(1, "cpu", state="running"), on(2, "cpu")], ["cpu"], 0)) == []
    assert names(next_jobs([on(1, "cpu", state="claimed"), on(2, "cpu")], ["cpu"], 0)) == []


def test_jobs_on_different_devices_run_side_by_side():
    slots = ["cuda:0", "cuda:1", "cuda:2"]
    jobs = [on(1, "cuda:0", "cuda:2"), on(2, "cuda:1"), on(3, "cuda:2")]
    assert names(next_jobs(jobs, slots, 0)) == ["run-1", "run-2"]


def test_an_earlier_job_keeps_the_devices_it_waits_for_from_later_ones():
    slots = ["cuda:0", "cuda:1", "cuda:2"]
    jobs = [on(1, "cuda:0", state="running"), on(2, "cuda:0", "cuda:1"), on(3, "cuda:1"), on(4, "cuda:2")]
    assert names(next_jobs(jobs, slots, 0)) == ["run-4"]


def test_a_job_that_is_started_again_soon_keeps_its_devices_and_one_that_waits_long_does_not():
    soon = on(1, "cpu", state="waiting", not_before=HELD_SECONDS / 2)
    late = on(1, "cpu", state="waiting", not_before=HELD_SECONDS * 2)
    assert names(next_jobs([soon, on(2, "cpu")], ["cpu"], 0)) == []
    assert names(next_jobs([late, on(2, "cpu")], ["cpu"], 0)) == ["run-2"]
    assert names(next_jobs([on(0, "cpu"), soon], ["cpu"], HELD_SECONDS)) == ["run-1"], "before those never started"


def test_a_job_for_a_device_that_is_not_here_waits_and_holds_nobody_up():
    assert names(next_jobs([on(1, "cuda:7"), on(2, "cpu")], ["cpu"], 0)) == ["run-2"]


@pytest.mark.parametrize(("state", "code"), [("finished", 0), ("stopped", 85), ("failed", 2), ("failed", 70)])
def test_an_end_on_purpose_is_the_end(state, code):
    what = verdict(job(), End(state, code, "why"), step=5)
    assert (what.state, what.reason) == (state, "why")


@pytest.mark.parametrize("end", [DIED, AGAIN])
def test_a_death_or_a_source_away_is_waited_out_with_growing_patience(end):
    present = job(spec=spec(restarts=20))
    delays = []
    for _ in range(12):
        what = verdict(present, end, step=0)
        assert what.state == "waiting"
        delays.append(what.delay)
        present = replace(present, failures=what.failures)
    assert delays[:4] == [FIRST_DELAY[end.state] * factor for factor in (1, 2, 4, 8)]
    assert max(delays) == LONGEST_DELAY


def test_three_failures_without_a_step_in_between_are_the_last():
    present, states = job(), []
    for _ in range(3):
        what = verdict(present, DIED, step=10)
        states.append(what.state)
        present = replace(present, failures=what.failures, best_step=10)
    assert states == ["waiting", "waiting", "failed"]
    assert "given up" in what.reason and "3 times" in what.reason


def test_a_step_further_counts_failures_anew_but_the_same_step_again_does_not():
    present = job(failures=2, best_step=100)
    assert verdict(present, DIED, step=101).state == "waiting"
    assert verdict(present, DIED, step=101).failures == 1
    assert verdict(present, DIED, step=100).state == "failed", (
        "back to a checkpoint and up to the same step: no progress"
    )


@pytest.mark.parametrize("end", [DIED, AGAIN])
@pytest.mark.parametrize("how", ["save", "now", "kill"])
def test_nothing_is_started_again_once_a_stop_was_asked_for(end, how):
    assert verdict(job(asked=how), end, step=50).state == "stopped"
    assert verdict(job(asked=how), End("finished", 0, ""), step=50).state == "finished"


def test_a_job_that_may_not_be_started_again_is_not():
    what = verdict(job(spec=spec(restarts=0)), DIED, step=50)
    assert (what.state, what.reason) == ("failed", DIED.reason)
