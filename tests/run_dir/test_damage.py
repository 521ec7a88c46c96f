"""No run folder, however damaged, raises, hangs, hides others, or shows what lies outside of it."""

import contextlib
import io
import json
import math
import os
import signal
from collections import Counter

import pytest

from mygpt2.__main__ import main
from mygpt2.errors import UserError
from mygpt2.run_dir import RunDir, list_runs, next_attempt, rank_states, read_events, read_metrics, state_of, stop
from tests.run_dir import damage

STATES = {"queued", "starting", "running", "saving", "stopped", "finished", "failed", "lost"}
SECRET = "what-lies-outside"
UNREADABLE = {
    f"{file}: {how}"
    for file in ("config.toml", "metrics.jsonl", "command.json")
    for how in ("pipe", "link out", "folder")
} | {"checkpoints: link out", "events.jsonl: pipe"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(runs, {name of the run: what was done to it}), made once: no reader changes them."""
    base = tmp_path_factory.mktemp("damage")
    outside = base / "outside"
    outside.mkdir()
    for name in ("secret.json", "0.json", "run.json", "config.toml", "rank-0.log", "MANIFEST.json"):
        (outside / name).write_text(json.dumps({"state": SECRET, "message": SECRET, "argv": [SECRET], "kind": SECRET}))
    runs = base / "runs"
    return runs, {run.name: what for what, run in damage.damaged(runs, outside)}


@pytest.fixture(autouse=True)
def never_for_ever():
    """A reader that waits for a pipe would wait for ever: the test fails instead."""

    def give_up(number, frame):
        raise AssertionError("a reader waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def verb(*words):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["runs", *map(str, words)])
    return code, out.getvalue(), err.getvalue()


def test_the_list_shows_every_one_of_them(folders):
    runs, cases = folders
    code, out, err = verb("list", "--runs", runs)
    assert code == 0 and err == "" and SECRET not in out
    assert len(cases) > 400
    lines = {line.split()[0]: line for line in out.splitlines()[1:]}
    assert {*lines} == {"model", *cases}
    assert all(line.isprintable() and len(line) < 200 for line in lines.values())
    assert "stopped" in lines["model"] and "7/9 78%" in lines["model"]
    code, out, _ = verb("list", "--runs", runs, "--json")
    rows = json.loads(out, parse_constant=lambda word: pytest.fail(word))
    assert {row["run"] for row in rows} == {"model", *cases} and all(row["state"] in STATES for row in rows)


def test_each_is_shown_verified_and_stopped_in_words(folders):
    runs, cases = folders
    failed = []
    for name, what in cases.items():
        for words in (("show", name), ("show", name, "--json"), ("verify", name), ("stop", name)):
            code, out, err = verb(*words, "--runs", runs)
            wrong = code not in (0, 2, 75) or "Traceback" in err or SECRET in out + err or not (out + err).strip()
            if wrong or not all(line.isprintable() or "\t" in line for line in (out + err).splitlines()):
                failed.append((what, words[0], code, (err or out)[-300:]))
            told = "unreadable" in out or "unreadable" in err
            if words[0] == "show" and len(words) == 2 and what in UNREADABLE and not told:
                failed.append((what, "is not told as unreadable", out[-300:]))
    assert not failed, failed[:5]


def test_their_state_metrics_and_events_are_values_that_can_be_counted_and_printed(folders):
    runs, cases = folders
    for name, what in cases.items():
        run = RunDir(runs / name)
        state = state_of(run)
        assert state.state in STATES, what
        assert "state.json" not in state.reason and SECRET not in f"{state}", what
        for key in ("step", "steps", "tokens", "attempt"):
            value = state.status.get(key)
            assert value is None or (type(value) is int and 0 <= value < 2**63), (what, key)
        for age in (state.heartbeat_age, state.progress_age):
            assert age is None or math.isfinite(age), what
        assert all(rank.rank >= 0 for rank in rank_states(run))
        metrics = read_metrics(run)
        assert all(column.ndim == 1 and len(column) == len(metrics) for column in metrics.columns.values()), what
        for event in read_events(run):
            assert event.get("kind") is None or isinstance(event["kind"], str)
            assert event.get("time") is None or 0 <= event["time"] < 1e12
        assert next_attempt(run) >= 1
        if not state.alive:
            assert stop(run, patience=0).outcomes is not None


def test_damage_is_told_where_it_matters(folders):
    runs, cases = folders
    told = Counter()
    for name, what in cases.items():
        if what.startswith("status.json") and (state := state_of(RunDir(runs / name))).state == "lost":
            assert state.reason, what
            told[state.reason] += 1
    assert any("a link out of the run's folder" in reason for reason in told)
    assert any("a named pipe" in reason for reason in told) and any("at most" in reason for reason in told)


def test_a_run_can_be_opened_or_is_refused_in_a_sentence(folders):
    runs, cases = folders
    for name in cases:
        try:
            RunDir.open(runs, name)
        except UserError as error:
            assert str(error).isprintable()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_a_run_that_nobody_may_look_into_is_not_hidden(tmp_path):
    run = damage.whole(tmp_path, "shut")
    run.path.chmod(0)
    try:
        assert [each.name for each in list_runs(tmp_path)] == ["shut"] and state_of(run).state == "lost"
    finally:
        run.path.chmod(0o700)


def test_a_plan_reads_them_for_their_speed_and_is_not_held_up(folders):
    runs, _ = folders
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["plan", "--preset", "tiny", "--runs", str(runs)]) == 0
    assert "Parameters" in out.getvalue() and SECRET not in out.getvalue() and err.getvalue() == ""
