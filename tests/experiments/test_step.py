"""Why a step stands out: a spike of each cause is planted, and named; without one it is said that none is seen."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.errors import UserError
from mygpt2.experiments.rows import common, shares
from mygpt2.experiments.step import report, spikes_of
from tests.experiments.planted import ROWS, plant

AT = 80  # the step of the spike
AGAIN = 5  # the document that is in several rows


def odd_document(made):
    for slot in (3, 9, 20, 21):
        made.rows[AT - 1, slot] += 7.0
        made.documents[AT - 1][slot] = [AGAIN]
        made.epoch[AT - 1][slot] = 90


def odd_row(made):
    made.rows[AT - 1, 7] += 25.0


def everything(made):
    made.rows[AT - 1] += 1.5


def rate_jump(made):
    made.rate[AT - 2 :] *= 8
    everything(made)


def resume(made):
    made.attempt[AT - 1 :] = 2
    made.events.append({"kind": "resume", "step": AT - 1, "checkpoint": "step-00000079", "changes": {}})
    everything(made)


def changed(made):
    resume(made)
    made.events[0]["changes"] = {"optimizer.lr": [0.006, 0.05]}


def branch(made):
    made.events.append({"kind": "branch", "step": AT - 1, "parent": "p", "changes": {"optimizer.lr": [0.006, 0.05]}})
    everything(made)


def large_update(made):
    made.norm[AT - 2] = 30.0
    everything(made)


CAUSES = [
    (odd_document, "documents", "4 rows of 32 with an unusual text, all of the same document, part-0.parquet"),
    (odd_row, "documents", "one row of 32"),
    (rate_jump, "rate", "the learning rate rose from 0.001 to 0.008 at step 79"),
    (resume, "resume", "was resumed at step 79, with nothing changed"),
    (changed, "settings", "went on from step 79 with optimizer.lr 0.006 → 0.05"),
    (branch, "settings", "branches off from step 79 with optimizer.lr 0.006 → 0.05"),
    (large_update, "gradient", "the update of step 79 before it came from a gradient of norm 30"),
]


@pytest.mark.parametrize(("change", "kind", "said"), CAUSES)
def test_each_cause_is_named(tmp_path, change, kind, said):
    run = plant(tmp_path, change)
    assert [spike.step for spike in spikes_of(run)] == [AT]
    found = report(run, AT)
    assert found.causes[0].kind == kind and said in found.sentence
    assert found.sentence.startswith(f"The loss of step {AT} of {found.loss:.4f} stands out: +")


def test_without_a_cause_it_says_that_none_is_seen_and_how_little_the_worst_rows_explain(tmp_path):
    found = report(plant(tmp_path, everything), AT)
    assert found.causes == () and "No cause is seen" in found.sentence and "spread over the batch" in found.sentence
    assert found.shares is not None and found.shares.explained is not None and found.shares.explained < 0.4
    assert abs(found.shares.excess - 1.5) < 0.3


def test_two_causes_at_once_are_both_told_the_rows_first(tmp_path):
    def both(made):
        odd_document(made)
        made.rate[AT - 2 :] *= 8

    found = report(plant(tmp_path, both), AT)
    assert [cause.kind for cause in found.causes] == ["documents", "rate"]
    assert "Also near: the learning" in found.sentence


def test_a_rate_that_rises_far_away_or_in_the_warm_up_is_no_cause(tmp_path):
    def far(made):
        made.rate[AT - 20 :] *= 8
        everything(made)

    assert report(plant(tmp_path, far), AT).causes == ()


def test_a_calm_step_says_by_how_little_it_differs_and_has_no_cause_although_a_rate_changes_there(tmp_path):
    def calm(made):
        made.rate[AT - 2 :] *= 8

    run = plant(tmp_path, calm)
    found = report(run, AT)
    assert spikes_of(run) == [] and found.spike is None and found.causes == ()
    assert f"Step {AT} does not stand out" in found.sentence


def test_a_run_that_diverges_is_told_also_in_its_warm_up(tmp_path):
    found = report(plant(tmp_path, lambda made: made.rows.__iadd__(30.0)), 4)
    assert "lies in the warm-up of 10 steps" in found.sentence and "guessing among 4,096 ids" in found.sentence


def test_rows_come_worst_first_and_documents_of_an_earlier_pass_say_when_they_were_seen(tmp_path):
    found = report(plant(tmp_path, odd_document), AT)
    assert {row.slot for row in found.rows[:4]} == {3, 9, 20, 21}
    assert [row.loss for row in found.rows] == sorted((row.loss for row in found.rows), reverse=True)
    was = found.seen.found[(0, AGAIN)]
    assert was.again and was.step < AT and found.seen.whole


def test_a_part_of_the_same_document_in_this_pass_is_not_a_repetition(tmp_path):
    def long_document(made):
        made.documents[AT - 2][0] = made.documents[AT - 1][0] = [77]
        made.epoch[AT - 2][0] = made.epoch[AT - 1][0] = 90
        made.rows[AT - 1, 0] += 25.0

    was = report(plant(tmp_path, long_document), AT).seen.found[(1, 37)]
    assert (was.step, was.again) == (AT - 1, False)


def test_a_loss_that_is_no_number_is_of_the_row_that_is_none(tmp_path):
    def broken(made):
        made.rows[AT - 1, 4] = np.nan

    found = report(plant(tmp_path, broken), AT)
    assert "is no number" in found.sentence and found.rows[0].slot == 4 and found.causes[0].kind == "documents"
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["loss"] is None


def test_a_run_without_trace_or_with_a_damaged_one_is_still_judged(tmp_path):
    run = plant(tmp_path, rate_jump)
    (file,) = run.trace_dir.glob("*.parquet")
    file.write_bytes(b"PAR1 damaged")
    found = report(run, AT)
    assert found.causes[0].kind == "rate" and "cannot be read" in found.untraced and found.rows == ()
    file.unlink()
    assert "does not hold step 80" in report(run, AT).untraced


def test_a_step_that_there_is_not_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="step 999 of run 'r' is not known; it has steps up to 120"):
        report(plant(tmp_path), 999)


def test_shares_add_up_and_a_shift_of_all_rows_is_not_of_few():
    dice = np.random.default_rng(0)
    nearby = [4 + 0.5 * dice.standard_normal(ROWS) for _ in range(8)]
    shifted = shares(4 + 0.5 * dice.standard_normal(ROWS) + 6, nearby)
    assert shifted.odd == ROWS and not shifted.of_few
    one = 4 + 0.5 * dice.standard_normal(ROWS)
    one[5] += 20
    found = shares(one, nearby)
    assert found.odd == 1 and found.of_few and abs(found.excess - 20 / ROWS) < 0.25
    assert shares(one, [row[:-1] for row in nearby]) is None and shares(np.zeros(0), []) is None


def test_a_common_document_is_in_two_rows_and_in_half_of_them():
    assert common([["a", "b"], ["a"], ["c"]]) == ("a", 2)
    assert common([["a", "a"], ["b"]]) is None and common([]) is None
    assert common([["a"], ["a"], ["b"], ["c"], ["d"]]) is None


def test_the_terminal_shows_sentence_rows_documents_and_where_they_were_before(tmp_path, capsys):
    run = plant(tmp_path, odd_document)
    assert main(["runs", "step", "r", str(AT), "--runs", str(run.path.parent)]) == 0
    said = capsys.readouterr().out
    for words in ("Likeliest cause: 4 rows", "32 rows, worst", "part-0.parquet row group 0 document 5; seen before",
                  "Document 5 of a small shelf.", "domain site2.example", "dump CC-MAIN-1"):  # fmt: skip
        assert words in said, words
    assert main(["runs", "step", "r", str(AT), "--runs", str(run.path.parent), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["stands_out"] and content["rows"][0]["documents"][0]["domain"] == "site2.example"
    assert content["shares"]["odd"] == 4 and content["spike"]["step"] == AT and content["unread"] is None


@pytest.mark.parametrize(
    ("words", "said"), [(["r"], "takes a run and a step"), (["r", "x"], "from 1 up"), (["r", "0"], "from 1 up")]
)
def test_nonsense_is_one_line(tmp_path, capsys, words, said):
    run = plant(tmp_path)
    assert main(["runs", "step", *words, "--runs", str(run.path.parent)]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
