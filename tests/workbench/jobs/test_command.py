"""The one command: whatever the configuration, reading the command back gives it again, with the same hash."""

import argparse
import shlex
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mygpt2.cli import Parser
from mygpt2.config import config_hash, load_config, preset_names, to_toml
from mygpt2.config.fields import settings as all_settings
from mygpt2.errors import UserError
from mygpt2.launch.request import Request, add_arguments, resolve
from mygpt2.launch.torchrun import _launch_parser
from mygpt2.run_dir import RunDir, RunLock, RunWriter, write_rank
from workbench.jobs import resume_command, shown, train_command

WORDS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=12)
ODD = st.sampled_from(
    ["-", "--", "-h", "--help", "a=b", "--train.steps=3", "a b", "'\"", "$(x)", "é\n", "[]", "1", "true"]
)
TEXT = ODD | WORDS.filter(lambda word: word.strip().lower() not in ("none", "null", ""))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "model.dropout": st.floats(0, 0.99),
    "model.bias": st.booleans(),
    "data.source": TEXT,
    "data.tokenizer": TEXT,
    "data.cache_dir": st.none() | TEXT,
    "data.cache_gb": st.floats(1e-3, 1e6),
    "data.order": st.sampled_from(["lanes", "buffer", "sequential"]),
    "data.threads": st.none() | st.integers(1, 256),
    "optimizer.name": st.sampled_from(["adamw", "muon"]),
    "optimizer.lr": st.floats(1e-12, 10),
    "optimizer.eps": st.floats(1e-30, 1e-2),
    "schedule.min_lr_ratio": st.floats(0, 1),
    "data.seed": st.integers(0, 2**31 - 1),
    "train.device": st.sampled_from(["auto", "cpu", "cuda"]),
    "eval.batch": st.none() | st.integers(1, 99),
    "eval.hellaswag": st.none() | TEXT,
    "sample.prompts": st.lists(st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=9), max_size=4),
    "checkpoint.keep_every": st.integers(0, 10**6),
    "log.wandb": st.booleans(),
    "log.profile": st.sampled_from([None, "1:1"]),
}


@st.composite
def configurations(draw):
    """Any preset with any valid values: what divides what is chosen first."""
    preset = draw(st.sampled_from(preset_names()))
    heads, block, micro = draw(st.integers(1, 8)), draw(st.integers(8, 64)), draw(st.none() | st.integers(1, 4))
    steps = draw(st.integers(1, 10**6))
    values: dict[str, Any] = {
        "model.n_head": heads, "model.n_embd": 8 * heads * draw(st.integers(1, 4)), "model.block_size": block,
        "train.micro_batch": micro, "train.batch_tokens": block * (micro or 1) * draw(st.integers(1, 9)),
        "train.steps": steps, "schedule.warmup_steps": draw(st.integers(0, steps - 1)),
    }  # fmt: skip
    for name in draw(st.sets(st.sampled_from(sorted(VALUES)))):
        values[name] = draw(VALUES[name])
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    base = load_config(preset).model_dump()
    merged = {section: {**fields, **nested.get(section, {})} for section, fields in base.items()}
    return preset, type(load_config(preset)).model_validate(merged)


def read_back(argv: list[str]) -> Request:
    """The request that the launcher makes of these words, and that its ranks make of what it passes on."""
    assert argv[:3] == [sys.executable, "-m", "mygpt2.launch"]
    own, passed = _launch_parser(add_help=False).parse_known_args(argv[3:])
    parser = Parser(allow_abbrev=False)
    add_arguments(parser)
    args, rest = parser.parse_known_args(passed)
    args.settings = rest
    assert isinstance(own, argparse.Namespace)
    return resolve(args)


@settings(max_examples=150, deadline=None)
@given(configurations(), st.none() | st.integers(1, 8))
def test_the_command_read_back_is_the_configuration(chosen, nproc):
    preset, config = chosen
    argv = train_command(config, preset, "a-run", "/runs", nproc)
    request = read_back(shlex.split(shlex.join(argv)))
    assert request.config == config and config_hash(request.config) == config_hash(config)
    assert (request.run_name, str(request.runs_dir), request.resume) == ("a-run", "/runs", "auto")


def test_a_preset_as_it_is_needs_no_override_and_one_change_one(tmp_path):
    config = load_config("tiny")
    argv = train_command(config, "tiny", "x", tmp_path, 2)
    assert argv[3:] == ["--nproc", "2", "--runs", str(tmp_path), "--run", "x", "--preset", "tiny"]
    changed = load_config("tiny", None, {"optimizer.lr": 1e-3})
    assert train_command(changed, "tiny", "x", tmp_path, 2) == [*argv, "--optimizer.lr", "0.001"]


def test_every_setting_can_be_given():
    """From any preset to any other: between them most settings differ."""
    for name in preset_names():
        config = load_config(name)
        for base in preset_names():
            assert read_back(train_command(config, base, "x", "/r")).config == config
    assert all_settings()


@pytest.mark.parametrize("name", ["../x", "", "a;touch x", "a b", "-x", "é"])
def test_a_run_name_that_is_not_one_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="is not allowed"):
        train_command(load_config("tiny"), "tiny", name, tmp_path)


def test_a_value_that_no_command_line_can_hold_is_named():
    config = load_config("tiny")
    data = config.data.model_copy(update={"cache_dir": "none"})
    with pytest.raises(UserError, match=r"data\.cache_dir"):
        train_command(config.model_copy(update={"data": data}), "tiny", "x", "/r")


def test_the_line_shown_is_what_a_shell_makes_the_same_words_of(tmp_path):
    config = load_config("tiny", None, {"data.source": "/a b/$(touch x)'"})
    argv = train_command(config, "tiny", "x", tmp_path)
    line = shown(argv, {"CUDA_VISIBLE_DEVICES": "0,1"})
    assert shlex.split(line) == ["CUDA_VISIBLE_DEVICES=0,1", *argv]


def test_going_on_takes_the_runs_own_configuration_and_ranks(tmp_path):
    run = RunDir.create(tmp_path, "r")
    config = load_config("tiny", None, {"model.seed": 7})
    with pytest.raises(UserError, match=r"no config\.toml"):
        resume_command(run)
    with RunLock(run), RunWriter(run, 1) as writer:
        writer.config(to_toml(config))
        for rank in range(3):
            write_rank(run, rank, world_size=3, device="cpu", attempt=1)
    argv = resume_command(run)
    assert argv[3:5] == ["--nproc", "3"]
    assert config_hash(read_back(argv).config) == config_hash(config)
