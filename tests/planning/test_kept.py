"""A measurement is kept for the plans that come after it, as long as nothing newer is known of that shape."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mygpt2.config import load_config
from mygpt2.planning import Measured, keep, plan
from mygpt2.planning.kept import recall
from mygpt2.planning.speed import Speed

MEASURED = Measured(Speed(5000.0, 4000.0, 6000.0, "measured: 20 steps just now"), 10**9, None, 20,
                    "measured: 20 steps just now")  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MYGPT2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_measurement_is_used_by_later_plans_of_its_shape_and_by_no_other(tmp_path: Path) -> None:
    config = load_config("tiny")
    assert plan(config, world_size=2, runs=tmp_path)["time.speed"].value is None
    keep(MEASURED, config, world_size=2, device="cpu")
    same = load_config("tiny", None, {"optimizer.lr": "1e-3", "train.steps": "7", "data.text_column": "body"})
    found = plan(same, world_size=2, runs=tmp_path)
    assert found["time.speed"].value == 5000.0 and found["memory.process"].value == 10**9
    assert found["time.total"].value == pytest.approx(7 * 8192 / 5000)
    assert found["time.speed"].basis == f"measured: 20 steps on {time.strftime('%Y-%m-%d')}", "and not just now"
    for other in ({"model.n_layer": "5"}, {"train.micro_batch": "2"}, {"train.precision": "fp32"},
                  {"optimizer.name": "adamw"}, {"data.tokenizer": "gpt2:3000"}):  # fmt: skip
        assert recall(load_config("tiny", None, other), world_size=2, device="cpu") is None
    assert recall(config, world_size=1, device="cpu") is None


def test_what_is_newer_wins() -> None:
    config = load_config("tiny")
    keep(MEASURED, config, world_size=2, device="cpu")
    assert recall(config, world_size=2, device="cpu", after=time.time() - 60)
    assert recall(config, world_size=2, device="cpu", after=time.time() + 60) is None


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"time": "x", "steps": 1, "speed": [1, 2, 3], "basis": "b"}',
                                  '{"time": 1e9, "steps": 1, "speed": [0, null, 3], "basis": "b"}'])  # fmt: skip
def test_a_damaged_file_is_as_good_as_none(text: str, cache: Path) -> None:
    config = load_config("tiny")
    keep(MEASURED, config, world_size=2, device="cpu")
    (file,) = (cache / "measured").glob("*.json")
    file.write_text(text)
    assert recall(config, world_size=2, device="cpu") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [("time", 1e300), ("time", 1e18), ("speed", [-3.0, -2.0, -1.0]), ("speed", [6000.0, 5000.0, 4000.0])],
)
def test_a_measurement_that_cannot_be_is_as_good_as_none(key: str, value: object, cache: Path) -> None:
    config = load_config("tiny")
    keep(MEASURED, config, world_size=2, device="cpu")
    (file,) = (cache / "measured").glob("*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
    assert recall(config, world_size=2, device="cpu") is None
