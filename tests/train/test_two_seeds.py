"""Replicates of a recipe: other weights on the same batches; and runs that were begun under the one seed of before."""

import argparse
import hashlib
import json
import os
import signal

import pytest

from mygpt2.data.trace import read_trace
from mygpt2.launch.request import add_arguments, resolve
from mygpt2.run_dir import RunDir, read_events
from mygpt2.train.trainer import Trainer
from tests.life import harness
from tests.train.test_attempt import at_step, cache, calm, source, train  # noqa: F401 (fixtures)


@pytest.fixture
def hashes(monkeypatch):
    """The hashes of the batches in the order of the steps, by run."""
    seen, step = {}, Trainer._step

    def counted(self, batch, wait_s):
        seen.setdefault(self.run.name, []).append(hashlib.sha256(batch.tokens.tobytes()).hexdigest())
        step(self, batch, wait_s)

    monkeypatch.setattr(Trainer, "_step", counted)
    return seen


def test_another_seed_of_the_weights_sees_the_same_batches_and_another_of_the_data_others(train, hashes):  # noqa: F811
    names = {"one": {}, "weights": {"model__seed": 7}, "order": {"data__seed": 7}}
    for name, changes in names.items():
        assert train(name, steps=5, sample__prompts=[], **changes) == 0
    assert len(set(hashes["one"])) == 5 and hashes["one"] == hashes["weights"]
    assert not set(hashes["one"]) & set(hashes["order"])
    one, weights, order = (harness.losses(train.runs / name) for name in names)
    assert all(one[step] != weights[step] for step in one)
    assert one[1] != order[1], "the same weights meet another batch"
    assert len({harness.weights_hash(train.runs / name) for name in names}) == 3
    places = [read_trace(train.runs / name).drop_columns("loss") for name in names]
    assert places[0].equals(places[1]) and not places[0].equals(places[2])


def test_a_run_of_before_the_two_seeds_goes_on_to_the_bit(train, calm, monkeypatch, capsys):  # noqa: F811
    def as_before(state):
        config = state["config"]
        config["train"]["seed"] = config["data"].pop("seed")
        del config["model"]["seed"]
        return state

    written = Trainer._state
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_state", lambda self, *args: as_before(written(self, *args)))
        at_step(patch, 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert train("old") == 85
    folder = train.runs / "old"
    state = json.loads((folder / "checkpoints" / "step-00000006" / "state.json").read_text())
    assert state["config"]["train"]["seed"] == 1337 and "seed" not in state["config"]["data"]
    text = (folder / "config.toml").read_text()
    assert text.count("\nseed = 1337\n") == 2
    old = text.replace("\nseed = 1337\n", "\n").replace("[train]\n", "[train]\nseed = 1337\n")
    (folder / "config.toml").write_text(old)

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--run", "old", "--runs", str(train.runs)])
    args.settings = []
    request = resolve(args)
    assert (request.config.data.seed, request.config.model.seed) == (1337, 1337)
    request.tell()
    assert "config.toml: train.seed = 1337 is read as data.seed and model.seed" in capsys.readouterr().err

    assert train("old") == 0
    assert harness.losses(folder) == harness.losses(calm)
    assert harness.weights_hash(folder) == harness.weights_hash(calm)
    (resume,) = read_events(RunDir(folder), ["resume"])
    assert resume["changes"] == {}


def test_another_seed_of_the_weights_is_told_where_a_run_goes_on_and_another_of_the_data_is_refused(train):  # noqa: F811
    from mygpt2.errors import UserError

    assert train(steps=4, sample__prompts=[]) == 0
    with pytest.raises(UserError, match="seed was 1337, is 7"):
        train(steps=6, sample__prompts=[], data__seed=7)
    assert train(steps=6, sample__prompts=[], model__seed=7) == 0
    (resume,) = read_events(RunDir(train.runs / "run"), ["resume"])
    assert resume["changes"]["model.seed"] == [1337, 7]
