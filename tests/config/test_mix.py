"""Mixtures in a configuration: written, read again, and what is wrong with one, by source and setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from mygpt2.config.load import ConfigError, config_hash, load_config
from mygpt2.config.mix import shares
from mygpt2.config.toml import to_toml

MIXED = """preset = "tiny"
[[data.mix]]
name = "prose"
source = "pydocs"
weight = 7
[[data.mix]]
name = "code"
source = "/data/code"
weight = 3
max_epochs = 4
text_column = "content"
"""


def written(folder: Path, text: str = MIXED) -> Path:
    (folder / "mixed.toml").write_text(text)
    return folder / "mixed.toml"


def test_a_mixture_is_read_from_tables_and_written_so_that_it_is_read_again(tmp_path: Path) -> None:
    config = load_config(file=written(tmp_path))
    assert [source.name for source in config.data.mix] == ["prose", "code"]
    assert shares(config.data.mix) == [0.7, 0.3] and config.data.text == "prose 70 %, code 30 %"
    assert load_config(file=written(tmp_path, to_toml(config))) == config
    assert load_config(file=written(tmp_path, to_toml(config, comments=False))) == config
    code = config.data.of(config.data.mix[1])
    assert (code.source, code.text_column, code.mix) == ("/data/code", "content", [])
    assert config.data.of(config.data.mix[0]).text_column == "text", (
        "what a source leaves open is as the section has it"
    )


def test_a_mixture_is_given_on_the_command_line_too() -> None:
    words = ["--data.mix", '[{name = "a", source = "pydocs"}, {name = "b", source = "x", weight = 2}]']
    assert load_config("tiny", overrides=words).data.text == "a 33.3 %, b 66.7 %"
    assert load_config("tiny", overrides=["--data.mix", "[]"]) == load_config("tiny")
    assert config_hash(load_config("tiny", overrides=words)) != config_hash(load_config("tiny"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("5", "write [[data.mix]] above each of them"),
        ("[3]", "source 1: expected a table with name, source and weight"),
        ('[{name="a", source="x", weight=-1}]', "source 1 (a): weight = '-1': expected a number above 0"),
        ('[{name="a", source="x", weight="lots"}]', "weight = 'lots': expected a number above 0"),
        ('[{source="x"}]', "source 1: name is missing; expected 1 to 32 letters"),
        ('[{name="a"}]', "source 1 (a): source is missing; expected text"),
        ('[{name="a/b", source="x"}]', "name = 'a/b': expected 1 to 32 letters without accents, digits, dots, - or _"),
        ('[{name="a", source="x", wieght=1}]', "wieght is not a setting of a source; allowed: name, source, weight"),
        ('[{name="a", source="x"}, {name="a", source="y"}]', "names a more than once"),
        ('[{name="a", source="x"}, {name="A", source="y"}]', "names a, A, which some file systems take for one"),
        ('[{name="a", source="x", min_score=nan}]', "min_score = 'nan': expected a number, or none"),
        ('[{name="a", source="\udcff"}]', "it is not UTF-8 text, which config.toml could not hold; rename it"),
        ('[{name="a", source="x\\u0000"}]', "source 1, source: it holds a NUL character"),
        (f'[{{name="a", source="{"x" * 300}"}}]', "source 1, source: it is too long; allowed: names of 255 bytes"),
        ('[{name="a", source="x", weight=1e-9}, {name="b", source="y"}]', "gives a a share of 1e-09"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_said_by_source_and_setting(given: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("tiny", overrides=["--data.mix", given])
    assert said in str(raised.value) and len(raised.value.problems) == 1


def test_a_source_and_a_mixture_are_one_too_many_and_a_study_order_reads_one_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--data.source x: data.mix says what is read; take out one"):
        load_config(file=written(tmp_path), overrides=["--data.source", "x"])
    with pytest.raises(ConfigError, match=r"data.order=sequential reads one source"):
        load_config(file=written(tmp_path), overrides=["--data.order", "sequential"])
