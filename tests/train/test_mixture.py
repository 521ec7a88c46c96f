"""A run of a mixture: the loss of each source in every step and validation, kills, ranks, forks, and passes refused."""

import json
import os
import signal

import numpy as np
import pytest
import torch

from mygpt2.config import load_config
from mygpt2.data.ledger import coverage
from mygpt2.data.sources.resolve import resolve_data
from mygpt2.data.trace import read_manifest, read_trace
from mygpt2.device import choose
from mygpt2.errors import UserError
from mygpt2.evals.loss import GPTScorer, evaluate
from mygpt2.evals.text import held_out
from mygpt2.exchange.load import load_model
from mygpt2.machine import cache_folder
from mygpt2.model import GPT
from mygpt2.model.loss import IGNORE
from mygpt2.tokenizer import load_tokenizer
from mygpt2.train.passes import check_passes
from mygpt2.train.trainer import Trainer
from tests.data.corpus import Bytes, write_jsonl, write_parquet, write_txt
from tests.data.hub_data import REPO, SOURCE, fineweb_edu
from tests.data.test_pydocs import package  # noqa: F401
from tests.fake_hub import FakeHub
from tests.life import harness
from tests.life.conftest import launch  # noqa: F401
from tests.train.test_attempt import at_step, cache, records, source, train  # noqa: F401 (fixtures)

WEIGHTS = {"prose": 5, "lines": 3, "pages": 2}


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    return write_jsonl(folder / "lines", documents=1500), write_txt(folder / "pages", paragraphs=4000)


def mixture(source, others, **more):  # noqa: F811
    """As the form writes it; `more` by source."""
    places = dict(zip(WEIGHTS, (source, *others), strict=True))
    return [
        {"name": name, "source": str(places[name]), "weight": weight, **more.get(name, {})}
        for name, weight in WEIGHTS.items()
    ]


def mixed(source, others, **more):  # noqa: F811
    return {"data__source": "pydocs", "data__mix": mixture(source, others, **more), "data__lanes": "none"}


def by_source(folder):
    """(steps, sources, 2), where a later attempt wins."""
    rows = {
        row["step"]: row["by_source"] for row in sorted(records(folder, "metrics.jsonl"), key=lambda r: r["attempt"])
    }
    return np.array([[rows[step][name] for name in WEIGHTS] for step in sorted(rows)])


def test_losses_by_source_are_those_of_the_rows_and_of_a_direct_evaluation(train, source, others, monkeypatch):  # noqa: F811
    """The rows of step 3 by the model as it was before it; the held-out documents by the model at the end."""
    direct = {}
    step = Trainer._step

    def seen(self, batch, wait_s):
        if self.state.step == 2:
            tokens = torch.from_numpy(batch.tokens.astype(np.int64))
            scorer = GPTScorer(self.weights.view, self.precision)
            nll = scorer.nll(tokens[:, :-1], tokens[:, 1:]).numpy().sum(axis=1)
            direct.update({name: nll[batch.sources == number].sum() for number, name in enumerate(WEIGHTS)})
            direct["targets"] = [int((batch.tokens[batch.sources == n, 1:] != IGNORE).sum()) for n in range(3)]
        step(self, batch, wait_s)

    monkeypatch.setattr(Trainer, "_step", seen)
    assert train(steps=6, eval__interval=0, model__dropout=0.0, **mixed(source, others)) == 0
    folder = train.runs / "run"
    rows = records(folder, "metrics.jsonl")
    told = by_source(folder)
    np.testing.assert_allclose(
        told[:, :, 0].sum(axis=1) / told[:, :, 1].sum(axis=1), [r["loss"] for r in rows], rtol=1e-6
    )
    np.testing.assert_allclose(told[2, :, 0], [direct[name] for name in WEIGHTS], rtol=1e-5)
    assert told[2, :, 1].tolist() == direct["targets"] and told[:, :, 1].sum() == 6 * 256
    np.testing.assert_allclose(told[:, :, 1].sum(axis=0) / (6 * 256), [0.5, 0.3, 0.2], atol=0.06)

    trace, manifest = read_trace(folder), read_manifest(folder)
    for number, part in enumerate(manifest.parts):
        own = [r["loss"] for r in trace.to_pylist() if manifest.part_of(r["block"][0]) == number]
        assert sum(own) * 32 == pytest.approx(told[:, number, 0].sum(), rel=1e-5), part.name

    event = next(e for e in records(folder, "events.jsonl") if e["kind"] == "eval")
    config, loaded = load_config(file=folder / "config.toml"), load_model(str(folder))
    assert isinstance(loaded.model, GPT)
    scorer = GPTScorer(loaded.model, choose("fp32", torch.device("cpu")))
    alone = Alone()
    for own in config.data.mix:
        data = config.data.of(own).model_copy(update={"validation_tokens": 1024})
        text = held_out(data, load_tokenizer("gpt2:512"), cache_folder(config.data.cache_dir))
        found = evaluate(scorer, text, window=32, ranks=alone)
        assert event["by_source"][own.name]["loss"] == pytest.approx(found.loss, abs=1e-6)
        assert event["by_source"][own.name]["documents"] == found.documents
    whole = sum(one["loss"] * one["tokens"] for one in event["by_source"].values())
    assert event["loss"] == pytest.approx(whole / event["tokens"], abs=1e-9)


class Alone:
    rank, size = 0, 1

    def sum(self, values):
        return values


def test_a_killed_run_goes_on_to_the_bit(train, source, others, monkeypatch):  # noqa: F811
    assert train("calm", **mixed(source, others)) == 0
    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train(**mixed(source, others)) == 85
    assert train(**mixed(source, others)) == 0
    assert (by_source(train.runs / "run") == by_source(train.runs / "calm")).all()
    assert harness.weights_hash(train.runs / "run") == harness.weights_hash(train.runs / "calm")


def test_two_ranks_tell_what_one_tells(launch, source, others, tmp_path):  # noqa: F811
    values = harness.settings(
        source, tmp_path / "cache", train__steps=8, eval__interval=0, model__dropout=0.0, schedule__warmup_steps=2
    )
    del values["data.source"]
    text = ", ".join(
        "{" + ", ".join(f"{k} = {json.dumps(v)}" for k, v in one.items()) + "}" for one in mixture(source, others)
    )
    values["data.mix"] = f"[{text}]"
    for ranks in (1, 2):
        process = launch(harness.command(values, tmp_path / "runs", f"on-{ranks}"), tmp_path / f"log-{ranks}", ranks)
        assert process.wait() == 0, process.said()[-2000:]
    one, two = (by_source(tmp_path / "runs" / f"on-{ranks}") for ranks in (1, 2))
    np.testing.assert_allclose(one[0], two[0], rtol=1e-6)
    np.testing.assert_allclose(one, two, rtol=1e-3)  # the sums of gradients are rounded in another order
    assert (one[:, :, 1] == two[:, :, 1]).all()


def test_another_weight_goes_on_only_by_a_fork_from_the_next_step_on(train, source, others):  # noqa: F811
    assert train(steps=4, eval__interval=0, **mixed(source, others)) == 0
    heavier = mixed(source, others, pages={"weight": 20})
    with pytest.raises(UserError, match=r"data order cannot go on: mix was .* --data.fork true"):
        train(steps=8, eval__interval=0, **heavier)
    assert train(steps=8, eval__interval=0, data__fork=True, **heavier) == 0
    told = by_source(train.runs / "run")[:, :, 1]
    assert told[:4, 2].sum() < 0.35 * told[:4].sum() and told[4:, 2].sum() > 0.6 * told[4:].sum()
    newest = max((train.runs / "run" / "checkpoints").glob("step-*"))
    before = json.loads((newest / "state.json").read_text())["data"]["before"]
    assert [[round(share, 6) for _, share in entry["fingerprint"]["mix"]] for entry in before] == [[0.5, 0.3, 0.2]]
    alerts = [e["message"] for e in records(train.runs / "run", "events.jsonl") if e["kind"] == "alert"]
    assert not [message for message in alerts if "read from the beginning" in message]
    assert train(steps=10, eval__interval=0, data__fork=True, **{**heavier, "data__lanes": 2}) == 0
    alerts = [e["message"] for e in records(train.runs / "run", "events.jsonl") if e["kind"] == "alert"]
    assert alerts[-1] == (
        f"{', '.join(WEIGHTS)}: read from the beginning in a new order, because data.lanes was 4 and is 2; "
        "--data.lanes 4 goes on from there"
    )


def test_a_source_that_would_be_read_too_often_is_refused_or_warned_of(train, source, others):  # noqa: F811
    small = mixed(source, others, lines={"max_epochs": 0.5, "weight": 200})
    with pytest.raises(UserError, match=r"its max_epochs=0\.5 allows no more; give lines a weight") as raised:
        train(steps=3000, **small)
    assert "source lines would be read" in str(raised.value) and not harness.last_step(train.runs / "run")
    assert train("forked", steps=8, eval__interval=0, **mixed(source, others, lines={"weight": 200})) == 0
    had = by_source(train.runs / "forked")[:, list(WEIGHTS).index("lines"), 1].sum()
    light = mixed(source, others, lines={"weight": 0.01, "max_epochs": 0.001})
    with pytest.raises(UserError, match=r"its max_epochs=0\.001 allows no more; train|or raise max_epochs") as raised:
        train("forked", steps=9, eval__interval=0, data__fork=True, **light)
    passes = float(str(raised.value).partition("would be read ")[2].split()[0])
    tokens = int(str(raised.value).partition("holds about ")[2].split()[0].replace(",", ""))
    assert had / tokens < passes * 1.01 and passes > 0.001, "what was read before the fork counts as it was"
    one = [{"name": "lines", "source": str(others[0]), "max_epochs": 0.5}]
    with pytest.raises(UserError, match=r"its max_epochs=0\.5 allows no more; train for at most"):
        train("alone", steps=3000, data__source="pydocs", data__mix=one, data__lanes="none")
    at_most = int(str(raised.value).partition("train for at most ")[2].partition(" steps")[0].replace(",", ""))
    assert 0 < at_most < 3000


def test_what_is_advised_for_a_kind_of_a_folders_files_can_be_set(others, tmp_path):
    """The folder has one weight and one max_epochs; its kinds have the share of their size."""
    folder = write_jsonl(write_parquet(tmp_path / "both", files=2), documents=200)
    mix = [{"name": "both", "source": str(folder), "max_epochs": 2.0}, {"name": "pages", "source": str(others[1])}]

    def config(steps, **data):
        values = {"data": {"token_cache": False, **data}, "train": {"steps": steps, "batch_tokens": 2048}}
        return load_config("tiny", None, {**values, "model": {"block_size": 64}})

    def checked(found):
        manifest = resolve_data(found.data, cache_dir=tmp_path)
        return check_passes(found, manifest, Bytes(), tmp_path)

    with pytest.raises(UserError, match=r"source both\.\w+ would be read .* max_epochs=2 allows no more") as raised:
        checked(config(200, mix=mix))
    told = str(raised.value)
    weight = float(told.partition("give both a weight of at most ")[2].split(";")[0])
    steps = int(told.partition("train for at most ")[2].split()[0])
    assert "or raise max_epochs of both, or put the " in told and "into a folder of their own" in told
    assert checked(config(steps, mix=mix)) == []
    assert checked(config(200, mix=[{**mix[0], "weight": weight * 0.99}, mix[1]])) == [], "what it advises is allowed"
    with pytest.raises(UserError, match="allows no more"):
        checked(config(200, mix=[{**mix[0], "weight": weight * 1.02}, mix[1]]))
    (warned, *_) = checked(config(2000, mix=[{**mix[0], "max_epochs": None}, mix[1]]))
    assert "set max_epochs of both to refuse or allow it, or put" in warned
    (warned, *_) = checked(config(2000, source=str(folder)))
    assert "train for fewer steps, or put the" in warned and "set max_epochs" not in warned


def test_the_built_in_text_a_folder_and_a_hub_dataset_go_on_after_a_kill(train, others, package, monkeypatch):  # noqa: F811
    """The three kinds of sources there are, each read by its own means."""
    with FakeHub({REPO: fineweb_edu()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        mix = [
            {"name": "built-in", "source": "pydocs", "weight": 2.0},
            {"name": "lines", "source": str(others[0]), "weight": 1.0},
            {"name": "edu", "source": SOURCE, "weight": 1.0, "min_score": 3.0},
        ]
        settings = {"data__source": "pydocs", "data__mix": mix, "data__lanes": "none", "eval__interval": 0}
        assert train("calm", steps=8, **settings) == 0
        with monkeypatch.context() as patch:
            at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert train(steps=8, **settings) == 85
        assert train(steps=8, **settings) == 0
    rows = {name: records(train.runs / name, "metrics.jsonl") for name in ("calm", "run")}
    assert [r["by_source"] for r in rows["run"]] == [r["by_source"] for r in rows["calm"]]
    assert list(rows["run"][0]["by_source"]) == ["built-in", "lines", "edu"]
    assert harness.weights_hash(train.runs / "run") == harness.weights_hash(train.runs / "calm")
    manifest = read_manifest(train.runs / "run")
    assert [part.manifest.revision is not None for part in manifest.parts] == [False, False, True]


def test_the_ledger_tells_what_was_promised_had_and_gone_through(train, source, others):  # noqa: F811
    assert train(steps=10, eval__interval=0, **mixed(source, others)) == 0
    newest = max((train.runs / "run" / "checkpoints").glob("step-*"))
    told = coverage(json.loads((newest / "state.json").read_text())["data"], read_manifest(train.runs / "run"))
    assert [one.name for one in told.sources] == list(WEIGHTS) and told.tokens == 10 * 256
    assert [one.promised for one in told.sources] == [0.5, 0.3, 0.2]
    assert [one.had for one in told.sources] == pytest.approx([0.5, 0.3, 0.2], abs=0.04)
    row = records(train.runs / "run", "metrics.jsonl")[-1]
    assert sum(one.promised * one.epochs for one in told.sources) == pytest.approx(row["epoch"])
    assert all(0 < one.epochs < 1 and one.unique_tokens == one.tokens for one in told.sources)
    assert "50.00% promised" in str(told.sources[0]) and "passes" in str(told.sources[0])


def test_a_small_source_that_takes_the_lanes_of_all_is_told(train, source, tmp_path):  # noqa: F811
    (tmp_path / "one.txt").write_text("Once upon a time there was a very small file. " * 200)
    mix = [{"name": "prose", "source": str(source)}, {"name": "one", "source": str(tmp_path / "one.txt")}]
    assert train(steps=3, eval__interval=0, data__source="pydocs", data__mix=mix, data__lanes="none") == 0
    told = [e["message"] for e in records(train.runs / "run", "events.jsonl") if e["kind"] == "alert"]
    assert any("source one has 1 block, so that all sources are read in 1 lane" in text for text in told)
