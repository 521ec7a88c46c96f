"""`measure` runs real steps, and leaves neither processes nor files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil
import pytest

from mygpt2.config.batch import plan_batch
from mygpt2.errors import UserError
from mygpt2.planning import plan, trial
from mygpt2.planning.trial import measure, shortened
from tests.planning.conftest import config_of


@pytest.fixture
def scratch(tmp_path, monkeypatch, cache):
    """Where temporary folders are made; steps count from the first few on."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(trial, "LONG_ENOUGH_S", 0.0)
    (tmp_path / "text.txt").write_text("".join(f"Sentence number {i} is not like the others.\n" for i in range(4000)))
    return folder


def command(process):
    """A process's words; none for one that has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_real_steps_give_speed_and_memory_and_leave_nothing(scratch, tmp_path, machine):
    config = config_of(**{"data.source": str(tmp_path / "text.txt")})
    said: list[str] = []
    found = measure(config, world_size=1, device="cpu", say=said.append)
    assert found.steps >= trial.FEWEST
    assert 0 < found.speed.low <= found.speed.value <= found.speed.high
    assert found.host_bytes > 50_000_000 and found.device_bytes is None
    assert any(line.startswith("step 1: ") for line in said)
    assert os.listdir(scratch) == []
    assert not any(str(scratch) in " ".join(command(p)) for p in psutil.Process().children(recursive=True))
    planned = plan(config, world_size=1, runs=None, machine=machine, measured=found)
    assert planned["time.speed"].value == found.speed.value
    assert planned["memory.process"].value == found.host_bytes
    assert planned["time.total"].basis.startswith("derived")


def test_steps_that_cannot_be_run_say_why_in_one_line(scratch, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"--measure: no step was finished: .*holds no data") as caught:
        measure(
            config_of(**{"data.source": str(tmp_path / "empty")}), world_size=1, device="cpu", say=lambda text: None
        )
    assert "\n" not in str(caught.value)
    assert os.listdir(scratch) == []


def test_steps_are_cut_but_a_forward_pass_stays_what_it_is():
    config = config_of(**{"train.batch_tokens": 65536, "train.micro_batch": 4, "data.source": "fineweb-edu-10BT"})
    short, notes = shortened(config, 2, "cpu")
    whole, cut = (plan_batch(c.train.batch_tokens, c.model.block_size, c.train.micro_batch, 2) for c in (config, short))
    assert (cut.micro_batch, cut.accumulation) == (whole.micro_batch, trial.FORWARD_PASSES)
    assert short.model == config.model and short.optimizer == config.optimizer
    assert short.data.source == "pydocs"
    assert notes == f", 2 instead of {whole.accumulation} forward passes, on the built-in text"
    assert not short.sample.prompts and short.data.validation_fraction == 0.0


def test_a_local_source_is_measured_itself(tmp_path: Path):
    (tmp_path / "text.txt").write_text("text")
    short, notes = shortened(config_of(**{"data.source": str(tmp_path)}), 1, "cpu")
    assert short.data.source == str(tmp_path) and "built-in" not in notes


def test_a_mixture_is_measured_itself_where_all_of_it_lies_here(tmp_path: Path):
    (tmp_path / "text.txt").write_text("text")
    mix = [{"name": "a", "source": str(tmp_path)}, {"name": "b", "source": "pydocs"}]
    short, notes = shortened(config_of(**{"data.mix": mix}), 1, "cpu")
    assert [source.source for source in short.data.mix] == [str(tmp_path), "pydocs"] and "built-in" not in notes
    mix[1]["source"] = "fineweb-edu-10BT"
    short, notes = shortened(config_of(**{"data.mix": mix}), 1, "cpu")
    assert not short.data.mix and short.data.source == "pydocs" and notes.endswith("on the built-in text")
