"""Which is best, and can it be trusted: the sentence with its numbers, and what runs measured of themselves."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mygpt2.evals.clustered import clustered_error
from tests.workbench.conftest import make_run
from tests.workbench.tabs.compare.made_up import QUOTED, Place, items_result, text_result
from workbench.evaluations.own import OwnResults
from workbench.tabs.compare.answer import answer
from workbench.tabs.compare.groups import Bar, bars, paired_error, sets
from workbench.tabs.compare.tab import pick, protocol_named
from workbench.tabs.compare.view import dots, results_view


@pytest.fixture
def place(tmp_path: Path) -> Place:
    make_run(tmp_path, "one", 2)
    return Place(tmp_path)


def validated(runs: Path, name: str, loss: float, sha: str = "a" * 64, **more: Any) -> None:
    """A run whose last validation had this loss."""
    make_run(runs, name, 3)
    event = {"kind": "eval", "step": 3, "protocol": "run", "loss": loss, "stderr": 0.02, "perplexity": 9.0,
             "bits_per_byte": loss / 3, "tokens": 1000, "bytes": 3000, "window": 64, "token_sha256": sha,
             "precision": "fp32", "seconds": 2.0, "time": 5000.0, "yardstick": None, **more}  # fmt: skip
    with (runs / name / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def test_the_best_is_named_where_the_errors_leave_no_doubt(place: Place) -> None:
    for name, loss in (("tiny/step-00000140", 3.0), ("other/step-00000140", 3.1), ("gpt2", 3.5)):
        place.add(text_result(name, loss, quoted=[QUOTED | {"figure": 2.9}]))
    found = answer(place.sets()[0])
    assert (found.tone, found.chip) == ("good", "Clear")
    assert found.words.startswith("tiny is the best of 3 with 3.0000 nats per token: 0.1000 ahead of other, 7.1 times")
    assert "(0.0141)" in found.words and "another seed" in found.more and found.pair is None


def test_what_cannot_be_told_apart_is_called_so_with_what_would_tell(place: Place) -> None:
    for name, loss in (("tiny/step-00000140", 3.0), ("other/step-00000140", 3.01), ("third", 3.02), ("far", 9.0)):
        place.add(text_result(name, loss))
    found = answer(place.sets()[0])
    assert found.chip == "Not clear" and found.words.startswith(
        "tiny, other and third cannot be told apart: 0.0100 nats"
    )
    assert "document by document" in found.more and found.pair == ("tiny", "other")
    assert found.again == ("tiny/step-00000140", "other/step-00000140")
    view = results_view(place.sets()[0])
    assert 'data-act="pair" data-id="tiny other"' in view and "first, but not by a clear margin" in view
    assert 'data-act="measure" data-id="' in view and "\ntiny/step-00000140\nother/step-00000140" in view
    place.add(text_result("folder", 2.99))
    found = answer(place.sets()[0])
    assert found.more == "About 8 times as much text would tell." and not found.again and found.pair is None


def test_on_the_same_documents_the_difference_has_its_own_error(place: Place) -> None:
    """Documents differ far more from each other than the models do on any of them."""
    hard, targets = [10.0, 400.0, 30.0, 200.0, 90.0], [10, 100, 20, 50, 40]
    for name, gain in (("tiny/step-00000140", [0.0] * 5), ("other/step-00000140", [0.2, 2.2, 0.4, 0.9, 0.8])):
        nll = [a + b for a, b in zip(hard, gain, strict=True)]
        by = {"nll": nll, "targets": targets}
        place.add(text_result(name, sum(nll) / sum(targets), stderr=0.4, by_document=by))
    chosen = place.sets()[0]
    best, second = bars(chosen)
    error = paired_error(second, best)
    assert error == pytest.approx(clustered_error(np.array([0.2, 2.2, 0.4, 0.9, 0.8]), np.array(targets)))
    found = answer(chosen)
    assert found.chip == "Clear" and f"({error:.4f})" in found.words and "best of 2" in found.words
    place.add(text_result("other/step-00000140", 3.3, stderr=0.4, by_document={"nll": [1.0, 2.0], "targets": [1, 1]}))
    assert paired_error(*reversed(bars(place.sets()[0]))) is None, "of other documents it is none"


def test_equal_ones_unknown_errors_and_a_single_model_are_said(place: Place) -> None:
    place.add(text_result("a/step-00000002", 3.0))
    found = answer(place.sets()[0])
    assert found.words == "a alone is measured here: 3.0000 nats per token, with a standard error of 0.0100."
    place.add(text_result("a/step-00000001", 3.0))
    found = answer(place.sets()[0])
    assert "a at step 1" in found.words and "a at step 2" in found.words
    assert found.pair is None, "checkpoints of one run are not two runs"
    place.add(text_result("b", 2.0, stderr=None))
    found = answer(place.sets()[0])
    assert found.chip == "Error not known" and "how much of that is chance is not known" in found.words
    for name in ("x", "y"):
        place.add(text_result(name, 3.0, text={"another": "text"}, token_sha256="b" * 64))
    assert "may well be equal" in answer(place.sets()[0]).more


def test_of_hellaswag_the_answer_is_in_points(place: Place) -> None:
    place.add(items_result("a", 0.30))
    place.add(items_result("b", 0.60))
    found = answer(place.sets()[0])
    assert found.words.startswith("b is the best of 2 with 62.00 % (harness acc_norm): 30.00 ahead of a, 4.2 times")


def test_a_run_that_validated_is_a_result_until_it_is_measured(tmp_path: Path) -> None:
    validated(tmp_path, "tiny", 3.0, yardstick={"of": "gpt2", "loss": 3.2, "stderr": 0.01})
    validated(tmp_path, "other", 3.5)
    validated(tmp_path, "words", 2.0, sha="b" * 64)
    place, own = Place(tmp_path), OwnResults(tmp_path)
    found = sets(place.results.read(), own.read())
    assert [[bar.label for bar in bars(one)] for one in found if len(one.results) > 1] == [
        ["tiny/step-00000003", "gpt2", "other/step-00000003"]
    ], "the same tokens are the same text, other tokens are another"
    both = next(one for one in found if len(one.results) > 1)
    assert both.label in ("held-out text of tiny and other", "held-out text of other and tiny")
    assert "in training" in results_view(both) and protocol_named(both).startswith("run:")
    gpt2 = next(bar.result for bar in bars(both) if bar.label == "gpt2")
    assert gpt2 and gpt2.loss and abs((gpt2.loss.bits_per_byte or 0) - 3.2 * 1000 / 0.6931472 / 3000) < 1e-4
    place.add(text_result("tiny/step-00000003", 3.01), run="tiny")
    again = sets(place.results.read(), own.read())
    losses = [bar.value for one in again for bar in bars(one) if bar.label == "tiny/step-00000003"]
    assert losses == [3.01], "what was measured here takes its place"
    for text, loss in (("run:tiny", 3.2), ("run:other", 3.3)):
        place.add(text_result("gpt2-large", loss, protocol=text, text={}))
    both = next(one for one in sets(place.results.read(), own.read()) if len(one.results) > 1)
    assert [bar.value for bar in bars(both) if bar.label == "gpt2-large"] == [3.3], "once, whosever text it was called"


def test_the_set_that_is_shown_first(tmp_path: Path) -> None:
    for name, loss in (("tiny", 3.0), ("other", 3.5)):
        validated(tmp_path, name, loss)
    validated(tmp_path, "words", 2.0, sha="b" * 64, time=9000.0)
    found = sets([], OwnResults(tmp_path).read())
    alone, both = found
    assert pick(found, {}, ["words"]) is both, "several models tell more than one"
    assert pick(found, {"set": alone.key}, ["tiny"]) is alone
    assert pick(found, {"set": both.key, "since": 8000.0}, []) is alone, "what is new is shown in its place"
    assert pick(found, {"set": alone.key, "since": 9999.0}, []) is alone, "what was chosen stays until then"
    assert pick(found, {"since": 8000.0}, ["tiny"]) is alone, "what was measured since one pressed Measure"
    assert pick(found, {"since": 9999.0}, ["tiny"]) is both and pick([], {}, ["tiny"]) is None


def test_a_run_far_off_does_not_press_the_others_together() -> None:
    chart = dots("Loss", [Bar("a", 3.0, 0.01), Bar("b", 3.1, 0.01), Bar("diverged", 289.0, 2.0)])
    assert (
        chart.count("wb-off") == 1 and chart.count("wb-whisker") == 2 and "an arrow" in chart and ">289.0000<" in chart
    )
    left = [float(part.split("%")[0]) for part in chart.split('wb-dot" style="left:')[1:]]
    assert left[1] - left[0] > 50 and left[2] == 100


def test_the_labels_of_an_axis_have_as_many_decimals_and_differ() -> None:
    def ticks(*bars: Bar) -> list[str]:
        return re.findall(r"<span>([-\d.]+)</span>", str(dots("Loss", bars)).partition("wb-ticks")[2])

    assert ticks(Bar("a", 3.9206, 0.0555), Bar("b", 6.0034, 0.0328)) == ["3.631", "4.286", "4.940", "5.594", "6.248"]
    close = ticks(Bar("a", 3.92061, 0.00001), Bar("b", 3.92064, 0.00001))
    assert len(set(close)) == 5 and len({len(tick) for tick in close}) == 1
