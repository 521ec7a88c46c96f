"""Our own run folders: every step, and with the trace the place of every row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mygpt2.data.sources.manifest import Manifest
from mygpt2.data.sources.mixture import Mixture, Part
from mygpt2.data.trace import TraceWriter, read_manifest
from mygpt2.ripples import analyse, read_log
from tests.ripples.made import run_folder


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A set of 4 files of 300 documents in file order, three cycles to a file: 12.5 steps each."""
    return analyse(read_log(run_folder(tmp_path_factory.mktemp("runs") / "inside")))


def test_the_layout_is_known_from_the_trace(report) -> None:
    layout = report.layout
    assert layout["files"] == 4 and layout["order"] == "sequential"
    assert layout["document_tokens"] == pytest.approx(64)
    assert layout["file_tokens"] == pytest.approx(300 * 64) and layout["set_tokens"] == pytest.approx(1200 * 64)


def test_a_third_of_a_file_is_no_layout_period(report) -> None:
    assert report.significant and report.period_steps == pytest.approx(12.5, rel=0.01)
    assert report.share_of_file == pytest.approx(1 / 3, rel=0.01) and report.part_of_file == 3
    file = next(c for c in report.candidates if c["name"] == "a file")
    assert file["tested_on"] == "the place of every row" and file["p_value"] > 0.001 and not file["fits"]
    assert "structure inside the file" in report.verdict


def test_a_whole_files_ripple_fits_the_file(tmp_path: Path) -> None:
    report = analyse(read_log(run_folder(tmp_path / "whole", cycles=1)))
    fits = [c["name"] for c in report.candidates if c["fits"]]
    assert report.period_steps == pytest.approx(37.5, rel=0.02) and fits == ["a file"]
    assert next(c for c in report.candidates if c["fits"])["p_value"] < 1e-6
    assert "that of a file" in report.verdict


def test_the_profile_by_place_in_the_file_has_the_planted_shape(report) -> None:
    drawn = report.figures["by_place_in_file"]
    place, mean = np.array(drawn["place"]), np.array(drawn["mean"], float)
    assert np.corrcoef(mean, np.sin(6 * np.pi * place))[0, 1] > 0.9
    assert 2 * np.mean(mean * np.sin(6 * np.pi * place)) == pytest.approx(0.1, abs=0.03)


def test_a_shuffled_order_leaves_nothing(tmp_path: Path) -> None:
    report = analyse(read_log(run_folder(tmp_path / "lanes", shuffled=True)))
    assert not report.significant and report.p_value > 0.05
    assert report.forecast == []


def test_what_the_documents_explain_is_told_by_property(report) -> None:
    found = report.attribution
    best, *others = found["properties"]
    assert best["name"] == "score" and best["p_value"] < 1e-6
    assert all(item["partial_r2"] < best["partial_r2"] / 10 for item in others)
    assert {item["name"] for item in others} == {"dump", "length"}
    assert found["ripple_left"] == pytest.approx(1, abs=0.1)  # the planted cycle is not the score's


def as_mixture(path: Path, kinds: tuple[str, str] = ("parquet", "parquet")) -> Path:
    """The first two files as one source and the others as another, whose rows have a loss that is higher by 0.2."""
    whole = read_manifest(path)
    parts = []
    for number, kind in enumerate(kinds):
        table = whole.blocks[60 * number : 60 * number + 60].copy()
        table["file"] -= 2 * number
        files = whole.files[2 * number : 2 * number + 2]
        parts.append(Part("ab"[number], 0.5, Manifest("made", kind, None, "text", files, table)))
    (path / "trace" / "manifest.json").write_text(json.dumps(Mixture.of("made", parts).to_dict()))
    (file,) = (path / "trace").glob("*.parquet")
    rows = pq.read_table(file)
    other = np.array([blocks[0] >= 60 for blocks in rows["block"].to_pylist()])
    loss = pa.array(rows["loss"].to_numpy() + 0.2 * other, pa.float32())
    pq.write_table(rows.set_column(rows.schema.get_field_index("loss"), "loss", loss), file)
    return path


def test_of_a_mixture_the_source_explains_and_columns_count_where_they_are_known(tmp_path: Path) -> None:
    made = {kinds: as_mixture(run_folder(tmp_path / kinds, shuffled=True), ("parquet", kinds))
            for kinds in ("parquet", "jsonl")}  # fmt: skip
    found = {kinds: analyse(read_log(path)).attribution for kinds, path in made.items()}
    source, score, *rest = found["parquet"]["properties"]
    assert (source["name"], score["name"]) == ("source", "score") and source["p_value"] < 1e-6 > score["p_value"]
    assert {item["name"] for item in rest} == {"dump", "length"} and found["parquet"]["row_groups"] == 120
    half = {item["name"].partition(", known of ")[0]: item for item in found["jsonl"]["properties"]}
    known = re.fullmatch(r"score, known of (\d+)% of the rows", half["score"]["name"])
    assert known and abs(int(known[1]) - 50) <= 5 and half["source"]["name"] == "source"
    assert half["source"]["partial_r2"] == pytest.approx(source["partial_r2"], rel=0.1)
    assert 0.3 < half["score"]["partial_r2"] / score["partial_r2"] < 0.7 and half["score"]["p_value"] < 1e-6
    for file in (tmp_path / "parquet-data").glob("[23].parquet"):
        file.unlink()
    gone = analyse(read_log(made["parquet"])).attribution
    assert gone["rows"] == found["jsonl"]["rows"] and gone["properties"] == found["jsonl"]["properties"]


def test_rows_from_before_a_fork_to_other_data_are_not_taken_for_those_of_now(tmp_path: Path) -> None:
    """The other data have blocks of the same numbers, so that nothing but the attempts tells them apart."""
    path, later = run_folder(tmp_path / "one", steps=200), as_mixture(run_folder(tmp_path / "mixed", seed=6))
    (file,) = (later / "trace").glob("*.parquet")
    rows = pq.read_table(file, partitioning=None).filter(pc.field("step") > 200)
    TraceWriter(path / "trace", 2, 0, read_manifest(later))
    (path / "metrics.jsonl").write_bytes((later / "metrics.jsonl").read_bytes())
    nothing_yet = analyse(read_log(path))
    assert nothing_yet.attribution is None and "by_place_in_file" not in nothing_yet.figures
    pq.write_table(rows, path / "trace" / "attempt-0002-rank-0000-step-00000201-00000400.parquet")
    report = analyse(read_log(path))
    assert report.attribution["rows"] == 200 * 8 and report.attribution["properties"][0]["name"] == "source"
    for notes in (nothing_yet.notes, report.notes):
        assert any("is told since step 201, when the data changed" in note for note in notes)


def test_a_run_without_a_trace_is_tested_on_time(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "bare")
    for file in (path / "trace").iterdir():
        file.unlink()
    report = analyse(read_log(path))
    assert report.significant and report.attribution is None
    assert {c["tested_on"] for c in report.candidates} <= {"time", ""}


def test_a_resumed_run_counts_the_later_attempt(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "resumed", steps=100)
    with open(path / "metrics.jsonl", "a") as file:
        for step in range(90, 101):
            file.write(json.dumps({"schema": 1, "attempt": 2, "step": step, "tokens": step * 512, "loss": 9.0}) + "\n")
        file.write("not a line\n")
    log = read_log(path)
    assert (log.loss[-11:] == 9.0).all() and len(log) == 100
    assert any("after a resume" in note for note in log.notes) and any("no metrics" in note for note in log.notes)


def test_a_damaged_trace_or_configuration_is_done_without(tmp_path: Path) -> None:
    path = run_folder(tmp_path / "damaged")
    (path / "trace" / "manifest.json").write_text("{")
    (path / "config.toml").write_text("[model\n")
    assert analyse(read_log(path)).significant
