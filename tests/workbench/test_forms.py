"""The form and the schema agree: what is shown, what is read, what is refused and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from mygpt2.config import ConfigError, RunConfig, config_hash, load_config, preset_names, to_toml
from mygpt2.config.fields import settings
from mygpt2.errors import UserError
from tests.workbench.bad_values import bad_values
from workbench import forms


class Anywhere:
    """Places that take every name as it is, and no path that leads elsewhere."""

    def source(self, text: str) -> str:
        return str(self.path(text, "data source"))

    def model(self, text: str) -> str:
        return str(self.path(text, "model"))

    def path(self, text: str, what: str) -> Path:
        if not text or text.startswith(("/", "..", "~")):
            raise UserError(f"{what} {text!r} is outside")
        return Path(text)


def read(preset: str = "tiny", **values: object) -> forms.Reading:
    given = {name.replace("__", "."): value for name, value in values.items()}
    return forms.read(preset, {**forms.preset_texts(preset), **given}, Anywhere())


@pytest.mark.parametrize("preset", preset_names())
def test_an_untouched_form_is_its_preset(preset: str) -> None:
    reading = read(preset)
    assert reading.config == load_config(preset)
    assert not reading.changes and not reading.problems


def test_every_setting_has_a_text_that_reads_as_its_value() -> None:
    for preset in preset_names():
        other = "gpt2" if preset == "tiny" else "tiny"
        reading = forms.read(other, forms.preset_texts(preset), Anywhere())
        assert reading.config == load_config(preset), f"{preset} typed over {other}"
        assert set(forms.preset_texts(preset)) == set(settings())


def test_what_is_typed_is_read_as_the_command_line_reads_it() -> None:
    typed = {"train.steps": "1_000", "optimizer.lr": "1e-3", "train.micro_batch": "4", "log.profile": "2:3",
             "sample.prompts": '["a, b", "c\\n"]', "model.bias": False, "train.compile": True}  # fmt: skip
    words = ["--train.steps", "1000", "--optimizer.lr", "0.001", "--train.micro_batch", "4", "--log.profile", "2:3"]
    words += ["--sample.prompts", '["a, b", "c\\n"]', "--model.bias", "false", "--train.compile", "true"]
    reading = forms.read("tiny", typed, Anywhere())
    assert reading.config == load_config("tiny", None, words)
    assert {change.name for change in reading.changes} == set(typed)


def test_the_same_value_written_otherwise_is_no_change() -> None:
    preset = forms.preset_texts("tiny")
    tokens, lr = f"{int(preset['train.batch_tokens']):_}", f"{float(preset['optimizer.lr']):.9e}"
    assert tokens != preset["train.batch_tokens"] and lr != preset["optimizer.lr"]
    assert read(train__batch_tokens=tokens, optimizer__lr=lr).changes == []


def test_an_emptied_field_unsets_what_may_be_unset() -> None:
    with_micro = {name: text for name, text in forms.preset_texts("tiny").items()}
    reading = forms.read("tiny", {**with_micro, "train.micro_batch": "  ", "data.cache_dir": ""}, Anywhere())
    assert reading.config == load_config("tiny")


@pytest.mark.parametrize("name", bad_values())
def test_a_bad_value_is_told_at_its_field(name: str) -> None:
    for text in bad_values()[name]:
        reading = read(**{name.replace(".", "__"): text})
        assert reading.config is None, repr(text)
        lines = reading.problems[name]
        assert lines and all(line in reading.lines for line in lines)
        assert all(name in line and "\n" not in line and len(line) < 600 for line in lines)


def test_the_bad_values_cover_the_schema() -> None:
    found = bad_values()
    assert set(found) == set(settings()) and all(found.values())
    assert {"0", "1000000001", "", "many"} <= set(found["train.steps"])
    assert {"0", "nan", "10.001"} <= set(found["optimizer.lr"]) and "" in found["data.source"]


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({"model__n_head": "3"}, {"model.n_head", "model.n_embd"}),
        ({"train__batch_tokens": "8191"}, {"train.batch_tokens", "model.block_size", "train.micro_batch"}),
        ({"data__lanes": "5"}, {"data.lanes", "train.batch_tokens", "model.block_size"}),
        ({"schedule__warmup_steps": "140", "train__steps": "139"}, {"schedule.warmup_steps", "train.steps"}),
        ({"log__profile": "100:200"}, {"log.profile", "train.steps"}),
    ],
)
def test_a_rule_of_several_fields_is_told_at_each(values: dict[str, str], fields: set[str]) -> None:
    reading = read(**values)
    assert set(reading.problems) == fields
    assert len(reading.lines) == 1, "and only once in the list of reasons"


def test_all_problems_are_told_at_once() -> None:
    reading = read(train__steps="0", optimizer__lr="x", model__n_head="3", data__tokenizer="gpt2:99")
    assert {"train.steps", "optimizer.lr", "model.n_head", "data.tokenizer"} <= set(reading.problems)


def test_a_warm_up_nobody_asked_for_follows_the_steps_and_says_so() -> None:
    (first, second) = read(train__steps="9").changes
    assert (first.name, first.text, first.follows) == ("schedule.warmup_steps", "0", True)
    assert (second.name, second.preset, second.text, second.follows) == ("train.steps", "140", "9", False)


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="there is no preset"):
        forms.read("tinny", {}, Anywhere())


def test_saving_and_loading_gives_the_same_configuration(tmp_path: Path) -> None:
    config = load_config("small", None, ["--train.steps", "77", "--data.source", "a b/c"])
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config), "utf-8")
    loaded = forms.from_toml(file)
    assert loaded.preset == "small" and not loaded.left_out
    reading = forms.read(loaded.preset, loaded.values, Anywhere())
    assert reading.config and config_hash(reading.config) == config_hash(config) == config_hash(load_config(None, file))


def test_a_file_of_before_the_two_seeds_fills_both_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "tiny"\n[train]\nseed = 8\n', "utf-8")
    loaded = forms.from_toml(file, "my file")
    assert (loaded.values["data.seed"], loaded.values["model.seed"], loaded.left_out) == ("8", "8", [])
    assert loaded.notices == ("my file: train.seed = 8 is read as data.seed and model.seed, which took its place",)
    file.write_text('preset = "tiny"\n[train]\nseed = 8\nsteps = 0\n', "utf-8")
    assert forms.from_toml(file).values["model.seed"] == "8", "also where something else is wrong"


def test_a_file_with_bad_values_fills_the_form_and_says_what_found_no_field(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "tiny"\n[train]\nsteps = 0\nstep = 3\n[optimizer]\nlr = "fast"\n[zoo]\na = 1\n', "utf-8")
    loaded = forms.from_toml(file)
    assert (loaded.preset, loaded.values["train.steps"], loaded.values["optimizer.lr"]) == ("tiny", "0", "fast")
    assert loaded.values["train.batch_tokens"] == "8192", "the rest is the preset's"
    assert len(loaded.left_out) == 2 and "train.step is not a setting" in loaded.left_out[0]
    assert {"train.steps", "optimizer.lr"} == set(forms.read("tiny", loaded.values, Anywhere()).problems)
    with pytest.raises(ConfigError):
        load_config(None, file)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"x" * (forms.MAX_FILE + 1), "larger than"), (b"\xff\xfe", "not TOML"), (b"a = [", "not TOML"),
     (b"a = " + b"[" * 9000, "not TOML")],
)  # fmt: skip
def test_what_is_no_settings_file_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    file = tmp_path / "given.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        forms.from_toml(file)


def test_the_closest_preset_begins_the_command() -> None:
    assert forms.closest_preset(load_config("gpt2-xl", None, ["--train.steps", "5000"])) == "gpt2-xl"
    assert forms.closest_preset(RunConfig()) in preset_names()


BOMBS = {
    "a name of 100,000 parts": "a." * 100_000 + "b = 1",
    "tables of long names": "".join("[a" + ".a" * 400 + f".k{i}]\n" for i in range(240)),
    "brackets": "x = " + "[" * 100_000,
    "a number without end": "x = " + "9" * 200_000,
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_file_of_settings_that_would_take_the_machine_to_read_is_one_line(tmp_path: Path, what: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(BOMBS[what])
    with pytest.raises(UserError, match=r"settings\.toml is not TOML") as told:
        forms.from_toml(file)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300
