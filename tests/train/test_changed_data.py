"""A run that goes on after its data changed: refused with the place, or begun anew where that is asked for."""

from __future__ import annotations

import json
import shutil

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.train import attempt
from tests.life import harness


@pytest.fixture
def train(tmp_path, monkeypatch):
    """train(steps, **changes) -> exit code of the run tmp_path/runs/run on tmp_path/source."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    source = harness.corpus(tmp_path / "source", files=2, documents=160)

    def go(steps, name="run", cache="cache", **changes):
        settings = {
            **harness.SETTINGS, "model.n_layer": 1, "data.source": str(source), "train.steps": steps,
            "data.cache_dir": str(tmp_path / cache), "schedule.warmup_steps": 1, "eval.interval": 0,
            "optimizer.name": "adamw",
            **{key.replace("__", "."): value for key, value in changes.items()},
        }  # fmt: skip
        return attempt.main(load_config("tiny", None, settings), name, tmp_path / "runs", "auto", ["train"])

    with harness.signals():
        yield go


def change(path):
    """One bit in the middle of the text."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def events(folder, kind):
    lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in lines if event["kind"] == kind]


def test_a_run_whose_data_changed_is_refused_with_the_place_and_can_fork(train, tmp_path, capfd):
    assert train(3) == 0
    change(tmp_path / "source" / "001.parquet")
    shutil.rmtree(tmp_path / "cache")  # the run itself remembers
    with pytest.raises(UserError, match=r"the data changed since this run read them: 001.parquet: row group \d"):
        train(5)
    assert train(5, data__fork=True, train__batch_tokens=256) == 0
    said = capfd.readouterr().out
    assert "001.parquet: row group" in said and "they are taken as they are now" in said
    assert [e["about"] for e in events(tmp_path / "runs" / "run", "alert") if "about" in e] == ["data"]
    assert harness.losses(tmp_path / "runs" / "run").keys() == {1, 2, 3, 4, 5}
    assert train(6) == 0  # what it is now is what the next resume compares with


def test_another_run_on_the_same_cache_says_what_changed_since(train, tmp_path, capfd):
    assert train(2) == 0
    change(tmp_path / "source" / "000.parquet")
    assert train(2, name="other") == 0
    assert "the data changed since they were read before: 000.parquet: row group" in capfd.readouterr().out
