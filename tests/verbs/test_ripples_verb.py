"""`ripples` and `data inspect --forecast` as a person calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mygpt2.errors import EXIT_USAGE
from mygpt2.progress import ProgressFile
from tests.ripples.made import ROOT, descent, noise, run_folder, wave


@pytest.fixture
def log(tmp_path: Path) -> Path:
    n = 900
    loss = descent(n) + noise(n, 1) + wave(n, 45, 0.04)
    rows = "".join(f"{i},{i * 1000},{x:.6f}\n" for i, x in enumerate(loss, 1))
    (tmp_path / "log.csv").write_text("step,tokens,loss\n" + rows)
    return tmp_path / "log.csv"


def test_a_log_gives_a_verdict_a_json_and_a_page(mygpt2: Callable, log: Path, tmp_path: Path) -> None:
    ended = mygpt2(
        "ripples", str(log), "--json", "r.json", "--html", "r.html", "--file-tokens", "90000", "--files", "10"
    )
    assert ended.code == 0 and ended.err == "", ended.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["significant"] and report["share_of_file"] == pytest.approx(0.5, rel=0.02)
    assert "structure inside the file" in " ".join(ended.out.split()) and "1/2 of one" in " ".join(ended.out.split())
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_a_run_is_found_by_its_name_and_its_steps_can_be_chosen(mygpt2: Callable, tmp_path: Path) -> None:
    run_folder(tmp_path / "runs" / "mine")
    ended = mygpt2("ripples", "mine", "--steps", "50:", "--json", "r.json")
    assert ended.code == 0, ended.err
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["signal"]["first_step"] == 50 and report["signal"]["last_step"] == 400
    assert "the place of every row" in ended.out and "partial R2" in ended.out


def test_two_runs_are_compared(mygpt2: Callable, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_folder(tmp_path / "runs" / name)
    ended = mygpt2("ripples", "a", "--compare", "b", "--json", "r.json")
    assert ended.code == 0 and "batches are the same" in " ".join(ended.out.split())
    assert json.loads((tmp_path / "r.json").read_text())["difference"] == 0


def test_a_short_log_is_a_sentence_and_no_failure(mygpt2: Callable, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("step,loss\n1,3\n2,2.9\n")
    ended = mygpt2("ripples", "short.csv", "--json", "r.json", "--html", "r.html")
    assert ended.code == 0 and "2 usable points" in ended.out
    assert json.loads((tmp_path / "r.json").read_text())["significant"] is False


WRONG = {
    "absent": (("absent.csv",), "no run 'absent.csv'"),
    "a path that is not there": (("./no/log.csv",), "cannot be read: No such file"),
    "a range in words": (("log.csv", "--steps", "a:b"), "not a range; write FIRST:LAST"),
    "a range backwards": (("log.csv", "--steps", "9:3"), "not a range"),
    "no such steps": (("log.csv", "--steps", "5000:"), "has the steps 1 to 900"),
    "a dataset nobody knows": (("log.csv", "--dataset", "pile"), "allowed: fineweb-edu"),
    "a size of zero": (("log.csv", "--files", "0"), "--files 0 is not allowed"),
    "a column that is not there": (("log.csv", "--column", "x"), "no column 'x'"),
    "nowhere to write": (("log.csv", "--json", "no/r.json"), "a folder that exists"),
    "a page of a comparison": (("log.csv", "--compare", "log.csv", "--html", "r.html"), "--html shows an analysis"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_line_and_writes_nothing(case: str, mygpt2: Callable, log: Path, tmp_path: Path) -> None:
    argv, part = WRONG[case]
    ended = mygpt2("ripples", *argv)
    assert ended.code == EXIT_USAGE and part in ended.err and len(ended.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv"}


def test_a_forecast_reads_no_text(mygpt2: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        texts = ["ab" * int(rng.integers(100, 200)) for _ in range(300)]
        pq.write_table(pa.table({"text": texts}), tmp_path / "set" / f"{number}.parquet", row_group_size=10)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", None)
    ended = mygpt2("data", "inspect", "--forecast", "--source", "set", "--data.cache_dir", str(tmp_path / "cache"))
    assert ended.code == 0, ended.err
    assert "footers of 90 row groups, 900 documents" in ended.out and "length" in ended.out


def test_how_far_it_is_is_told_to_who_asks(mygpt2: Callable, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, update = [], ProgressFile.update

    def heard(self: ProgressFile, *words: Any) -> None:
        told.append(words)
        update(self, *words)

    monkeypatch.setattr(ProgressFile, "update", heard)
    monkeypatch.setenv("MYGPT2_PROGRESS", str(log.with_name("progress.json")))
    assert mygpt2("ripples", str(log)).code == 0
    title, done, total, _ = told[-1]
    assert title == "surrogates" and done == total > 0
    assert json.loads(log.with_name("progress.json").read_text())["title"] == "surrogates"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(sent: signal.Signals, log: Path) -> None:
    script = (
        "import sys, time\n"
        "from mygpt2.ripples import study\n"
        "def slow(*words, **more):\n"
        "    print('searching', flush=True)\n"
        "    time.sleep(60)\n"
        "study.search = slow\n"
        "from mygpt2.__main__ import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, "ripples", log.name, "--json", "r.json"], cwd=log.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "searching\n"
    child.send_signal(sent)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130 and said == "" and not log.with_name("r.json").exists()
