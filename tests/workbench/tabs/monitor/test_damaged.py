"""Run folders that somebody else made, or a bad disk: every one is shown as far as it goes, and none hides another."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mygpt2.errors import UserError
from mygpt2.files import replace_json
from mygpt2.run_dir import RunDir
from tests.run_dir.processes import record_rank
from tests.workbench.tabs.monitor.folders import run_folder
from workbench.context import Context
from workbench.jobs import Jobs
from workbench.jobs.alerts import AlertLog
from workbench.jobs.watch import Watch
from workbench.live import News
from workbench.tabs.monitor import index as index_module
from workbench.tabs.monitor import view
from workbench.tabs.monitor.export import KINDS, export
from workbench.tabs.monitor.index import RunIndex
from workbench.tabs.monitor.view import PANES, Monitor

NASTY = (
    10**400, -(10**400), 2**63, "text", "", float("nan"), float("inf"), 1e308, -1, 0, 1.5, True, None, [], {}, [[1]],
    {"a": 10**400}, ["\0", "\ud800"],
)  # fmt: skip
SHOWS = {"samples.jsonl": "samples", "events.jsonl": "events", "evals/x.json": "results", "command.json": "settings",
         "config.toml": "settings", "checkpoints/step-00000003/state.json": "settings"}  # fmt: skip
FILES = ("status.json", "exit.json", "ranks/0.json", "metrics.jsonl", "events.jsonl", "samples.jsonl", "workbench.json",
         "evals/x.json", "command.json", "checkpoints/step-00000003/state.json", "config.toml")  # fmt: skip
SAMPLED = 24  # of each file's damages, chosen by its name
RAW = (b"", b"\0" * 100, b"\xff\xfe", b"{", b"[" * 100_000, b"null\n", b"[]\n", b"1" * 5000 + b"\n", b'"\\ud800"\n')


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "MAX_AGE", 0.0)
    runs = (tmp_path / "runs").resolve()
    runs.mkdir()
    jobs = Jobs(runs, ["cpu"])
    jobs.store.prepare()
    yield Context(runs, (), jobs)
    jobs.close()


def whole(runs: Path, name: str) -> RunDir:
    """A running run with something in every file the page reads."""
    run = run_folder(runs, name, state="running", toml="[train]\nsteps = 10\n")
    record_rank(run, 0, os.getpid())
    replace_json(run.command_file, {"git": {"commit": "a"}, "versions": {"torch": "2"}, "host": "h", "environment": {}})
    replace_json(run.path / "workbench.json", {"star": True, "tags": ["a"]})
    replace_json(run.evals_dir / "x.json", {"model": "m", "protocol": "p", "loss": 3.0, "stderr": 0.1, "tokens": 10,
                                            "bytes": 30, "perplexity": 20.0, "bits_per_byte": 1.0, "token_sha256": "a",
                                            "hellaswag": {"completion": {"acc_norm": 0.3}}})  # fmt: skip
    replace_json(run.exit_file, {"attempt": 1, "state": "failed", "code": 70, "reason": "r", "step": 3, "time": 1.0})
    (run.checkpoints_dir / "step-00000003").mkdir()
    replace_json(run.checkpoints_dir / "step-00000003" / "state.json",
                 {"precision": "fp32", "ranks": 1, "tokenizer": {"fingerprint": "f"},
                  "data": {"fingerprint": {"a": "b"}}})  # fmt: skip
    events = [
        {"kind": "eval", "step": 3, "loss": 4.0, "bits_per_byte": 1.0, "protocol": "run", "seconds": 1.0},
        {"kind": "alert", "level": "error", "message": "m"},
        {"kind": "crash", "step": 3, "rank": 0, "signal": None, "message": "m", "log_bytes": {"0": 3}},
        {"kind": "save_failed", "step": 3, "reason": "r"},
        {"kind": "skipped", "step": 3, "loss": None},
        {"kind": "left_out", "step": 3, "documents": 3, "share": 0.5},
        {"kind": "save", "step": 3, "seconds": 2.0},
    ]
    _write_lines(run.events_file, [{"attempt": 1, "time": 1e9, **event} for event in events])
    _write_lines(run.samples_file, [{"attempt": 1, "step": 3, "prompt": "a", "text": "b", "seed": 1, "time": 1.0}])
    run.log_file(0).write_text("a log\n")
    return run


def _write_lines(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def damages(path: Path) -> Iterator[bytes]:
    """The file with one value at a time replaced."""
    if path.suffix in (".json", ".jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
        for record in records or [json.loads(path.read_text())]:
            for key in record:
                for value in NASTY:
                    changed = json.dumps({**record, key: value}) + "\n"
                    yield (changed if records is None else changed + json.dumps(record) + "\n").encode()
                    if records is not None:
                        yield (json.dumps(record) + "\n" + changed).encode()


def shown(monitor: Monitor, runs: Sequence[str], pane: str) -> dict[str, Any]:
    """What a page with these runs gets, of which the first is in the focus; a defect is raised."""
    news = News()
    view.look(monitor, {"runs": runs, "focus": runs[0], "pane": pane, "at": 1}, news)
    return news.answer()


def look(context: Context, run: RunDir, panes: Sequence[str], watch: bool) -> None:
    """Everything the page and its supervisor read of a run."""
    listed = RunIndex(context.runs).changes()
    assert {"bad", "good"} <= {row["name"] for row in listed["rows"]}
    json.dumps(listed, allow_nan=False)
    monitor = Monitor.over(context)
    for pane in panes:
        json.dumps(shown(monitor, ["bad", "good"], pane))
    for what in KINDS:
        with contextlib.suppress(UserError):  # a sentence
            export(run, what)
    if watch:
        log = AlertLog(context.runs / "alerts.jsonl")
        Watch(context.runs, log, lambda: 1e9 + 5).look()
        log.all()
        log.close()


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_of_a_run_hides_no_run_and_breaks_no_part_of_the_page(context, file):
    whole(context.runs, "good")
    run = whole(context.runs, "bad")
    path = run.path / file
    chosen = random.Random(file).sample(found := list(damages(path)), min(len(found), SAMPLED))
    for number, data in enumerate([*chosen, *RAW]):
        path.write_bytes(data)
        try:
            look(context, run, ("log", SHOWS.get(file, PANES[number % len(PANES)])), watch=number % 3 == 0)
        except Exception as error:
            raise AssertionError(f"{file} with {data[:300]!r}") from error


SECRET = "what nobody else may read"


@pytest.mark.parametrize("way", ["link", "pipe"])
@pytest.mark.parametrize("file", [*FILES, "notes.md", "logs/rank-0.log", "loss_plot.png"])
def test_no_file_of_a_run_leads_out_of_its_folder_or_holds_the_page_up(context, tmp_path, file, way):
    whole(context.runs, "good")
    run = whole(context.runs, "bad")
    path = run.path / file
    record = {"model": SECRET, "protocol": SECRET, "loss": 3.0, "message": SECRET, "prompt": SECRET, "text": SECRET,
              "kind": "alert", "state": "failed", "reason": SECRET, "attempt": 1, "step": 3, "host": SECRET,
              "tags": ["what"], "time": 1e9, "precision": SECRET}  # fmt: skip
    secret = tmp_path / "secret"
    secret.write_text(f'secret = "{SECRET}"\n' if file == "config.toml" else json.dumps(record) + "\n")
    path.unlink(missing_ok=True)
    if way == "link":
        path.symlink_to(secret)
    else:
        os.mkfifo(path)
    monitor = Monitor.over(context)
    told: list[dict[str, Any]] = [shown(monitor, ["bad"], pane) for pane in PANES]
    for what in KINDS:
        try:
            told.append(export(run, what))
        except UserError as error:
            told.append({"problem": str(error)})
    assert SECRET not in repr(told) and "good" in repr(told)
    log = AlertLog(context.runs / "alerts.jsonl")
    Watch(context.runs, log, lambda: 1e9 + 5).look()
    assert SECRET not in repr(log.all())
