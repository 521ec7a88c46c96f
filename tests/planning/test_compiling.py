"""`train.compile = auto`: on where it pays, off where it cannot work, and the same in every attempt at a run."""

from __future__ import annotations

import importlib.util
import tomllib
from typing import Any

import pytest

from mygpt2.config import load_config, to_toml
from mygpt2.config.schema import TrainConfig
from mygpt2.planning import Machine, compute, plan, trial
from mygpt2.planning.compute import compile_choice
from mygpt2.planning.trial import shortened

HERE: dict[str, Any] = {"device": "cpu", "precision": "bf16", "cores": 2}


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.shutil, "which", lambda name: f"/usr/bin/{name}")


@pytest.mark.parametrize(("given", "meant"), [(True, "true"), (False, "false"), ("auto", "auto"), ("true", "true")])
def test_booleans_of_older_files_keep_their_meaning(given: object, meant: str) -> None:
    assert TrainConfig.model_validate({"compile": given}).compile == meant
    assert load_config(overrides={"train.compile": given}).train.compile == meant


@pytest.mark.parametrize("word", ["true", "false", "auto"])
def test_a_written_configuration_reads_back_as_it_was(word: str) -> None:
    config = load_config(overrides=["--train.compile", word])
    assert load_config(overrides=tomllib.loads(to_toml(config))) == config


@pytest.mark.parametrize(("steps", "on"), [(10, False), (500_000, True)])
def test_a_processor_compiles_long_runs_only_and_the_reason_says_how_long(steps: int, on: bool) -> None:
    config = load_config("small", overrides={"train.steps": steps})
    chosen, why = compile_choice(config, 8192, **HERE)
    assert chosen is on and "than about 25 min" in why and ("does not pay" in why) is not on


@pytest.mark.parametrize("preset", ["tiny", "gpt2"])
def test_a_processor_without_bfloat16_never_compiles_by_itself(preset: str) -> None:
    chosen, why = compile_choice(load_config(preset), 8192, **{**HERE, "precision": "fp32"})
    assert not chosen and "float32" in why


def test_the_presets_on_two_cores() -> None:
    assert not compile_choice(load_config("tiny"), 4096, **HERE)[0]
    assert compile_choice(load_config("small"), 8192, **HERE)[0]


@pytest.mark.parametrize(("word", "on"), [("true", True), ("false", False)])
def test_what_was_asked_for_is_done(word: str, on: bool) -> None:
    for device in ("cpu", "cuda", "mps"):
        config = load_config("tiny", overrides={"train.compile": word})
        assert compile_choice(config, 4096, device=device, precision="bf16", cores=2) == (on, "as asked")


def test_a_gpu_compiles_where_triton_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, on in ((object(), True), (None, False)):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, found=found: found)
        chosen, why = compile_choice(load_config("tiny"), 4096, device="cuda", precision="bf16", cores=2)
        assert chosen is on and (on or "Triton" in why)


def test_without_a_compiler_nothing_is_compiled_and_the_reason_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute.shutil, "which", lambda name: None)
    assert compile_choice(load_config("gpt2"), 50257, **HERE) == (False, "no C++ compiler (g++ or clang++)")


def test_a_plan_says_that_the_first_step_waits(machine: Machine) -> None:
    config = load_config("gpt2", overrides={"train.compile": "true"})
    texts = [n.text for n in plan(config, world_size=1, runs=None, machine=machine).notices]
    assert any("train.compile=true is on" in text for text in texts)


@pytest.mark.parametrize(("on", "word"), [(True, "true"), (False, "false")])
def test_steps_that_are_measured_are_compiled_as_the_run_would_be(
    on: bool, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "compile_choice", lambda *given, **more: (on, "of the whole run"))
    assert shortened(load_config("tiny"), 1, "cpu")[0].train.compile == word
