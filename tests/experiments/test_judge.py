"""A question from its words to its line in the ledger, on runs that are there already."""

import json
import os
import shutil

import numpy as np
import pytest

from mygpt2.config import to_toml
from mygpt2.errors import UserError
from mygpt2.experiments.arms import Spec, replicates
from mygpt2.experiments.estimate import Estimate, quantile
from mygpt2.experiments.folder import ExperimentDir, list_experiments
from mygpt2.experiments.judge import Question, judge, prepare
from mygpt2.experiments.spending import level
from mygpt2.experiments.telling import verdict_text
from mygpt2.experiments.verdict import answer
from mygpt2.files import encode_json
from tests.experiments.made import finished, shifted, text, tiny

LR = ("--optimizer.lr", "3e-3")


TINY, FASTER = Spec("tiny"), Spec("tiny", LR)


def question(runs, variant=FASTER, base=TINY, **more):
    return Question(base, variant, runs, **more)


def answered(asked, fake=None):
    return judge(prepare(asked), say=lambda _: None)


@pytest.fixture
def trained(tmp_path):
    """Every run that a question needs, made: trained(question, effect, spread) with a made-up effect of the variant."""

    def make(asked, effect=0.0, spread=0.001, noise=0.002, only=None):
        nll, targets = text()
        for pair, base, variant in prepare(asked).pieces:
            rng = np.random.default_rng(pair.number)
            shared = 4 + rng.normal(0, 0.05, base.config.train.steps)
            own = shifted(nll, targets, rng.normal(0, 0.02), 0.0, pair.number)
            if not (asked.runs / base.run).exists():
                finished(asked.runs, base.run, base.config, own, targets, losses=shared)
            by = effect + rng.normal(0, spread)
            if not (asked.runs / variant.run).exists():
                theirs = shifted(own, targets, by, noise, 100 + pair.number)
                losses = shared + by + rng.normal(0, 0.003, len(shared))
                finished(asked.runs, variant.run, variant.config, theirs, targets, losses=losses)
        return asked

    return make


@pytest.mark.parametrize(("effect", "verdict"), [(-0.05, "keep"), (0.05, "drop"), (0.0, "undecided")])
def test_a_question_has_one_of_three_answers_and_each_says_what_it_rests_on(tmp_path, trained, effect, verdict):
    asked = trained(question(tmp_path, replicates=4), effect)
    found = answered(asked)
    assert (found["verdict"], found["speaks_of"], len(found["replicates"])) == (verdict, "recipes", 4)
    assert found["changes"] == {"optimizer.lr": [0.006, 0.003]} and found["horizon_tokens"] == [1146880, 1146880]
    low, high = found["validation"]["interval"]
    wide = found["validation"]["interval95"]
    assert low < wide[0] < found["validation"]["mean"] < wide[1] < high  # a share of the budget is under 5 %
    assert found["excluded"] == {"better_by_more_than": max(0, -low), "worse_by_more_than": max(0, high)}
    assert found["training"]["how"] == "steps" and found["cost"]["runs"] == 8
    words = verdict_text(found)
    assert verdict.upper() in words and "Excluded: that it is" in words and "no difference" not in words
    assert "protocol run, 120 documents" in words and "1,146,880 training tokens" in words
    assert ("What would decide" in words) == (verdict == "undecided")
    json.loads(encode_json(found))


def test_what_is_beyond_95_percent_and_not_beyond_what_is_left_of_the_budget_is_undecided():
    for p, word in ((0.0218, "drop"), (0.0220, "undecided"), (0.04, "undecided")):
        estimate = Estimate(quantile(1 - p / 2, 3), 1.0, 3)
        assert (answer(estimate, level([])), estimate.p) == (word, pytest.approx(p))
        low, high = estimate.interval(level([]))
        assert (low > 0) == (word == "drop") and low < estimate.mean < high


def test_one_pair_speaks_of_two_models_and_says_what_more_text_would_find(tmp_path, trained):
    found = answered(trained(question(tmp_path, replicates=1), effect=-0.0002, spread=0.0))
    assert found["speaks_of"] == "two models" and found["validation"]["over"] == "documents"
    (seen, worth) = found["decide"]["sizes"]
    assert worth["nats"] == 0.003 and seen["further_text_tokens"] > 0 and "replicates" not in seen
    words = verdict_text(found)
    assert "these two models" in words and "--replicates 2 or more" in words and "more held-out tokens" in words


@pytest.mark.parametrize("kept", [0, 1])
def test_a_ledger_that_has_lost_questions_is_put_back_from_the_looks_and_says_so(tmp_path, trained, kept):
    """Nobody gets the whole budget once more by removing a file."""
    asked = [question(tmp_path, Spec("tiny", ("--optimizer.lr", lr)), replicates=2) for lr in ("1e-3", "2e-3", "3e-3")]
    for each in asked[:2]:
        answered(trained(each))
    (folder,) = list_experiments(tmp_path)
    before = folder.ledger_file.read_bytes()
    folder.ledger_file.write_bytes(b"".join(before.splitlines(keepends=True)[:kept]))
    if not kept:
        folder.ledger_file.unlink()
    said = []
    third = judge(prepare(trained(asked[2])), say=said.append)
    assert third["ledger"]["number"] == 3 and third["level"] == level([False, False])
    assert f"has lost {2 - kept} of its questions; they are put back from verdict.json" in said[-1]
    records = [json.loads(line) for line in folder.ledger_file.read_text().splitlines()]
    assert [(x["time"], x["variant"], x["p"]) for x in records[:2]] == [
        (x["time"], x["variant"], x["p"]) for x in map(json.loads, before.splitlines())
    ]
    answered(asked[2])
    assert len(folder.ledger()) == 3 and folder.lost() == []


def test_a_ledger_whose_questions_nobody_can_count_any_more_is_refused(tmp_path, trained):
    answered(trained(question(tmp_path, replicates=2)))
    (folder,) = list_experiments(tmp_path)
    folder.verdict_file.write_text(json.dumps({**json.loads(folder.verdict_file.read_text()), "left_out": 7}))
    assert answered(question(tmp_path, replicates=2))["ledger"]["number"] == 1
    folder.ledger_file.unlink()
    with pytest.raises(UserError, match=r"holds the latest 1 of 8 only.*bring the ledger back"):
        answered(question(tmp_path, replicates=2))
    assert not folder.ledger_file.exists()


def test_every_verdict_is_a_line_of_the_bases_ledger_and_the_same_question_is_asked_once(tmp_path, trained):
    one = answered(trained(question(tmp_path, replicates=2)))
    other = question(tmp_path, Spec("tiny", ("--optimizer.lr", "1e-3")), replicates=2)
    two = answered(trained(other))
    again = answered(question(tmp_path, replicates=2))
    assert [x["ledger"]["number"] for x in (one, two, again)] == [1, 2, 1]
    assert again["time"] == one["time"] and two["level"] < one["level"]
    more = answered(trained(question(tmp_path, replicates=3)))  # another look, with a replicate more
    assert more["ledger"]["number"] == 3 and more["ledger"]["challengers"] == 2
    (folder,) = list_experiments(tmp_path)
    assert len(folder.ledger()) == 3 and [look["ledger"]["number"] for look in folder.looks()] == [1, 2, 3]
    arms = folder.arms()
    assert set(arms) == {"base", one["variant"], two["variant"]} and arms["base"]["changes"] == {}
    assert arms[one["variant"]]["changes"] == {"optimizer.lr": [0.006, 0.003]}
    answered(question(tmp_path, replicates=2))
    assert folder.arms() == arms
    assert arms["base"]["runs"] == {str(k): f"{folder.name}.base.{k}" for k in (1, 2, 3)}
    assert folder.settings()["seeds"] == [1337, 1337] and folder.settings()["recipe"]["optimizer.lr"] == 0.006


def test_a_question_asked_again_with_another_size_worth_finding_is_told_its_cost_and_spends_nothing(tmp_path, trained):
    one = answered(trained(question(tmp_path, replicates=3, worth=0.003)))
    answered(trained(question(tmp_path, Spec("tiny", ("--optimizer.lr", "1e-3")), replicates=3)))
    again = answered(question(tmp_path, replicates=3, worth=0.01))
    assert again["decide"]["sizes"][1]["nats"] == 0.01 and again["ledger"]["number"] == 1
    assert again["decide"]["sizes"][1]["replicates"] < one["decide"]["sizes"][1]["replicates"]
    assert again["level"] == one["level"] and again["decide"]["level"] < one["decide"]["level"]
    assert len(list_experiments(tmp_path)[0].ledger()) == 2


def test_arms_of_different_devices_are_told_so(tmp_path, trained):
    asked = trained(question(tmp_path, replicates=2))
    for pair, device in zip(prepare(asked).pieces[0][1:], ("cuda:0", "cpu"), strict=True):
        record = {"pid": 2**22 + 1, "start": "x", "host": "elsewhere", "device": device, "attempt": 1}
        (tmp_path / pair.run / "ranks" / "0.json").write_text(json.dumps(record))
    assert "trained on cuda and the variant on cpu, whose arithmetic differs" in verdict_text(answered(asked))


def test_a_kill_between_the_ledger_and_the_looks_is_made_good_by_the_same_question(tmp_path, trained, monkeypatch):
    asked = trained(question(tmp_path, replicates=2))
    monkeypatch.setattr(ExperimentDir, "add_look", lambda *a, **k: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        answered(asked)
    monkeypatch.undo()
    found = answered(asked)
    (folder,) = list_experiments(tmp_path)
    assert len(folder.ledger()) == 1 and [look["time"] for look in folder.looks()] == [found["time"]]


def test_a_ledger_line_that_is_damaged_has_spent_its_share(tmp_path, trained):
    first = answered(trained(question(tmp_path, replicates=2)))
    (folder,) = list_experiments(tmp_path)
    folder.ledger_file.write_text("not a line\n" + folder.ledger_file.read_text())
    found = answered(trained(question(tmp_path, replicates=3)))
    assert found["ledger"]["number"] == 3 and found["ledger"]["damaged_lines"] == 1 and found["level"] < first["level"]
    assert "damaged lines, counted" in verdict_text(found)


@pytest.mark.parametrize("damage", [{"time": None}, {"ledger": 3}, {"validation": []}, {"verdict": {}}, {"p": "x"}])
def test_a_ledger_line_with_values_of_other_kinds_is_no_answer_and_no_traceback(tmp_path, trained, damage):
    asked = trained(question(tmp_path, replicates=2))
    first = answered(asked)
    (folder,) = list_experiments(tmp_path)
    folder.ledger_file.write_text(json.dumps({**first, **damage}) + "\n[1]\n")
    found = answered(asked)
    assert verdict_text(found) and found["verdict"] == "undecided"
    assert found["ledger"]["damaged_lines"] == (0 if damage == {"p": "x"} else 1)


def test_a_keep_hands_its_share_on_to_the_next_question(tmp_path, trained):
    kept = answered(trained(question(tmp_path, replicates=4), effect=-0.05))
    found = answered(trained(question(tmp_path, Spec("tiny", ("--optimizer.lr", "1e-3")), replicates=4)))
    assert kept["verdict"] == "keep" and found["level"] == pytest.approx(kept["ledger"]["next_level"])
    assert found["level"] > kept["level"]


def test_nothing_changed_trains_nothing_and_spends_nothing(tmp_path):
    asked = question(tmp_path, Spec("tiny", ("--log.plot_interval", "7")))
    assert str(prepare(asked).cost()) == "nothing is to be trained"
    found = answered(asked)
    assert (found["verdict"], found["p"], found["ledger"]["next_level"]) == (
        "undecided",
        None,
        pytest.approx(0.0219, abs=1e-4),
    )
    assert "UNDECIDED: tiny with log.plot_interval 7: nothing was changed" in verdict_text(found) and not any(
        tmp_path.glob("judge-*")
    )


def test_a_run_against_itself_is_no_question_whatever_the_replicates(tmp_path):
    nll, targets = text()
    finished(tmp_path, "mine", tiny(), nll, targets)
    asked = question(tmp_path, Spec("mine"), Spec("mine"), replicates=3)
    assert str(prepare(asked).cost()) == "nothing is to be trained"
    assert answered(asked)["reason"].startswith("nothing was changed")


def test_a_change_without_effect_is_no_result_and_excludes_nothing(tmp_path, trained, monkeypatch):
    asked = trained(question(tmp_path, replicates=2))
    monkeypatch.setattr("mygpt2.experiments.scores.weights_of", lambda run, step: "the same to the bit")
    for file in tmp_path.glob("*/evals/*.json"):
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "details": {"weights_sha256": "the same to the bit"}}))
    found = answered(asked)
    assert (found["verdict"], found["p"], found["excluded"]) == ("undecided", None, None)
    assert "came to the same weights to the bit" in verdict_text(found)


def test_other_seeds_of_a_variant_are_not_taken_silently(tmp_path):
    notices = prepare(question(tmp_path, Spec("tiny", (*LR, "--model.seed", "5")))).notices
    assert "own seeds are not used" in notices[0]
    assert not prepare(question(tmp_path)).notices


@pytest.mark.parametrize("protocol", ["run", "run:mine"])
def test_a_variant_that_trains_on_what_the_base_holds_out_is_refused(tmp_path, protocol):
    nll, targets = text()
    finished(tmp_path, "mine", tiny(), nll, targets)
    less = Spec("tiny", ("--data.validation_fraction", "0.001"))
    with pytest.raises(UserError, match=r"trained on documents that .* holds out"):
        prepare(question(tmp_path, less, Spec("mine"), protocol=protocol))


def test_another_budget_is_told_with_the_one_it_was_begun_with(tmp_path, trained):
    answered(trained(question(tmp_path, replicates=2)))
    with pytest.raises(UserError, match=r"other settings: budget = 0.05 .*move that folder away"):
        answered(question(tmp_path, replicates=2, budget=0.1))


def test_a_recipe_that_a_later_version_writes_otherwise_goes_on(tmp_path, trained):
    answered(trained(question(tmp_path, replicates=2)))
    (folder,) = list_experiments(tmp_path)
    folder.settings_file.write_text(folder.settings_file.read_text().replace('"optimizer.beta1"', '"optimizer.beta0"'))
    assert answered(question(tmp_path, replicates=2))["ledger"]["number"] == 1


@pytest.mark.parametrize(("who", "verdict"), [("variant", "drop"), ("base", "undecided")])
def test_a_run_that_diverged_is_an_answer_and_no_error(tmp_path, trained, who, verdict):
    asked = question(tmp_path, replicates=2)
    _, base, variant = prepare(asked).pieces[1]
    run = variant if who == "variant" else base
    finished(tmp_path, run.run, run.config, reason="non-finite: the loss of step 12 is nan")
    trained(asked)
    found = answered(asked)
    assert found["verdict"] == verdict and found["p"] is None
    assert f"the {who} diverged under 1 of 2 pairs of seeds, in {run.run} after step 140" in found["reason"]
    json.loads(encode_json(found))


@pytest.mark.parametrize(("who", "verdict"), [("variant", "drop"), ("base", "undecided")])
def test_an_arm_whose_last_weights_give_no_loss_is_an_answer_and_no_error(tmp_path, trained, monkeypatch, who, verdict):
    asked = trained(question(tmp_path, replicates=2))
    _, base, variant = prepare(asked).pieces[1]
    run = variant if who == "variant" else base
    next((tmp_path / run.run / "evals").iterdir()).unlink()
    told = "the model's losses are not finite, its weights are damaged; use an earlier checkpoint"
    monkeypatch.setattr("mygpt2.experiments.scores.call", lambda *_: (2, told))
    found = answered(asked)
    assert found["verdict"] == verdict and found["p"] is None
    assert f"the {who} {run.run} diverged: its weights after step 140 give no finite loss" in verdict_text(found)


def test_runs_that_are_named_are_used_as_they_are(tmp_path):
    nll, targets = text()
    finished(tmp_path, "mine", tiny(), nll, targets)
    seeded = tiny("--model.seed", "5", *LR)
    finished(tmp_path, "theirs", seeded, shifted(nll, targets, -0.05, 0.001, 1), targets)
    asked = question(tmp_path, Spec("theirs"), Spec("mine"), replicates=1)
    assert [(a.run, b.run) for _, a, b in prepare(asked).pieces] == [("mine", "theirs")]
    found = answered(asked)
    assert found["verdict"] == "keep" and "different seeds" in verdict_text(found)
    three = prepare(question(tmp_path, Spec("theirs"), Spec("mine"), replicates=3)).pieces
    assert (
        three[0][1].run == "mine" and three[0][2].run.startswith("judge-mine-") and three[1][1].run.endswith(".base.2")
    )
    same = replicates(tiny(), 1)[0].of(seeded)
    finished(tmp_path, "alike", same, nll, targets)
    assert prepare(question(tmp_path, Spec("alike"), Spec("mine"), replicates=3)).pieces[0][2].run == "alike"


def test_two_runs_of_one_recipe_differ_by_chance_alone_and_the_verdict_says_so(tmp_path):
    nll, targets = text()
    finished(tmp_path, "mine", tiny(), nll, targets)
    finished(tmp_path, "again", tiny("--model.seed", "5"), shifted(nll, targets, 0.001, 0.02, 1), targets)
    found = answered(question(tmp_path, Spec("again"), Spec("mine"), replicates=1))
    assert "what differs between them is chance alone" in verdict_text(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--train.batch_tokens", "4096"), "saw different batches (train.batch_tokens: 8192 and 4096)"),
     (("--train.steps", "70"), "trained on 1,146,880 tokens and the variant on 573,440"),
     (("--model.block_size", "128"), "reads 256 tokens at once and the variant 128")],
)  # fmt: skip
def test_what_does_not_compare_as_it_is_has_a_sentence(tmp_path, words, said):
    assert any(said in notice for notice in prepare(question(tmp_path, Spec("tiny", words))).notices)


@pytest.mark.parametrize(
    ("more", "said"),
    [({"variant": Spec("tiny", ("--data.tokenizer", "gpt2:2048"))}, "losses per token of different tokenizers"),
     ({"protocol": "edu"}, "neither a protocol nor a path"), ({"protocol": "run:nope"}, "no run 'nope'"),
     ({"base": Spec("tiny", ("--data.validation_fraction", "0"))}, "holds no document out"),
     ({"replicates": 0}, "0 replicates are not possible"), ({"budget": 1.5}, "--budget 1.5 is not a chance"),
     ({"worth": -1.0}, "--worth -1 is no difference"),
     ({"variant": Spec("tiny", ("--optimizer.lr", "x"))}, "expected a number")],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_sentence_and_writes_nothing(tmp_path, more, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")) as told:
        answered(question(tmp_path, **more))
    assert "\n" not in str(told.value) and os.listdir(tmp_path) == []


def test_another_budget_for_a_base_that_was_asked_is_refused(tmp_path, trained):
    answered(trained(question(tmp_path, replicates=2)))
    with pytest.raises(UserError, match="begun with other settings"):
        answered(question(tmp_path, replicates=2, budget=0.2))


def test_the_command_tells_the_cost_first_and_ends_with_0_whatever_the_verdict(mygpt2, tmp_path, trained):
    runs = tmp_path / "runs"
    trained(question(runs, replicates=2), effect=0.05)
    ended = mygpt2("judge", "tiny", "--variant.optimizer.lr", "3e-3", "--replicates", "2", "--json", "out.json")
    assert ended.code == 0, ended.err
    first = ended.out.splitlines()[0]
    assert first == "tiny with optimizer.lr 3e-3 against tiny: nothing is to be trained"
    assert json.loads((tmp_path / "out.json").read_text())["kind"] == "judge"
    shutil.rmtree(runs)
    dry = mygpt2("judge", "tiny", "--variant.optimizer.lr=3e-3", "--dry-run")
    assert dry.code == 0 and "6 runs to train, 6,881,280 tokens" in dry.out and not runs.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["tiny"], "there is no VARIANT"), (["tiny", "--optimizer.lr", "1"], "'--optimizer.lr' is not an option here"),
     (["tiny", "nope"], "neither a run"), (["tiny", "tiny", "x"], "one name too many"),
     (["--variant.optimizer.lr", "3e-3", "tiny"], "come first"),
     (["tiny", "--variant.optimzer.lr", "1"], "did you mean"), (["tiny", "tiny", "--nproc", "0"], "--nproc 0"),
     (["tiny", "small", "--json", "no/such/file"], "there is no folder")],
)  # fmt: skip
def test_bad_words_are_one_sentence(mygpt2, words, said):
    ended = mygpt2("judge", *words)
    assert ended.code == 2 and said in ended.err and ended.err.count("\n") == 1


def test_a_toml_file_is_an_arm(tmp_path, trained):
    file = tmp_path / "other.toml"
    file.write_text(to_toml(tiny(*LR)))
    runs = tmp_path / "runs"
    found = answered(trained(question(runs, Spec(str(file)), replicates=2)))
    assert found["told"] == "other" and found["changes"] == {"optimizer.lr": [0.006, 0.003]}
