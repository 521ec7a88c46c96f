"""What a configuration is made of, what is refused, and that the file it is written to says the same again."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt2.config import ConfigError, RunConfig, config_hash, load_config, preset_names, to_toml
from mygpt2.config.fields import settings as all_settings
from mygpt2.config.summary import count_parameters, settings_help


def problems(*args: object, **kwargs: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value.problems


def test_the_command_line_wins_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "gpt2"\n[train]\nsteps = 7\nmax_skips = 8\n')
    config = load_config(file=file, overrides=["--train.steps", "9", "--model.bias=false"])
    assert (config.train.steps, config.train.max_skips, config.model.bias) == (9, 8, False)
    assert config.data.source == "fineweb-edu-10BT", "from the preset that the file names"
    assert load_config("tiny", file).data.source == "pydocs", "a preset on the command line replaces the file's"


def test_overrides_may_be_words_or_a_mapping() -> None:
    words = ["--train.micro_batch", "4", "--sample.prompts", '["a, b", "c"]', "--optimizer.lr", "1e-3"]
    flat = {"train.micro_batch": 4, "sample.prompts": ["a, b", "c"], "optimizer.lr": 1e-3}
    nested = {"train": {"micro_batch": 4}, "sample": {"prompts": ["a, b", "c"]}, "optimizer": {"lr": "0.001"}}
    assert load_config("tiny", None, words) == load_config("tiny", None, flat) == load_config("tiny", None, nested)


@pytest.mark.parametrize("text", ["none", "None", "null"])
def test_none_unsets_an_optional_setting(text: str) -> None:
    config = load_config(None, None, ["--train.micro_batch", "4", "--train.micro_batch", text])
    assert config.train.micro_batch is None


def test_text_settings_are_taken_as_they_are() -> None:
    config = load_config(None, None, ["--log.project", "true", "--data.source", "1.5", "--data.text_column=--x"])
    assert (config.log.project, config.data.source, config.data.text_column) == ("true", "1.5", "--x")


def test_all_problems_are_reported_at_once() -> None:
    words = "--train.steps many --model.n_head 7 --optimizer.lr nan --trian.seed 3 --data.lanes 5 --eval.interval -1"
    found = problems("tiney", Path("/no/such/file.toml"), words.split())
    for part in ("/no/such/file.toml", "tiney", "train.steps many", "n_head=7", "lr nan", "trian.seed", "data.lanes=5",
                 "eval.interval -1"):  # fmt: skip
        assert any(part in line for line in found), part
    assert len(found) == 8
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("train.step", "train.steps"), ("trian.steps", "train.steps"), ("train.lr", "optimizer.lr"),
        ("optim.lr", "optimizer.lr"), ("model.n_layers", "model.n_layer"), ("train.batch-tokens", "train.batch_tokens"),
        ("model.context", None), ("schedule.warmup", "schedule.warmup_steps"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(wrong: str, right: str | None) -> None:
    (line,) = problems(None, None, [f"--{wrong}", "1"])
    assert f"--{wrong} is not a setting" in line
    assert f"did you mean {right}?" in line or right is None


def test_a_rule_is_not_reported_about_a_value_that_is_itself_bad() -> None:
    assert len(problems(None, None, ["--model.n_embd", "wide", "--model.n_head", "7"])) == 1


@pytest.mark.parametrize("value", ["many", "1.5", "nan", "inf", "true", "1e3", "[3]", "0", "1000000001", '"300"'])
def test_a_count_is_a_whole_number_in_its_range(value: str) -> None:
    (line,) = problems(None, None, ["--train.steps", value])
    assert "expected a whole number from 1 to 1000000000 (steps), for example 19073" in line


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "0", "11", "fast", "true"])
def test_a_rate_is_a_finite_number_in_its_range(value: str) -> None:
    (line,) = problems(None, None, ["--optimizer.lr", value])
    assert "expected a number above 0, at most 10" in line


def test_a_file_is_as_strict_as_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[train]\nsteps = "300"\nmax_skips = 1.0\ncompile = 1\n[optimizer]\nlr = nan\n[log]\nproject = 3\n')
    found = problems(None, file)
    assert len(found) == 5 and all(line.startswith(f"{file}: ") for line in found)


def test_a_shorter_run_shortens_a_warm_up_nobody_asked_for() -> None:
    assert load_config("tiny", None, ["--train.steps", "10"]).schedule.warmup_steps == 1
    (line,) = problems("tiny", None, ["--train.steps", "10", "--schedule.warmup_steps", "10"])
    assert "warmup_steps=10 must be below train.steps=10" in line and "0 to 9" in line


@pytest.mark.parametrize("name", preset_names())
def test_the_written_file_is_the_same_configuration(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    for comments in (True, False):
        file = tmp_path / "config.toml"
        file.write_text(to_toml(config, comments), "utf-8")
        again = load_config(file=file)
        assert again == config and config_hash(again) == config_hash(config)


@settings(max_examples=60, deadline=None)
@given(
    prompts=st.lists(st.text(min_size=1, max_size=20).filter(lambda s: s.isascii() or "\ud800" not in s), max_size=4),
    lr=st.floats(min_value=1e-12, max_value=10, exclude_min=True),
    project=st.text(alphabet=st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20),
)
def test_any_text_and_number_survives_the_file(prompts: list[str], lr: float, project: str) -> None:
    config = RunConfig().model_copy(
        update={
            "sample": RunConfig().sample.model_copy(update={"prompts": prompts}),
            "optimizer": RunConfig().optimizer.model_copy(update={"lr": lr}),
            "log": RunConfig().log.model_copy(update={"project": project}),
        }
    )
    assert RunConfig.model_validate(tomllib.loads(to_toml(config))) == config


def test_the_hash_differs_for_a_different_setting() -> None:
    assert config_hash(load_config("tiny")) != config_hash(load_config("tiny", None, ["--model.seed", "1"]))


def test_help_lists_every_setting_with_its_unit_and_default() -> None:
    text = " ".join(settings_help().split())
    for setting in all_settings().values():
        assert f"--{setting.name} " in text
        assert setting.help and " ".join(setting.help.split()) in text
        assert setting.unit is None or setting.kind not in ("int", "float") or f"({setting.unit})" in text
    assert "Default 19073; a whole number from 1 to 1000000000 (steps)." in text


def test_optional_settings_default_to_unset() -> None:
    assert all(setting.default is None for setting in all_settings().values() if setting.optional)


PRESETS = {
    # name: parameters, tokens of the run, sequences per batch; GPT-2's counts are those of the published weights
    "tiny": (4_273_664, 1_146_880, 32),
    "small": (13_891_584, 65_536_000, 128),
    "gpt2": (124_439_808, 9_999_745_024, 512),
    "gpt2-medium": (354_823_168, 9_999_745_024, 512),
    "gpt2-large": (774_030_080, 9_999_745_024, 512),
    "gpt2-xl": (1_557_611_200, 9_999_220_736, 1024),
    "gpt3-small": (125_226_240, 9_999_745_024, 256),
    "gpt2-35B": (124_439_808, 36_700_160_000, 512),
}


def test_the_presets_are_what_their_comments_say() -> None:
    assert preset_names() == list(PRESETS)
    folder = Path(__file__).parents[2] / "mygpt2" / "presets"
    for name, (parameters, tokens, sequences) in PRESETS.items():
        config = load_config(name)
        spec = config.data.tokenizer
        vocabulary = 50257 if spec == "gpt2" else int(spec.removeprefix("gpt2:"))
        assert count_parameters(config.model, vocabulary) == parameters
        assert config.train.steps * config.train.batch_tokens == tokens
        assert config.train.batch_tokens == sequences * config.model.block_size
        assert all(sequences % ranks == 0 for ranks in (1, 2, 4, 8))
        comments = (folder / f"{name}.toml").read_text("utf-8")
        for number in (parameters, tokens, config.train.steps, config.train.batch_tokens):
            assert f"{number:,}" in comments, (name, number)


def test_no_bias_has_the_parameters_of_its_norms_only() -> None:
    model = load_config("gpt2", None, ["--model.bias", "false"]).model
    width, blocks = 768, 12
    assert count_parameters(model, 50257) == 124_439_808 - blocks * 11 * width - width
    assert math.isclose(count_parameters(model, 50257), 124_337_664)
