"""Expected speed: from the same shape first, else scaled by FLOPs, only from this machine, its source named."""

from __future__ import annotations

import pytest

from mygpt2.planning.speed import expected_speed, observe_runs, training_flops
from tests.planning.conftest import config_of

WIDE = {"model.n_embd": 128}
SPEEDS = [10.0, 900.0, 1000.0, 1100.0, 1000.0]  # the first step warms up


def expect(runs, ranks=1, device="cpu", **changes):
    return expected_speed(config_of(**changes), 512, ranks=ranks, device=device, observed=observe_runs(runs))


def test_a_run_of_the_same_shape_tells_by_its_median_step_without_the_first(record):
    run = record("same", config_of(), SPEEDS)
    found = expect(run.path.parent)
    assert found.value == 1000.0
    assert 900.0 <= found.low < found.value < found.high <= 1100.0
    assert found.basis.startswith("from run same, 1,000 tokens/s")


def test_the_same_shape_wins_over_a_newer_run_of_another(record):
    record("same", config_of(), SPEEDS)
    runs = record("newer", config_of(**WIDE), [50.0] * 5).path.parent
    assert "from run same" in expect(runs).basis


def test_another_shape_is_scaled_by_flops_per_token_with_a_wide_range(record):
    runs = record("wide", config_of(**WIDE), [500.0] * 5).path.parent
    found = expect(runs)
    factor = training_flops(config_of(**WIDE), 512) / training_flops(config_of(), 512)
    assert found.value == pytest.approx(500.0 * factor)
    assert found.high / found.low == pytest.approx(4.0)
    assert "from run wide, 500 tokens/s" in found.basis and "FLOPs" in found.basis


def test_another_number_of_ranks_is_not_the_same(record):
    runs = record("two", config_of(), SPEEDS, ranks=2).path.parent
    assert expect(runs, ranks=2).high <= 1100.0
    assert expect(runs, ranks=1).high == 2000.0


def test_a_larger_model_after_a_slow_small_one_is_not_scaled_by_flops_alone(record):
    """Small models spend their steps on what a larger one hardly notices."""
    runs = record("little", config_of(), [2000.0] * 5).path.parent
    larger = {"model.n_embd": 512, "model.n_layer": 4, "train.batch_tokens": 8192}
    by_flops = 2000.0 * training_flops(config_of(), 512) / training_flops(config_of(**larger), 512)
    found = expect(runs, **larger)
    assert 2 * by_flops < found.value and found.low < by_flops and found.value < found.high
    assert "s per step" in found.basis and "run little" in found.basis


@pytest.mark.parametrize("speed", [1.0, 1e9])
def test_an_estimate_for_a_larger_model_is_in_order_however_slow_or_fast_the_small_one_was(speed, record):
    runs = record("little", config_of(), [speed] * 5).path.parent
    found = expect(runs, **{"model.n_embd": 512, "train.batch_tokens": 8192})
    assert 0 < found.low < found.value < found.high


@pytest.mark.parametrize(
    "changes",
    [{"device": "cuda"}, {"train.precision": "bf16"}],
    ids=["another device", "another precision"],
)
def test_what_was_computed_otherwise_tells_nothing(changes, record):
    runs = record("one", config_of(), SPEEDS).path.parent
    found = expect(runs, **changes)
    assert found.value is None and found.basis.startswith("unknown")


def test_another_machines_run_tells_nothing(record):
    runs = record("elsewhere", config_of(), SPEEDS, host="somewhere-else").path.parent
    assert observe_runs(runs) == []


def test_a_run_with_hardly_a_step_or_a_damaged_one_is_passed_over(record):
    record("short", config_of(), [1000.0, 1000.0])
    record("damaged", config_of(), SPEEDS).config_file.write_text("[model]\nn_layer = 'two'\n")
    runs = record("garbled", config_of(), SPEEDS).path.parent
    (runs / "garbled" / "metrics.jsonl").write_bytes(b"\xff\xfe\n[1]\n{}\n" * 5)
    assert observe_runs(runs) == []
    assert observe_runs(runs / "nothing here") == observe_runs(None) == []


def test_a_run_that_goes_on_is_read_again(record):
    run = record("one", config_of(), SPEEDS)
    assert expect(run.path.parent).value == 1000.0
    with open(run.metrics_file, "a") as file:
        for step in range(6, 60):
            file.write(f'{{"attempt": 1, "step": {step}, "tokens": {step * 512}, "tokens_per_second": 2000.0}}\n')
    assert expect(run.path.parent).value == 2000.0


def test_a_run_slowed_by_a_busy_machine_does_not_count_beside_a_quiet_one(record):
    record("quiet", config_of(), [1000.0] * 20)
    runs = record("busy", config_of(), [100.0] * 20).path.parent
    found = expect(runs)
    assert found.value == 1000.0 and found.basis.startswith("from run quiet, 1,000 tokens/s, the fastest of 2 alike")
    record("short", config_of(), [5000.0] * 5)
    assert expect(runs).value == 1000.0, "a few lucky steps say less"
    wide = expect(runs, **WIDE)
    assert "run quiet" in wide.basis


def test_the_busy_run_that_is_a_little_nearer_in_shape_does_not_count(record):
    near = {"model.n_embd": 40, "model.n_head": 2}
    record("quiet", config_of(), [1000.0] * 20)
    runs = record("busy", config_of(**near), [50.0] * 20).path.parent
    assert "run quiet" in expect(runs, **WIDE).basis
