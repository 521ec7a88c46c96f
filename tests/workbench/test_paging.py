"""Pages of metrics: all rows that count, once each, in pages that cost what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mygpt2.run_dir import RunDir
from mygpt2.run_dir.metrics import read_metrics
from mygpt2.run_dir.writer import METRIC_KEYS
from workbench import paging
from workbench.paging import MAX_ROWS, metrics_page


def row(attempt: int, step: int) -> dict[str, Any]:
    values = dict.fromkeys(METRIC_KEYS) | {"step": step, "loss": 10.0 / step + attempt, "tokens": step * 8}
    return {"schema": 1, "attempt": attempt, **values, "time": 1000.0 + step}


def made(tmp_path: Path, *attempts: tuple[int, int, int], name: str = "one") -> RunDir:
    """A run whose metrics hold attempts (number, first step, last step)."""
    run = RunDir.create(tmp_path, name)
    lines = [json.dumps(row(a, s)) + "\n" for a, first, last in attempts for s in range(first, last + 1)]
    run.metrics_file.write_text("".join(lines))
    return run


def all_pages(run: RunDir, limit: int, cursor: int = 0) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while True:
        page = metrics_page(run, cursor, limit)
        assert len(page["rows"]) <= limit
        if not page["rows"]:
            assert page["cursor"] == cursor
            return found
        cursor = page["cursor"]
        found += [(line["attempt"], line["step"]) for line in page["rows"]]


HISTORIES = {
    "never resumed": [(1, 1, 57)],
    "resumed": [(1, 1, 40), (2, 21, 60)],
    "resumed twice, the second further back": [(1, 1, 40), (2, 31, 50), (3, 11, 45)],
    "resumed from its start": [(1, 1, 9), (2, 1, 12)],
    "an attempt wholly overwritten": [(3, 1, 20), (4, 15, 18), (7, 10, 30)],
    "branched": [(1, 100, 140), (2, 120, 150)],
}


@pytest.mark.parametrize("limit", [1, 7, 1000])
@pytest.mark.parametrize("history", HISTORIES)
def test_pages_together_are_what_the_reader_of_the_whole_file_says(tmp_path: Path, history: str, limit: int) -> None:
    run = made(tmp_path, *HISTORIES[history])
    whole = read_metrics(run)
    wanted = list(zip(whole["attempt"].tolist(), whole["step"].tolist(), strict=True))
    assert all_pages(run, limit) == wanted


def test_a_cursor_of_a_run_that_was_never_resumed_is_a_step(tmp_path: Path) -> None:
    run = made(tmp_path, (1, 1, 30))
    assert metrics_page(run, 0, 20)["cursor"] == 20
    assert [line["step"] for line in metrics_page(run, 25, 100)["rows"]] == [26, 27, 28, 29, 30]


def test_a_reader_who_was_ahead_gets_every_row_of_the_later_attempt(tmp_path: Path) -> None:
    run = made(tmp_path, (1, 1, 40))
    cursor = metrics_page(run, 0, 1000)["cursor"]
    with run.metrics_file.open("a") as file:
        file.writelines(json.dumps(row(2, step)) + "\n" for step in range(21, 61))
    assert all_pages(run, 15, cursor) == [(2, step) for step in range(21, 61)]
    with run.metrics_file.open("a") as file:
        file.write(json.dumps(row(2, 61)) + "\n" + json.dumps(row(2, 62))[:40])  # the last one is being written
    later = ((2 - 1) << 40) | 60
    assert all_pages(run, 15, later) == [(2, 61)]


def test_what_is_no_row_is_passed_over(tmp_path: Path) -> None:
    run = made(tmp_path, (1, 1, 20))
    lines = run.metrics_file.read_text().splitlines(keepends=True)
    damage = ["\n", "{}\n", "nonsense\n", "[1]\n", '{"step": 5}\n', '{"step": -1, "attempt": 1}\n',
              "x" * 200_000 + "\n",
              '{"step": ' + "9" * 5000 + "}\n", '{"step": true, "attempt": 1}\n', "\0" * 50 + "\n"]  # fmt: skip
    mixed = [piece for at, line in enumerate(lines) for piece in (line, damage[at % len(damage)])]
    run.metrics_file.write_text("".join(mixed))
    assert all_pages(run, 3) == [(1, step) for step in range(1, 21)]


def test_a_row_is_whole_finite_and_plain(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "one")
    odd = {"loss": float("nan"), "lr": 10**400, "extra": {"path": "/x", "meta": {"_type": "gradio.FileData"}}}
    run.metrics_file.write_text(json.dumps(row(1, 1) | odd) + "\n")
    (line,) = metrics_page(run, 0, 10)["rows"]
    assert line["loss"] is None and line["lr"] is None and "extra" not in line and line["mfu"] is None
    assert json.dumps(line, allow_nan=False)


@pytest.mark.parametrize("cursor", [-5, 10**30, 7 << 40])
def test_a_cursor_of_nobodys_is_no_error(tmp_path: Path, cursor: int) -> None:
    run = made(tmp_path, (1, 1, 5))
    assert len(metrics_page(run, cursor, 10)["rows"]) == (5 if cursor < 0 else 0)


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, "one")
    assert metrics_page(run, 0, 10) == {"rows": [], "cursor": 0}
    run.metrics_file.write_text("")
    assert metrics_page(run, 3, 10) == {"rows": [], "cursor": 3}


def test_a_page_reads_what_it_holds_and_not_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made(tmp_path, (1, 1, 20_000), (2, 15_001, 22_000))
    parsed = []
    loads = json.loads
    monkeypatch.setattr(paging.json, "loads", lambda data: parsed.append(1) or loads(data))
    assert len(metrics_page(run, 12_000, 50)["rows"]) == 50
    assert len(parsed) < 300
    assert len(metrics_page(run, 0, 10**9)["rows"]) == MAX_ROWS


def test_metrics_that_are_a_link_out_of_the_run_are_not_read(tmp_path: Path) -> None:
    run = made(tmp_path, (1, 1, 5))
    elsewhere = tmp_path / "elsewhere.jsonl"
    run.metrics_file.rename(elsewhere)
    run.metrics_file.symlink_to(elsewhere)
    with pytest.raises(OSError, match="link out"):
        metrics_page(run, 0, 10)
