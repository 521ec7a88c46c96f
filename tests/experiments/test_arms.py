"""What a person writes becomes arms, pairs of seeds and names of runs."""

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.errors import UserError
from mygpt2.experiments.arms import (
    Spec,
    changes,
    changes_words,
    other_batches,
    parts_of,
    read_arm,
    recipe_hash,
    replicates,
    run_name,
    seeds_of,
)
from mygpt2.run_dir import RunDir


@pytest.fixture
def runs(tmp_path):
    run = RunDir.create(tmp_path / "runs", "mine")
    run.config_file.write_text(to_toml(load_config("tiny", None, ["--optimizer.lr", "1e-3"])))
    return tmp_path / "runs"


def tiny(*words):
    return load_config("tiny", None, words)


def test_a_name_is_a_run_before_it_is_a_preset_and_a_path_is_a_file(runs, tmp_path):
    assert read_arm(Spec("mine"), runs).run == "mine"
    assert read_arm(Spec("tiny"), runs).run is None
    other = RunDir.create(runs, "tiny")
    other.config_file.write_text(to_toml(tiny("--train.steps", "9")))
    assert read_arm(Spec("tiny"), runs).config.train.steps == 9
    assert read_arm(Spec("preset:tiny"), runs).config.train.steps == 140
    file = tmp_path / "my rate.toml"
    file.write_text('preset = "tiny"\n[optimizer]\nlr = 2e-3\n')
    found = read_arm(Spec(str(file), ("--train.steps", "20")), runs)
    assert (found.config.optimizer.lr, found.config.train.steps, found.run) == (2e-3, 20, None)
    assert found.config.schedule.warmup_steps == 10 and found.told == "my-rate with train.steps 20"


def test_a_run_with_changes_is_another_arm_than_the_run(runs):
    found = read_arm(Spec("mine", ("--optimizer.lr", "2e-3")), runs, "v")
    assert (found.run, found.name, found.config.optimizer.lr) == (None, "v", 2e-3)


@pytest.mark.parametrize(
    ("what", "words"),
    [("tinny", "did you mean tiny"), ("run:nope", "no run 'nope'"), ("preset:x", "there is no preset"),
     ("a.toml", "No such file"), ("../..", "Is a directory"), ("", "neither a run")],
)  # fmt: skip
def test_what_is_neither_is_one_sentence(runs, what, words):
    with pytest.raises(UserError, match=words) as told:
        read_arm(Spec(what), runs)
    assert "\n" not in str(told.value)


def test_replicates_are_pairs_of_seeds_and_the_first_is_the_configurations_own():
    config = tiny()
    pairs = replicates(config, 3)
    assert [seeds_of(pair.of(config)) for pair in pairs] == [(1337, 1337), (1338, 1338), (1339, 1339)]
    apart = replicates(load_config("tiny", None, ["--data.seed", "5", "--model.seed", "9"]), 2)
    assert [seeds_of(pair.of(config)) for pair in apart] == [(5, 9), (6, 10)]
    assert pairs[0].of(config) == config
    for count in (0, 101):
        with pytest.raises(UserError, match="replicates are not possible"):
            replicates(config, count)


def test_a_recipe_is_without_its_seeds_and_without_what_changes_no_weight():
    base = tiny()
    same = [
        replicates(base, 2)[1].of(base),
        tiny("--log.plot_interval", "0", "--data.threads", "1", "--eval.interval", "7"),
    ]
    assert {recipe_hash(config) for config in same} == {recipe_hash(base)}
    other = tiny("--optimizer.lr", "1e-3", "--data.validation_fraction", "0.02")
    assert recipe_hash(other) != recipe_hash(base)
    assert changes_words(changes(base, other)) == "data.validation_fraction 0.01 -> 0.02, optimizer.lr 0.006 -> 0.001"
    assert changes_words(changes(base, same[0])) == "nothing"
    assert list(changes(base, tiny("--train.residual", "bf16"))) == ["train.residual"]


def test_batches_differ_by_data_seed_batch_and_context_and_by_nothing_else():
    base = tiny()
    assert other_batches(base, tiny("--optimizer.lr", "1e-3", "--model.n_layer", "2", "--data.threads", "1")) == []
    assert other_batches(base, tiny("--train.batch_tokens", "4096")) == ["train.batch_tokens: 8192 and 4096"]
    assert other_batches(base, tiny("--model.block_size", "128")) == ["model.block_size: 256 and 128"]
    assert len(other_batches(base, replicates(base, 2)[1].of(base))) == 1


def test_a_runs_name_leads_back_to_its_experiment():
    assert parts_of(run_name("lr-tiny", "lr3e-3", 2)) == ("lr-tiny", "lr3e-3", 2)
    assert [parts_of(name) for name in ("tiny", "a.b", "a.b.c", "a.b.c.1", "a.b.1234567")] == [None] * 5
    with pytest.raises(UserError, match="is not allowed; use 1 to 16"):
        run_name("lr", "0.003", 1)
