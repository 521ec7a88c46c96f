"""Results beside each other: only what compares, in order, with quoted figures marked and errors kept in mind."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.workbench.conftest import make_run
from tests.workbench.tabs.compare.made_up import EVIL, QUOTED, SHA, Place, items_result, text_result
from workbench.tabs.compare import export
from workbench.tabs.compare.groups import Bar, against_best, bars, difference
from workbench.tabs.compare.view import results_view


@pytest.fixture
def place(tmp_path: Path) -> Place:
    make_run(tmp_path, "one", 2)
    return Place(tmp_path)


def test_results_of_runs_and_of_the_workbench_are_found_and_damaged_files_passed_over(place: Place) -> None:
    place.add(text_result("one/step-1", 3.0), run="one")
    place.add(text_result("gpt2", 3.1))
    (place.runs / "one" / "evals" / "bad.json").write_text("{")
    (place.runs / "one" / "evals" / "other.json").write_text('{"loss": "text", "protocol": 3}')
    assert sorted(result.model for result in place.results.read()) == ["gpt2", "one/step-1"]


def test_the_newest_of_one_measurement_counts_and_a_changed_file_is_read_again(place: Place) -> None:
    place.add(text_result("a", 3.0))
    path = place.add(text_result("a", 2.9))
    assert [result.loss.loss for result in place.results.read() if result.loss] == [2.9]
    path.write_text(json.dumps(text_result("a", 2.5)))
    assert [result.loss.loss for result in place.results.read() if result.loss] == [2.5]


def test_other_texts_and_other_items_are_other_sets_the_newest_first(place: Place) -> None:
    place.add(text_result("a", 3.0))
    place.add(text_result("a", 3.0, protocol="local:/x", text={"files": 1, "fingerprint": "f"}, token_sha256="b" * 64))
    place.add(items_result("a", 0.3))
    place.add(items_result("a", 0.3, n=10_042))
    found = place.sets()
    assert [one.label for one in found] == ["HellaSwag, 10,042 items", "HellaSwag, 100 items", "/x", "edu-seed"]
    assert all(len(one.results) == 1 for one in found)


def test_held_out_sets_of_different_runs_do_not_meet(place: Place) -> None:
    for run, sha in (("one", "1" * 64), ("two", "2" * 64)):
        place.add(text_result(run, 3.0, protocol="run", text={}, token_sha256=sha, details={"run": f"/r/{run}"}))
    place.add(text_result("gpt2", 3.2, protocol="run:one", text={}, token_sha256="1" * 64))
    assert sorted(len(one.results) for one in place.sets()) == [1, 2]


def test_one_tokenizer_compares_losses_and_two_compare_bits_per_byte(place: Place) -> None:
    place.add(text_result("a", 3.0))
    place.add(text_result("b", 2.8))
    [same] = place.sets()
    assert same.unit == "loss" and [bar.value for bar in bars(same)] == [2.8, 3.0]
    place.add(text_result("c", 1.0, token_sha256="c" * 64, bits_per_byte=1.2, quoted=[QUOTED]))
    [mixed] = place.sets()
    assert mixed.unit == "bits per byte" and "2 tokenizers" in mixed.notes[0] and "2 tokenizers" in results_view(mixed)
    assert [bar.label for bar in bars(mixed)] == ["b", "a", "c"]  # by bits per byte, and nothing quoted


def test_quoted_figures_stand_beside_their_own_protocol_and_say_so(place: Place) -> None:
    place.add(text_result("a", 3.0, quoted=[QUOTED]))
    place.add(text_result("b", 3.4, quoted=[QUOTED]))
    place.add(text_result("x", 1.0, protocol="edu-bn", text={"repo": "r", "file": "g"}, token_sha256="d" * 64))
    other, seed = place.sets()
    assert [(bar.label, bar.value, bar.quoted) for bar in bars(seed)] == [
        ("a", 3.0, False), ("GPT-2 124M", 3.282, True), ("b", 3.4, False),
    ]  # fmt: skip
    assert "quoted, not measured" in results_view(seed) and "quoted" not in results_view(other)


def test_the_yardstick_of_a_result_is_a_result_of_its_own(place: Place) -> None:
    beside = {"name": "gpt2@1", "weights_sha256": "w-gpt2", "loss": 3.3, "stderr": 0.02, "token_sha256": SHA,
              "precision": "fp32"}  # fmt: skip
    place.add(text_result("a", 3.0, yardstick=beside))
    assert [bar.label for bar in bars(place.sets()[0])] == ["a", "gpt2@1"]


def test_a_difference_within_one_standard_error_is_none() -> None:
    best = Bar("a", 3.0, 0.03)
    assert difference(Bar("b", 3.04, 0.04), best).startswith("no difference (0.0400 is under one standard error, 0.05")
    assert difference(Bar("b", 3.06, 0.04), best) == "+0.0600 ± 0.0500, not clear"
    assert difference(Bar("b", 3.20, 0.04), best) == "+0.2000 ± 0.0500"
    assert "error not known" in difference(Bar("b", 3.06, None), best)
    quoted = Bar("q", 2.9, None, quoted=True)
    assert against_best([quoted, best, Bar("b", 3.2, 0.03)])[:2] == ["", "best"]
    assert against_best([quoted, best, Bar("b", 3.05, 0.03)])[1] == "first, but not by a clear margin"
    assert against_best([best, Bar("b", 3.2, None)])[0] == "first, but not by a clear margin"
    assert against_best([best]) == [""], "of one there is no best"


def test_windows_and_precisions_that_differ_are_said(place: Place) -> None:
    place.add(text_result("a", 3.0))
    place.add(text_result("b", 3.0, window=64, precision="bf16"))
    [found] = place.sets()
    assert any("64, 1024" in note for note in found.notes) and any("precisions differ" in note for note in found.notes)


def test_names_are_text_in_every_view(place: Place) -> None:
    place.add(text_result(EVIL, 3.0, precision=EVIL, quoted=[QUOTED | {"of": EVIL, "source": f'"{EVIL}'}]))
    place.add(items_result(EVIL, 0.3))
    for one in place.sets():
        view = results_view(one)
        assert "<img" not in view and "&lt;img" in view


def test_hellaswag_shows_both_scorings_with_intervals(place: Place) -> None:
    place.add(items_result("a", 0.30))
    place.add(items_result("b", 0.31))
    view = results_view(place.sets()[0])
    for words in (
        "completion: acc,",
        "harness: acc_norm",
        "30.00 ± 5.00",
        "20.20 to 39.80",
        "no difference (1.00 points",
    ):
        assert words in view


def test_an_empty_page_says_what_to_do() -> None:
    assert "which model is best on a text" in results_view(None) and "press Measure" in results_view(None)


def test_csv_and_json_hold_every_figure_and_say_which_are_quoted(place: Place) -> None:
    place.add(text_result("=cmd()", 3.0, quoted=[QUOTED]))
    [one] = place.sets()
    rows = list(csv.DictReader(io.StringIO(export.as_csv(one))))
    assert [(row["kind"], row["model"]) for row in rows] == [("measured", "'=cmd()"), ("quoted", "GPT-2 124M")]
    assert float(rows[0]["loss"]) == 3.0 and rows[0]["token_sha256"] == SHA
    saved = json.loads(export.as_json(one))
    assert saved["results"][0]["model"] == "=cmd()" and saved["rows"][1]["kind"] == "quoted"
    place.add(items_result("a", 0.3))
    assert "acc_norm" in export.as_csv(place.sets()[0])
