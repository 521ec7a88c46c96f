"""Losses by source of a mixture's rows as columns: by both parsers, in the cache, whatever a damaged row holds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mygpt2.run_dir import metrics
from mygpt2.run_dir.metrics import parse_rows, parse_text

NAMES = ["loss.a", "targets.a", "loss.b.txt", "loss.none"]


def row(step: int, **more: object) -> bytes:
    return json.dumps({"schema": 1, "attempt": 1, "step": step, "loss": 2.0, **more}).encode()


ROWS = [
    row(1, by_source={"a": [30.5, 10], "b.txt": [8.0, 4]}),
    row(2, by_source={"a": [0.0, 0], "b.txt": [9.0, 4]}),
    row(3),
    row(4, by_source={"a": [20.0, 10], "c": [7.0, 7]}),
]


@pytest.mark.parametrize("many", [0, 10**6])
def test_both_parsers_have_the_mean_and_the_targets_of_each_source(monkeypatch, many: int) -> None:
    monkeypatch.setattr(metrics, "MANY", many)
    rows = parse_rows(ROWS, ["loss", *NAMES])
    assert list(rows.values) == ["loss", *NAMES] or set(rows.values) == {"loss", *NAMES}
    assert np.array_equal(rows.values["loss.a"], [3.05, np.nan, np.nan, 2.0], equal_nan=True), "no targets, no loss"
    assert np.array_equal(rows.values["targets.a"], [10, 0, np.nan, 10], equal_nan=True)
    assert np.array_equal(rows.values["loss.b.txt"], [2.0, 2.25, np.nan, np.nan], equal_nan=True)
    assert np.isnan(rows.values["loss.none"]).all()
    every = parse_rows(ROWS)
    assert {name for name in every.values if "." in name} == {
        f"{kind}.{name}" for kind in ("loss", "targets") for name in ("a", "b.txt", "c")
    }
    assert "by_source" not in every.values and every.values["loss.c"][3] == 1.0


def test_rows_of_a_run_without_a_mixture_are_parsed_as_ever(monkeypatch) -> None:
    monkeypatch.setattr(metrics, "_parse_each", lambda *_: pytest.fail("the slow parser was asked"))
    rows = parse_text(b"".join(row(step) + b"\n" for step in range(5)))
    assert not any("." in name for name in rows.values)
    monkeypatch.setattr(metrics, "MANY", 0)
    assert np.isnan(parse_rows([row(1), row(2)], ["loss.a"]).values["loss.a"]).all()


@pytest.mark.parametrize(
    "value", [7, "x", [1, 2], {"a": 5}, {"a": [1]}, {"a": [1, "x"]}, {"a": [1, 2, 3]}, {"a": None}]
)
def test_what_is_no_pair_is_no_loss_and_the_row_stays(monkeypatch, value: object) -> None:
    for many in (0, 10**6):
        monkeypatch.setattr(metrics, "MANY", many)
        rows = parse_rows([row(1, by_source=value), ROWS[3]], ["loss", "loss.a"])
        assert np.array_equal(rows.values["loss.a"], [np.nan, 2.0], equal_nan=True)
        assert rows.values["loss"].tolist() == [2.0, 2.0]
