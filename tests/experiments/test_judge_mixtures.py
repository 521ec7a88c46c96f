"""Two mixtures compared: for which source which is better, within one error budget, on what neither was trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mygpt2.__main__ import main
from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.exchange.load import load_model
from mygpt2.experiments.arms import Arm, Replicate, Spec, changes_words, other_batches, recipe_hash
from mygpt2.experiments.by_source import VERDICT_PART, by_source
from mygpt2.experiments.cost import Spent
from mygpt2.experiments.folder import Lines
from mygpt2.experiments.judge import Question, judge, prepare
from mygpt2.experiments.ledger import Ledger
from mygpt2.experiments.paired import by_document
from mygpt2.experiments.scores import Scores, Source
from mygpt2.experiments.spending import level
from mygpt2.experiments.telling import verdict_text
from mygpt2.experiments.verdict import Case, Pair, decide
from mygpt2.files import encode_json
from tests.data.corpus import texts, write_jsonl
from tests.train.test_attempt import cache, source, train  # noqa: F401 (fixtures)

SIZES = {"docs": 60, "code": 90, "web": 40}
CONFIG = load_config("tiny")


def text(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(targets, nll), (documents,): three sources of very different losses, always of the same documents."""
    targets = np.ceil(np.random.default_rng(0).lognormal(5, 0.7, sum(SIZES.values())))
    means = np.repeat([2.0, 4.0, 6.0], list(SIZES.values()))
    return targets, targets * (means + rng.normal(0, 0.4, len(targets)))


def scored(run: str, nll: np.ndarray, targets: np.ndarray, weights: str = "") -> Scores:
    stops = np.cumsum(list(SIZES.values())).tolist()
    runs = {"docs": ("a",), "code": ("a", "b"), "web": ("b",)}
    sources = tuple(Source(n, stop - SIZES[n], stop, runs[n]) for n, stop in zip(SIZES, stops, strict=True))
    return Scores(run, 140, "runs:a,b", 256, "7" * 64, "fp32", weights or run, nll, targets, sources)


def pair(rng: np.random.Generator, number: int = 1, noise: float = 0.05, **effects: float) -> Pair:
    """A variant that is worse by an effect on some sources, and differs by `noise` on every document."""
    targets, nll = text(rng)
    by = np.repeat([effects.get(name, 0.0) for name in SIZES], list(SIZES.values()))
    other = nll + targets * (by + rng.normal(0, noise, len(nll)))
    return Pair(Replicate(number, 1, 1), scored("a", nll, targets), scored("b", other, targets), "no trace", (100, 100))


def case(*pairs: Pair, **more: Any) -> Case:
    return Case(
        "e", Arm("base", CONFIG, "a"), Arm("v", CONFIG, "b"), "run", pairs, Spent(0.0, 0, 0), sources=True, **more
    )


def ledger(budget: float = 0.05) -> Ledger:
    return Ledger(Lines([], 0), budget)


def test_an_effect_on_one_source_is_found_there_and_only_there():
    found = decide(case(pair(np.random.default_rng(1), code=0.05, web=-0.08)), ledger())
    better = {name: part["better"] for name, part in found["by_source"].items()}
    assert better == {"docs": None, "code": "base", "web": "variant"}
    assert [part["trained_by"] for part in found["by_source"].values()] == [["base"], ["base", "variant"], ["variant"]]
    assert sum(part["share"] for part in found["by_source"].values()) == pytest.approx(1)
    words = verdict_text({**found, "ledger": {**found["ledger"], "challengers": 1}})
    for said in ("The verdict is on all sources together, weighted by their tokens (docs", "docs: not resolved:",
                 "code: the base is better: +0.0", "web: the variant is better: -0.0", "only the variant was trained",
                 "Holm over 3 at 1.094%, half of this question's share"):  # fmt: skip
        assert said in words, said
    json.loads(encode_json(found))
    for name, verdict in (("code", "drop"), ("web", "keep"), ("docs", "undecided")):
        alone = decide(case(pair(np.random.default_rng(1), code=0.05, web=-0.08), source=name), ledger())
        assert (alone["verdict"], alone["objective"], alone["validation"]["documents"]) == (verdict, name, SIZES[name])


def test_over_replicates_each_source_has_its_own_spread():
    pairs = [pair(np.random.default_rng(k), k, code=0.05 + 0.002 * k, docs=(-1) ** k * 0.05) for k in (1, 2, 3, 4)]
    found = decide(case(*pairs), ledger())["by_source"]
    assert (found["code"]["better"], found["docs"]["better"], found["code"]["freedom"]) == ("base", None, 3)
    own = [p.variant.of("code").loss - p.base.of("code").loss for p in pairs]
    assert found["code"]["mean"] == pytest.approx(np.mean(own))
    assert found["code"]["error"] == pytest.approx(np.std(own, ddof=1) / 2)


@pytest.mark.parametrize(("replicates", "questions"), [(1, 400), (3, 80)])
def test_of_arms_that_are_alike_no_more_is_claimed_than_the_budget_says(replicates, questions):
    """A false word on the whole or on any source, at a first level of 8.7 %."""
    budget, false = 0.2, 0
    for seed in range(questions):
        rng = np.random.default_rng(seed)
        found = decide(case(*(pair(rng, k + 1) for k in range(replicates))), ledger(budget))
        false += found["verdict"] != "undecided" or any(p["better"] for p in found["by_source"].values())
    assert level([], budget) == pytest.approx(0.0875, abs=0.001)
    assert 0 < false / questions < 0.0875 + 3 * (0.0875 * 0.9125 / questions) ** 0.5


def test_what_sets_sources_apart_is_no_error_of_the_whole():
    rng = np.random.default_rng(5)
    one = pair(rng, noise=0.01, docs=-0.3, web=0.5)
    together = replace(one.base, sources=()), replace(one.variant, sources=())
    whole, plain = one.difference, by_document(*together)
    assert whole.mean == plain.mean and whole.error < plain.error / 5 and whole.freedom > 10
    errors = [by_document(one.base.of(name), one.variant.of(name)).error for name in SIZES]
    shares = [one.base.of(name).tokens / one.base.tokens for name in SIZES]
    assert whole.error == pytest.approx(np.linalg.norm(np.multiply(errors, shares)))


def test_a_source_of_one_document_is_told_and_not_tested():
    one = pair(np.random.default_rng(2), web=0.5)
    stops = Source("docs", 0, 149), Source("code", 149, 150), Source("web", 150, 190)
    few = replace(one, base=replace(one.base, sources=stops), variant=replace(one.variant, sources=stops))
    found = by_source([few], 0.05)
    assert "too few for the error" in found["code"]["unresolved"] and found["code"]["better"] is None
    assert found["web"]["better"] == "base" and found["web"]["level"] == 0.05 * VERDICT_PART


def test_a_level_is_handed_on_only_where_all_that_was_tested_with_it_decided():
    line = {"p": 0.001, "verdict": "keep", "by_source": {"docs": {"better": "base"}, "web": {"better": "variant"}}}
    open_ = {**line, "by_source": {"docs": {"better": None}, "web": {"better": "variant"}}}
    assert Ledger(Lines([line], 0), 0.05).decided == [True]
    assert Ledger(Lines([open_], 0), 0.05).decided == [False]


# Questions from their words on


def mix(folder: Path, **weights: float) -> list[dict[str, Any]]:
    return [{"name": name, "source": str(folder / name), "weight": weight} for name, weight in weights.items()]


def toml(mixture: list[dict[str, Any]]) -> str:
    return (
        "[" + ", ".join(f'{{name="{m["name"]}", source="{m["source"]}", weight={m["weight"]}}}' for m in mixture) + "]"
    )


def test_what_is_asked_of_mixtures_in_words(tmp_path):
    (tmp_path / "runs").mkdir()
    one, two = (
        ("--data.mix", toml(mix(tmp_path, **w))) for w in ({"docs": 1.0, "code": 3.0}, {"docs": 3.0, "web": 1.0})
    )
    asked = Question(Spec("tiny", one), Spec("tiny", two), tmp_path / "runs")
    prepared = prepare(asked)
    assert any("no batch is the same. Compared are the models" in notice for notice in prepared.notices)
    assert prepared.base.told == "tiny with another data.mix"
    words = changes_words({"data.mix": (mix(tmp_path, docs=1.0, code=3.0), [])})
    assert words == "data.mix docs 25 %, code 75 % -> none"
    assert other_batches(prepared.base.config, prepared.variant.config) == [
        "data.mix: docs 25 %, code 75 % and docs 75 %, web 25 %"
    ]
    less = Spec("tiny", (*two, "--data.validation_fraction", "0.005"))
    assert any("the smaller is scored" in notice for notice in prepare(replace(asked, variant=less)).notices)
    for more, said in (
        ({"source": "pages"}, "--source pages is no source of either mixture; there are: docs, code, web"),
        ({"variant": Spec("tiny", (*two, "--data.validation_fraction", "0"))}, "the variant holds no document out"),
        ({"base": Spec("tiny"), "variant": Spec("tiny"), "source": "docs"}, "--source docs is for mixtures"),
        ({"source": "docs", "protocol": "edu-bn"}, "--source docs is for mixtures"),
    ):
        with pytest.raises(UserError) as problem:
            prepare(replace(asked, **more))
        assert said in str(problem.value)


def test_limits_of_passes_and_later_keys_make_no_other_recipe(tmp_path):
    plain, limited = (
        load_config("tiny", None, {"data": {"mix": [{**m, **more} for m in mix(tmp_path, docs=1.0, code=3.0)]}})
        for more in ({}, {"max_epochs": 2.0})
    )
    assert recipe_hash(plain) == recipe_hash(limited) != recipe_hash(load_config("tiny"))


def test_two_mixtures_that_were_trained_are_told_apart_source_by_source(train, tmp_path):  # noqa: F811
    """Much of one source and a little of the other, and the other way round."""
    write_jsonl(tmp_path / "lines", documents=1500)
    (tmp_path / "pages").mkdir()
    lines = [json.dumps({"text": text.upper()}) for text in texts(3000, 50_000)]
    (tmp_path / "pages" / "0.jsonl").write_text("\n".join(lines))
    shape = {"data__source": "pydocs", "data__lanes": "none", "eval__interval": 0, "data__validation_tokens": 20_000}
    arms = {"a": (9.0, 1.0), "b": (1.0, 9.0)}
    for name, (lines, pages) in arms.items():
        both = mix(tmp_path, lines=lines, pages=pages)
        assert train(name, steps=10, data__mix=both, optimizer__lr=3e-3, **shape) == 0
    assert load_model("a", train.runs).details["source"] == "lines 90 %, pages 10 %", "as a card has it"
    for name in arms:
        checkpoint = str(train.runs / name / "checkpoints" / "step-00000010")
        words = ["--protocol", "runs:a,b", "--runs", str(train.runs), "--device", "cpu"]
        assert main(["eval", "--model", checkpoint, *words]) == 0
    found = judge(prepare(Question(Spec("a"), Spec("b"), train.runs, 1)), say=lambda _: None)
    better = {name: part["better"] for name, part in found["by_source"].items()}
    assert better == {"lines": "base", "pages": "variant"}
    assert {tuple(part["trained_by"]) for part in found["by_source"].values()} == {("base", "variant")}
    again = judge(prepare(Question(Spec("a"), Spec("b"), train.runs, 1)), say=lambda _: None)
    assert again["ledger"]["number"] == found["ledger"]["number"] == 1
