"""Two models on the same documents, two runs on the same batches or documents, recipes over pairs of seeds."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from mygpt2.errors import UserError
from mygpt2.experiments.estimate import Estimate
from mygpt2.experiments.paired import by_document, by_traced_document, over_documents, over_replicates, training
from mygpt2.experiments.running import Interrupted
from mygpt2.experiments.scores import scores
from tests.experiments.made import finished, shifted, text, tiny
from tests.ripples.made import run_folder

NOTHING = lambda _: None  # noqa: E731


def scored(tmp_path, name, nll, targets, **more):
    finished(tmp_path, name, tiny(), nll, targets, **more)
    return scores(tmp_path, name, 140, "run", say=NOTHING)


def test_a_shift_that_is_under_the_spread_between_documents_is_seen_when_they_are_paired(tmp_path):
    nll, targets = text()
    base = scored(tmp_path, "base", nll, targets)
    variant = scored(tmp_path, "variant", shifted(nll, targets, -0.005, 0.004, 1), targets)
    found = by_document(base, variant)
    assert found.mean == pytest.approx(variant.loss - base.loss) and found.mean < 0
    low, high = found.interval(0.05)
    assert low < -0.005 < high < 0
    assert found.error < 0.1 * np.std(nll / targets) / len(nll) ** 0.5


def test_a_few_long_documents_count_as_few():
    targets = np.array([10_000.0, 10_000.0, *[1.0] * 500])
    nll = targets * np.random.default_rng(0).normal(0, 0.01, len(targets))
    from mygpt2.experiments.paired import _clustered

    assert 1 <= _clustered(nll, targets).freedom < 1.2
    with pytest.raises(UserError, match="too few for the error of a difference"):
        _clustered(nll[:1], targets[:1])


@pytest.mark.parametrize("how", ["tokens", "documents"])
def test_losses_of_other_tokens_are_never_compared(tmp_path, how):
    nll, targets = text()
    base = scored(tmp_path, "base", nll, targets)
    other = {"tokens": {"token_sha256": "8" * 64}, "documents": {}}[how]
    cut = targets if how == "tokens" else targets + (np.arange(len(targets)) == 3)
    with pytest.raises(UserError, match=r"scored on different tokens .*same tokenizer"):
        by_document(base, scored(tmp_path, "variant", nll, cut, **other))


def test_scores_are_of_these_weights_this_text_and_this_precision_or_measured_anew(tmp_path, monkeypatch):
    nll, targets = text(20)
    scored(tmp_path, "base", nll, targets)
    file = next((tmp_path / "base" / "evals").iterdir())
    asked = []

    def failing(words, watch, told=None):
        asked.append(words)
        return 2, "no text"

    monkeypatch.setattr("mygpt2.experiments.scores.call", failing)
    wrong = [("precision", "bf16"), ("protocol", "edu-bn"), ("by_document", None), ("by_document", {"nll": 3}),
             ("details", {"weights_sha256": "0"}), ("details", 3), ("window", "x")]  # fmt: skip
    for key, value in wrong:
        kept = file.read_text()
        file.write_text(json.dumps({**json.loads(kept), key: value}))
        with pytest.raises(UserError, match="base cannot be scored on run: no text"):
            scores(tmp_path, "base", 140, "run", say=NOTHING)
        file.write_text(kept)
    assert len(asked) == 7 and asked[0][3:6] == ["eval", "--model", str(tmp_path / "base/checkpoints/step-00000140")]
    assert scores(tmp_path, "base", 140, "run", say=NOTHING).tokens == targets.sum()
    with pytest.raises(UserError, match=r"no whole checkpoint of step 99"):
        scores(tmp_path, "base", 99, "run", say=NOTHING)


def test_a_scoring_says_how_far_it_is(tmp_path, monkeypatch):
    scored(tmp_path, "base", *text(20))
    result = next((tmp_path / "base" / "evals").iterdir())
    kept, seen = result.read_text(), []
    result.unlink()

    def scoring(words, watch, told):
        watch()
        for record in ({"unit": "", "done": 1, "total": 9}, {"unit": "targets", "done": 3, "total": 9}):
            told.write_text(json.dumps(record))
            watch()
        result.write_text(kept)
        return 0, ""

    monkeypatch.setattr("mygpt2.experiments.scores.call", scoring)
    scores(tmp_path, "base", 140, "run", say=NOTHING, progress=lambda *told: seen.append(told))
    assert [told[1:] for told in seen] == [(0, 0, "targets"), (0, 0, "targets"), (3, 9, "targets")]
    assert {told[0] for told in seen} == {"scoring base"}


@pytest.mark.parametrize("code", [85, 130, -15])
def test_a_scoring_that_was_stopped_ends_as_every_stop_and_says_how_to_go_on(tmp_path, monkeypatch, code):
    scored(tmp_path, "base", *text(20))
    next((tmp_path / "base" / "evals").iterdir()).unlink()
    monkeypatch.setattr("mygpt2.experiments.scores.call", lambda words, watch, told: (code, ""))
    with pytest.raises(Interrupted, match="the scoring of base was stopped; the same command goes on") as stopped:
        scores(tmp_path, "base", 140, "run", say=NOTHING)
    assert stopped.value.exit_code == 85


def test_recipes_are_compared_by_students_t_over_replicates():
    d = [-0.004, -0.001, -0.006, -0.002]
    found, known = over_replicates(d), stats.ttest_1samp(d, 0)
    assert (found.mean, found.p) == (pytest.approx(np.mean(d)), pytest.approx(known.pvalue))
    assert found.interval(0.05) == pytest.approx(tuple(known.confidence_interval(0.95)))
    with pytest.raises(ValueError):
        over_replicates(d[:1])


def test_two_equal_models_are_no_sign_of_a_difference():
    assert Estimate(0.0, 0.0, 2).p == 1.0 and Estimate(0.0, 0.0).interval(0.01) == (0.0, 0.0)


def test_the_error_over_documents_of_several_pairs_is_of_their_mean(tmp_path):
    nll, targets = text()
    base = scored(tmp_path, "b", nll, targets)
    variants = [scored(tmp_path, f"v{k}", shifted(nll, targets, 0.0, 0.01, k), targets) for k in range(4)]
    one = over_documents([(base, variants[0])])
    four = over_documents([(base, each) for each in variants])
    assert one == by_document(base, variants[0])
    assert 0.3 < four.error / one.error < 0.75


def test_equal_batches_are_compared_step_by_step_and_say_so(tmp_path):
    rng = np.random.default_rng(0)
    shared = 4 + rng.normal(0, 0.05, 140)
    base = finished(tmp_path, "base", tiny(), losses=shared).path
    variant = finished(tmp_path, "variant", tiny(), losses=shared + 0.003 + rng.normal(0, 0.004, 140)).path
    found = training(base, variant, [])
    assert (found.how, found.count, found.tokens) == ("steps", 35, 35 * 8192)
    low, high = found.estimate.interval(0.05)
    assert 0 < low < 0.003 < high and found.noise_ratio > 5


def test_other_batches_are_paired_over_the_documents_of_their_traces(tmp_path):
    """The same documents in the same order, half as many rows a step: the shift between the runs is found."""
    base = run_folder(tmp_path / "base", steps=160, amplitude=0.5)
    variant = tmp_path / "variant"
    shutil.copytree(base, variant)
    (file,) = (variant / "trace").glob("*.parquet")
    table = pq.read_table(file)
    step = (np.arange(len(table)) // 4 + 1).astype(np.int64)
    loss = (np.asarray(table["loss"]) + 0.02).astype(np.float32)
    table = table.set_column(1, "step", [step]).set_column(5, "loss", [loss])
    pq.write_table(table, variant / "trace" / "attempt-0001-rank-0000-step-00000001-00000320.parquet")
    file.unlink()
    rows = [{"attempt": 1, "step": s, "tokens": s * 256, "loss": 3.0} for s in range(1, 321)]
    (variant / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = training(base, variant, ["train.batch_tokens: 512 and 256"])
    assert found.how == "documents" and found.count > 200
    assert found.estimate.mean == pytest.approx(0.02, abs=1e-4)
    same = by_traced_document(base, base)
    assert same.estimate.mean == 0.0 and same.estimate.p == 1.0


def test_runs_that_share_no_documents_or_kept_no_trace_say_so_instead(tmp_path):
    base = run_folder(tmp_path / "base", steps=160)
    other = run_folder(tmp_path / "other", steps=160, files=3)
    said = training(base, other, ["data.source: a and b"])
    assert "trained on other data" in said
    shutil.rmtree(other / "trace")
    assert "without a trace" in training(base, other, ["x"])
    short = run_folder(tmp_path / "short", steps=12)
    assert "12 steps in common" in training(short, short, [])
