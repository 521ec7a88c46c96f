"""One seed for the order of the data, one for the weights; and the one seed of earlier versions, read as both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import ConfigError, config_hash, load_config, to_toml
from mygpt2.config.earlier import renewed, renewed_names

READ = "is read as data.seed and model.seed, which took its place"
# From the version that had train.seed: config_hash of load_config(preset, None, ["--train.seed", seed]).
HASHES = {
    ("tiny", "1337"): "87bfffb2ab7d274c503e4210a6d3280e0b3823b6dbc365604df8469abd3b2d8e",
    ("tiny", "5"): "ae4f06f81f2fd2d17329613c4d6917074f2dca744228840e798f2bad0bc2ce80",
    ("gpt2", "1337"): "a547bfe62729f45f175682172c9fcda760e69d124131bcf107f651efac5bcc73",
    ("gpt2", "5"): "0420369f84544373c591ce17a282eef3dfab394a77c1c4113e38073079e8c1cf",
}


def seeds(*given: Any, **kwargs: Any) -> tuple[int, int, list[str]]:
    """(data.seed, model.seed, what was told) of a configuration."""
    told: list[str] = []
    config = load_config(*given, **kwargs, notices=told)
    return config.data.seed, config.model.seed, told


def test_the_seed_of_an_earlier_version_is_both_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "old.toml"
    file.write_text('preset = "tiny"\n[train]\nseed = 8\n')
    assert seeds(None, file) == (8, 8, [f"{file}: train.seed = 8 {READ}"])
    assert seeds("tiny", None, ["--train.seed", "5"]) == (5, 5, [f"--train.seed 5 {READ}"])
    assert seeds("tiny", None, {"train.seed": 6}) == seeds("tiny", None, {"train": {"seed": 6}})
    assert seeds("tiny", None, {"train.seed": 6})[:2] == (6, 6)
    assert seeds("tiny", None, ["--data.seed", "5"]) == (5, 1337, [])


@pytest.mark.parametrize("words", ["--data.seed 7 --train.seed 5", "--train.seed 4 --train.seed 5 --data.seed 7"])
def test_a_seed_of_its_own_wins_over_the_earlier_one_beside_it(words: str) -> None:
    assert seeds("tiny", None, words.split())[:2] == (7, 5)


def test_the_command_line_wins_over_the_file_whichever_name_either_has(tmp_path: Path) -> None:
    old, new = tmp_path / "old.toml", tmp_path / "new.toml"
    old.write_text("[train]\nseed = 8\n")
    new.write_text("[data]\nseed = 8\n[model]\nseed = 9\n")
    assert seeds("tiny", new, ["--train.seed", "5"])[:2] == (5, 5)
    assert seeds("tiny", old, ["--model.seed", "5"])[:2] == (8, 5)


def test_a_bad_earlier_seed_is_told_as_it_was_written() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("tiny", None, ["--train.seed", "many"])
    assert all(line.startswith("--train.seed many (Seed of the ") for line in caught.value.problems)
    with pytest.raises(ConfigError, match=r"--train\.seed has no value"):
        load_config("tiny", None, ["--train.seed"])


@pytest.mark.parametrize(("preset", "seed"), HASHES)
def test_a_configuration_with_one_seed_keeps_its_hash(preset: str, seed: str) -> None:
    assert config_hash(load_config(preset, None, ["--train.seed", seed])) == HASHES[preset, seed]


def test_each_seed_changes_the_hash_and_they_do_not_stand_for_each_other() -> None:
    words = [(), ("--data.seed", "1"), ("--model.seed", "1"), ("--data.seed", "1", "--model.seed", "1")]
    assert len({config_hash(load_config("tiny", None, list(given))) for given in words}) == 4


def test_a_file_that_is_written_knows_only_the_two(tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text(to_toml(load_config("tiny", None, ["--train.seed", "5"])))
    assert seeds(None, file) == (5, 5, [])


def test_tables_of_an_earlier_version_are_renewed_without_being_changed() -> None:
    old = {"train": {"seed": 3, "steps": 9}, "model": {"seed": 4}, "preset": "tiny"}
    assert renewed(old) == {"train": {"steps": 9}, "model": {"seed": 4}, "data": {"seed": 3}, "preset": "tiny"}
    assert old["train"] == {"seed": 3, "steps": 9}
    assert renewed({"train": {"seed": 3}, "data": "damaged"}) == {"train": {}, "data": "damaged", "model": {"seed": 3}}
    assert renewed_names({"model.seed": "4", "train.seed": "3"}) == {"data.seed": "3", "model.seed": "4"}
