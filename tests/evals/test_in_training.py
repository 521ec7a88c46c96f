"""A run measures itself: HellaSwag at its intervals, and the step at which it passes GPT-2 on the same tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mygpt2.config import load_config
from mygpt2.errors import UserError
from mygpt2.evals.loss import LossResult
from mygpt2.evals.text import held_out
from mygpt2.evals.yardstick import keep
from mygpt2.tokenizer import load_tokenizer
from mygpt2.train import attempt
from tests.evals.made_up import write_jsonl
from tests.life import harness

Train = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Train]:
    """train(steps=8, **changes) -> the events of the run."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    source = harness.corpus(tmp_path / "corpus")
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)

    def config(steps: int = 8, **changes: Any) -> Any:
        settings = {
            **harness.SETTINGS, "data.source": str(source), "data.cache_dir": str(tmp_path / "cache"),
            "train.steps": steps, "schedule.warmup_steps": 2, "eval.interval": 2, "checkpoint.interval": 4,
            **{key.replace("__", "."): value for key, value in changes.items()},
        }  # fmt: skip
        return load_config("tiny", None, settings)

    def go(steps: int = 8, **changes: Any) -> list[dict[str, Any]]:
        assert attempt.main(config(steps, **changes), "run", tmp_path / "runs", "auto", ["train"]) == 0
        lines = (tmp_path / "runs" / "run" / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    go.config = config  # type: ignore[attr-defined]
    with harness.signals():
        yield go


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["kind"] == kind]


def test_the_step_that_passes_the_yardstick_is_an_event_once_even_over_a_restart(
    train: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = train.config().data  # type: ignore[attr-defined]
    text = held_out(data, load_tokenizer(data.tokenizer), tmp_path / "cache")
    bar = LossResult(5.9, 0.02, 1.0, 1.0, text.targets, text.bytes, text.documents, 1024, text.sha256, "fp32")
    details = {"name": "gpt2@607a30d", "revision": "607a30d", "weights_sha256": "a" * 64, "kind": "hub"}
    keep(tmp_path / "cache", "gpt2", details, "run", bar)
    events = train(steps=8, optimizer__lr=0.02)
    evals = of(events, "eval")
    assert {e["token_sha256"] for e in evals} == {text.sha256} and all(e["stderr"] > 0 for e in evals)
    assert all(e["yardstick"] == {"of": "gpt2", "revision": "607a30d", "loss": 5.9, "stderr": 0.02} for e in evals)
    passed = of(events, "passed")
    first = next(e["step"] for e in evals if e["loss"] < 5.9)
    assert [(p["step"], p["yardstick"]["loss"]) for p in passed] == [(first, 5.9)]
    assert f"passed gpt2 at step {first}" in capfd.readouterr().out
    assert len(of(train(steps=12, optimizer__lr=0.02), "passed")) == 1


def test_without_a_cached_yardstick_nothing_is_fetched_and_nothing_is_said(train: Train) -> None:
    events = train(steps=4)
    assert [e["yardstick"] for e in of(events, "eval")] == [None, None] and not of(events, "passed")


def test_hellaswag_runs_at_its_intervals_and_at_the_end(train: Train, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "val.jsonl", 12)
    settings = {"eval__hellaswag": str(path), "eval__hellaswag_interval": 3, "eval__hellaswag_limit": 6}
    found = of(train(steps=7, model__block_size=64, **settings), "hellaswag")
    assert [e["step"] for e in found] == [3, 6, 7]
    assert all(e[p]["n"] == 6 and 0 <= e[p]["acc_norm"] <= 1 for e in found for p in ("completion", "harness"))


def test_a_wrong_hellaswag_file_ends_the_run_before_its_first_step(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"eval.hellaswag=.*absent.jsonl does not exist"):
        train(eval__hellaswag=str(tmp_path / "absent.jsonl"))
    assert not (tmp_path / "runs" / "run" / "metrics.jsonl").read_text()
