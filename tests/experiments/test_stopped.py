"""A run that its sweep stopped is told from one that a person or a fault kept from its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mygpt2.experiments.stopped import Stopped, stopped_by
from mygpt2.run_dir import AT_STEP, SIGNAL, RunDir, RunWriter, state_of
from tests.experiments.made import looked


def ended(runs: Path, name: str, step: int = 10, state: str = "stopped", asked: str = AT_STEP) -> RunDir:
    run = RunDir.create(runs, name)
    with RunWriter(run, 1) as writer:
        writer.config("")
        writer.status(state="running", step=step, steps=60)
        writer.finish(state, 85, "it ended", asked=asked)
    return run


def found(run: RunDir) -> Stopped | None:
    return stopped_by(run, state_of(run))


@pytest.mark.parametrize("asked", [AT_STEP, SIGNAL], ids=["as it is written now", "as it was written before"])
def test_an_arm_that_lost_is_told_with_the_look_and_the_reason(tmp_path: Path, asked: str) -> None:
    looked(tmp_path, "rates", {"lr1": "worse than lr2 by 0.1 nats"}, ["lr2"])
    of = found(ended(tmp_path, "rates.lr1.1", asked=asked))
    assert of == Stopped("rates", 1, 3, "worse than lr2 by 0.1 nats") and of.brief == "lost at look 1 of 3"
    assert of.words == "Sweep rates stopped it at look 1: worse than lr2 by 0.1 nats."


def test_an_arm_that_waits_for_the_next_look_is_its_sweeps(tmp_path: Path) -> None:
    folder = looked(tmp_path, "rates", {}, ["lr2"])
    run = ended(tmp_path, "rates.lr2.1")
    assert found(run) == Stopped("rates") and found(run).brief == "waits for its sweep"
    look = {**folder.looks()[0], "look": 2, "step": 30, "arms": {"lr2": {"stopped": True, "why": "diverged"}}}
    folder.add_look(look, kind="sweep", state="running")
    assert found(run) == Stopped("rates", 2, 3, "diverged"), "a later look is seen"


def test_what_a_person_or_a_fault_stopped_is_nobodys(tmp_path: Path) -> None:
    looked(tmp_path, "rates", {"lr1": "", "lr3": ""}, ["lr2", "lr4"])
    assert found(ended(tmp_path, "rates.lr2.1", asked=SIGNAL)) is None, "stopped between two looks"
    assert found(ended(tmp_path, "rates.lr4.1", state="failed")) is None
    assert found(ended(tmp_path, "rates.lr1.1", step=13)) is None, "somebody went on with it"
    assert found(ended(tmp_path, "rates.lr3.1", state="finished")) is None
    assert found(ended(tmp_path, "rates.lr1.2")) is None, "no run of this sweep, whatever its name is"
    assert found(ended(tmp_path, "other.lr1.1")) is None and found(ended(tmp_path, "plain")) is None


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"looks": 5}', '{"looks": [{"arms": {"lr1": 3}, "look": 1}]}'])
def test_a_damaged_record_says_nothing_of_who_lost(tmp_path: Path, damage: str) -> None:
    folder = looked(tmp_path, "rates", {"lr1": ""})
    folder.verdict_file.write_text(damage)
    assert found(ended(tmp_path, "rates.lr1.1", asked=SIGNAL)) is None
    folder.arms_file.write_text(json.dumps({"arms": {"lr1": {"runs": ["rates.lr1.1"]}}}))
    assert found(RunDir(tmp_path / "rates.lr1.1")) is None
